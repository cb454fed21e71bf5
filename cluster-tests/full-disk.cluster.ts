/**
 * Goal: a full disk refuses new work clearly, keeps running tasks, and loses nothing that was acknowledged.
 * How: a manager and a worker whose data roots are small file systems in memory of their own; each is filled and freed.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { must, until } from "./lib/command.ts";
import { dockerArchive } from "./lib/images.ts";
import { LoneNode } from "./lib/lone-node.ts";

/** A manager keeps 32 MiB free for its log; two segments, the image and the records need as much again. */
const dataBytes = 160 * 1024 * 1024;
const create = [
  ...["service", "create", "-d", "--no-resolve-image"],
  ...["--stop-signal", "KILL", "--restart-delay", "200ms"],
];

let manager: LoneNode;
let worker: LoneNode;

beforeAll(async () => {
  manager = await LoneNode.create("full-m");
  worker = await LoneNode.create("full-w", 2, manager);
  for (const node of [manager, worker])
    await node.inside("mount", "-t", "tmpfs", "-o", `size=${dataBytes}`, "tmpfs", node.dataRoot);
  await Promise.all([manager.start(), worker.start()]);
  await manager.init();
  const token = await manager.docker("swarm", "join-token", "-q", "worker");
  await worker.docker("swarm", "join", "--token", token, `${manager.address}:2377`);
  await manager.nodesReady(2);
  await manager.loadBusybox();
  await worker.loadBusybox();
  await manager.docker(...create, "--mode", "global", "--name", "base", "busybox", "sleep", "7d");
  await manager.converged("base", 2);
}, 60_000);
afterAll(async () => {
  for (const node of [worker, manager]) await node?.destroy();
}, 60_000);

/** Leaves `bytes` free on the node's data root. */
async function fill(node: LoneNode, bytes = 0): Promise<void> {
  const path = join(node.dataRoot, "filler");
  const script = `free=$(($(stat -f -c '%a*%S' ${node.dataRoot}) - ${bytes})); [ $free -le 0 ] || head -c $free /dev/zero > ${path} || true`;
  await node.inside("sh", "-c", script);
}
async function free(node: LoneNode): Promise<void> {
  await node.inside("rm", "-f", join(node.dataRoot, "filler"));
}

test("a manager whose disk is full refuses new services, keeps what it has, and goes on when there is room", async () => {
  const services = await manager.docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}");
  const pids = await manager.processes("sleep 7d");
  await fill(manager);
  const refusal = await until("a service to be refused", async () => {
    const answer = await manager.dockerRun(
      ...create,
      "--name",
      `x${Date.now()}`,
      "busybox",
      "sleep",
      "1d",
    );
    return answer.code === 0 ? null : answer.err;
  });
  expect(refusal).toMatch(
    /the disk of this manager's Raft log has less than \d+ bytes left; free some room/,
  );
  const accepted = (await manager.docker("service", "ls", "--format", "{{.Name}}"))
    .split("\n")
    .filter((name) => name.startsWith("x"));
  expect(accepted.length).toBeLessThan(60);
  expect(await manager.processes("sleep 7d")).toEqual(pids);
  expect(manager.exitCode).toBe(null);
  // Reads go on, and the nodes stay ready while it is full.
  expect(
    await manager.docker(
      "service",
      "ls",
      "--filter",
      "name=base",
      "--format",
      "{{.Name}} {{.Replicas}}",
    ),
  ).toBe(services);
  const raw = await manager.call("POST", "/services/create", {
    Name: "raw",
    TaskTemplate: { ContainerSpec: { Image: "busybox" } },
  });
  expect(raw.status).toBe(503);
  await free(manager);
  await until("a service to be taken again", async () => {
    const { code } = await manager.dockerRun(
      ...create,
      "--name",
      "after",
      "busybox",
      "sleep",
      "1d",
    );
    return code === 0 ? true : null;
  });
  await manager.converged("after", 1);
  await manager.docker("service", "rm", "after");
  for (const name of accepted) {
    await manager.converged(name, 1);
    await manager.docker("service", "rm", name);
  }
});

test("a manager that dies on a full disk starts on it again, with all that it acknowledged", async () => {
  await manager.docker(
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--name",
    "kept",
    "--replicas",
    "0",
    "busybox",
    "true",
  );
  const before = await manager.docker("service", "ls", "--format", "{{.ID}} {{.Name}}");
  const pids = await manager.processes("sleep 7d");
  await fill(manager);
  await manager.stop("KILL");
  expect(await manager.processes("sleep 7d")).toEqual(pids);
  const up = await manager.tryStart();
  if (up)
    expect(await manager.docker("service", "ls", "--format", "{{.ID}} {{.Name}}")).toBe(before);
  else expect(manager.output).toMatch(/no space left on device|ENOSPC/i);
  expect(await manager.processes("sleep 7d")).toEqual(pids);
  await free(manager);
  if (up) await manager.stop();
  await manager.start();
  expect(await manager.docker("service", "ls", "--format", "{{.ID}} {{.Name}}")).toBe(before);
  await manager.converged("base", 2);
  expect(await manager.processes("sleep 7d")).toEqual(pids);
});

test("a worker whose disk is full rejects new tasks with the reason, and keeps the running ones", async () => {
  // The earlier tests' services are removed; the worker hears of the last of them from a manager that was just restarted.
  await until("the worker to hold one container", async () => {
    const held = await worker.get<{ Names: string[]; Status: string }[]>("/containers/json?all=1");
    if (held.length === 1) return true;
    throw new Error(held.map(({ Names, Status }) => `${Names.join(" ")} ${Status}`).join(", "));
  });
  const pids = await worker.processes("sleep 7d");
  await fill(worker);
  await manager.docker(
    ...create,
    "--restart-condition",
    "none",
    "--constraint",
    "node.role==worker",
    "--name",
    "more",
    "busybox",
    "sleep",
    "1d",
  );
  const error = await until("the task to be rejected", async () => {
    const [task] = await manager.tasks("more");
    return task?.Status.State === "rejected" ? (task.Status.Err ?? "") : null;
  });
  expect(error).toMatch(/no space left on device: \d+ bytes are free under the data root/);
  expect(await worker.processes("sleep 7d")).toEqual(pids);
  await manager.converged("base", 2);
  expect(await worker.get("/containers/json?all=1")).toHaveLength(1);
  await free(worker);
  await manager.docker("service", "update", "-d", "--force", "more");
  await manager.converged("more", 1);
  await manager.docker("service", "rm", "more");
});

test("an image that does not fit is refused and leaves nothing", async () => {
  const archive = join(worker.folder, "big.tar");
  await must("sh", [
    "-c",
    `mkdir -p ${worker.folder}/big && head -c 60000000 /dev/urandom > ${worker.folder}/big/data && tar -C ${worker.folder}/big -cf ${archive} .`,
  ]);
  const image = await readFile(await dockerArchive(worker.folder, archive, "big:1"));
  const root = await readFile(archive);
  const held = async (): Promise<string> =>
    await worker.inside("sh", "-c", `cd ${worker.dataRoot} && find images layers | sort`);
  const before = await held();
  const images = await worker.get("/images/json");
  const tar = { headers: { "Content-Type": "application/x-tar" } };
  for (const [path, bytes, room] of [
    ["/images/load", image, 30_000_000],
    ["/images/load", image, 90_000_000],
    ["/images/create?fromSrc=-&repo=big", root, 30_000_000],
    ["/images/create?fromSrc=-&repo=big", root, 90_000_000],
  ] as const) {
    await fill(worker, room);
    const answer = await worker.call("POST", path, bytes, tar).catch(async (error) => {
      throw new Error(`${path} ${room}: ${error} ${worker.exitCode} ${worker.output.slice(-3000)}`);
    });
    expect(worker.exitCode, worker.output).toBe(null);
    expect(answer.status >= 400 || answer.text.includes("errorDetail"), answer.text).toBe(true);
    expect(answer.text).toMatch(/no space left on device/i);
    await free(worker);
    expect(await held()).toBe(before);
    expect(await worker.get("/images/json")).toEqual(images);
  }
  const { code, out } = await worker.dockerRun(
    "load",
    "-i",
    join(worker.folder, "big-1-amd64.docker.tar"),
  );
  expect([code, out.includes("Loaded image: big:1")]).toEqual([0, true]);
});
