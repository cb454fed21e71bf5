import { describe, expect, test } from "vitest";
import { testDescription, testServiceSpec, testTaskSpec } from "../testing/rows.ts";
import { createWorld, type World } from "../testing/world.ts";
import { orchestratorControllers } from "./controllers.ts";

const second = 1_000;
async function worldOf(task: ReturnType<typeof testTaskSpec>, replicas: number): Promise<World> {
  const world = createWorld(orchestratorControllers);
  world.addNodes("n1", "n2");
  world.createService("web", testServiceSpec({ mode: { kind: "replicated", replicas }, task }));
  await world.clock.advance(second);
  return world;
}

describe("a node that changed", () => {
  test("loses tasks that may not be there any more", async () => {
    const placement = {
      constraints: ["node.labels.bad!=yes"],
      spreadOver: [],
      maxReplicas: 0,
      platforms: [],
    };
    const world = await worldOf(testTaskSpec({ placement }), 2);
    const { spec } = world.node("n1");
    world.setNode("n1", { spec: { ...spec, labels: { bad: "yes" } } });
    await world.clock.advance(0);
    const task = world.tasks("web").find(({ status }) => status.state === "rejected");
    expect(task?.nodeId).toBe("n1");
    expect(task?.status.error).toBe("assigned node no longer meets constraints");
    expect(task?.desired).toBe("shutdown");
  });

  test("loses tasks that no longer fit, oldest kept", async () => {
    const reservations = { nanoCpus: 1e9, memoryBytes: 0 };
    const world = await worldOf(testTaskSpec({ reservations }), 4);
    const resources = { nanoCpus: 1e9, memoryBytes: 1e9 };
    world.setNode("n1", { description: testDescription({ resources, hostname: "n1" }) });
    await world.clock.advance(0);
    const rejected = world.tasks("web").filter(({ status }) => status.state === "rejected");
    expect(rejected.map(({ nodeId }) => nodeId)).toEqual(["n1"]);
  });
});

describe("a node that is lost", () => {
  test("orphans its tasks when it is removed", async () => {
    const world = await worldOf(testTaskSpec(), 2);
    world.loop.stop();
    const { meta } = world.node("n1");
    world.dark.add("n1");
    world.proposer.commit([{ table: "nodes", kind: "remove", id: "n1", expect: meta.version }]);
    world.loop.start();
    await world.clock.advance(second);
    const old = world.tasks("web").filter(({ nodeId }) => nodeId === "n1");
    expect(old.map(({ status }) => status.state)).toEqual(["orphaned"]);
    expect(world.running("web")).toHaveLength(2);
  });

  test("orphans them after a day down, not before", async () => {
    const world = await worldOf(testTaskSpec(), 2);
    world.dark.add("n1");
    world.setNode("n1", { state: "down" });
    const states = (): string[] =>
      world
        .tasks("web")
        .filter(({ nodeId }) => nodeId === "n1")
        .map(({ status }) => status.state);
    await world.clock.advance(23 * 3600 * second);
    expect(states()).toEqual(["running"]);
    await world.clock.advance(3600 * second);
    expect(states()).toEqual(["orphaned"]);
  });
});
