/**
 * Goal: podman, containerd and dockerd run containers through shoal-core.
 * How: oci-callers.sh, every command with its output and exit code asserted, in namespaces of its own: what it started ends with it.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkout, run } from "./lib/command.ts";
import { dockerArchive } from "./lib/images.ts";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { busyboxTar } from "./lib/swarm.ts";

/** Fewest commands that count as the whole script of each caller. */
const callers = [
  { caller: "podman", program: "podman", commandsMin: 31 },
  { caller: "containerd", program: "containerd", commandsMin: 18 },
  { caller: "dockerd", program: "dockerd", commandsMin: 37 },
];
const core = join(checkout, "native/target/release/shoal-core");
const namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
/** Longest that the commands of one caller may take together. */
const scriptMaxMs = 120_000;

let folder: string;
let before: Holdings;

beforeAll(async () => {
  before = await holdings();
  folder = await mkdtemp(join(tmpdir(), "shoal-callers-"));
});
afterAll(async () => {
  // A script that was cut off has left its groups, which are empty then. Deepest first.
  const groups = ["/sys/fs/cgroup", "-depth", "-type", "d", "-path", `*/${basename(folder)}-*`];
  await run("find", [...groups, "-exec", "rmdir", "{}", ";"]);
  await rm(folder, { recursive: true, force: true });
  expect(leaked(before, await holdings(), ["shoal-callers-"])).toEqual([]);
});

/** Loudly skipped where Debian's package is not there: `script/test` installs it. */
for (const { caller, program, commandsMin } of callers) {
  const there = ["/usr/bin", "/usr/sbin"].some((path) => existsSync(join(path, program)));
  test.skipIf(!there)(
    `${caller}${there ? "" : ` (SKIPPED: ${program} is not installed)`}: run, exec, log and remove, with each command's output`,
    async () => {
      const own = join(folder, caller);
      await mkdir(own);
      const rootfs = await busyboxTar(own);
      await rename(await dockerArchive(own, rootfs, "busybox:latest"), join(own, "image.tar"));
      await rename(rootfs, join(own, "rootfs.tar"));
      const script = join(checkout, "cluster-tests/oci-callers.sh");
      const { code, out, err } = await run(
        "unshare",
        [...namespaces, "--", "bash", script, caller, core, own],
        { timeoutMs: scriptMaxMs },
      );
      expect(`${out}${err}`).not.toContain("FAILED");
      expect(code, `${out}${err}`).toBe(0);
      const count = /(\d+) commands as expected, 0 not/.exec(out)?.[1];
      expect(Number(count)).toBeGreaterThanOrEqual(commandsMin);
    },
  );
}
