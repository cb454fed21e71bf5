import { describe, expect, test } from "vitest";
import type { InstantMs } from "../lib/clock.ts";
import { silentLog } from "../lib/log.ts";
import { createStore } from "../store/store.ts";
import type { ActionGroup } from "../store/types.ts";
import type { Controller, Decision } from "./controller.ts";
import { type ControllerLoop, createControllerLoop } from "./controller-loop.ts";
import { entriesInFlightMax, groupsPerEntryMax, proposeRetryMs } from "./loop-limits.ts";
import { createTestClock, settle } from "./testing/clock.ts";
import { createTestProposer } from "./testing/proposer.ts";
import { createTestRandom } from "./testing/random.ts";
import { add, change, testNode } from "./testing/rows.ts";

/** A controller over node rows whose decisions a test gives. */
function nodesController(
  decide: (id: string, state: string | null, now: InstantMs, version: number) => Partial<Decision>,
): Controller {
  return {
    name: "nodes",
    *keysOf(changed) {
      if (changed.table === "nodes") yield (changed.after ?? changed.before)?.id ?? "";
    },
    *keysAtStart(view) {
      for (const node of view.table("nodes").all()) yield node.id;
    },
    reconcile(key, view, now) {
      const node = view.table("nodes").get(key);
      const decision = decide(key, node?.stateMessage ?? null, now, node?.meta.version ?? 0);
      return { groups: decision.groups ?? [], lookAgainAt: decision.lookAgainAt ?? null };
    },
  };
}

function setUp(controller: Controller) {
  const clock = createTestClock();
  const store = createStore();
  const proposer = createTestProposer(store, clock);
  const bugs: Error[] = [];
  const loop: ControllerLoop = createControllerLoop({
    store,
    proposer,
    clock,
    random: createTestRandom(),
    log: silentLog,
    controllers: [controller],
    onBug: (error) => bugs.push(error),
  });
  const node = (id: string) => {
    const found = store.view().table("nodes").get(id);
    if (found === undefined) throw new Error(`no node ${id}`);
    return found;
  };
  const mark = (id: string, stateMessage: string): ActionGroup => [
    change("nodes", node(id), { stateMessage }),
  ];
  return { clock, store, proposer, bugs, loop, node, mark };
}

describe("the controller loop", () => {
  test("looks at the keys of a change, and again at what it wrote itself", async () => {
    const looked: (string | null)[] = [];
    const t = setUp(
      nodesController((id, state) => {
        looked.push(state);
        return state === "" ? { groups: [t.mark(id, "seen")] } : {};
      }),
    );
    t.loop.start();
    t.proposer.commit([add("nodes", testNode("n1"))]);
    await t.clock.advance(0);
    expect(looked).toEqual(["", "seen"]);
    expect(t.loop.isIdle()).toBe(true);
  });

  test("puts what is decided in one pass into one entry, within the limit", async () => {
    const t = setUp(
      nodesController((id, state) => (state === "" ? { groups: [t.mark(id, "seen")] } : {})),
    );
    const count = groupsPerEntryMax + 10;
    t.proposer.commit(
      ...Array.from({ length: count }, (_, index) => [add("nodes", testNode(`n${index}`))]),
    );
    t.loop.start();
    await t.clock.advance(0);
    expect(t.proposer.entries.slice(1).map(({ length }) => length)).toEqual([
      groupsPerEntryMax,
      10,
    ]);
  });

  test("does not look at a key whose entry is under way", async () => {
    const looked: string[] = [];
    const t = setUp(
      nodesController((id, state) => {
        looked.push(id);
        return state === "" ? { groups: [t.mark(id, "seen")] } : {};
      }),
    );
    t.proposer.commit([add("nodes", testNode("n1"))], [add("nodes", testNode("n2"))]);
    const waiting: (() => void)[] = [];
    const propose = t.proposer.propose.bind(t.proposer);
    t.proposer.propose = async (groups) => {
      await new Promise<void>((resolve) => waiting.push(resolve));
      return await propose(groups);
    };
    t.loop.start();
    await settle();
    expect(looked).toEqual(["n1", "n2"]);
    // Somebody else writes the row: the key waits for the answer, finds a conflict and is decided anew.
    t.proposer.commit(t.mark("n1", ""));
    await settle();
    expect(looked).toEqual(["n1", "n2"]);
    for (const resolve of waiting.splice(0)) resolve();
    await settle();
    for (const resolve of waiting.splice(0)) resolve();
    await settle();
    expect(t.node("n1").stateMessage).toBe("seen");
    expect(looked.filter((id) => id === "n1")).toHaveLength(3);
    expect(t.loop.isIdle()).toBe(true);
  });

  test("has no more entries under way than its limit", async () => {
    const t = setUp(
      nodesController((id, state) => (state === "" ? { groups: [t.mark(id, "seen")] } : {})),
    );
    let underWay = 0;
    t.proposer.propose = () => {
      underWay += 1;
      return new Promise(() => {});
    };
    t.loop.start();
    for (let index = 0; index < 3 * entriesInFlightMax; index += 1) {
      t.proposer.commit([add("nodes", testNode(`n${index}`))]);
      await settle();
    }
    expect(underWay).toBe(entriesInFlightMax);
    expect(t.loop.isIdle()).toBe(false);
  });

  test("looks again when time has come, and not before", async () => {
    const looked: number[] = [];
    const t = setUp(
      nodesController((_id, _state, now) => {
        looked.push(now);
        return looked.length < 3 ? { lookAgainAt: (now + 1_000) as InstantMs } : {};
      }),
    );
    t.proposer.commit([add("nodes", testNode("n1"))]);
    t.loop.start();
    await t.clock.advance(10_000);
    expect(looked.map((at) => at - (looked[0] ?? 0))).toEqual([0, 1_000, 2_000]);
    expect(t.clock.pending).toBe(0);
  });

  test("decides again when there was no leader to propose to", async () => {
    const t = setUp(
      nodesController((id, state) => (state === "" ? { groups: [t.mark(id, "seen")] } : {})),
    );
    t.proposer.commit([add("nodes", testNode("n1"))]);
    t.proposer.unavailable = true;
    t.loop.start();
    await t.clock.advance(proposeRetryMs / 2);
    expect(t.loop.isIdle()).toBe(false);
    t.proposer.unavailable = false;
    await t.clock.advance(proposeRetryMs);
    expect(t.node("n1").stateMessage).toBe("seen");
  });

  test("drops everything when it stops, and begins anew when it starts", async () => {
    let looks = 0;
    const t = setUp(
      nodesController((_id, _state, now) => {
        looks += 1;
        return { lookAgainAt: (now + 1_000) as InstantMs };
      }),
    );
    t.proposer.commit([add("nodes", testNode("n1"))]);
    t.loop.start();
    await t.clock.advance(0);
    t.loop.stop();
    expect(t.clock.pending).toBe(0);
    t.proposer.commit(t.mark("n1", "changed"));
    await t.clock.advance(5_000);
    expect(looks).toBe(1);
    t.loop.start();
    await t.clock.advance(0);
    expect(looks).toBe(2);
    t.loop.stop();
  });

  test("stops at a controller's bug and names controller, key and index", async () => {
    const t = setUp(
      nodesController(() => {
        throw new Error("boom");
      }),
    );
    t.proposer.commit([add("nodes", testNode("n1"))]);
    t.loop.start();
    await t.clock.advance(0);
    expect(t.bugs.map(({ message }) => message)).toEqual([
      "controller nodes reconciles n1 at index 1: boom",
    ]);
  });
});
