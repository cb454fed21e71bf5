/** The store's promises: versions, groups, unique names, order, watching, snapshots; each on a small history. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Stored } from "../model/stored.ts";
import {
  aNetwork,
  aNode,
  aService,
  aServiceSpec,
  aTask,
  aTaskSpec,
  instant,
} from "../model/testing/rows.ts";
import { createStore } from "./store.ts";
import { tableNames } from "./tables.ts";
import type { Action, ActionGroup, Change, Committed, EntryBody, Store } from "./types.ts";

function body(...groups: ActionGroup[]): EntryBody {
  return { proposalId: "p", at: instant(1000), groups };
}
function putTask(
  id: string,
  expected: number | null,
  over: Parameters<typeof aTask>[1] = {},
): Action {
  return { table: "tasks", kind: "put", row: aTask(id, over), expect: expected };
}
function putService(id: string, name: string, expected: number | null): Action {
  const row = aService(id, { spec: aServiceSpec(name), specVersion: -1 });
  return { table: "services", kind: "put", row, expect: expected };
}
function ids(rows: Iterable<{ readonly id: string }>): string[] {
  return [...rows].map((row) => row.id);
}

describe("versions", () => {
  test("a row carries the index and the time of its write, and keeps when it was created", () => {
    const store = createStore();
    store.apply(3, body([putTask("t", null)]));
    store.apply(9, { ...body([putTask("t", 3)]), at: instant(2000) });
    expect(store.view().table("tasks").get("t")?.meta).toEqual({
      version: 9,
      createdAt: 1000,
      updatedAt: 2000,
    });
  });

  test.each<[string, Action, string]>([
    ["put of a new row that exists", putTask("t", null), "exists"],
    ["put with an older version", putTask("t", 2), "stale"],
    ["put of a row that is gone", putTask("gone", 3), "missing"],
    [
      "remove with an older version",
      { table: "tasks", kind: "remove", id: "t", expect: 2 },
      "stale",
    ],
    [
      "remove of a row that is gone",
      { table: "tasks", kind: "remove", id: "x", expect: 3 },
      "missing",
    ],
    ["check of an older version", { table: "tasks", kind: "check", id: "t", expect: 2 }, "stale"],
    [
      "check of a row that is gone",
      { table: "tasks", kind: "check", id: "x", expect: 3 },
      "missing",
    ],
  ])("%s rejects its whole group and no other", (_name, action, reason) => {
    const store = createStore();
    store.apply(3, body([putTask("t", null)]));
    const before = store.digest();
    const { results, changes } = store.apply(
      4,
      body([putTask("new", null), putTask("t", 3, { slot: 7 }), action]),
    );
    expect(results[0]?.ok).toBe(false);
    expect(changes).toEqual([]);
    expect(store.digest()).toBe(before);
    const second = store.apply(5, body([putTask("other", null), action], [putTask("new", null)]));
    expect(second.results).toMatchObject([{ ok: false, reason, table: "tasks" }, { ok: true }]);
    expect(ids(store.view().table("tasks").all())).toEqual(["new", "t"]);
  });

  test("a later group of an entry sees what an earlier one did", () => {
    const store = createStore();
    store.apply(1, body([putTask("t", null)]));
    const { results } = store.apply(
      2,
      body([putTask("t", 1)], [putTask("t", 1)], [putTask("t", 2)]),
    );
    expect(results).toMatchObject([{ ok: true }, { ok: false, reason: "stale" }, { ok: true }]);
  });

  test("a service put with spec version -1 gets the index; another put keeps what it says", () => {
    const store = createStore();
    store.apply(5, body([putService("s", "web", null)]));
    const made = store.view().table("services").get("s");
    expect(made?.specVersion).toBe(5);
    store.apply(
      6,
      body([{ table: "services", kind: "put", row: { ...made } as never, expect: 5 }]),
    );
    expect(store.view().table("services").get("s")).toMatchObject({
      specVersion: 5,
      meta: { version: 6 },
    });
  });
});

describe("names", () => {
  test("are unique whatever their case, within an entry too", () => {
    const store = createStore();
    const { results } = store.apply(
      1,
      body([putService("a", "Web", null)], [putService("b", "wEB", null)]),
    );
    expect(results).toEqual([
      { ok: true },
      { ok: false, reason: "name-taken", table: "services", id: "b" },
    ]);
    const network = aNetwork("n", { spec: { ...aNetwork("n").spec, name: "WEB" } });
    const other = store.apply(
      2,
      body([{ table: "networks", kind: "put", row: network, expect: null }]),
    );
    expect(other.results).toEqual([{ ok: true }]);
    expect(ids(store.view().table("services").by("name", "web"))).toEqual(["a"]);
    expect(ids(store.view().table("networks").by("name", "web"))).toEqual(["n"]);
  });

  test("are free again once their row is gone, and a row may keep its own", () => {
    const store = createStore();
    store.apply(1, body([putService("a", "web", null)]));
    expect(store.apply(2, body([putService("a", "WEB", 1)])).results).toEqual([{ ok: true }]);
    store.apply(3, body([{ table: "services", kind: "remove", id: "a", expect: 2 }]));
    expect(store.apply(4, body([putService("b", "web", null)])).results).toEqual([{ ok: true }]);
  });

  test("of networks aside, two with one VNI or one subnet were planned from one view: the second is stale", () => {
    const store = createStore();
    const put = (id: string, vni: number, subnet: string): ActionGroup => [
      { table: "networks", kind: "put", row: aNetwork(id, { vni, subnet }), expect: null },
    ];
    const { results } = store.apply(
      1,
      body(
        put("a", 4096, "10.0.0.0/24"),
        put("b", 4096, "10.0.1.0/24"),
        put("c", 4097, "10.0.0.0/24"),
        put("d", 4097, "10.0.1.0/24"),
      ),
    );
    expect(results).toMatchObject([
      { ok: true },
      { ok: false, reason: "stale", id: "b" },
      { ok: false, reason: "stale", id: "c" },
      { ok: true },
    ]);
  });

  test("of nodes may repeat", () => {
    const store = createStore();
    const groups = ["a", "b"].map((id): ActionGroup => {
      const row = aNode(id, { description: { ...aNode("Same").description } as never });
      return [{ table: "nodes", kind: "put", row, expect: null }];
    });
    expect(store.apply(1, body(...groups)).results).toEqual([{ ok: true }, { ok: true }]);
    expect(ids(store.view().table("nodes").by("hostname", "same"))).toEqual(["a", "b"]);
  });
});

describe("views", () => {
  test("find tasks by service, node, slot, network and the task they wait for", () => {
    const store = createStore();
    const spec = aTaskSpec({ networks: [{ target: "net", aliases: [] }] });
    const attachment = { networkId: "old", address: "", prefixLength: 24, mac: "", aliases: [] };
    store.apply(
      1,
      body([
        putTask("c", null, { serviceId: "s", slot: 2, nodeId: "n1", spec }),
        putTask("a", null, { serviceId: "s", slot: 0, nodeId: "n1", attachments: [attachment] }),
        putTask("b", null, { serviceId: "s", slot: 2, waitsFor: "c" }),
      ]),
    );
    const tasks = store.view().table("tasks");
    expect(ids(tasks.by("service", "s"))).toEqual(["a", "b", "c"]);
    expect(ids(tasks.by("node", "n1"))).toEqual(["a", "c"]);
    expect(ids(tasks.by("slot", "s/2"))).toEqual(["b", "c"]);
    expect(ids(tasks.by("slot", "s/n1"))).toEqual(["a"]);
    expect(ids(tasks.by("network", "net"))).toEqual(["c"]);
    expect(ids(tasks.by("network", "old"))).toEqual(["a"]);
    expect(ids(tasks.by("waits-for", "c"))).toEqual(["b"]);
    expect(ids(tasks.by("node", "nobody"))).toEqual([]);
    store.apply(2, body([putTask("c", 1, { serviceId: "s", slot: 2, nodeId: "n2" })]));
    expect(ids(store.view().table("tasks").by("node", "n1"))).toEqual(["a"]);
    expect(ids(store.view().table("tasks").by("network", "net"))).toEqual([]);
  });

  test("assert when they are read after the next apply, even half way", () => {
    const store = createStore();
    store.apply(1, body([putTask("a", null), putTask("b", null)]));
    const view = store.view();
    const table = view.table("tasks");
    const half = table.all();
    expect(half.next().value?.id).toBe("a");
    store.skip(2);
    expect(() => half.next()).toThrow("view of index 1");
    expect(() => table.get("a")).toThrow("view of index 1");
    expect(() => view.table("tasks")).toThrow("view of index 1");
    expect(store.view().table("tasks").size).toBe(2);
  });

  test("stamp the rows of a value: the same as long as none came, went or changed", () => {
    const store = createStore();
    const stamp = (node: string): object => store.view().table("tasks").stamp("node", node);
    store.apply(
      1,
      body([putTask("a", null, { nodeId: "x" }), putTask("b", null, { nodeId: "y" })]),
    );
    const [x, y, none] = [stamp("x"), stamp("y"), stamp("z")];
    store.apply(2, body([putTask("a", 1, { nodeId: "x", slot: 9 })], [putTask("b", 99)]));
    expect([stamp("x") === x, stamp("y") === y, stamp("z") === none]).toEqual([false, true, true]);
    store.apply(3, body([putTask("b", 1, { nodeId: "z" })]));
    expect([stamp("y") === y, stamp("z") === none]).toEqual([false, false]);
    const z = stamp("z");
    store.apply(4, body([putTask("a", 2, { nodeId: "z" })]));
    expect([stamp("z") === z, stamp("x") === none]).toEqual([false, true]);
    store.load({ ...store.save(), index: 5 });
    expect(stamp("z")).not.toBe(z);
  });

  test("assert on an index that the table does not have", () => {
    const tasks = createStore().view().table("tasks");
    expect(() => tasks.by("hostname" as never, "x")).toThrow("index hostname");
  });
});

describe("watchers", () => {
  test("hear every commit in order, with one change a row, and see the tables behind it", () => {
    const store = createStore();
    const heard: string[] = [];
    const stop = store.watch((committed) => {
      heard.push(`${committed.index}: ${committed.changes.map(changeText).join(" ")}`);
      expect(store.view().index).toBe(committed.index);
    });
    store.apply(1, body([putTask("a", null), putTask("b", null)], [putTask("a", 1)]));
    store.apply(
      2,
      body(
        [putTask("c", null), { table: "tasks", kind: "remove", id: "c", expect: 2 }],
        [{ table: "tasks", kind: "remove", id: "b", expect: 1 }],
      ),
    );
    stop();
    store.apply(3, body([putTask("d", null)]));
    expect(heard).toEqual(["1: +a@1 +b@1", "2: -b@1"]);
  });

  test("may not apply from within", () => {
    const store = createStore();
    store.watch(() => store.apply(2, body()));
    expect(() => store.apply(1, body())).toThrow("index 2 is applied when");
  });
});

function changeText(change: Change): string {
  const row = (change.after ?? change.before) as Stored;
  const sign = change.before === null ? "+" : change.after === null ? "-" : "~";
  return `${sign}${row.id}@${row.meta.version}`;
}

test("indexes rise", () => {
  const store = createStore();
  store.apply(4, body());
  expect(() => store.apply(4, body())).toThrow("index 4 comes after 4");
  expect(() => store.skip(3)).toThrow("index 3 comes after 4");
});

describe("snapshots", () => {
  test("carry everything; a store that loads one tells its watchers the difference", () => {
    const source = createStore();
    source.apply(1, body([putTask("a", null), putTask("b", null), putService("s", "web", null)]));
    const behind = createStore();
    behind.load(source.save());
    source.apply(2, body([putTask("a", 1)], [putTask("c", null)]));
    source.apply(3, body([{ table: "tasks", kind: "remove", id: "b", expect: 1 }]));
    const heard: Committed[] = [];
    behind.watch((committed) => heard.push(committed));
    behind.load(JSON.parse(JSON.stringify(source.save())));
    expect(behind.digest()).toBe(source.digest());
    expect(behind.save()).toEqual(source.save());
    expect(heard).toHaveLength(1);
    expect(heard[0]?.changes.map(changeText)).toEqual(["-b@1", "~a@2", "+c@2"]);
    expect(ids(behind.view().table("services").by("name", "web"))).toEqual(["s"]);
    expect(() => behind.load({ ...source.save(), index: 2 })).toThrow("snapshot 2");
  });

  test("do not change when the store goes on", () => {
    const store = createStore();
    store.apply(1, body([putTask("a", null)]));
    const saved = store.save();
    store.apply(2, body([{ table: "tasks", kind: "remove", id: "a", expect: 1 }]));
    expect(ids(saved.tables.tasks)).toEqual(["a"]);
  });
});

describe("digest", () => {
  test("does not depend on the order of keys or of arrival, and sees every field", () => {
    const one = createStore();
    const two = createStore();
    const a = aTask("a");
    const turned = Object.fromEntries(Object.entries(a).reverse()) as unknown as typeof a;
    const put = (row: typeof a): Action => ({ table: "tasks", kind: "put", row, expect: null });
    one.apply(1, body([put(a), put(aTask("b"))]));
    two.apply(1, body([put(aTask("b")), put(turned)]));
    expect(two.digest()).toBe(one.digest());
    expect(one.digest()).toMatch(/^[0-9a-f]{16}$/);
    two.apply(
      2,
      body([{ table: "tasks", kind: "put", row: { ...a, desired: "remove" }, expect: 1 }]),
    );
    expect(two.digest()).not.toBe(one.digest());
  });
});

/** Random histories on random rows, against a model of a plain map: equal rows, and indexes that agree with a full scan. */
test("any history leaves rows, indexes and digests as a scan of a plain map says", () => {
  const step = fc.record({
    id: fc.constantFrom("a", "b", "c", "d", "e"),
    kind: fc.constantFrom("put", "remove", "check" as const),
    node: fc.constantFrom(null, "n1", "n2"),
    service: fc.constantFrom("s1", "s2"),
    fresh: fc.boolean(),
  });
  const history = fc.array(fc.array(fc.array(step, { maxLength: 4 }), { maxLength: 4 }), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(history, (entries) => {
      const store = createStore();
      const replica = createStore();
      let model = new Map<string, number>();
      entries.forEach((groups, position) => {
        const index = position + 1;
        const actions = groups.map((group) => {
          return group.map((s): Action => {
            const known = model.get(s.id) ?? null;
            const expected = s.fresh ? known : (known ?? 0) + 1;
            if (s.kind === "put") {
              return putTask(s.id, expected, { nodeId: s.node, serviceId: s.service });
            }
            return { table: "tasks", kind: s.kind as "remove", id: s.id, expect: expected ?? -1 };
          });
        });
        const { results } = store.apply(index, body(...actions));
        replica.apply(index, JSON.parse(JSON.stringify(body(...actions))));
        actions.forEach((group, at) => {
          const next = modelled(model, group, index);
          expect(results[at]?.ok).toBe(next !== null);
          model = next ?? model;
        });
      });
      expectConsistent(store, model);
      expect(replica.digest()).toBe(store.digest());
    }),
  );
});

function modelled(
  model: ReadonlyMap<string, number>,
  group: ActionGroup,
  index: number,
): Map<string, number> | null {
  const next = new Map(model);
  for (const action of group) {
    const id = action.kind === "put" ? action.row.id : action.id;
    if ((next.get(id) ?? null) !== action.expect) return null;
    if (action.kind === "put") next.set(id, index);
    if (action.kind === "remove") next.delete(id);
  }
  return next;
}

function expectConsistent(store: Store, model: ReadonlyMap<string, number>): void {
  const tasks = store.view().table("tasks");
  const all = [...tasks.all()];
  expect(all.map((row) => [row.id, row.meta.version])).toEqual(
    [...model].sort(([a], [b]) => (a < b ? -1 : 1)),
  );
  for (const node of ["n1", "n2"]) {
    expect(ids(tasks.by("node", node))).toEqual(ids(all.filter((row) => row.nodeId === node)));
  }
  for (const service of ["s1", "s2"]) {
    const wanted = ids(all.filter((row) => row.serviceId === service));
    expect(ids(tasks.by("service", service))).toEqual(wanted);
  }
}

test("50,000 tasks are applied, read in order, saved and loaded", () => {
  const store = createStore();
  const count = 50_000;
  for (let entry = 0; entry < 50; entry++) {
    const groups: ActionGroup[] = [];
    for (let i = 0; i < count / 50; i++) {
      const id = `t${((entry * 1000 + i) * 7919) % count}`;
      groups.push([putTask(id, null, { nodeId: `n${i % 100}`, serviceId: `s${i % 10}` })]);
    }
    store.apply(entry + 1, body(...groups));
  }
  const all = ids(store.view().table("tasks").all());
  expect(all).toEqual([...all].sort());
  expect(all).toHaveLength(count);
  expect(ids(store.view().table("tasks").by("node", "n7"))).toHaveLength(count / 100);
  const copy = createStore();
  copy.load(store.save());
  expect(copy.digest()).toBe(store.digest());
  expect(tableNames.map((name) => copy.view().table(name).size)).toEqual([0, 0, 0, count, 0]);
}, 30_000);
