// Goal: from any state the loop comes to rest with what was wanted, never runs a slot twice, and never takes a desired
// state back. Method: random commands against a real store and loop with simulated nodes; then everything is healed.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { ServiceSpec, UpdateConfig } from "../../model/service.ts";
import { rankOf } from "../../model/task-state.ts";
import { testServiceSpec, testTaskSpec } from "../testing/rows.ts";
import { createWorld, healthy, type World } from "../testing/world.ts";
import { orchestratorControllers } from "./controllers.ts";

/** An image that never runs. */
const broken = 3;
type Command =
  | { readonly kind: "scale"; readonly replicas: number }
  | { readonly kind: "update"; readonly image: number; readonly update: UpdateConfig }
  | {
      readonly kind: "node";
      readonly node: number;
      readonly to: "down" | "ready" | "drain" | "active" | "pause";
    }
  | { readonly kind: "crash"; readonly share: number }
  | { readonly kind: "new leader" }
  | { readonly kind: "no leader"; readonly ms: number }
  | { readonly kind: "wait"; readonly ms: number };

const update: fc.Arbitrary<UpdateConfig> = fc.record({
  parallelism: fc.integer({ min: 0, max: 3 }),
  delayNs: fc.constantFrom(0, 1e9),
  failureAction: fc.constantFrom("pause", "continue", "rollback"),
  monitorNs: fc.constantFrom(0, 1e9, 5e9),
  maxFailureRatio: fc.constantFrom(0, 0.5),
  order: fc.constantFrom("stop-first", "start-first"),
});
const command: fc.Arbitrary<Command> = fc.oneof(
  fc.record({ kind: fc.constant("scale" as const), replicas: fc.integer({ min: 0, max: 8 }) }),
  fc.record({
    kind: fc.constant("update" as const),
    image: fc.integer({ min: 0, max: 3 }),
    update,
  }),
  fc.record({
    kind: fc.constant("node" as const),
    node: fc.integer({ min: 1, max: 3 }),
    to: fc.constantFrom("down", "ready", "drain", "active", "pause"),
  }),
  fc.record({ kind: fc.constant("crash" as const), share: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ kind: fc.constant("new leader" as const) }),
  fc.record({ kind: fc.constant("no leader" as const), ms: fc.integer({ min: 1, max: 3_000 }) }),
  fc.record({ kind: fc.constant("wait" as const), ms: fc.integer({ min: 0, max: 8_000 }) }),
);

async function run(world: World, one: Command): Promise<void> {
  const spec = world.service("web").spec;
  if (one.kind === "scale" && spec.mode.kind === "replicated") {
    world.updateService("web", { ...spec, mode: { kind: "replicated", replicas: one.replicas } });
  } else if (one.kind === "update") {
    const task = testTaskSpec({ forceUpdate: one.image });
    world.updateService("web", { ...spec, task, update: one.update, rollback: one.update });
  } else if (one.kind === "node") {
    setNode(world, `n${one.node}`, one.to);
  } else if (one.kind === "crash") {
    crash(world, one.share);
  } else if (one.kind === "new leader") {
    world.loop.stop();
    world.loop.start();
  } else if (one.kind === "no leader") {
    world.proposer.unavailable = true;
    await world.clock.advance(one.ms);
    world.proposer.unavailable = false;
  } else if (one.kind === "wait") {
    await world.clock.advance(one.ms);
  }
}

function setNode(
  world: World,
  id: string,
  to: "down" | "ready" | "drain" | "active" | "pause",
): void {
  if (to === "down" || to === "ready") {
    if (to === "down") world.dark.add(id);
    if (world.node(id).state !== to) world.setNode(id, { state: to });
    if (to === "ready") world.relight(id);
  } else {
    world.setNode(id, { spec: { ...world.node(id).spec, availability: to } });
  }
}

function crash(world: World, share: number): void {
  for (const [index, task] of world.running("web").entries()) {
    if (index % share !== 0 || world.dark.has(task.nodeId ?? "")) continue;
    const { meta, ...row } = task;
    const now = world.clock.now();
    const status = { ...row.status, state: "failed", at: now, appliedAt: now } as const;
    world.proposer.commit([
      { table: "tasks", kind: "put", row: { ...row, status }, expect: meta.version },
    ]);
  }
}

function watchDesired(world: World): string[] {
  const wrong: string[] = [];
  world.store.watch(({ changes }) => {
    for (const { table, before, after } of changes) {
      if (table !== "tasks" || before === null || after === null) continue;
      if (rankOf(after.desired) < rankOf(before.desired))
        wrong.push(`${after.id}: ${before.desired} to ${after.desired}`);
      if (rankOf(after.status.state) < rankOf(before.status.state))
        wrong.push(`${after.id} went back`);
    }
  });
  return wrong;
}

async function heal(world: World): Promise<void> {
  for (const id of ["n1", "n2", "n3"]) {
    setNode(world, id, "ready");
    setNode(world, id, "active");
  }
  await world.clock.advance(1_200_000);
}

function wanted(spec: ServiceSpec): number {
  return spec.mode.kind === "replicated" ? spec.mode.replicas : 3;
}

function expectAtRest(world: World, isPaused: boolean): void {
  const { spec, updateStatus } = world.service("web");
  const running = world.running("web");
  const live = running.filter(({ desired }) => desired === "running");
  expect(live).toHaveLength(wanted(spec));
  expect(running).toHaveLength(live.length);
  const places = new Set(live.map(({ slot, nodeId }) => (slot > 0 ? slot : nodeId)));
  expect(places.size).toBe(live.length);
  if (isPaused) return;
  expect(live.every((task) => task.spec.forceUpdate === spec.task.forceUpdate)).toBe(true);
  expect(["none", "completed", "rollback_completed"]).toContain(updateStatus?.state ?? "none");
}

test.each(["replicated", "global"] as const)(
  "a %s service comes to rest as it is wanted, whatever happened",
  async (kind) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(command, { maxLength: 14 }),
        fc.integer(),
        async (commands, seed) => {
          const world = createWorld(orchestratorControllers, seed);
          world.plan = {
            ...healthy,
            stopMs: () => 700,
            end: (task) =>
              task.spec.forceUpdate === broken ? { afterMs: 0, state: "failed" } : null,
          };
          const wrong = watchDesired(world);
          world.addNodes("n1", "n2", "n3");
          const mode = kind === "global" ? ({ kind } as const) : ({ kind, replicas: 3 } as const);
          world.createService("web", testServiceSpec({ mode }));
          for (const one of commands) await run(world, one);
          await heal(world);

          const { spec, updateStatus } = world.service("web");
          const isPaused =
            updateStatus?.state === "paused" || updateStatus?.state === "rollback_paused";
          const triedBroken = commands.some((one) => one.kind === "update" && one.image === broken);
          const isBroken = spec.task.forceUpdate === broken || (isPaused && triedBroken);
          if (!isBroken) expectAtRest(world, isPaused);
          expect(wrong).toEqual([]);
          const startsFirst = commands.some(
            (one) => one.kind === "update" && one.update.order === "start-first",
          );
          // A node that was called down but came back still runs what was replaced; without one, the order holds.
          const wasDown = commands.some((one) => one.kind === "node" && one.to === "down");
          if (!wasDown) {
            expect(Math.max(0, ...world.mostRunning.values())).toBeLessThanOrEqual(
              startsFirst ? 2 : 1,
            );
          }
          if (isBroken) return;
          // At rest: nothing is written any more, not even by a new leader.
          expect(world.loop.isIdle()).toBe(true);
          const entries = world.proposer.entries.length;
          world.loop.stop();
          world.loop.start();
          await world.clock.advance(60_000);
          expect(world.proposer.entries.length).toBe(entries);
        },
      ),
      { numRuns: 80 },
    );
  },
  60_000,
);
