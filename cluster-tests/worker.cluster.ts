/** An agent over real containers, with the test as its manager: quick, and nothing lost by a restart. Needs root and the built core. */
import { mkdtemp } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { systemClock } from "../src/io/system-clock.ts";
import { systemRandom } from "../src/io/system-random.ts";
import { openWorkerDb } from "../src/io/worker-db.ts";
import { silentLog } from "../src/lib/log.ts";
import { aDescription, aTaskSpec } from "../src/model/testing/rows.ts";
import type { AssignedTask } from "../src/wire/session.ts";
import { type Agent, createAgent } from "../src/worker/agent.ts";
import { createEngineExecutor } from "../src/worker/engine-executor.ts";
import { createNetworkApply } from "../src/worker/network-apply.ts";
import { anAssigned, FakeManager } from "../src/worker/testing/fakes.ts";
import type { WorkerDb } from "../src/worker/worker-db.ts";
import { busyboxArchive, stream } from "./busybox-image.ts";
import { destroy, type EngineNode, leave, missing, open } from "./engine-node.ts";

interface Worker {
  readonly node: EngineNode;
  readonly db: WorkerDb;
  readonly agent: Agent;
  readonly manager: FakeManager;
}

async function openWorker(root: string): Promise<Worker> {
  const node = await open(root);
  const db = await openWorkerDb(join(root, "data", "worker"));
  const manager = new FakeManager();
  const agent = createAgent({
    nodeId: "n1",
    clusterAddress: "127.0.0.1:2377",
    managers: ["m1"],
    connect: () => Promise.resolve(manager.channel),
    executor: createEngineExecutor(node.engine),
    networks: createNetworkApply({
      native: node.native,
      clock: systemClock,
      log: silentLog,
      upstreams: () => Promise.resolve([]),
    }),
    db,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    describe: () => Promise.resolve(aDescription({ dataPathAddress: "127.0.0.1" })),
    onMembership: () => {},
  });
  await agent.start();
  await vi.waitFor(() => expect(manager.heard.length).toBeGreaterThan(0));
  manager.welcome();
  return { node, db, agent, manager };
}

function task(id: string, script: string, over: Partial<AssignedTask> = {}): AssignedTask {
  const { container } = aTaskSpec();
  // Init of a pid namespace ignores a SIGTERM that it does not handle: a short grace keeps tests quick.
  const stopGraceNs = 100_000_000;
  const spec = { ...container, stopGraceNs, image: "busybox:test", command: ["sh", "-c", script] };
  return anAssigned(id, { spec: aTaskSpec({ container: spec }), ...over });
}

describe.skipIf(missing !== null)(`agent over real containers (needs: ${missing})`, () => {
  let root: string;
  let worker: Worker;
  let revision = 0;

  function assign(tasks: readonly AssignedTask[]): void {
    revision++;
    worker.manager.say({
      kind: "assign-all",
      revision,
      set: { tasks, networks: [], peers: [] },
    });
  }
  async function reached(id: string, state: string): Promise<void> {
    await expect
      .poll(() => worker.agent.statusOf(id)?.state, { timeout: 10_000, interval: 2 })
      .toBe(state);
  }

  beforeAll(async () => {
    root = await mkdtemp("/tmp/shoal-agent-");
    worker = await openWorker(root);
    for await (const line of worker.node.images.load(
      stream(await busyboxArchive("busybox:test")),
    )) {
      expect(line).toBe("Loaded image: busybox:test");
    }
  });
  afterAll(async () => {
    if (worker === undefined) return;
    await worker.agent.stop();
    await worker.db.close();
    await destroy(worker.node);
  });

  test("one task runs soon, 25 at once not much later", async () => {
    const one = task("one", "exec sleep 300");
    const began = performance.now();
    assign([one]);
    await reached("one", "running");
    const single = performance.now() - began;
    const many = Array.from({ length: 25 }, (_, at) => task(`many${at}`, "exec sleep 300"));
    const manyBegan = performance.now();
    assign([one, ...many]);
    for (const item of many) await reached(item.id, "running");
    const all = performance.now() - manyBegan;
    process.stderr.write(`one task: ${single.toFixed(0)} ms; 25 tasks: ${all.toFixed(0)} ms\n`);
    expect(single).toBeLessThan(1_000);
    expect(all).toBeLessThan(10_000);
    assign([one]);
    await expect
      .poll(async () => (await worker.node.engine.list()).length, { timeout: 30_000 })
      .toBe(1);
  });

  test("a restart adopts what runs, and tells what ended meanwhile", async () => {
    const tasks = [task("one", "exec sleep 300"), task("short", "sleep 0.3; exit 6")];
    assign(tasks);
    await reached("short", "running");
    const { pid } = await worker.node.engine.get("web.1.one");
    const { node } = worker;
    await worker.agent.stop();
    await worker.db.close();
    leave(node);
    await new Promise((resolve) => setTimeout(resolve, 600));
    worker = await openWorker(root);
    await reached("short", "failed");
    expect(worker.agent.statusOf("short")).toMatchObject({
      exitCode: 6,
      error: "task: non-zero exit (6)",
    });
    expect((await worker.node.engine.get("web.1.one")).pid).toBe(pid);
    expect(worker.agent.statusOf("one")).toMatchObject({ state: "running", pid });
  });

  test("the core dies while tasks start: each runs once, none is lost", async () => {
    const tasks = Array.from({ length: 12 }, (_, at) => task(`kill${at}`, "exec sleep 300"));
    assign(tasks);
    await expect
      .poll(async () => (await worker.node.engine.list()).length, { interval: 1 })
      .toBeGreaterThan(3);
    process.kill(worker.node.native.identity?.pid ?? 0, "SIGKILL");
    for (const item of tasks) await reached(item.id, "running");
    const { containers } = await worker.node.native.call("list", {});
    const running = containers.filter((item) => item.status === "running");
    const ours = (await worker.node.engine.list()).filter((item) => item.name.includes("kill"));
    expect(ours).toHaveLength(tasks.length);
    expect(new Set(running.map((item) => item.pid)).size).toBe(running.length);
  });

  test("what is no longer assigned is shut down and gone", async () => {
    assign([]);
    await expect
      .poll(async () => (await worker.node.engine.list()).length, { timeout: 60_000 })
      .toBe(0);
    expect((await worker.node.native.call("list", {})).containers).toEqual([]);
    expect((await worker.db.load()).tasks).toEqual([]);
  });
});
