import { describe, expect, test } from "vitest";
import { testServiceSpec, testTaskSpec } from "../testing/rows.ts";
import { createWorld, healthy, type World } from "../testing/world.ts";
import { orchestratorControllers } from "./controllers.ts";

function worldOf(...nodes: readonly string[]): World {
  const world = createWorld(orchestratorControllers);
  world.addNodes(...nodes);
  return world;
}
const replicas = (count: number) => ({ kind: "replicated", replicas: count }) as const;
const slotsOf = (world: World): number[] =>
  world
    .running("web")
    .map(({ slot }) => slot)
    .sort((a, b) => a - b);

describe("a replicated service", () => {
  test("gets slots from 1, all made in one entry", async () => {
    const world = worldOf("n1", "n2");
    world.createService("web", testServiceSpec({ mode: replicas(50) }));
    const entries = world.proposer.entries.length;
    await world.clock.advance(0);
    // One entry of tasks, one of placements.
    expect(world.proposer.entries.length - entries).toBe(2);
    await world.clock.advance(1_000);
    expect(slotsOf(world)).toEqual(Array.from({ length: 50 }, (_, index) => index + 1));
    expect(world.loop.isIdle()).toBe(true);
  });

  test("scales down to balanced nodes and up into the freed slots", async () => {
    const world = worldOf("n1", "n2", "n3");
    const spec = testServiceSpec({ mode: replicas(9) });
    world.createService("web", spec);
    await world.clock.advance(1_000);
    world.updateService("web", { ...spec, mode: replicas(3) });
    await world.clock.advance(1_000);
    expect(new Set(world.running("web").map(({ nodeId }) => nodeId)).size).toBe(3);
    expect(world.tasks("web")).toHaveLength(3);
    world.updateService("web", { ...spec, mode: replicas(5) });
    await world.clock.advance(1_000);
    expect(slotsOf(world)).toHaveLength(5);
    expect(world.service("web").updateStatus).toBeNull();
  });

  test("does not start a slot again before its removed task has stopped", async () => {
    const world = worldOf("n1");
    world.plan = { ...healthy, stopMs: () => 8_000 };
    const spec = testServiceSpec({ mode: replicas(2) });
    world.createService("web", spec);
    await world.clock.advance(1_000);
    world.updateService("web", { ...spec, mode: replicas(1) });
    await world.clock.advance(100);
    world.updateService("web", { ...spec, mode: replicas(2) });
    await world.clock.advance(20_000);
    expect(slotsOf(world)).toEqual([1, 2]);
    expect([...world.mostRunning.values()]).toEqual([1, 1]);
  });

  test("moves the tasks of a node that is down, at once", async () => {
    const world = worldOf("n1", "n2");
    world.createService("web", testServiceSpec({ mode: replicas(4) }));
    await world.clock.advance(1_000);
    world.dark.add("n1");
    world.setNode("n1", { state: "down" });
    await world.clock.advance(100);
    const up = world.running("web").filter(({ nodeId }) => nodeId === "n2");
    expect(up).toHaveLength(4);
    // The node comes back and hears that its old tasks are to stop.
    world.dark.delete("n1");
    world.setNode("n1", { state: "ready" });
    const old = world.tasks("web").filter(({ nodeId }) => nodeId === "n1");
    expect(old.map(({ desired }) => desired)).toEqual(["shutdown", "shutdown"]);
  });

  test("moves the tasks of a drained node one after the other in each slot", async () => {
    const world = worldOf("n1", "n2");
    world.plan = { ...healthy, stopMs: () => 3_000 };
    world.createService("web", testServiceSpec({ mode: replicas(4) }));
    await world.clock.advance(1_000);
    world.setNode("n1", { spec: { ...world.node("n1").spec, availability: "drain" } });
    await world.clock.advance(2_000);
    expect(world.running("web").filter(({ nodeId }) => nodeId === "n2")).toHaveLength(2);
    await world.clock.advance(2_000);
    expect(world.running("web").map(({ nodeId }) => nodeId)).toEqual(["n2", "n2", "n2", "n2"]);
    expect(Math.max(...world.mostRunning.values())).toBe(1);
  });

  test("leaves tasks alone when only labels, replicas or update settings change", async () => {
    const world = worldOf("n1");
    const spec = testServiceSpec({ mode: replicas(2) });
    world.createService("web", spec);
    await world.clock.advance(1_000);
    const before = world.running("web").map(({ id }) => id);
    world.updateService("web", { ...spec, labels: { a: "b" }, task: testTaskSpec() });
    await world.clock.advance(10_000);
    expect(world.running("web").map(({ id }) => id)).toEqual(before);
    expect(world.service("web").updateStatus).toBeNull();
  });

  test("is gone with all its tasks when its row goes", async () => {
    const world = worldOf("n1", "n2");
    world.createService("web", testServiceSpec({ mode: replicas(5) }));
    await world.clock.advance(1_000);
    world.removeService("web");
    await world.clock.advance(1_000);
    expect(world.tasks("web")).toEqual([]);
    expect(world.loop.isIdle()).toBe(true);
  });

  test("writes nothing when nothing changed", async () => {
    const world = worldOf("n1", "n2");
    world.createService("web", testServiceSpec({ mode: replicas(3) }));
    await world.clock.advance(1_000);
    const entries = world.proposer.entries.length;
    world.loop.stop();
    world.loop.start();
    await world.clock.advance(100_000);
    expect(world.proposer.entries.length).toBe(entries);
  });
});
