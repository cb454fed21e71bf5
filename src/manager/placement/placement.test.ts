/** Placement on a real store: what it writes, when it wakes, and that it becomes quiet. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Node } from "../../model/node.ts";
import type { Task } from "../../model/task.ts";
import { aNode, aStatus, aTask, aTaskSpec, instant } from "../../model/testing/rows.ts";
import { failureMemoryMs } from "../../scheduler/node-view.ts";
import { createStore } from "../../store/store.ts";
import type { Action, ActionGroup, Committed, Store } from "../../store/types.ts";
import { explainTask } from "./explain-task.ts";
import { nodeViews } from "./node-views.ts";
import { placementController } from "./placement.ts";

const now = instant(60_000);
const random = {
  below: (): number => expect.fail("placement needs no chance"),
  id: (): string => expect.fail("placement needs no chance"),
};

function commit(store: Store, ...groups: ActionGroup[]): Committed {
  return store.apply(store.view().index + 1, { proposalId: "p", at: now, groups });
}
function decide(store: Store): readonly ActionGroup[] {
  return placementController.reconcile("placement", store.view(), now, random).groups;
}
function wakes(store: Store, action: Action): boolean {
  const { results, changes } = commit(store, [action]);
  expect(results).toEqual([{ ok: true }]);
  return changes.some((c) => [...placementController.keysOf(c, store.view())].length > 0);
}
function putTask(row: Task, expected: number | null = null): Action {
  return { table: "tasks", kind: "put", row, expect: expected };
}
function putNode(row: Node, expected: number | null = null): Action {
  return { table: "nodes", kind: "put", row, expect: expected };
}
function pending(id: string, over: Partial<Task> = {}): Task {
  return aTask(id, { status: aStatus({ state: "pending" }), ...over });
}
function task(store: Store, id: string): Task {
  return store.view().table("tasks").get(id) ?? expect.fail(`task ${id} is there`);
}
const picky = aTaskSpec({
  placement: { constraints: ["node.labels.a==b"], spreadOver: [], maxReplicas: 0, platforms: [] },
});

test("a pending task goes to a node, in a group of its own", () => {
  const store = createStore();
  commit(store, [
    putNode(aNode("n")),
    putTask(pending("a")),
    putTask(pending("b", { desired: "ready" })),
  ]);
  const groups = decide(store);
  expect(groups.map((group) => group.length)).toEqual([1, 1]);
  commit(store, ...groups);
  expect(task(store, "a")).toMatchObject({
    nodeId: "n",
    status: { state: "assigned", message: "scheduler assigned task to node", error: null, at: now },
  });
  expect(task(store, "b").nodeId).toBe("n");
  expect(decide(store)).toEqual([]);
});

test("a task of a global service is held against its node alone", () => {
  const store = createStore();
  commit(store, [
    putNode(aNode("n")),
    putNode(aNode("p", { spec: { ...aNode("p").spec, availability: "pause" } })),
    putTask(pending("a", { slot: 0, nodeId: "n" })),
    putTask(pending("b", { slot: 0, nodeId: "p" })),
  ]);
  commit(store, ...decide(store));
  expect(task(store, "a").status).toMatchObject({
    state: "assigned",
    message: "scheduler confirmed task can run on preassigned node",
  });
  expect(task(store, "b").status).toMatchObject({
    state: "pending",
    error: "1 node not available for new tasks",
  });
});

test("a task that fits nowhere is told why, once, and keeps since when", () => {
  const store = createStore();
  commit(store, [putNode(aNode("n")), putTask(pending("a", { spec: picky }))]);
  commit(store, ...decide(store));
  expect(task(store, "a").status).toMatchObject({
    state: "pending",
    message: "pending task scheduling",
    error: "no suitable node (scheduling constraints not satisfied on 1 node)",
    at: 0,
    appliedAt: now,
  });
  expect(decide(store)).toEqual([]);
});

test.each<[string, Partial<Task>]>([
  ["to be removed", { desired: "remove" }],
  ["to be shut down", { desired: "shutdown" }],
  ["without an address yet", { status: aStatus({ state: "new" }) }],
])("a task %s is left alone", (_name, over) => {
  const store = createStore();
  commit(store, [putNode(aNode("n")), putTask(pending("a", over))]);
  expect(decide(store)).toEqual([]);
});

test("who waited longest comes first when there is room for one", () => {
  const store = createStore();
  const spec = aTaskSpec({ reservations: { nanoCpus: 3e9, memoryBytes: 0 } });
  commit(store, [putNode(aNode("n"))]);
  store.apply(2, { proposalId: "p", at: instant(10), groups: [[putTask(pending("z", { spec }))]] });
  const later = pending("a", { spec, serviceId: "other" });
  store.apply(3, { proposalId: "p", at: instant(20), groups: [[putTask(later)]] });
  commit(store, ...decide(store));
  expect([task(store, "z").nodeId, task(store, "a").nodeId]).toEqual(["n", null]);
});

describe("placement wakes", () => {
  function waitingStore(): Store {
    const store = createStore();
    const running = aTask("r", { nodeId: "n", status: aStatus({ state: "running" }) });
    commit(store, [putNode(aNode("n")), putTask(pending("w", { spec: picky })), putTask(running)]);
    commit(store, ...decide(store));
    return store;
  }
  const again = (store: Store, id: string, over: Partial<Task>): Action => {
    const row = task(store, id);
    return putTask({ ...row, ...over }, row.meta.version);
  };
  test.each<[string, boolean, (store: Store) => Action]>([
    ["when a task becomes pending", true, () => putTask(pending("x"))],
    ["when a task ends", true, (s) => again(s, "r", { status: aStatus({ state: "failed" }) })],
    ["when a task is to stop", true, (s) => again(s, "r", { desired: "shutdown" })],
    [
      "when a task is gone",
      true,
      (s) => ({ table: "tasks", kind: "remove", id: "r", expect: task(s, "r").meta.version }),
    ],
    ["when a node comes", true, () => putNode(aNode("m"))],
    ["when a node changes", true, () => putNode(aNode("n", { state: "down" }), 1)],
    [
      "not when a waiting task is told why",
      false,
      (s) => again(s, "w", { status: aStatus({ state: "pending", error: "x" }) }),
    ],
    [
      "not when a task comes on",
      false,
      (s) => again(s, "r", { status: aStatus({ state: "running", pid: 7 }) }),
    ],
    ["not when a task is made", false, () => putTask(aTask("x"))],
  ])("%s: %s", (_name, expected, change) => {
    const store = waitingStore();
    expect(wakes(store, change(store))).toBe(expected);
  });

  test("for nothing when no task waits", () => {
    const store = createStore();
    expect(wakes(store, putNode(aNode("n")))).toBe(false);
  });
});

test("what is remembered of a node gives way when its tasks change or a failure is old enough to forget", () => {
  const store = createStore();
  const failed = Array.from({ length: 5 }, (_, i) => {
    const status = aStatus({ state: "failed", appliedAt: instant(0) });
    return putTask(aTask(`f${i}`, { nodeId: "a", status }));
  });
  commit(store, [putNode(aNode("a")), putNode(aNode("b")), ...failed]);
  const at = (ms: number): readonly number[] =>
    nodeViews(store.view(), instant(ms)).map((view) => view.failuresOf.get("service/1") ?? 0);
  const first = nodeViews(store.view(), instant(1));
  expect(at(1)).toEqual([5, 0]);
  expect(nodeViews(store.view(), instant(2))[0]).toBe(first[0]);
  expect(at(failureMemoryMs)).toEqual([0, 0]);
  commit(store, [putTask(pending("t"))]);
  expect(nodeViews(store.view(), now)[1]).toBe(first[1]);
  commit(store, ...decide(store));
  expect(nodeViews(store.view(), now).map((view) => view.activeTasks)).toEqual([0, 1]);
});

describe("explainTask", () => {
  const cases: readonly (readonly [string, Partial<Task>, string, number])[] = [
    ["new", { status: aStatus() }, "waiting for the allocator to give it addresses", 2],
    [
      "new and told why",
      { status: aStatus({ message: "waiting for an address", error: "no free IP" }) },
      "waiting for an address: no free IP",
      2,
    ],
    [
      "pending and told why",
      {
        status: aStatus({
          state: "pending",
          message: "pending task scheduling",
          error: "no suitable node",
        }),
      },
      "pending task scheduling: no suitable node",
      2,
    ],
    [
      "running",
      { nodeId: "n", status: aStatus({ state: "running", message: "started" }) },
      "on node n: started",
      2,
    ],
    [
      "delayed",
      {
        nodeId: "n",
        desired: "ready",
        startNotBefore: instant(now + 2500),
        status: aStatus({ state: "ready" }),
      },
      "on node n: starts in 2.5 s (restart delay)",
      2,
    ],
    [
      "in line",
      { nodeId: "n", desired: "ready", waitsFor: "old", status: aStatus({ state: "ready" }) },
      "on node n: starts when task old has stopped",
      2,
    ],
    [
      "stopping",
      { nodeId: "n", desired: "shutdown", status: aStatus({ state: "running" }) },
      "on node n: running, and is to stop (shutdown)",
      2,
    ],
    [
      "failed",
      { nodeId: "n", status: aStatus({ state: "failed", error: "exit 1" }) },
      "the task is over (failed): exit 1",
      0,
    ],
  ];
  test.each(cases)("of a task that is %s", (_name, over, reason, nodes) => {
    const store = createStore();
    commit(store, [
      putNode(aNode("n")),
      putNode(aNode("m", { state: "down" })),
      putTask(aTask("t", over)),
    ]);
    const explained = explainTask(store.view(), task(store, "t"), now);
    expect(explained).toMatchObject({ reason, since: 0 });
    expect(explained.nodes).toHaveLength(nodes);
    // Its own weight does not speak against the node it is on.
    if (nodes > 0) expect(explained.nodes[0]?.reason).toContain("0 other tasks of this service");
  });
});

test("from any state placement becomes quiet after one round, with equal nodes level", () => {
  const shape = fc.record({
    nodes: fc.integer({ min: 1, max: 6 }),
    tasks: fc.array(fc.tuple(fc.nat(2), fc.constantFrom("pending", "new", "failed" as const)), {
      maxLength: 40,
    }),
  });
  fc.assert(
    fc.property(shape, ({ nodes, tasks }) => {
      const store = createStore();
      commit(
        store,
        Array.from({ length: nodes }, (_, i) => putNode(aNode(`n${i}`))),
      );
      commit(
        store,
        tasks.map(([service, state], i) =>
          putTask(
            aTask(`t${i}`, {
              serviceId: `s${service}`,
              status: aStatus({ state: state as "new" }),
            }),
          ),
        ),
      );
      const { results } = commit(store, ...decide(store));
      expect(results.every((result) => result.ok)).toBe(true);
      expect(decide(store)).toEqual([]);
      expect([...store.view().table("tasks").by("state", "pending")]).toEqual([]);
      const assigned = [...store.view().table("tasks").by("state", "assigned")];
      for (const service of ["s0", "s1", "s2"]) {
        const given = Array.from(
          { length: nodes },
          (_, i) => assigned.filter((t) => t.nodeId === `n${i}` && t.serviceId === service).length,
        );
        expect(Math.max(...given) - Math.min(...given)).toBeLessThanOrEqual(1);
      }
    }),
  );
});
