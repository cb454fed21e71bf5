/** Clusters of machines: NAME-m1… are managers, NAME-w1… workers, all in one swarm. */
import { failure, messageOf } from "../lib/errors.ts";
import { startsAtOnceMax } from "./limits.ts";
import type { CreateOptions, CreateRequest, Machines } from "./provision.ts";
import { checkMachineName, type MachineRecord, type SwarmPlan } from "./record.ts";

/** Port of the swarm's own connections (design section 7). */
const swarmPort = 2377;

export interface ClusterRequest {
  readonly name: string;
  readonly driver: string;
  readonly managers: number;
  readonly workers: number;
  readonly subnet: string | null;
  /** Image archives of this box that every machine loads. */
  readonly images: readonly string[];
  readonly daemonArguments: readonly string[];
  readonly daemonEnvironment: readonly string[];
}
export interface ClusterOptions {
  readonly keepOnFailure: boolean;
  /** Told what has been done, one line each. */
  readonly say: (line: string) => void;
}
export interface ClusterView {
  readonly name: string;
  readonly managers: readonly string[];
  readonly workers: readonly string[];
  readonly running: number;
}

/** Names of a cluster's machines, managers first. Throws `invalid`. */
export function clusterMachines(
  name: string,
  managers: number,
  workers: number,
): { readonly name: string; readonly role: "manager" | "worker" }[] {
  for (const [what, count] of [
    ["managers", managers],
    ["workers", workers],
  ] as const) {
    if (!Number.isSafeInteger(count) || count < 0 || count > 99) {
      throw failure("invalid", `a cluster has 0 to 99 ${what}, not ${count}`);
    }
  }
  if (managers < 1) throw failure("invalid", "a cluster needs at least 1 manager");
  const all = [
    ...numbers(managers).map((n) => ({ name: `${name}-m${n}`, role: "manager" as const })),
    ...numbers(workers).map((n) => ({ name: `${name}-w${n}`, role: "worker" as const })),
  ];
  for (const machine of all) checkMachineName(machine.name);
  return all;
}

/**
 * Makes all machines at the same time, a swarm on the first, and joins the others at the same time.
 * Called again with the same name it goes on with what is missing. Throws with every failure in one message.
 */
export async function createCluster(
  machines: Machines,
  request: ClusterRequest,
  options: ClusterOptions,
): Promise<readonly MachineRecord[]> {
  const wanted = clusterMachines(request.name, request.managers, request.workers);
  const create = { keepOnFailure: options.keepOnFailure, progress: () => {} };
  await eachAtOnce(wanted, startsAtOnceMax, async ({ name, role }) => {
    const startedAt = Date.now();
    await createOrResume(machines, create, {
      name,
      role,
      driver: request.driver,
      address: null,
      subnet: request.subnet,
      swarm: null,
      cluster: request.name,
      daemonArguments: request.daemonArguments,
      daemonEnvironment: request.daemonEnvironment,
    });
    options.say(`${name} runs (${seconds(startedAt)})`);
  });
  const records = await Promise.all(wanted.map(({ name }) => machines.store.get(name)));
  const [first, ...others] = records;
  if (first === undefined) return records;

  const joinedAt = Date.now();
  await enter(machines, first, create, async () => ({ kind: "init" }));
  options.say(`${first.name} leads a new swarm (${seconds(joinedAt)})`);
  const driver = machines.driver(first.driver);
  const tokens = await machines.api.joinTokens(driver.url(first));
  const remote = `${driver.address(first)}:${swarmPort}`;
  await eachAtOnce(others, startsAtOnceMax, async (record) => {
    const startedAt = Date.now();
    const token = record.role === "manager" ? tokens.manager : tokens.worker;
    await enter(machines, record, create, async () => ({ kind: "join", token, remote }));
    options.say(`${record.name} joined as a ${record.role} (${seconds(startedAt)})`);
  });
  for (const image of request.images) {
    const startedAt = Date.now();
    await eachAtOnce(records, startsAtOnceMax, async (record) => {
      await machines.api.loadImage(machines.driver(record.driver).url(record), image);
    });
    options.say(`every machine loaded ${image} (${seconds(startedAt)})`);
  }
  return records;
}

/** Removes all machines of a cluster at the same time. Throws `not-found` when it has none. */
export async function removeCluster(
  machines: Machines,
  name: string,
  force: boolean,
): Promise<void> {
  const members = await membersOf(machines, name);
  await eachAtOnce(members, members.length, async (record) => {
    await machines.remove(record.name, force);
  });
}

/** Does the same to every machine of a cluster at the same time. Throws `not-found` when it has none. */
export async function eachMember(
  machines: Machines,
  name: string,
  work: (record: MachineRecord) => Promise<void>,
): Promise<void> {
  await eachAtOnce(await membersOf(machines, name), startsAtOnceMax, work);
}

/** All clusters that have a machine. */
export async function listClusters(machines: Machines): Promise<ClusterView[]> {
  const views = new Map<string, { managers: string[]; workers: string[]; running: number }>();
  for (const record of await machines.store.list(() => {})) {
    if (record.cluster === null) continue;
    const view = views.get(record.cluster) ?? { managers: [], workers: [], running: 0 };
    (record.role === "worker" ? view.workers : view.managers).push(record.name);
    if ((await machines.driver(record.driver).state(record)) === "Running") view.running += 1;
    views.set(record.cluster, view);
  }
  return [...views].map(([name, view]) => ({ name, ...view }));
}

/** Runs `work` on all, at most `atOnce` at a time; every one gets its turn, then all failures are thrown as one. */
export async function eachAtOnce<T>(
  items: readonly T[],
  atOnce: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const errors: unknown[] = [];
  const queue = [...items];
  const lane = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
      try {
        await work(item);
      } catch (error) {
        errors.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Math.min(atOnce, items.length)) }, lane));
  if (errors.length === 1) throw errors[0];
  if (errors.length > 1) {
    throw failure("internal", errors.map(messageOf).join("\n"), new AggregateError(errors));
  }
}

async function createOrResume(
  machines: Machines,
  options: CreateOptions,
  request: CreateRequest,
): Promise<void> {
  const existing = await machines.store.find(request.name);
  if (existing === null) {
    await machines.create(request, options);
    return;
  }
  if (existing.cluster !== request.cluster) {
    throw failure(
      "conflict",
      `machine ${request.name} exists and does not belong to cluster ${request.cluster}; choose another cluster name`,
    );
  }
  if (existing.step !== null) {
    await machines.resume(request.name, options);
  } else if ((await machines.state(request.name)) !== "Running") {
    await machines.start(request.name);
  }
}

/** Brings a created machine into the swarm by the last step of create, so that it is saved and can be resumed. */
async function enter(
  machines: Machines,
  record: MachineRecord,
  options: CreateOptions,
  plan: () => Promise<SwarmPlan>,
): Promise<void> {
  if (await machines.api.inSwarm(machines.driver(record.driver).url(record))) return;
  await machines.store.save({ ...record, step: "swarm", swarm: await plan() });
  await machines.resume(record.name, options);
}

async function membersOf(machines: Machines, name: string): Promise<MachineRecord[]> {
  const members = (await machines.store.list()).filter((record) => record.cluster === name);
  if (members.length === 0) throw failure("not-found", `cluster "${name}" does not exist`);
  return members;
}

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

function seconds(startedAt: number): string {
  return `${((Date.now() - startedAt) / 1000).toFixed(1)} s`;
}
