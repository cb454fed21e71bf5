import { describe, expect, test } from "vitest";
import type { ServiceSpec, UpdateConfig } from "../../model/service.ts";
import type { Task } from "../../model/task.ts";
import { change, testServiceSpec, testTaskSpec } from "../testing/rows.ts";
import { createWorld, healthy, type World } from "../testing/world.ts";
import { orchestratorControllers } from "./controllers.ts";

const second = 1_000;
const config = (changed: Partial<UpdateConfig> = {}): UpdateConfig => ({
  parallelism: 1,
  delayNs: 0,
  failureAction: "pause",
  monitorNs: 5e9,
  maxFailureRatio: 0,
  order: "stop-first",
  ...changed,
});
const specOf = (version: number, changed: Partial<ServiceSpec> = {}): ServiceSpec =>
  testServiceSpec({
    mode: { kind: "replicated", replicas: 3 },
    task: testTaskSpec({ forceUpdate: version }),
    ...changed,
  });

async function worldOf(spec: ServiceSpec): Promise<World> {
  const world = createWorld(orchestratorControllers);
  world.addNodes("n1", "n2", "n3");
  world.createService("web", spec);
  await world.clock.advance(second);
  return world;
}
const versions = (world: World): number[] =>
  world
    .running("web")
    .map(({ spec }) => spec.forceUpdate)
    .sort();
const state = (world: World): string => world.service("web").updateStatus?.state ?? "none";
const message = (world: World): string => world.service("web").updateStatus?.message ?? "";
const failsAt = (version: number, afterMs = 200): World["plan"] => ({
  ...healthy,
  end: (task: Task) => (task.spec.forceUpdate === version ? { afterMs, state: "failed" } : null),
});

describe("a rolling update", () => {
  test("goes slot by slot and is complete a monitoring period after the last", async () => {
    const world = await worldOf(specOf(0));
    world.updateService("web", specOf(1));
    await world.clock.advance(30);
    expect(state(world)).toBe("updating");
    expect(message(world)).toBe("update in progress");
    expect(versions(world)).toEqual([0, 0]);
    await world.clock.advance(second);
    expect(versions(world)).toEqual([1, 1, 1]);
    expect(state(world)).toBe("updating");
    await world.clock.advance(5 * second);
    expect(state(world)).toBe("completed");
    expect(message(world)).toBe("update completed");
    expect(Math.max(...world.mostRunning.values())).toBe(1);
    const { updateStatus } = world.service("web");
    expect(updateStatus?.completedAt).not.toBeNull();
  });

  test("with parallelism 0 does all slots at once", async () => {
    const world = await worldOf(specOf(0));
    world.updateService("web", specOf(1, { update: config({ parallelism: 0 }) }));
    await world.clock.advance(10);
    expect(world.tasks("web").filter(({ desired }) => desired === "shutdown")).toHaveLength(3);
  });

  test("waits the delay after each slot", async () => {
    const world = await worldOf(specOf(0));
    world.updateService("web", specOf(1, { update: config({ delayNs: 10e9 }) }));
    await world.clock.advance(9 * second);
    expect(versions(world)).toEqual([0, 0, 1]);
    await world.clock.advance(10 * second);
    expect(versions(world)).toEqual([0, 1, 1]);
    await world.clock.advance(10 * second);
    expect(versions(world)).toEqual([1, 1, 1]);
  });

  test("start-first keeps the old one until the new one runs", async () => {
    const world = await worldOf(specOf(0));
    let fewest = 3;
    world.store.watch(() => {
      fewest = Math.min(fewest, world.running("web").length);
    });
    world.updateService("web", specOf(1, { update: config({ order: "start-first" }) }));
    await world.clock.advance(10 * second);
    expect(versions(world)).toEqual([1, 1, 1]);
    expect(fewest).toBe(3);
    expect(Math.max(...world.mostRunning.values())).toBe(2);
    expect(state(world)).toBe("completed");
  });

  test("goes on under another leader where it was", async () => {
    const world = await worldOf(specOf(0));
    world.updateService("web", specOf(1, { update: config({ delayNs: 10e9 }) }));
    await world.clock.advance(5 * second);
    world.loop.stop();
    world.loop.start();
    await world.clock.advance(second);
    expect(versions(world)).toEqual([0, 0, 1]);
    await world.clock.advance(60 * second);
    expect(versions(world)).toEqual([1, 1, 1]);
    expect(state(world)).toBe("completed");
  });

  test("gives way to a newer one", async () => {
    const world = await worldOf(specOf(0));
    world.updateService("web", specOf(1, { update: config({ delayNs: 10e9 }) }));
    await world.clock.advance(second);
    world.updateService("web", specOf(2));
    await world.clock.advance(20 * second);
    expect(versions(world)).toEqual([2, 2, 2]);
    expect(state(world)).toBe("completed");
  });

  test("does not touch tasks whose node meets a changed placement", async () => {
    const world = await worldOf(specOf(0));
    const before = world.running("web").map(({ id }) => id);
    const placement = {
      constraints: ["node.hostname!=n9"],
      spreadOver: [],
      maxReplicas: 0,
      platforms: [],
    };
    world.updateService("web", specOf(0, { task: { ...specOf(0).task, placement } }));
    await world.clock.advance(10 * second);
    expect(world.running("web").map(({ id }) => id)).toEqual(before);
    const only = { ...placement, constraints: ["node.hostname==n1"] };
    world.updateService("web", specOf(0, { task: { ...specOf(0).task, placement: only } }));
    await world.clock.advance(20 * second);
    expect(world.running("web").filter(({ id }) => before.includes(id))).toHaveLength(1);
  });
});

describe("a failing update", () => {
  test("pauses and leaves the other slots alone", async () => {
    const world = await worldOf(specOf(0));
    world.plan = failsAt(1, 0);
    world.updateService("web", specOf(1));
    await world.clock.advance(60 * second);
    expect(state(world)).toBe("paused");
    expect(message(world)).toMatch(
      /^update paused due to failure or early termination of task [0-9a-z]{25}$/,
    );
    expect(versions(world).filter((version) => version === 0)).toEqual([0, 0]);
  });

  test("rolls back and says how that ended", async () => {
    const update = config({ failureAction: "rollback" });
    const world = await worldOf(specOf(0, { update }));
    world.plan = failsAt(1);
    world.updateService("web", specOf(1, { update }));
    await world.clock.advance(400);
    expect(state(world)).toBe("rollback_started");
    expect(message(world)).toMatch(/^update rolled back due to failure or early termination/);
    await world.clock.advance(20 * second);
    expect(state(world)).toBe("rollback_completed");
    expect(message(world)).toBe("rollback completed");
    expect(versions(world)).toEqual([0, 0, 0]);
    expect(world.service("web").previousSpec).toBeNull();
  });

  test("whose rollback fails is paused, also when the rollback's action says rollback (D4)", async () => {
    const update = config({ failureAction: "rollback" });
    const world = await worldOf(specOf(0, { update, rollback: update }));
    world.plan = {
      ...healthy,
      end: (task) =>
        task.meta.createdAt > 1_700_000_000_500 ? { afterMs: 200, state: "failed" } : null,
    };
    world.updateService("web", specOf(1, { update, rollback: update }));
    await world.clock.advance(20 * second);
    expect(state(world)).toBe("rollback_paused");
    expect(message(world)).toMatch(/^rollback paused due to failure or early termination of task/);
  });

  test("goes on when told to continue, and below the failure ratio", async () => {
    for (const update of [config({ failureAction: "continue" }), config({ maxFailureRatio: 1 })]) {
      const world = await worldOf(specOf(0));
      world.plan = failsAt(1);
      world.updateService("web", specOf(1, { update }));
      await world.clock.advance(60 * second);
      expect(state(world)).toBe("completed");
      const live = world.tasks("web").filter(({ desired }) => desired !== "shutdown");
      expect(live.every(({ spec }) => spec.forceUpdate === 1)).toBe(true);
    }
  });

  test("counts a failure within the monitoring period only", async () => {
    const world = await worldOf(specOf(0));
    world.plan = {
      ...healthy,
      end: (task) =>
        task.spec.forceUpdate === 1 ? { afterMs: 7 * second, state: "failed" } : null,
    };
    world.updateService("web", specOf(1, { update: config({ delayNs: 20e9, monitorNs: 1e9 }) }));
    await world.clock.advance(15 * second);
    // The delay is longer: the monitoring period is a second beyond it, and the failure counts.
    expect(state(world)).toBe("paused");
    const patient = await worldOf(specOf(0));
    patient.plan = world.plan;
    patient.updateService("web", specOf(1));
    await patient.clock.advance(15 * second);
    expect(state(patient)).toBe("completed");
  });

  test("keeps the old tasks of a start-first update that never runs", async () => {
    const world = await worldOf(specOf(0));
    world.plan = {
      ...healthy,
      end: (task) => (task.spec.forceUpdate === 1 ? { afterMs: 0, state: "rejected" } : null),
    };
    world.updateService("web", specOf(1, { update: config({ order: "start-first" }) }));
    await world.clock.advance(60 * second);
    expect(state(world)).toBe("paused");
    expect(versions(world)).toEqual([0, 0, 0]);
  });

  test("rolled back while start-first kept the old tasks: they stay, none is made anew", async () => {
    const update = config({ order: "start-first", failureAction: "rollback", monitorNs: 1e9 });
    const world = await worldOf(specOf(0, { update }));
    const old = world.running("web").map(({ id }) => id);
    world.plan = {
      ...healthy,
      end: (task) => (task.spec.forceUpdate === 1 ? { afterMs: 0, state: "rejected" } : null),
    };
    world.updateService("web", specOf(1, { update }));
    await world.clock.advance(20 * second);
    expect(state(world)).toBe("rollback_completed");
    expect(world.running("web").map(({ id }) => id)).toEqual(old);
    expect(world.tasks("web").filter(({ desired }) => desired === "running")).toHaveLength(3);
  });

  test("ends also when a task neither runs nor fails (D10)", async () => {
    const update = config({ failureAction: "rollback" });
    const world = await worldOf(specOf(0, { update }));
    world.plan = {
      ...healthy,
      startMs: (task) => (task.spec.forceUpdate === 1 ? null : 50),
    };
    world.updateService("web", specOf(1, { update }));
    await world.clock.advance(599 * second);
    expect(state(world)).toBe("updating");
    await world.clock.advance(30 * second);
    expect(state(world)).toBe("rollback_completed");
    expect(versions(world)).toEqual([0, 0, 0]);
  });
});

test("a slot that was drained, and that its policy does not fill again, holds no update up", async () => {
  const restart = { condition: "none" as const, delayNs: 0, maxAttempts: 0, windowNs: 0 };
  const task = (version: number) => testTaskSpec({ forceUpdate: version, restart });
  const world = await worldOf(specOf(0, { task: task(0) }));
  world.plan = {
    ...healthy,
    startMs: ({ slot, spec }) => (slot === 1 && spec.forceUpdate === 1 ? null : 50),
  };
  world.updateService("web", specOf(1, { task: task(1) }));
  await world.clock.advance(200);
  const stuck = world.tasks("web").find((one) => one.slot === 1 && one.desired === "running");
  const node = world.node(stuck?.nodeId ?? "");
  world.setNode(node.id, { spec: { ...node.spec, availability: "drain" } });
  await world.clock.advance(30 * second);
  expect(state(world)).toBe("completed");
});

describe("a rollback asked for", () => {
  test("runs with the rollback settings to its end", async () => {
    const world = await worldOf(specOf(0));
    world.updateService("web", specOf(1));
    await world.clock.advance(20 * second);
    const service = world.service("web");
    world.proposer.commit([
      change("services", service, {
        spec: specOf(0),
        specVersion: -1,
        previousSpec: service.spec,
        previousSpecVersion: service.specVersion,
        updateStatus: {
          state: "rollback_started",
          message: "manually requested rollback",
          startedAt: world.clock.now(),
          completedAt: null,
        },
      }),
    ]);
    await world.clock.advance(20 * second);
    expect(state(world)).toBe("rollback_completed");
    expect(versions(world)).toEqual([0, 0, 0]);
  });
});
