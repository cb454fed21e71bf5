/**
 * Goal: kill -9 of shoald, of shoal-core and of both, at random moments while services come, grow and go, loses nothing.
 * How: three nodes, each with its own kind of kill, 100 times each; then the books, the engines, the kernel and the exit codes are compared.
 */
import { readdir, readFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "./lib/command.ts";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { type ApiTask, Swarm } from "./lib/swarm.ts";

const kills = Number(process.env["CRASH_KILLS"] ?? 100);
/** Longest pause before a kill; a kill falls anywhere in it. */
const pauseMsMax = 1_500;

let swarm: Swarm;
let before: Holdings;

beforeAll(async () => {
  before = await holdings();
  swarm = await Swarm.create("crash", 1, 3);
  await swarm.loadBusybox();
}, 180_000);
afterAll(async () => {
  await swarm?.destroy();
  expect(leaked(before, await holdings(), swarm.marks)).toEqual([]);
}, 180_000);

/** Pids, as this box numbers them, of a machine's daemon or core: found by their state's folder. */
async function pidsOf(machine: string, program: "shoald" | "core"): Promise<number[]> {
  const found: number[] = [];
  const folder = `${swarm.storage}/machines/${machine}/`;
  for (const name of (await readdir("/proc")).filter((entry) => /^\d+$/.test(entry))) {
    const line = (await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => "")).replaceAll(
      "\0",
      " ",
    );
    const comm = (await readFile(`/proc/${name}/comm`, "utf8").catch(() => "")).trim();
    const isDaemon = comm === "node" && line.includes("bin/shoald") && line.includes(folder);
    const isCore =
      comm === "shoal-core" && line.includes(" serve ") && (await isOf(Number(name), machine));
    if (program === "shoald" ? isDaemon : isCore) found.push(Number(name));
  }
  return found;
}

/** True when the process lives in the machine: by its host name's namespace, which is the machine's own. */
async function isOf(pid: number, machine: string): Promise<boolean> {
  const cgroup = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
  return cgroup.includes(`/${machine}/`);
}

function kill(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGKILL");
    } catch (error) {
      // Already gone, as it would be after any kill.
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }
}

interface Container {
  readonly Id: string;
  readonly State: string;
  readonly Labels: Readonly<Record<string, string>>;
}

test(`${kills} kills each of shoald, of shoal-core and of both`, async () => {
  const [m1 = ""] = swarm.managers;
  const victims = [
    { machine: swarm.workers[0] ?? "", programs: ["shoald"] as const },
    { machine: swarm.workers[1] ?? "", programs: ["core"] as const },
    { machine: swarm.workers[2] ?? "", programs: ["shoald", "core"] as const },
  ];
  await swarm.docker(
    m1,
    "network",
    "create",
    "-d",
    "overlay",
    "--subnet",
    "10.210.0.0/16",
    "front",
  );
  let killing = true;
  let done = 0;
  const killers = victims.map(async ({ machine, programs }) => {
    for (let count = 0; count < kills; count += 1) {
      await new Promise((next) => setTimeout(next, Math.random() * pauseMsMax));
      // A kill that finds nothing to kill is none.
      const pids = await until(`a living ${programs.join(" and ")} on ${machine}`, async () => {
        const found = await Promise.all(programs.map((program) => pidsOf(machine, program)));
        return found.every((one) => one.length > 0) ? found.flat() : null;
      });
      kill(pids);
      done += 1;
      // Back before the next kill, core included: a node that never lives runs no task to lose.
      await until(
        `${machine} to answer after a kill`,
        async () => {
          const { Components } = await swarm.api<{
            Components: { Name: string; Version: string }[];
          }>(machine, "/version");
          return Components.some((one) => one.Name === "shoal-core" && one.Version !== "")
            ? true
            : null;
        },
        30_000,
      );
    }
  });
  const everyone = Promise.all(killers).finally(() => {
    killing = false;
  });
  const codes = new Map<string, number>();
  const workload = (async () => {
    const common = [
      "--restart-delay",
      "100ms",
      "--constraint",
      "node.role==worker",
      "--stop-signal",
      "SIGKILL",
    ];
    for (let round = 0; killing; round += 1) {
      const name = `s${round}`;
      const code = 1 + (round % 100);
      await swarm.docker(
        m1,
        "service",
        "create",
        "-d",
        "--no-resolve-image",
        "--name",
        name,
        "--network",
        "front",
        "--replicas",
        "3",
        ...common,
        "busybox",
        "sleep",
        "1d",
      );
      await swarm.docker(
        m1,
        "service",
        "create",
        "-d",
        "--no-resolve-image",
        "--name",
        `exit${round}`,
        "--restart-condition",
        "none",
        "--replicas",
        "3",
        "--constraint",
        "node.role==worker",
        "busybox",
        "sh",
        "-c",
        `sleep 0.3; exit ${code}`,
      );
      codes.set(`exit${round}`, code);
      await new Promise((next) => setTimeout(next, Math.random() * 800));
      await swarm.docker(m1, "service", "scale", "-d", `${name}=5`);
      await new Promise((next) => setTimeout(next, Math.random() * 800));
      if (round >= 2) await swarm.docker(m1, "service", "rm", `s${round - 2}`);
      if (round >= 6) {
        await checkExits(m1, `exit${round - 6}`, codes.get(`exit${round - 6}`) ?? -1);
        await swarm.docker(m1, "service", "rm", `exit${round - 6}`);
      }
    }
    return codes.size;
  })();
  await swarm.explained(() => Promise.all([everyone, workload]));
  expect(done).toBe(3 * kills);

  // All that is wanted runs, once; all that runs is wanted.
  const services = await swarm.api<{ Spec: { Name: string } }[]>(m1, "/services");
  for (const { Spec } of services) {
    if (Spec.Name.startsWith("s")) await swarm.converged(m1, Spec.Name, 5, { timeoutMs: 60_000 });
    else await checkExits(m1, Spec.Name, codes.get(Spec.Name) ?? -1);
  }
  await until(
    "every engine to hold exactly the tasks of the books",
    async () => {
      const tasks = await swarm.api<ApiTask[]>(m1, "/tasks");
      const running = new Map(
        tasks.filter((task) => task.Status.State === "running").map((task) => [task.ID, task]),
      );
      const seen = new Set<string>();
      for (const machine of swarm.workers) {
        const containers = await swarm.api<Container[]>(machine, "/containers/json");
        for (const { Labels } of containers) {
          const id = Labels["com.docker.swarm.task.id"] ?? "";
          if (!running.has(id) || seen.has(id)) return null;
          seen.add(id);
        }
      }
      return seen.size === running.size ? true : null;
    },
    60_000,
  );
  // Nearly all chose their own end: the check above saw something.
  expect(ends.own).toBeGreaterThan(3 * ends.ordered);
  const live = (await swarm.api<ApiTask[]>(m1, "/tasks")).filter(
    (task) => task.Status.State === "running",
  );
  const addresses = live.flatMap(
    (task) => task.NetworksAttachments?.flatMap((one) => one.Addresses) ?? [],
  );
  expect(addresses.length).toBe(live.length);
  expect(new Set(addresses).size).toBe(addresses.length);

  // When all is removed, no container, no container's cgroup and no overlay sandbox is left on any node.
  for (const { Spec } of services) await swarm.docker(m1, "service", "rm", Spec.Name);
  await until(
    "every container to be gone",
    async () => {
      for (const machine of swarm.workers) {
        if ((await swarm.api<Container[]>(machine, "/containers/json?all=true")).length > 0)
          return null;
        const sandboxes = await swarm.machine("ssh", machine, "ls", "/run/shoal/netns");
        if (sandboxes.trim() !== "") return null;
        // One word, as the words are joined for the machine's shell; parked sandboxes begin with a dot.
        const pattern = `/sys/fs/cgroup/memory/shoal-machines/*/${machine}/containers/*/`;
        const groups = await swarm.machine("ssh", machine, `ls -d ${pattern} 2>/dev/null | wc -l`);
        if (groups.trim() !== "0") return null;
      }
      return true;
    },
    60_000,
  );
}, 900_000);

/** Tasks that ended with their code, and tasks that the managers ended because their node was away for too long. */
const ends = { own: 0, ordered: 0 };

/**
 * Every task of the service is over: with the code it chose, or shut down by order (a node that is away for 3 s is
 * down, and its tasks are not to go on). Any other code is one that was lost or made up.
 */
async function checkExits(machine: string, service: string, code: number): Promise<void> {
  let seen: readonly ApiTask[] = [];
  await until(
    `the tasks of ${service} to end`,
    async () => {
      seen = await swarm.tasks(machine, service);
      const over = seen.filter((task) =>
        ["failed", "shutdown", "complete", "rejected", "orphaned"].includes(task.Status.State),
      );
      return seen.length === 3 && over.length === 3 ? true : null;
    },
    90_000,
  ).catch((error: unknown) => {
    const tasks = seen.map(({ ID, NodeID, DesiredState, Status }) => ({
      ID,
      NodeID,
      DesiredState,
      Status,
    }));
    throw new Error(`${String(error)}: ${JSON.stringify(tasks)}`, { cause: error });
  });
  for (const { ID, Status } of seen) {
    const own = Status.State === "failed" && Status.ContainerStatus?.ExitCode === code;
    if (own) ends.own += 1;
    else {
      expect(`${ID} ${Status.State} ${Status.Err ?? ""}`).toBe(`${ID} shutdown `);
      ends.ordered += 1;
    }
  }
}
