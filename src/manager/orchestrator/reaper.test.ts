import { describe, expect, test } from "vitest";
import { testServiceSpec, testTaskSpec } from "../testing/rows.ts";
import { createWorld, healthy, type World } from "../testing/world.ts";
import { orchestratorControllers } from "./controllers.ts";

const second = 1_000;
async function crashing(limit: number, maxAttempts: number | null): Promise<World> {
  const world = createWorld(orchestratorControllers, 1, limit);
  world.addNodes("n1");
  world.plan = { ...healthy, end: () => ({ afterMs: 50, state: "failed" }) };
  const restart = { condition: "any", delayNs: 1e9, maxAttempts, windowNs: null } as const;
  world.createService("web", testServiceSpec({ task: testTaskSpec({ restart }) }));
  await world.clock.advance(20 * second);
  return world;
}

describe("history of a slot", () => {
  test.each([
    ["the limit", 5, null, 5],
    ["one task", 1, null, 1],
    ["attempts and one more", 1, 4, 5],
  ])("keeps %s", async (_what, limit, maxAttempts, count) => {
    const world = await crashing(limit, maxAttempts);
    expect(world.tasks("web")).toHaveLength(count);
  });

  test("keeps everything when the limit is negative", async () => {
    const world = await crashing(-1, null);
    expect(world.tasks("web").length).toBeGreaterThan(10);
  });

  test("is cut when the limit falls", async () => {
    const world = await crashing(5, null);
    const [cluster] = world.store.view().table("clusters").all();
    if (cluster === undefined) throw new Error("no cluster row");
    const { meta, ...row } = cluster;
    const spec = { ...row.spec, taskHistoryLimit: 2 };
    world.proposer.commit([
      { table: "clusters", kind: "put", row: { ...row, spec }, expect: meta.version },
    ]);
    await world.clock.advance(10);
    expect(world.tasks("web")).toHaveLength(2);
  });

  test("deletes the oldest first and never a live task", async () => {
    const world = await crashing(3, null);
    const before = world.tasks("web").map(({ meta }) => meta.createdAt);
    await world.clock.advance(5 * second);
    const now = world.tasks("web");
    expect(Math.min(...now.map(({ meta }) => meta.createdAt))).toBeGreaterThan(Math.min(...before));
    expect(now.filter(({ desired }) => desired === "ready" || desired === "running")).toHaveLength(
      1,
    );
  });
});
