/** The allocator on a real store: what it gives, what it says when it cannot, and that no address is ever given twice. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { InstantMs } from "../../lib/clock.ts";
import type { Network } from "../../model/network.ts";
import type { Task } from "../../model/task.ts";
import { isTerminal } from "../../model/task-state.ts";
import { aNetwork, aStatus, aTask, aTaskSpec, instant } from "../../model/testing/rows.ts";
import { createStore } from "../../store/store.ts";
import type { Action, ActionGroup, Committed, Store } from "../../store/types.ts";
import { allocatorController } from "./allocator.ts";

const now: InstantMs = instant(5_000);
const random = {
  below: (): number => expect.fail("the allocator needs no chance"),
  id: (): string => expect.fail("the allocator needs no chance"),
};

function commit(store: Store, ...groups: ActionGroup[]): Committed {
  return store.apply(store.view().index + 1, { proposalId: "p", at: now, groups });
}
function decide(store: Store): readonly ActionGroup[] {
  return allocatorController.reconcile("addresses", store.view(), now, random).groups;
}
function wakes(store: Store, ...groups: ActionGroup[]): boolean {
  const { changes } = commit(store, ...groups);
  return changes.some((c) => [...allocatorController.keysOf(c, store.view())].length > 0);
}
function put(row: Task, expected: number | null): Action {
  return { table: "tasks", kind: "put", row, expect: expected };
}
function putNetwork(row: Network): Action {
  return { table: "networks", kind: "put", row, expect: null };
}
function on(...networks: string[]): Task["spec"] {
  return aTaskSpec({ networks: networks.map((target) => ({ target, aliases: [`at-${target}`] })) });
}
/** A network for five tasks. */
function small(id: string, third: number): Network {
  const over = { vni: 4096 + third, subnet: `10.0.${third}.0/29`, gateway: `10.0.${third}.1` };
  return aNetwork(id, { ...over, cursor: `10.0.${third}.1` });
}
function get(store: Store, id: string): Task {
  return store.view().table("tasks").get(id) ?? expect.fail(`task ${id} is there`);
}
function rewrite(store: Store, id: string, over: Partial<Task>): Action {
  const task = get(store, id);
  return put({ ...task, ...over }, task.meta.version);
}
function addresses(store: Store, id: string): string[] {
  return get(store, id).attachments.map((attachment) => attachment.address);
}

test("a task without networks becomes pending, in a group of its own", () => {
  const store = createStore();
  commit(store, [put(aTask("a"), null), put(aTask("b"), null)]);
  const groups = decide(store);
  expect(groups.map((group) => group.length)).toEqual([1, 1]);
  commit(store, ...groups);
  expect(get(store, "a")).toMatchObject({
    attachments: [],
    status: { state: "pending", message: "pending task scheduling", error: null, at: now },
  });
  expect(decide(store)).toEqual([]);
});

test("a task gets an address, a hardware address and its aliases on each of its networks", () => {
  const store = createStore();
  commit(store, [putNetwork(small("x", 1)), putNetwork(small("y", 2))]);
  commit(store, [put(aTask("t", { spec: on("x", "y", "x") }), null)]);
  commit(store, ...decide(store));
  expect(get(store, "t").attachments).toEqual([
    {
      networkId: "x",
      address: "10.0.1.2",
      prefixLength: 29,
      mac: "02:42:0a:00:01:02",
      aliases: ["at-x"],
    },
    {
      networkId: "y",
      address: "10.0.2.2",
      prefixLength: 29,
      mac: "02:42:0a:00:02:02",
      aliases: ["at-y"],
    },
  ]);
  expect(store.view().table("networks").get("x")?.cursor).toBe("10.0.1.2");
});

test("tasks that share networks, also through a third one, are written in one group; others apart", () => {
  const store = createStore();
  commit(
    store,
    ["w", "x", "y", "z"].map((id, i) => putNetwork(small(id, i))),
  );
  const specs: Record<string, Task["spec"]> = {
    a: on("w"),
    b: on("x"),
    c: on("w", "x"),
    d: on("z"),
    e: on(),
  };
  commit(
    store,
    Object.entries(specs).map(([id, spec]) => put(aTask(id, { spec }), null)),
  );
  const groups = decide(store);
  const ids = groups.map((group) =>
    group
      .map((a) => (a.kind === "put" ? a.row.id : ""))
      .sort()
      .join(""),
  );
  expect(ids.sort()).toEqual(["abcwx", "dz", "e"]);
  expect(commit(store, ...groups).results.every((result) => result.ok)).toBe(true);
});

describe("a full network", () => {
  function full(): Store {
    const store = createStore();
    commit(store, [putNetwork(small("x", 1)), putNetwork(small("y", 2))]);
    for (let i = 0; i < 6; i++) commit(store, [put(aTask(`t${i}`, { spec: on("x") }), null)]);
    commit(store, ...decide(store));
    return store;
  }

  test("leaves a task new, with the reason in its row, written once", () => {
    const store = full();
    expect(get(store, "t5")).toMatchObject({
      attachments: [],
      status: {
        state: "new",
        message: "waiting for an address",
        error: "no free IP in network x (5/5 in use)",
      },
    });
    expect(decide(store)).toEqual([]);
  });

  test("takes nothing from another network for a task that waits", () => {
    const store = full();
    commit(store, [put(aTask("u", { spec: on("y", "x") }), null)]);
    commit(store, ...decide(store));
    expect(get(store, "u").status.error).toBe("no free IP in network x (5/5 in use)");
    expect(store.view().table("networks").get("y")?.cursor).toBe("10.0.2.1");
  });

  test.each<[string, (store: Store) => Action]>([
    ["a task fails", (s) => rewrite(s, "t1", { status: aStatus({ state: "failed" }) })],
    ["a task is orphaned", (s) => rewrite(s, "t1", { status: aStatus({ state: "orphaned" }) })],
    [
      "a task is removed",
      (s) => ({ table: "tasks", kind: "remove", id: "t1", expect: get(s, "t1").meta.version }),
    ],
  ])("is looked at again when %s, and gives its address on", (_name, free) => {
    const store = full();
    expect(wakes(store, [free(store)])).toBe(true);
    commit(store, ...decide(store));
    expect(addresses(store, "t5")).toEqual(["10.0.1.3"]);
    expect(get(store, "t5").status).toMatchObject({ state: "pending", error: null });
  });

  test("is not looked at again for what frees nothing", () => {
    const store = full();
    const running = { status: aStatus({ state: "running" }) };
    expect(wakes(store, [rewrite(store, "t1", running)])).toBe(false);
    const told = { ...get(store, "t5").status, error: "other words" };
    expect(wakes(store, [rewrite(store, "t5", { status: told })])).toBe(false);
  });
});

test("a task that is to go before it has an address gets none; one on a network that is gone says so", () => {
  const store = createStore();
  commit(store, [
    put(aTask("a", { desired: "remove" }), null),
    put(aTask("b", { spec: on("gone") }), null),
  ]);
  commit(store, ...decide(store));
  expect(get(store, "a").status.state).toBe("new");
  expect(get(store, "b").status.error).toBe("network gone does not exist");
});

test.each<[string, number, number, number[]]>([
  ["400 small tasks", 1000, 0, [400, 400, 200]],
  ["half a megabyte of large ones", 12, 100_000, [6, 6, 0]],
])("a decision takes %s, and the next one comes at once", (_name, count, filler, sizes) => {
  const store = createStore();
  commit(store, [putNetwork(aNetwork("n", { subnet: "10.16.0.0/16", gateway: "10.16.0.1" }))]);
  const container = { ...aTaskSpec().container, env: [`A=${"x".repeat(filler)}`] };
  const spec = { ...on("n"), container };
  commit(
    store,
    Array.from({ length: count }, (_, i) => put(aTask(`t${i}`, { spec }), null)),
  );
  const taken: number[] = [];
  for (const size of sizes) {
    const decision = allocatorController.reconcile("addresses", store.view(), now, random);
    expect(decision.lookAgainAt).toBe(taken.length < sizes.length - 1 ? now : null);
    commit(store, ...decision.groups);
    // Beside the tasks, a group writes its network.
    taken.push(decision.groups.reduce((sum, group) => sum + group.length - 1, 0));
    expect(taken.at(-1)).toBe(size);
  }
  const all = [...store.view().table("tasks").all()].flatMap((task) => addresses(store, task.id));
  expect(new Set(all).size).toBe(count);
});

/**
 * Tasks come, end and go at random on three small networks, while two leaders decide on views of different age and
 * their entries arrive late and in any order. At no index do two live tasks share an address, and at the end the loop
 * becomes quiet with every task pending or told why not.
 */
test("no address is given twice, whatever comes, goes and arrives late", () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("create" as const), networks: fc.subarray(["x", "y", "z"]) }),
    fc.record({ kind: fc.constantFrom("end" as const, "remove" as const), which: fc.nat() }),
    fc.record({ kind: fc.constant("decide" as const) }),
    fc.record({ kind: fc.constant("deliver" as const), which: fc.nat() }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const store = createStore();
      commit(
        store,
        ["x", "y", "z"].map((id, i) => putNetwork(small(id, i))),
      );
      const underWay: (readonly ActionGroup[])[] = [];
      let created = 0;
      for (const s of steps) {
        const rows = [...store.view().table("tasks").all()];
        if (s.kind === "create") {
          commit(store, [put(aTask(`t${created++}`, { spec: on(...s.networks) }), null)]);
        } else if (s.kind === "decide") {
          underWay.push(decide(store));
        } else if (s.kind === "deliver") {
          const [groups] = underWay.splice(s.which % Math.max(1, underWay.length), 1);
          if (groups !== undefined) commit(store, ...groups);
        } else {
          const task = rows[s.which % Math.max(1, rows.length)];
          if (task === undefined) continue;
          if (s.kind === "remove") {
            commit(store, [
              { table: "tasks", kind: "remove", id: task.id, expect: task.meta.version },
            ]);
          } else {
            commit(store, [rewrite(store, task.id, { status: aStatus({ state: "complete" }) })]);
          }
        }
        expectUnique(store);
      }
      for (const groups of underWay) commit(store, ...groups);
      commit(store, ...decide(store));
      commit(store, ...decide(store));
      expectUnique(store);
      expect(decide(store)).toEqual([]);
      for (const task of store.view().table("tasks").by("state", "new")) {
        expect(task.status.error).toMatch(/^no free IP in network [xyz] \(5\/5 in use\)$/);
      }
    }),
  );
});

function expectUnique(store: Store): void {
  const seen = new Set<string>();
  for (const task of store.view().table("tasks").all()) {
    if (isTerminal(task.status.state)) continue;
    for (const { networkId, address } of task.attachments) {
      expect(seen.has(`${networkId} ${address}`)).toBe(false);
      seen.add(`${networkId} ${address}`);
    }
  }
}
