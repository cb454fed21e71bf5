/** A machine's cgroups: the same path in every mounted hierarchy, v1, hybrid or v2. */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { failure, messageOf } from "../../lib/errors.ts";
import { killWaitMs, pollMs } from "../limits.ts";
import { pause } from "../process.ts";

export interface Hierarchy {
  readonly mountPoint: string;
  readonly version: 1 | 2;
}

/** The hierarchies that this box has mounted, by mountinfo(5). */
export function hierarchies(
  mountinfo: string = readFileSync("/proc/self/mountinfo", "utf8"),
): Hierarchy[] {
  const found = new Map<string, Hierarchy>();
  for (const line of mountinfo.split("\n")) {
    const [left, right] = line.split(" - ");
    const mountPoint = left?.split(" ")[4];
    const type = right?.split(" ")[0];
    if (mountPoint === undefined || left?.split(" ")[3] !== "/") continue;
    if (type === "cgroup") found.set(mountPoint, { mountPoint, version: 1 });
    if (type === "cgroup2") found.set(mountPoint, { mountPoint, version: 2 });
  }
  return [...found.values()];
}

/** Makes `path` in every hierarchy. A v2 one hands its controllers down; a v1 cpuset gets its parent's processors. */
export function makeCgroup(path: string): void {
  for (const { mountPoint, version } of hierarchies()) {
    let directory = mountPoint;
    for (const part of path.split("/").filter((name) => name !== "")) {
      if (version === 2) handDownControllers(directory);
      directory = join(directory, part);
      try {
        mkdirSync(directory);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") {
          throw failure("internal", `making cgroup ${directory}: ${messageOf(error)}`, error);
        }
      }
      if (version === 1) inheritProcessors(directory);
    }
  }
}

/** The files that a process writes its pid to in order to be in `path`. */
export function membershipFiles(path: string): string[] {
  return hierarchies().map(({ mountPoint }) => join(mountPoint, path, "cgroup.procs"));
}

/** Processes in `path` and below, in any hierarchy, as this box numbers them. */
export function processesIn(path: string): Set<number> {
  const pids = new Set<number>();
  for (const { mountPoint } of hierarchies()) {
    for (const directory of tree(join(mountPoint, path))) {
      for (const line of readOr(join(directory, "cgroup.procs"), "").split("\n")) {
        if (/^[1-9]\d*$/.test(line)) pids.add(Number(line));
      }
    }
  }
  return pids;
}

/** Ends all processes in `path` and below, and waits until they have gone. Throws `internal` when they do not go. */
export async function killAll(path: string): Promise<void> {
  const deadline = Date.now() + killWaitMs;
  for (;;) {
    const pids = [...processesIn(path)].filter((pid) => pid !== process.pid);
    if (pids.length === 0) return;
    if (Date.now() > deadline) {
      throw failure(
        "internal",
        `ending the processes of cgroup ${path}: ${pids.join(", ")} still run ${killWaitMs / 1000} s after SIGKILL; they may hang in a device, try again later`,
      );
    }
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch (error) {
        // ESRCH: it ended by itself in between, which is what was wanted.
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    }
    await pause(pollMs);
  }
}

/** Removes `path` and all below it from every hierarchy, then the empty parents. Fine when it is not there. */
export async function removeCgroup(path: string): Promise<void> {
  const deadline = Date.now() + killWaitMs;
  for (const { mountPoint } of hierarchies()) {
    const top = join(mountPoint, path);
    for (const directory of tree(top).reverse()) {
      // A cgroup is busy for a moment after its last process ended.
      while (!removeOne(directory)) {
        if (Date.now() > deadline) {
          throw failure("internal", `removing cgroup ${directory}: it is still in use`);
        }
        await pause(pollMs);
      }
    }
    let parent = dirname(path);
    while (parent !== "/" && parent !== ".") {
      if (!removeOne(join(mountPoint, parent), ["EBUSY", "ENOTEMPTY"])) break;
      parent = dirname(parent);
    }
  }
}

/** Whether the directory is gone now; false when busy. With `keep`, those errors mean "others use it". */
function removeOne(directory: string, keep: readonly string[] = []): boolean {
  try {
    rmdirSync(directory);
    return true;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (code === "ENOENT") return true;
    if (code === "EBUSY" || keep.includes(code)) return false;
    throw failure("internal", `removing cgroup ${directory}: ${messageOf(error)}`, error);
  }
}

/** The directory and all below it, parents first; none when it is not there. */
function tree(directory: string): string[] {
  let entries: { name: string; isDirectory(): boolean }[];
  try {
    entries = readdirSync(directory, { withFileTypes: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
  const below = entries.filter((entry) => entry.isDirectory());
  return [directory, ...below.flatMap((entry) => tree(join(directory, entry.name)))];
}

function handDownControllers(directory: string): void {
  const wanted = readOr(join(directory, "cgroup.controllers"), "").split(/\s+/);
  for (const controller of wanted.filter((name) => name !== "")) {
    try {
      writeFileSync(join(directory, "cgroup.subtree_control"), `+${controller}`);
    } catch (error) {
      // A controller that v1 owns, or a group with processes in it: the machine does without that limit.
      const code = (error as NodeJS.ErrnoException).code ?? "";
      if (!["ENOENT", "EBUSY", "EINVAL", "EOPNOTSUPP"].includes(code)) throw error;
    }
  }
}

function inheritProcessors(directory: string): void {
  for (const file of ["cpuset.cpus", "cpuset.mems"]) {
    const own = readOr(join(directory, file), null);
    if (own === null || own.trim() !== "") continue;
    writeFileSync(join(directory, file), readOr(join(dirname(directory), file), ""));
  }
}

/** The text of a file; `absent` when it, or the cgroup it stands for, is not there. */
function readOr<T>(file: string, absent: T): string | T {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (["ENOENT", "ENODEV", "EOPNOTSUPP"].includes(code)) return absent;
    throw error;
  }
}
