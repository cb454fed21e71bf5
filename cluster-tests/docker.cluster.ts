/** Goal: the unmodified docker command drives the whole first floor. How: docker-commands.sh, every command with its output and exit code asserted, on a manager and a worker. */
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkout, run } from "./lib/command.ts";
import { dockerArchive } from "./lib/images.ts";
import { busyboxTar, Swarm } from "./lib/swarm.ts";

let swarm: Swarm;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp("/var/tmp/shoal-docker-");
  swarm = await Swarm.create("dock", 1, 1);
}, 120_000);
afterAll(async () => {
  await swarm?.destroy();
  await rm(folder, { recursive: true, force: true });
}, 120_000);

test("at least 60 docker commands, each with its output and exit code", async () => {
  const [manager = ""] = swarm.managers;
  const [worker = ""] = swarm.workers;
  const rootfs = await busyboxTar(folder);
  const archive = await dockerArchive(folder, rootfs, "busybox:latest");
  await swarm.docker(worker, "load", "-i", archive);
  const outcome = await run(
    "bash",
    [join(checkout, "cluster-tests/docker-commands.sh"), archive, rootfs, worker],
    {
      env: {
        DOCKER_HOST: `unix://${swarm.socket(manager)}`,
        DOCKER_CONFIG: join(swarm.storage, "docker-config"),
      },
      timeoutMs: 300_000,
    },
  );
  const [, passed, failed] = /(\d+) passed, (\d+) failed/.exec(outcome.out) ?? [];
  expect(outcome.out + outcome.err).not.toContain("FAILED");
  expect(Number(failed)).toBe(0);
  expect(Number(passed)).toBeGreaterThanOrEqual(60);
  expect(outcome.code).toBe(0);
}, 320_000);
