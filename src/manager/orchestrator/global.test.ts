import { describe, expect, test } from "vitest";
import type { Availability } from "../../model/node.ts";
import { testServiceSpec, testTaskSpec } from "../testing/rows.ts";
import { createWorld, healthy, type World } from "../testing/world.ts";
import { orchestratorControllers } from "./controllers.ts";

const second = 1_000;
async function worldOf(constraints: readonly string[] = []): Promise<World> {
  const world = createWorld(orchestratorControllers);
  world.addNodes("n1", "n2", "n3");
  const placement = { constraints, spreadOver: [], maxReplicas: 0, platforms: [] };
  world.createService(
    "web",
    testServiceSpec({ mode: { kind: "global" }, task: testTaskSpec({ placement }) }),
  );
  await world.clock.advance(second);
  return world;
}
const nodes = (world: World): (string | null)[] =>
  world
    .running("web")
    .map(({ nodeId }) => nodeId)
    .sort();
function setAvailability(world: World, id: string, availability: Availability): void {
  world.setNode(id, { spec: { ...world.node(id).spec, availability } });
}

describe("a global service", () => {
  test("has a task on each node, and on each that joins", async () => {
    const world = await worldOf();
    expect(nodes(world)).toEqual(["n1", "n2", "n3"]);
    world.addNodes("n4");
    await world.clock.advance(second);
    expect(nodes(world)).toEqual(["n1", "n2", "n3", "n4"]);
  });

  test("keeps to its constraints, also when a label changes", async () => {
    const world = await worldOf(["node.labels.kind==good"]);
    expect(nodes(world)).toEqual([]);
    const { spec } = world.node("n2");
    world.setNode("n2", { spec: { ...spec, labels: { kind: "good" } } });
    await world.clock.advance(second);
    expect(nodes(world)).toEqual(["n2"]);
    world.setNode("n2", { spec });
    await world.clock.advance(second);
    expect(nodes(world)).toEqual([]);
  });

  test("leaves a drained node and comes back to it", async () => {
    const world = await worldOf();
    setAvailability(world, "n1", "drain");
    await world.clock.advance(second);
    expect(nodes(world)).toEqual(["n2", "n3"]);
    setAvailability(world, "n1", "active");
    await world.clock.advance(second);
    expect(nodes(world)).toEqual(["n1", "n2", "n3"]);
  });

  test("keeps what a paused node has, and replaces nothing there until it is active", async () => {
    const world = await worldOf();
    setAvailability(world, "n1", "pause");
    await world.clock.advance(second);
    expect(nodes(world)).toEqual(["n1", "n2", "n3"]);
    const before = world.running("web").find(({ nodeId }) => nodeId === "n1")?.id;
    world.updateService(
      "web",
      testServiceSpec({ mode: { kind: "global" }, task: testTaskSpec({ forceUpdate: 1 }) }),
    );
    await world.clock.advance(20 * second);
    const task = world.running("web").find(({ nodeId }) => nodeId === "n1");
    expect(task?.id).toBe(before);
    expect(world.service("web").updateStatus?.state).toBe("completed");
    setAvailability(world, "n1", "active");
    await world.clock.advance(20 * second);
    expect(world.running("web").every(({ spec }) => spec.forceUpdate === 1)).toBe(true);
  });

  test("gets a new task on a node that was down, once the old one stopped", async () => {
    const world = await worldOf();
    world.plan = { ...healthy, stopMs: () => 500 };
    world.dark.add("n1");
    world.setNode("n1", { state: "down" });
    await world.clock.advance(second);
    world.dark.delete("n1");
    world.setNode("n1", { state: "ready" });
    const old = world.tasks("web").find(({ nodeId }) => nodeId === "n1");
    expect(old?.desired).toBe("shutdown");
    await world.clock.advance(100);
    const next = world.tasks("web").find(({ nodeId, id }) => nodeId === "n1" && id !== old?.id);
    expect([next?.desired, next?.waitsFor]).toEqual(["ready", old?.id]);
  });

  test("loses the tasks of a node that is removed", async () => {
    const world = await worldOf();
    const { meta } = world.node("n1");
    world.dark.add("n1");
    world.proposer.commit([{ table: "nodes", kind: "remove", id: "n1", expect: meta.version }]);
    await world.clock.advance(second);
    expect(world.tasks("web").map(({ nodeId }) => nodeId)).not.toContain("n1");
    expect(world.loop.isIdle()).toBe(true);
  });

  test("restarts a failed task on its own node after the delay", async () => {
    const world = await worldOf();
    const first = world.running("web").map(({ id }) => id);
    world.plan = {
      ...healthy,
      end: ({ id, nodeId }) =>
        nodeId === "n2" && first.includes(id) ? { afterMs: 10, state: "failed" } : null,
    };
    // Any change of a task makes its node look again.
    setAvailability(world, "n3", "pause");
    const task = world.running("web").find(({ nodeId }) => nodeId === "n2");
    if (task !== undefined) {
      const { meta, ...row } = task;
      const status = { ...row.status, state: "failed" as const, appliedAt: world.clock.now() };
      world.proposer.commit([
        { table: "tasks", kind: "put", row: { ...row, status }, expect: meta.version },
      ]);
    }
    await world.clock.advance(4 * second);
    expect(nodes(world)).toEqual(["n1", "n3"]);
    await world.clock.advance(2 * second);
    expect(nodes(world)).toEqual(["n1", "n2", "n3"]);
  });
});
