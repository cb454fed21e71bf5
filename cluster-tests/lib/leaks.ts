/** What this machine holds that a cluster could leave behind: namespaces, mounts, links, cgroups, processes. */
import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { must } from "./command.ts";

export interface Holdings {
  readonly namespaces: ReadonlySet<string>;
  readonly mounts: ReadonlySet<string>;
  readonly links: ReadonlySet<string>;
  readonly cgroups: ReadonlySet<string>;
  readonly processes: ReadonlySet<string>;
}

/** Everything of ours that is there now; of other clusters on this box too. */
export async function holdings(): Promise<Holdings> {
  const netns = await readdir("/run/netns").catch(() => [] as string[]);
  const mounts = (await readFile("/proc/self/mountinfo", "utf8"))
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((path) => path.includes("shoal") || path.startsWith("/run/netns/"));
  const links = (await must("ip", ["-o", "link"]))
    .split("\n")
    .map((line) => line.split(": ")[1] ?? "");
  const cgroups: string[] = [];
  for (const hierarchy of await readdir("/sys/fs/cgroup").catch(() => [] as string[])) {
    const folders = await readdir(join("/sys/fs/cgroup", hierarchy)).catch(() => [] as string[]);
    for (const folder of folders.filter((name) => name.startsWith("shoal"))) {
      cgroups.push(`${hierarchy}/${folder}`);
      const path = join("/sys/fs/cgroup", hierarchy, folder);
      const below = await readdir(path, { withFileTypes: true }).catch(() => []);
      cgroups.push(
        ...below
          .filter((one) => one.isDirectory())
          .map((one) => `${hierarchy}/${folder}/${one.name}`),
      );
    }
  }
  const processes: string[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const program = await readlink(`/proc/${pid}/exe`).catch(() => "");
    const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (program.includes("shoal-core") || line.includes("bin/shoald"))
      processes.push(`${pid} ${line.replaceAll("\0", " ")}`);
  }
  return {
    namespaces: new Set(netns),
    mounts: new Set(mounts),
    links: new Set(links),
    cgroups: new Set(cgroups),
    processes: new Set(processes),
  };
}

/**
 * What is in `now` and was not in `before`, in words; empty when nothing leaked. With marks, only what carries one of
 * them: other clusters may come and go on this box meanwhile.
 */
export function leaked(
  before: Holdings,
  now: Holdings,
  marks: readonly string[] = [""],
): readonly string[] {
  return (["namespaces", "mounts", "links", "cgroups", "processes"] as const).flatMap((kind) =>
    [...now[kind]]
      .filter((item) => !before[kind].has(item) && marks.some((mark) => item.includes(mark)))
      .map((item) => `${kind}: ${item}`),
  );
}
