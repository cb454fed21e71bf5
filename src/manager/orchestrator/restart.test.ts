import { describe, expect, test } from "vitest";
import type { RestartPolicy } from "../../model/task.ts";
import { testServiceSpec, testTaskSpec } from "../testing/rows.ts";
import { createWorld, healthy, type World } from "../testing/world.ts";
import { orchestratorControllers } from "./controllers.ts";

const second = 1_000;
const policy = (changed: Partial<RestartPolicy>): RestartPolicy => ({
  condition: "any",
  delayNs: null,
  maxAttempts: null,
  windowNs: null,
  ...changed,
});

async function worldWith(restart: RestartPolicy | null, plan: Partial<World["plan"]>) {
  const world = createWorld(orchestratorControllers);
  world.addNodes("n1");
  world.plan = { ...healthy, ...plan };
  world.createService("web", testServiceSpec({ task: testTaskSpec({ restart }) }));
  await world.clock.advance(200);
  return world;
}
const failing: Partial<World["plan"]> = { end: () => ({ afterMs: 100, state: "failed" }) };

describe("a task that ends", () => {
  test("has a replacement at once that runs after 5 s", async () => {
    const world = await worldWith(null, failing);
    await world.clock.advance(100);
    expect(
      world
        .tasks("web")
        .map(({ desired }) => desired)
        .sort(),
    ).toEqual(["ready", "shutdown"]);
    await world.clock.advance(4_800);
    expect(world.running("web")).toHaveLength(0);
    await world.clock.advance(150);
    expect(world.running("web")).toHaveLength(1);
  });

  test.each([
    ["none", "failed", 1],
    ["none", "complete", 1],
    ["on-failure", "complete", 1],
    ["on-failure", "failed", 2],
    ["any", "complete", 2],
  ] as const)("with condition %s and end %s: %i tasks", async (condition, state, count) => {
    const world = await worldWith(policy({ condition }), {
      end: () => ({ afterMs: 100, state }),
    });
    await world.clock.advance(2 * second);
    expect(world.tasks("web")).toHaveLength(count);
    expect(world.loop.isIdle()).toBe(true);
  });

  test("is restarted as often as maxAttempts says, and no more", async () => {
    const world = await worldWith(policy({ maxAttempts: 2, delayNs: 1e9 }), failing);
    await world.clock.advance(60 * second);
    expect(world.tasks("web")).toHaveLength(3);
    expect(world.tasks("web").every(({ desired }) => desired === "shutdown")).toBe(true);
  });

  test("with a window counts only the restarts within it", async () => {
    const restart = policy({ maxAttempts: 2, delayNs: 1e9, windowNs: 2e9 });
    const world = await worldWith(restart, { end: () => ({ afterMs: 2_500, state: "failed" }) });
    await world.clock.advance(60 * second);
    const live = world.tasks("web").filter(({ desired }) => desired !== "shutdown");
    expect(live).toHaveLength(1);
  });

  test("rejected while it waits serves its own delay first", async () => {
    const world = await worldWith(null, { end: () => ({ afterMs: 0, state: "rejected" }) });
    let made = 0;
    world.store.watch(({ changes }) => {
      made += changes.filter(({ table, before }) => table === "tasks" && before === null).length;
    });
    await world.clock.advance(31 * second);
    // One each 5 s, not one each 10 ms.
    expect(made).toBeGreaterThanOrEqual(5);
    expect(made).toBeLessThanOrEqual(7);
  });

  test("does not lose its delay when the leader changes", async () => {
    const world = await worldWith(null, failing);
    await world.clock.advance(2 * second);
    world.loop.stop();
    world.loop.start();
    await world.clock.advance(2_500);
    expect(world.running("web")).toHaveLength(0);
    await world.clock.advance(550);
    expect(world.running("web")).toHaveLength(1);
  });
});

describe("a task that takes long to stop (D9)", () => {
  test("keeps its successor waiting for its own grace and a minute", async () => {
    const world = createWorld(orchestratorControllers);
    world.addNodes("n1", "n2");
    const container = { ...testTaskSpec().container, stopGraceNs: 90e9 };
    const task = testTaskSpec({ container });
    world.createService("web", testServiceSpec({ task }));
    await world.clock.advance(second);
    world.plan = { ...healthy, stopMs: () => 80 * second };
    world.updateService("web", testServiceSpec({ task: { ...task, forceUpdate: 1 } }));
    await world.clock.advance(79 * second);
    expect(world.running("web")).toHaveLength(1);
    await world.clock.advance(3 * second);
    expect(world.running("web").map(({ spec }) => spec.forceUpdate)).toEqual([1]);
    expect([...world.mostRunning.values()]).toEqual([1]);
  });

  test("is given up after that", async () => {
    const world = createWorld(orchestratorControllers);
    world.addNodes("n1", "n2");
    world.createService("web", testServiceSpec());
    await world.clock.advance(second);
    world.plan = { ...healthy, stopMs: () => 1e9 };
    world.updateService("web", testServiceSpec({ task: testTaskSpec({ forceUpdate: 1 }) }));
    await world.clock.advance(69 * second);
    expect(world.running("web").map(({ spec }) => spec.forceUpdate)).toEqual([0]);
    await world.clock.advance(2 * second);
    expect(
      world
        .running("web")
        .map(({ spec }) => spec.forceUpdate)
        .sort(),
    ).toEqual([0, 1]);
  });
});
