/**
 * Ours and Debian's dockerd, measured in one run by one driver: time to running, CPU a task, failover, rescheduling.
 * Mutations go through the docker command; observation is polling of the Engine API. Rounds of the two engines alternate.
 */
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { request } from "node:http";
import { cpus, loadavg } from "node:os";
import { join } from "node:path";
import { checkout, must, run, until } from "../cluster-tests/lib/command.ts";
import { busyboxTar } from "../cluster-tests/lib/swarm.ts";

interface Engine {
  readonly name: string;
  /** Shell command that opens $DIR/docker.sock; $N is the node's name. */
  readonly command: string;
}
interface Sample {
  readonly what: string;
  readonly unit: string;
  readonly value: number;
}

const nodeCount = 5;
const managerCount = 3;
const pollMs = 20;
const many = 50;
const rounds = Number(process.env["ROUNDS"] ?? 3);
const ones = Number(process.env["ONES"] ?? 7);

const engines: readonly Engine[] = [
  {
    name: "shoal",
    command: `exec ${join(checkout, "bin/shoald")} --data-root $DIR/data --exec-root /run/shoal -H unix://$DIR/docker.sock --cgroup-parent /shbench/$N --node-name $N`,
  },
  {
    name: "dockerd",
    command:
      "exec dockerd --data-root $DIR/data --exec-root /run/docker --pidfile /run/docker.pid -H unix://$DIR/docker.sock --storage-driver overlay2 --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /shbench/$N",
  },
];

interface Task {
  readonly NodeID?: string;
  readonly DesiredState: string;
  readonly Status: { readonly State: string };
}
interface Node {
  readonly ID: string;
  readonly Description: { readonly Hostname: string };
  readonly Status: { readonly State: string };
  readonly ManagerStatus?: { readonly Leader?: boolean };
}

/** A five-node cluster of one engine. */
class Cluster {
  readonly names = Array.from({ length: nodeCount }, (_, index) => `shbench${index + 1}`);
  readonly #folder: string;
  readonly #engine: Engine;

  constructor(folder: string, engine: Engine) {
    this.#folder = folder;
    this.#engine = engine;
  }

  async #script(...args: string[]): Promise<void> {
    const env = { BENCH_DIR: this.#folder, ENGINE: this.#engine.command };
    await must("bash", [join(checkout, "bench/swarm-node.sh"), ...args], {
      env,
      timeoutMs: 90_000,
    });
  }

  #socket(node: string): string {
    return join(this.#folder, "nodes", node, "docker.sock");
  }

  async docker(node: string, ...args: string[]): Promise<string> {
    return await must("docker", ["-H", `unix://${this.#socket(node)}`, ...args], {
      timeoutMs: 60_000,
    });
  }

  async api<T>(node: string, path: string, timeoutMs = 1_000): Promise<T> {
    return await new Promise<T>((resolve, reject) => {
      const outgoing = request(
        { socketPath: this.#socket(node), path: `/v1.41${path}`, timeout: timeoutMs },
        (response) => {
          let text = "";
          response.on("data", (chunk) => {
            text += String(chunk);
          });
          response.on("end", () =>
            response.statusCode === 200 ? resolve(JSON.parse(text) as T) : reject(new Error(text)),
          );
        },
      );
      outgoing.once("timeout", () => outgoing.destroy(new Error("no answer")));
      outgoing.once("error", reject);
      outgoing.end();
    });
  }

  async up(imageTar: string): Promise<void> {
    await this.#script("net-up", String(nodeCount));
    for (const name of this.names) await this.#script("start", name);
    const [first = ""] = this.names;
    await this.docker(first, "swarm", "init", "--advertise-addr", "10.66.0.1");
    for (const [index, name] of this.names.entries()) {
      if (index > 0) {
        const role = index < managerCount ? "manager" : "worker";
        const token = await this.docker(first, "swarm", "join-token", "-q", role);
        await this.docker(name, "swarm", "join", "--token", token, "10.66.0.1:2377");
      }
      await this.docker(name, "import", imageTar, "busybox:latest");
    }
    await until("all nodes ready", async () => {
      const nodes = await this.api<Node[]>(first, "/nodes");
      return nodes.length === nodeCount && nodes.every((node) => node.Status.State === "ready")
        ? true
        : null;
    });
  }

  async down(): Promise<void> {
    for (const name of this.names) await this.#script("kill", name).catch(() => {});
    await this.#script("net-down", String(nodeCount));
  }

  async kill(node: string): Promise<void> {
    await this.#script("kill", node);
  }

  async restart(node: string, witness: string): Promise<void> {
    await this.#script("start", node);
    await until(
      `${node} back`,
      async () => {
        const nodes = await this.api<Node[]>(witness, "/nodes");
        return nodes.every((other) => other.Status.State === "ready") ? true : null;
      },
      90_000,
    );
  }

  async leader(): Promise<string> {
    return await until("a leader", async () => {
      for (const manager of this.names.slice(0, managerCount)) {
        try {
          const nodes = await this.api<Node[]>(manager, "/nodes");
          const leader = nodes.find((node) => node.ManagerStatus?.Leader)?.Description.Hostname;
          if (leader !== undefined) return leader;
        } catch (error) {
          if (!(error instanceof Error)) throw error;
        }
      }
      return null;
    });
  }

  async create(node: string, name: string, replicas: number): Promise<void> {
    await this.docker(
      node,
      "service",
      "create",
      "-q",
      "--detach",
      "--no-resolve-image",
      "--stop-signal",
      "SIGKILL",
      "--name",
      name,
      "--replicas",
      String(replicas),
      "busybox",
      "sleep",
      "1d",
    );
  }

  async running(node: string, service: string, count: number, notOn = ""): Promise<void> {
    const filters = encodeURIComponent(JSON.stringify({ service: { [service]: true } }));
    const lost =
      notOn === ""
        ? ""
        : (await this.api<Node[]>(node, "/nodes")).find(
            (other) => other.Description.Hostname === notOn,
          )?.ID;
    const deadline = Date.now() + 120_000;
    for (;;) {
      const tasks = await this.api<Task[]>(node, `/tasks?filters=${filters}`).catch(
        () => [] as Task[],
      );
      const there = tasks.filter(
        (task) =>
          task.DesiredState === "running" &&
          task.Status.State === "running" &&
          task.NodeID !== lost,
      );
      if (there.length === count) return;
      if (Date.now() > deadline)
        throw new Error(
          `${this.#engine.name}: ${there.length} of ${count} tasks of ${service} run`,
        );
      await new Promise((next) => setTimeout(next, pollMs));
    }
  }

  async remove(node: string, service: string): Promise<void> {
    await this.docker(node, "service", "rm", service);
    const filters = encodeURIComponent(
      JSON.stringify({ label: { [`com.docker.swarm.service.name=${service}`]: true } }),
    );
    await until(
      `${service} gone`,
      async () => {
        for (const name of this.names) {
          if (
            (await this.api<unknown[]>(name, `/containers/json?all=true&filters=${filters}`))
              .length > 0
          )
            return null;
        }
        return true;
      },
      120_000,
    );
  }
}

/** CPU seconds used so far by everything in the measured nodes. */
async function cpuSeconds(): Promise<number> {
  for (const path of [
    "/sys/fs/cgroup/cpuacct/shbench/cpuacct.usage",
    "/sys/fs/cgroup/cpu,cpuacct/shbench/cpuacct.usage",
  ]) {
    const text = await readFile(path, "utf8").catch(() => null);
    if (text !== null) return Number(text) / 1e9;
  }
  return Number.NaN;
}

async function timed(work: () => Promise<void>): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

/** One round on one engine. */
async function measure(cluster: Cluster, round: number): Promise<readonly Sample[]> {
  const samples: Sample[] = [];
  const add = (what: string, unit: string, value: number) => samples.push({ what, unit, value });
  const leader = await cluster.leader();
  for (let index = 0; index < ones; index += 1) {
    const name = `one${round}-${index}`;
    add(
      "one task to running",
      "s",
      await timed(async () => {
        await cluster.create(leader, name, 1);
        await cluster.running(leader, name, 1);
      }),
    );
    await cluster.remove(leader, name);
  }
  const name = `many${round}`;
  const before = await cpuSeconds();
  add(
    `${many} tasks to running`,
    "s",
    await timed(async () => {
      await cluster.create(leader, name, many);
      await cluster.running(leader, name, many);
    }),
  );
  add("CPU a task", "CPU-s", ((await cpuSeconds()) - before) / many);

  const [worker = "", witness = ""] = [cluster.names[nodeCount - 1], leader];
  add(
    "worker power-off to all running elsewhere",
    "s",
    await timed(async () => {
      await cluster.kill(worker);
      await cluster.running(witness, name, many, worker);
    }),
  );
  await cluster.restart(worker, witness);
  await cluster.remove(witness, name);

  const others = cluster.names.slice(0, managerCount).filter((manager) => manager !== leader);
  const [other = ""] = others;
  add(
    "leader power-off to the first successful write",
    "s",
    await timed(async () => {
      await cluster.kill(leader);
      await until(
        "a write",
        async () => {
          const outcome = await run(
            "docker",
            [
              "-H",
              `unix://${join(benchFolder, "nodes", other, "docker.sock")}`,
              "service",
              "create",
              "-q",
              "--detach",
              "--no-resolve-image",
              "--name",
              `w${round}`,
              "busybox",
              "sleep",
              "1d",
            ],
            { timeoutMs: 30_000 },
          );
          return outcome.code === 0 ? true : null;
        },
        90_000,
      );
    }),
  );
  await cluster.restart(leader, other);
  await cluster.remove(other, `w${round}`);
  return samples;
}

let benchFolder = "";

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

async function main(): Promise<void> {
  const only = process.env["ONLY"];
  const measured = engines.filter((engine) => only === undefined || engine.name === only);
  const samples = new Map<string, Map<string, number[]>>();
  const units = new Map<string, string>();
  process.stdout.write(
    `${cpus().length} CPUs, load ${loadavg()[0]?.toFixed(2)}; ${rounds} rounds, engines alternate\n`,
  );
  await mkdir("/var/tmp", { recursive: true });
  const root = await mkdtemp("/var/tmp/shoal-bench-");
  try {
    const tar = await busyboxTar(root);
    for (let round = 0; round < rounds; round += 1) {
      for (const engine of measured) {
        benchFolder = join(root, `${engine.name}-${round}`);
        const cluster = new Cluster(benchFolder, engine);
        try {
          await cluster.up(tar);
          for (const { what, unit, value } of await measure(cluster, round)) {
            units.set(what, unit);
            const byEngine = samples.get(what) ?? new Map<string, number[]>();
            samples.set(what, byEngine);
            byEngine.set(engine.name, [...(byEngine.get(engine.name) ?? []), value]);
          }
          process.stdout.write(
            `round ${round + 1} ${engine.name}: done, load ${loadavg()[0]?.toFixed(2)}\n`,
          );
        } finally {
          await cluster.down();
        }
      }
    }
  } finally {
    await rm(root, { recursive: true, force: true }).catch(() => {});
    await sweep();
  }
  process.stdout.write(
    "\nmedians                                             shoal     dockerd   ratio\n",
  );
  for (const [what, byEngine] of samples) {
    const [ours, theirs] = engines.map((engine) => median(byEngine.get(engine.name) ?? []));
    const show = (value: number | undefined) =>
      (value === undefined || Number.isNaN(value) ? "-" : value.toFixed(3)).padStart(9);
    const ratio = (ours ?? Number.NaN) / (theirs ?? Number.NaN);
    process.stdout.write(
      `${`${what} (${units.get(what)})`.padEnd(48)} ${show(ours)} ${show(theirs)} ${show(ratio)}\n`,
    );
  }
}

/** Cgroups that the engines left under names of this benchmark. */
async function sweep(): Promise<void> {
  await run("bash", [
    "-c",
    'for d in /sys/fs/cgroup/*/shbench*; do [ -d "$d" ] && find "$d" -depth -type d -exec rmdir {} + 2>/dev/null; done; true',
  ]);
}

await main();
