/** What can be done with machines: create in saved steps, power, look, remove. */
import { failure, messageOf } from "../lib/errors.ts";
import {
  chooseAddress,
  defaultMachineSubnet,
  formatAddress,
  gatewayOf,
  parseAddress,
  parseSubnet,
} from "./address-pool.ts";
import type { Driver } from "./driver.ts";
import type { EngineApi } from "./engine-api.ts";
import {
  apiReadyMs,
  daemonAbsentMs,
  daemonStartsMax,
  joinRetryMs,
  joinTriesMax,
  listTimeoutMs,
  pingMs,
  pollMs,
} from "./limits.ts";
import { pause } from "./process.ts";
import {
  type CreateStep,
  checkMachineName,
  createSteps,
  type MachineRecord,
  type MachineState,
  recordVersion,
  type SwarmPlan,
} from "./record.ts";
import type { MachineStore } from "./store.ts";

export interface CreateRequest {
  readonly name: string;
  readonly driver: string;
  /** A fixed address; null for the next free one. */
  readonly address: string | null;
  /** `A.B.C.D/N`; null for that of the storage path, which the first machine chooses. */
  readonly subnet: string | null;
  readonly swarm: SwarmPlan | null;
  readonly cluster: string | null;
  readonly role: "manager" | "worker" | null;
  readonly daemonArguments: readonly string[];
  readonly daemonEnvironment: readonly string[];
}

export interface CreateOptions {
  /** Leave a machine whose create failed running, to look at it. */
  readonly keepOnFailure: boolean;
  /** Told before each step. */
  readonly progress: (name: string, step: CreateStep) => void;
}

/** A machine as `ls` shows it. */
export interface MachineView {
  readonly name: string;
  readonly driver: string;
  readonly state: MachineState;
  readonly url: string;
  /** `-` when in no swarm, "" when not known. */
  readonly swarm: string;
  /** Version of its engine, "" when not known. */
  readonly version: string;
  /** "" when all is well. */
  readonly errors: string;
  readonly responseMs: number;
}

export interface MachinesParts {
  readonly store: MachineStore;
  readonly drivers: readonly Driver[];
  readonly api: EngineApi;
}

export class Machines {
  readonly store: MachineStore;
  readonly api: EngineApi;
  readonly #drivers: readonly Driver[];

  constructor(parts: MachinesParts) {
    this.store = parts.store;
    this.api = parts.api;
    this.#drivers = parts.drivers;
  }

  /**
   * Makes a machine. Each step is saved when it is done. When one fails the machine stays as `Error(step)`:
   * `resume` goes on there, `remove` takes it away. Throws `conflict` when the name is taken, `PreCreateFailure` from the check.
   */
  async create(request: CreateRequest, options: CreateOptions): Promise<MachineRecord> {
    checkMachineName(request.name);
    this.driver(request.driver);
    return await this.store.locked(request.name, async () => {
      const record = await this.#reserve(request);
      try {
        await this.driver(record.driver).preCreateCheck(record);
      } catch (error) {
        // Nothing exists yet, so nothing needs to stay.
        await this.#forget(record);
        throw new PreCreateFailure(record.name, error);
      }
      return await this.#goOn(record, options);
    });
  }

  /** Goes on with a create that failed or was interrupted. Throws `conflict` when there is nothing left to do. */
  async resume(name: string, options: CreateOptions): Promise<MachineRecord> {
    return await this.store.locked(name, async () => {
      const record = await this.store.get(name);
      if (record.step === null) {
        throw failure("conflict", `machine ${name} has been created completely; nothing to resume`);
      }
      return await this.#goOn(record, options);
    });
  }

  /** Starts a stopped machine and waits until its API answers. Throws `conflict` when it runs. */
  async start(name: string): Promise<void> {
    await this.store.locked(name, async () => {
      const record = await this.store.get(name);
      await this.#refuse(record, "Running");
      await this.#powerOn(record);
    });
  }
  /** Throws `conflict` when it is stopped. */
  async stop(name: string): Promise<void> {
    await this.store.locked(name, async () => {
      const record = await this.store.get(name);
      await this.#refuse(record, "Stopped");
      await this.driver(record.driver).stop(record);
    });
  }
  /** Throws `conflict` when it is stopped. */
  async kill(name: string): Promise<void> {
    await this.store.locked(name, async () => {
      const record = await this.store.get(name);
      await this.#refuse(record, "Stopped");
      await this.driver(record.driver).kill(record);
    });
  }
  /** Stops it if it runs, then starts it. */
  async restart(name: string): Promise<void> {
    await this.store.locked(name, async () => {
      const record = await this.store.get(name);
      await this.driver(record.driver).stop(record);
      await this.#powerOn(record);
    });
  }
  /** Starts shoald again in a running machine whose API does not answer, and waits for it. */
  async provision(name: string): Promise<void> {
    await this.store.locked(name, async () => {
      const record = await this.store.get(name);
      await this.#refuse(record, "Stopped");
      const driver = this.driver(record.driver);
      if (await this.api.ping(driver.url(record), pingMs)) return;
      if ((await driver.daemonPid(record)) === null) await driver.startDaemon(record);
      await this.#untilReady(record);
    });
  }

  /** Takes a machine away. Works from any state and again after a failure. With `force` its record goes even when the rest does not. */
  async remove(name: string, force: boolean): Promise<void> {
    checkMachineName(name);
    await this.store.locked(name, async () => {
      let record: MachineRecord | null = null;
      try {
        record = await this.store.find(name);
      } catch (error) {
        if (!force) throw error;
      }
      if (record === null) {
        if (!force && !(await this.store.names()).includes(name)) await this.store.get(name);
      } else {
        try {
          await this.driver(record.driver).remove(record);
        } catch (error) {
          if (!force) throw error;
        }
      }
      await this.store.networkLocked(async () => {
        await this.store.forget(name);
        if ((await this.store.names()).length > 0) return;
        for (const driver of this.#drivers) await driver.removeShared();
        await this.store.forgetNetwork();
      });
    });
  }

  async state(name: string): Promise<MachineState> {
    const record = await this.store.get(name);
    if (record.error !== null) return "Error";
    return await this.driver(record.driver).state(record);
  }

  /** A machine as `ls` shows it, asked within `timeoutMs`. */
  async view(record: MachineRecord, timeoutMs: number = listTimeoutMs): Promise<MachineView> {
    const driver = this.driver(record.driver);
    const startedAt = Date.now();
    const power = await driver.state(record);
    const unfinished =
      record.step === null
        ? ""
        : `create stopped at step ${record.step}: ${record.error ?? "interrupted"}`;
    const known = {
      name: record.name,
      driver: record.driver,
      state: record.error === null ? power : ("Error" as const),
      url: power === "Running" ? driver.url(record) : "",
      swarm: "",
      version: "",
      errors: unfinished,
    };
    if (power !== "Running") return { ...known, responseMs: Date.now() - startedAt };
    try {
      const summary = await inTime(this.api.summary(driver.url(record)), timeoutMs);
      const responseMs = Date.now() - startedAt;
      if (summary === null) return { ...known, state: "Timeout", responseMs };
      return { ...known, swarm: summary.swarm, version: summary.version, responseMs };
    } catch (error) {
      const errors = [unfinished, messageOf(error)].filter((text) => text !== "").join("; ");
      return { ...known, errors, responseMs: Date.now() - startedAt };
    }
  }

  /** The driver of that name. Throws `invalid`. */
  driver(name: string): Driver {
    const found = this.#drivers.find((driver) => driver.name === name);
    if (found === undefined) {
      const known = this.#drivers.map((driver) => driver.name).join(", ");
      throw failure(
        "invalid",
        `unknown machine driver ${JSON.stringify(name)}: known are ${known}`,
      );
    }
    return found;
  }

  /** Takes the name and an address, and saves them. */
  async #reserve(request: CreateRequest): Promise<MachineRecord> {
    return await this.store.networkLocked(async () => {
      if ((await this.store.names()).includes(request.name)) {
        throw failure(
          "conflict",
          `Docker machine "${request.name}" already exists; remove it with "shoal machine rm ${request.name}", or go on with an interrupted create with --resume`,
        );
      }
      const network = await this.store.network();
      const subnetText = network?.subnet ?? request.subnet ?? defaultMachineSubnet;
      if (request.subnet !== null && request.subnet !== subnetText) {
        throw failure(
          "conflict",
          `subnet ${request.subnet}: the machines in ${this.store.path} live in ${subnetText}; use another --storage-path for another subnet`,
        );
      }
      const subnet = parseSubnet(subnetText);
      const others = await this.store.list();
      const taken = new Set(others.map((other) => formatAddress(parseAddress(other.address))));
      const indexes = new Set(others.map((other) => other.index));
      let index = 1;
      while (indexes.has(index)) index += 1;
      const record: MachineRecord = {
        version: recordVersion,
        name: request.name,
        driver: request.driver,
        createdAt: new Date().toISOString(),
        step: createSteps[0],
        error: null,
        index,
        address: chooseAddress(subnet, taken, request.address),
        prefixLength: subnet.prefixLength,
        gateway: gatewayOf(subnet),
        cluster: request.cluster,
        role: request.role,
        swarm: request.swarm,
        daemonArguments: request.daemonArguments,
        daemonEnvironment: request.daemonEnvironment,
      };
      if (network === null) await this.store.saveNetwork({ version: 1, subnet: subnetText });
      await this.store.save(record);
      return record;
    });
  }

  async #forget(record: MachineRecord): Promise<void> {
    await this.store.networkLocked(async () => {
      await this.store.forget(record.name);
      if ((await this.store.names()).length === 0) await this.store.forgetNetwork();
    });
  }

  async #goOn(start: MachineRecord, options: CreateOptions): Promise<MachineRecord> {
    let record: MachineRecord = { ...start, error: null };
    for (;;) {
      const step = record.step;
      if (step === null) return record;
      options.progress(record.name, step);
      try {
        record = { ...record, ...(await this.#doStep(record, step)) };
      } catch (error) {
        const failed: MachineRecord = { ...record, error: messageOf(error) };
        await this.store.save(failed);
        if (!options.keepOnFailure) await this.#powerOffAfter(failed, error);
        throw failure(
          "internal",
          `creating machine ${record.name}: step ${step}: ${messageOf(error)}; go on with "shoal machine create --resume ${record.name}" or remove it with "shoal machine rm ${record.name}"`,
          error,
        );
      }
      const next = createSteps[createSteps.indexOf(step) + 1] ?? null;
      record = { ...record, step: next };
      await this.store.save(record);
    }
  }

  /** Does one step, which may have been done in part before. Answers what it changes in the record. */
  async #doStep(record: MachineRecord, step: CreateStep): Promise<Partial<MachineRecord>> {
    const driver = this.driver(record.driver);
    switch (step) {
      case "check":
        await driver.preCreateCheck(record);
        return {};
      case "resources":
        await driver.create(record);
        return {};
      case "start":
        await driver.start(record);
        return {};
      case "ready":
        // A create that failed later has switched the machine off.
        await driver.start(record);
        await this.#untilReady(record);
        return {};
      case "swarm":
        if (record.swarm === null) return {};
        await this.#powerOn(record);
        await this.#enterSwarm(record, record.swarm);
        // The token is a secret and has done its work.
        return { swarm: null };
      default:
        return step satisfies never;
    }
  }

  async #enterSwarm(record: MachineRecord, plan: SwarmPlan): Promise<void> {
    const driver = this.driver(record.driver);
    const url = driver.url(record);
    if (await this.api.inSwarm(url)) return;
    if (plan.kind === "init") {
      await this.api.initSwarm(url, driver.address(record));
      return;
    }
    const request = {
      advertiseAddress: driver.address(record),
      remote: plan.remote,
      token: plan.token,
    };
    for (let tries = 1; ; tries += 1) {
      try {
        await this.api.joinSwarm(url, request);
        return;
      } catch (error) {
        if (tries >= joinTriesMax || !isPassing(error)) throw error;
        await pause(joinRetryMs);
        // The join may have gone through although its answer did not.
        if (await this.api.inSwarm(url)) return;
      }
    }
  }

  async #powerOn(record: MachineRecord): Promise<void> {
    await this.driver(record.driver).start(record);
    await this.#untilReady(record);
  }

  async #untilReady(record: MachineRecord): Promise<void> {
    const driver = this.driver(record.driver);
    const deadline = Date.now() + apiReadyMs;
    const daemons = new Set<number>();
    let lastSeen = Date.now();
    for (;;) {
      if (await this.api.ping(driver.url(record), pingMs)) return;
      const pid = await driver.daemonPid(record);
      if (pid !== null) {
        daemons.add(pid);
        lastSeen = Date.now();
      }
      const why =
        (await driver.state(record)) !== "Running"
          ? "the machine ended"
          : daemons.size > daemonStartsMax
            ? `shoald has ended ${daemons.size - 1} times`
            : Date.now() - lastSeen > daemonAbsentMs
              ? "shoald has ended"
              : Date.now() > deadline
                ? `the API at ${driver.url(record)} does not answer after ${apiReadyMs / 1000} s`
                : null;
      if (why !== null) {
        throw failure(
          "unavailable",
          `waiting for machine ${record.name}: ${why}. Its last words: ${await driver.logTail(record)}`,
        );
      }
      await pause(pollMs);
    }
  }

  async #powerOffAfter(record: MachineRecord, cause: unknown): Promise<void> {
    try {
      await this.driver(record.driver).kill(record);
    } catch (error) {
      const both = `${messageOf(cause)}; and switching it off again: ${messageOf(error)}`;
      await this.store.save({ ...record, error: both });
    }
  }

  async #refuse(record: MachineRecord, state: MachineState): Promise<void> {
    if ((await this.driver(record.driver).state(record)) !== state) return;
    const word = state.toLowerCase();
    throw new AlreadyInState(`Host "${record.name}" is already ${word}`, record.name);
  }
}

/** The check before create failed: nothing was made (the command exits with 3, as docker-machine's). */
export class PreCreateFailure extends Error {
  override readonly name = "PreCreateFailure";
  constructor(machine: string, cause: unknown) {
    super(`Error with pre-create check of machine ${machine}: ${messageOf(cause)}`, { cause });
  }
}

/** start of a running machine, or stop of a stopped one. */
export class AlreadyInState extends Error {
  override readonly name = "AlreadyInState";
  readonly machine: string;
  constructor(message: string, machine: string) {
    super(message);
    this.machine = machine;
  }
}

/** Whether a join that failed so may succeed a moment later: no leader yet, members changing, a connection that broke. */
function isPassing(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return (
    code === "unavailable" ||
    /try again|no leader|changing|ECONNREFUSED|ECONNRESET/i.test(messageOf(error))
  );
}

async function inTime<T>(work: Promise<T>, ms: number): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
