/** Goal: the unmodified docker command drives the whole first floor. How: docker-commands.sh, every command with its output and exit code asserted, on a manager and a worker, once with each docker command that this machine has. */
import { existsSync, realpathSync } from "node:fs";
import { copyFile, mkdir, rename } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkout, must, run } from "./lib/command.ts";
import { dockerArchive } from "./lib/images.ts";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { busyboxTar, Swarm } from "./lib/swarm.ts";

/** Longest that the commands may take together, in milliseconds (the time that issue 2 sets them). */
const scriptMaxMs = 120_000;
/** Fewest commands that count as the whole script. */
const commandsMin = 300;

/** Debian's docker and the one that a user would get, where they differ. */
function clients(): readonly string[] {
  const inPath = (process.env["PATH"] ?? "")
    .split(delimiter)
    .map((folder) => join(folder, "docker"))
    .find((path) => existsSync(path));
  const found = ["/usr/bin/docker", ...(inPath === undefined ? [] : [inPath])].filter(existsSync);
  return [...new Map(found.map((path) => [realpathSync(path), path])).values()];
}

const found = clients();
let swarm: Swarm;
let folder: string;
let before: Holdings;

beforeAll(async () => {
  if (found.length === 0) return;
  before = await holdings();
  swarm = await Swarm.create("dock", 1, 1);
  folder = join(swarm.storage, "given");
  await mkdir(folder);
  const rootfs = await busyboxTar(swarm.storage);
  const archive = await dockerArchive(swarm.storage, rootfs, "busybox:latest");
  await rename(rootfs, join(folder, "rootfs.tar"));
  await copyFile(archive, join(folder, "image.tar"));
}, 120_000);
afterAll(async () => {
  if (found.length === 0) return;
  // Read before the end: asking for them makes the storage folder anew.
  const { marks, storage } = swarm;
  await swarm.destroy();
  expect(leaked(before, await holdings(), marks)).toEqual([]);
  expect(existsSync(storage)).toBe(false);
}, 120_000);

test.skipIf(found.length > 0)(
  "SKIPPED: no docker command on this machine; `apt-get install docker.io` gives Debian's",
  (context) => context.skip(),
);

test.each(found)(
  "%s: at least 300 commands, each with its output and exit code",
  async (client) => {
    const [manager = ""] = swarm.managers;
    const [worker = ""] = swarm.workers;
    const env = {
      DOCKER: client,
      DOCKER_HOST: `unix://${swarm.socket(manager)}`,
      DOCKER_CONFIG: join(swarm.storage, "docker-config"),
    };
    const version = await must(client, ["version", "--format", "{{.Client.Version}}"], { env });
    const script = join(checkout, "cluster-tests/docker-commands.sh");
    const outcome = await run("bash", [script, manager, worker, swarm.socket(worker), folder], {
      env,
      timeoutMs: scriptMaxMs,
    });
    expect(outcome.out + outcome.err, `docker ${version}`).not.toContain("FAILED");
    const [, passed, failed] = /(\d+) passed, (\d+) failed/.exec(outcome.out) ?? [];
    expect(Number(failed), `docker ${version} came to its end`).toBe(0);
    expect(Number(passed)).toBeGreaterThanOrEqual(commandsMin);
    expect(outcome.code).toBe(0);
  },
  scriptMaxMs + 10_000,
);
