/** Placing: filters and their words by tables, levelling and limits by properties. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Node } from "../model/node.ts";
import type { Task } from "../model/task.ts";
import { aDescription, aNode, aStatus, aTask, aTaskSpec, instant } from "../model/testing/rows.ts";
import { verdictsOn } from "./explain.ts";
import { failureMemoryMs, type NodeView, nodeViewOf } from "./node-view.ts";
import { schedule } from "./place.ts";

const now = instant(10_000_000);
const gib = 1024 ** 3;

function pending(id: string, over: Partial<Task> = {}): Task {
  return aTask(id, { status: aStatus({ state: "pending" }), ...over });
}
function running(id: string, over: Partial<Task> = {}): Task {
  return aTask(id, { nodeId: "n", status: aStatus({ state: "running" }), ...over });
}
function placed(placement: Partial<NonNullable<Task["spec"]["placement"]>>): Task["spec"] {
  const empty = { constraints: [], spreadOver: [], maxReplicas: 0, platforms: [] };
  return aTaskSpec({ placement: { ...empty, ...placement } });
}
function view(node: Node, tasks: readonly Task[] = []): NodeView {
  return nodeViewOf(node, tasks, now);
}
function labelled(id: string, labels: Record<string, string>): Node {
  return aNode(id, { spec: { ...aNode(id).spec, labels } });
}
function many(count: number, over: Partial<Task> = {}): Task[] {
  return Array.from({ length: count }, (_, i) => pending(`t${String(i).padStart(3, "0")}`, over));
}
/** How many tasks each node was given, in the order of the nodes. */
function counts(tasks: readonly Task[], nodes: readonly NodeView[]): number[] {
  const { placements } = schedule(tasks, nodes);
  return nodes.map(({ node }) => placements.filter((p) => p.nodeId === node.id).length);
}

describe("a node that is refused", () => {
  const cases: readonly (readonly [string, Node, readonly Task[], Task["spec"], string, string])[] =
    [
      [
        "down",
        aNode("n", { state: "down", stateMessage: "heartbeat failure" }),
        [],
        aTaskSpec(),
        "1 node not available for new tasks",
        "it is down (heartbeat failure)",
      ],
      [
        "drained",
        aNode("n", { spec: { ...aNode("n").spec, availability: "drain" } }),
        [],
        aTaskSpec(),
        "1 node not available for new tasks",
        "its availability is drain",
      ],
      [
        "paused",
        aNode("n", { spec: { ...aNode("n").spec, availability: "pause" } }),
        [],
        aTaskSpec(),
        "1 node not available for new tasks",
        "its availability is pause",
      ],
      [
        "short of CPU",
        aNode("n"),
        [running("x", { spec: aTaskSpec({ reservations: { nanoCpus: 3.5e9, memoryBytes: 0 } }) })],
        aTaskSpec({ reservations: { nanoCpus: 1e9, memoryBytes: gib } }),
        "insufficient resources on 1 node",
        "it reserves 1 CPUs, 0.5 are free",
      ],
      [
        "short of memory",
        aNode("n"),
        [],
        aTaskSpec({ reservations: { nanoCpus: 1e9, memoryBytes: 9 * gib } }),
        "insufficient resources on 1 node",
        "it reserves 9216 MiB of memory, 8192 MiB are free",
      ],
      [
        "silent about its resources",
        aNode("n", { description: null }),
        [],
        aTaskSpec({ reservations: { nanoCpus: 1, memoryBytes: 0 } }),
        "insufficient resources on 1 node",
        "it reserves 0 CPUs, 0 are free",
      ],
      [
        "elsewhere",
        labelled("n", { zone: "a" }),
        [],
        placed({ constraints: ["node.labels.zone==b"] }),
        "scheduling constraints not satisfied on 1 node",
        'node.labels.zone==b does not hold: node.labels.zone is "a"',
      ],
      [
        "asked for what no node has",
        aNode("n"),
        [],
        placed({ constraints: ["rack.unit!=b"] }),
        "scheduling constraints not satisfied on 1 node",
        "rack.unit!=b names no property of a node",
      ],
      [
        "asked in broken words",
        aNode("n"),
        [],
        placed({ constraints: ["zone"] }),
        "scheduling constraints not satisfied on 1 node",
        'constraint expected one operator from ==, !=, but "zone" has none',
      ],
      [
        "of another kind",
        aNode("n"),
        [],
        placed({ platforms: [{ os: "linux", architecture: "arm64" }] }),
        "unsupported platform on 1 node",
        "the image is for linux/arm64, the node is linux/x86_64",
      ],
      [
        "full of this service",
        aNode("n"),
        [running("x")],
        placed({ maxReplicas: 1 }),
        "max replicas per node limit exceed",
        "it has 1 tasks of the service, at most 1 are allowed",
      ],
    ];
  test.each(cases)("because it is %s says so", (_name, node, tasks, spec, all, one) => {
    const task = pending("t", { spec });
    const nodes = [view(node, tasks)];
    expect(schedule([task], nodes)).toMatchObject({
      placements: [],
      unplaced: [{ taskId: "t", reason: `no suitable node (${all})` }],
    });
    const preassigned = schedule([{ ...task, nodeId: "n" }], nodes);
    expect(preassigned.unplaced).toEqual([{ taskId: "t", reason: all }]);
    expect(verdictsOn(task, nodes)).toMatchObject([{ nodeId: "n", fits: false, reason: one }]);
  });
});

test.each<[string, Task["spec"]]>([
  [
    "nothing is reserved on an overcommitted node",
    aTaskSpec({ reservations: { nanoCpus: 0, memoryBytes: 0 } }),
  ],
  [
    "its platform has another name",
    placed({ platforms: [{ os: "Linux", architecture: "amd64" }] }),
  ],
  [
    "one platform of several fits",
    placed({
      platforms: [
        { os: "windows", architecture: "" },
        { os: "", architecture: "" },
      ],
    }),
  ],
  ["its constraints hold", placed({ constraints: ["node.role==worker", "node.hostname==N"] })],
  ["there is room for one more", placed({ maxReplicas: 2 })],
])("a task goes to a node where %s", (_name, spec) => {
  const full = running("x", {
    spec: aTaskSpec({ reservations: { nanoCpus: 9e9, memoryBytes: 0 } }),
  });
  const { placements } = schedule([pending("t", { spec })], [view(aNode("n"), [full])]);
  expect(placements).toEqual([{ taskId: "t", nodeId: "n" }]);
});

describe("the reason for a task that stays", () => {
  test("counts each node at the filter that refuses first, the commonest first", () => {
    const big = aTaskSpec({
      reservations: { nanoCpus: 8e9, memoryBytes: 0 },
      placement: {
        constraints: ["node.labels.x==y"],
        spreadOver: [],
        maxReplicas: 0,
        platforms: [],
      },
    });
    const large = aDescription({ resources: { nanoCpus: 16e9, memoryBytes: 0 } });
    const nodes = [
      view(aNode("a", { state: "down" })),
      view(aNode("b", { description: large })),
      view(aNode("c", { description: large })),
      view(aNode("d")),
    ];
    const { unplaced } = schedule([pending("t", { spec: big })], nodes);
    expect(unplaced[0]?.reason).toBe(
      "no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks; insufficient resources on 1 node)",
    );
  });

  test("without any node is short, and names a node that is gone", () => {
    const { unplaced } = schedule([pending("a"), pending("b", { nodeId: "gone" })], []);
    expect(unplaced).toEqual([
      { taskId: "b", reason: "node gone is no longer in the cluster" },
      { taskId: "a", reason: "no suitable node" },
    ]);
  });

  test("tells the state behind the group's own placements", () => {
    const spec = placed({ maxReplicas: 1 });
    const { placements, unplaced } = schedule(many(3, { spec }), [
      view(aNode("a")),
      view(aNode("b")),
    ]);
    expect(placements).toHaveLength(2);
    expect(unplaced).toEqual([
      { taskId: "t002", reason: "no suitable node (max replicas per node limit exceed)" },
    ]);
  });
});

describe("ranking", () => {
  test("prefers few tasks of the service, then few tasks, then the lower id", () => {
    const other = { serviceId: "other" };
    const nodes = [
      view(aNode("a"), [running("1")]),
      view(aNode("b"), [running("2", other), running("3", other)]),
      view(aNode("c"), [running("4", other)]),
      view(aNode("d"), [running("5", other)]),
    ];
    const { placements } = schedule(many(5), nodes);
    expect(placements.map((p) => p.nodeId)).toEqual(["c", "d", "b", "a", "c"]);
  });

  test("does not count tasks that are over or meant to stop, and their reservations only until they are over", () => {
    const spec = aTaskSpec({ reservations: { nanoCpus: 1e9, memoryBytes: 0 } });
    const at = (state: Task["status"]["state"], desired: Task["desired"]): Task =>
      running("x", { spec, status: aStatus({ state }), desired });
    const cases: readonly (readonly [Task, number, number])[] = [
      [at("assigned", "running"), 1, 3e9],
      [at("running", "running"), 1, 3e9],
      [at("running", "shutdown"), 0, 3e9],
      [at("running", "remove"), 0, 3e9],
      [at("ready", "ready"), 1, 3e9],
      [at("complete", "running"), 0, 4e9],
      [at("failed", "running"), 0, 4e9],
      [at("pending", "running"), 0, 4e9],
      [at("orphaned", "running"), 0, 4e9],
    ];
    for (const [task, active, free] of cases) {
      const { activeTasks, tasksOf, free: left } = view(aNode("n"), [task]);
      expect([activeTasks, tasksOf.get("service") ?? 0, left.nanoCpus]).toEqual([
        active,
        active,
        free,
      ]);
    }
  });

  test.each<[string, number, number, number, string]>([
    ["four failures say nothing", 4, 1000, 1, "a"],
    ["five send tasks elsewhere", 5, 1000, 1, "b"],
    ["five of another spec say nothing", 5, 1000, 2, "a"],
    ["five that are five minutes old are forgotten", 5, failureMemoryMs, 1, "a"],
  ])("of failures on a node: %s", (_name, failures, ageMs, specVersion, expected) => {
    const appliedAt = instant(now - ageMs);
    const failed = Array.from({ length: failures }, (_, i) => {
      const status = aStatus({ state: i % 2 === 0 ? "failed" : "rejected", appliedAt });
      return aTask(`f${i}`, { nodeId: "a", status, specVersion });
    });
    const nodes = [view(aNode("a"), failed), view(aNode("b"), [running("x")])];
    expect(schedule([pending("t")], nodes).placements[0]?.nodeId).toBe(expected);
  });

  test("is told node by node, the task itself left out", () => {
    const nodes = [
      view(aNode("a"), [running("1")]),
      view(aNode("b")),
      view(aNode("c", { state: "down" })),
    ];
    expect(verdictsOn(pending("t"), nodes).map((v) => [v.nodeId, v.filter, v.reason])).toEqual([
      ["b", null, "fits, rank 1 of 2: 0 other tasks of this service, 0 other tasks in all"],
      ["a", null, "fits, rank 2 of 2: 1 other tasks of this service, 1 other tasks in all"],
      ["c", "ready", "it is down"],
    ]);
  });
});

describe("preferences", () => {
  const spread = (...over: string[]): Task["spec"] => placed({ spreadOver: over });
  const zones = (text: string): NodeView[] =>
    [...text].map((zone, i) => view(labelled(`n${i}`, zone === "-" ? {} : { zone })));

  test.each<[string, string, number, number[]]>([
    ["zones share alike, however many nodes they have", "abbb", 6, [3, 1, 1, 1]],
    ["no label is a zone of its own", "a-b", 6, [2, 2, 2]],
    ["what does not divide differs by one", "ab", 5, [3, 2]],
  ])("%s", (_name, nodes, tasks, expected) => {
    expect(counts(many(tasks, { spec: spread("node.labels.zone") }), zones(nodes))).toEqual(
      expected,
    );
  });

  test("count what runs already, on nodes that are closed too", () => {
    const closed = labelled("n0", { zone: "a" });
    const nodes = [
      view({ ...closed, state: "down" }, [running("1"), running("2")]),
      view(labelled("n1", { zone: "a" })),
      view(labelled("n2", { zone: "b" })),
    ];
    expect(counts(many(4, { spec: spread("node.labels.zone") }), nodes)).toEqual([0, 1, 3]);
  });

  test("let a full zone drop out and level the rest", () => {
    const spec = placed({ spreadOver: ["node.labels.zone"], maxReplicas: 2 });
    expect(counts(many(8, { spec }), zones("abbbb"))).toEqual([2, 2, 2, 1, 1]);
  });

  test("nest, the first one outermost; unknown ones are passed over", () => {
    const node = (id: string, dc: string, rack: string): NodeView =>
      view(labelled(id, { dc, rack }));
    const nodes = [
      node("a", "1", "x"),
      node("b", "1", "x"),
      node("c", "1", "y"),
      node("d", "2", "x"),
    ];
    const spec = spread("node.labels.dc", "something", "node.labels.rack");
    expect(counts(many(8, { spec }), nodes)).toEqual([1, 1, 2, 4]);
  });

  test("read engine labels too", () => {
    const engine = (id: string, disk: string): NodeView =>
      view(aNode(id, { description: aDescription({ engineLabels: { disk } }) }));
    const nodes = [engine("a", "ssd"), engine("b", "ssd"), engine("c", "hdd")];
    expect(counts(many(4, { spec: spread("Engine.Labels.disk") }), nodes)).toEqual([1, 1, 2]);
  });

  test("do not send every lone task to one zone", () => {
    const spec = spread("node.labels.zone");
    const services = ["s0", "s1", "s2", "s3"].map((serviceId, i) =>
      pending(`t${i}`, { serviceId, spec }),
    );
    expect(counts(services, zones("ab"))).toEqual([2, 2]);
  });
});

describe("any tasks on any nodes", () => {
  const nodeArb = fc.record({
    ready: fc.boolean(),
    cpus: fc.integer({ min: 0, max: 6 }),
    zone: fc.constantFrom("a", "b", "c", ""),
    already: fc.nat(4),
  });
  const groupArb = fc.record({
    count: fc.nat(12),
    cpus: fc.nat(3),
    max: fc.nat(3),
    constraint: fc.option(fc.constantFrom("node.labels.zone==a", "node.labels.zone!=b")),
    spread: fc.boolean(),
  });

  test("are placed only where every filter admits them, all that fit, and the same however often", () => {
    fc.assert(
      fc.property(
        fc.array(nodeArb, { maxLength: 8 }),
        fc.array(groupArb, { maxLength: 4 }),
        (ns, gs) => {
          const rows = ns.map(({ ready, cpus, zone }, i) => ({
            ...labelled(`n${i}`, zone === "" ? {} : { zone }),
            state: ready ? ("ready" as const) : ("down" as const),
            description: aDescription({ resources: { nanoCpus: cpus * 1e9, memoryBytes: 0 } }),
          }));
          const nodes = rows.map((row, i) => {
            const existing = Array.from({ length: ns[i]?.already ?? 0 }, (_, k) =>
              running(`${row.id}-${k}`, { serviceId: `s${k % 2}`, nodeId: row.id }),
            );
            return view(row, existing);
          });
          const tasks = gs.flatMap(({ count, cpus, max, constraint, spread }, g) => {
            const spec = {
              ...placed({
                constraints: constraint === null ? [] : [constraint],
                maxReplicas: max,
                spreadOver: spread ? ["node.labels.zone"] : [],
              }),
              reservations: { nanoCpus: cpus * 1e9, memoryBytes: 0 },
            };
            return Array.from({ length: count }, (_, i) =>
              pending(`${g}-${i}`, { serviceId: `s${g}`, spec }),
            );
          });
          const { placements, unplaced } = schedule(tasks, nodes);
          expect(schedule(tasks, nodes)).toEqual(expect.objectContaining({ placements, unplaced }));
          expect([...placements, ...unplaced].map((p) => p.taskId).sort()).toEqual(
            tasks.map((t) => t.id).sort(),
          );
          const byId = new Map(tasks.map((task) => [task.id, task]));
          for (const node of nodes) {
            const here = placements.flatMap((p) =>
              p.nodeId === node.node.id ? (byId.get(p.taskId) ?? []) : [],
            );
            if (here.length > 0) expect(node.node.state).toBe("ready");
            const used = here.reduce(
              (sum, task) => sum + (task.spec.reservations?.nanoCpus ?? 0),
              0,
            );
            if (used > 0) expect(used).toBeLessThanOrEqual(node.free.nanoCpus);
            for (const task of here) {
              const same = here.filter((t) => t.serviceId === task.serviceId).length;
              const before = node.tasksOf.get(task.serviceId) ?? 0;
              const max = task.spec.placement?.maxReplicas ?? 0;
              if (max > 0) expect(same + before).toBeLessThanOrEqual(max);
              const zone = node.node.spec.labels["zone"] ?? "";
              const [constraint] = task.spec.placement?.constraints ?? [];
              if (constraint === "node.labels.zone==a") expect(zone).toBe("a");
              if (constraint === "node.labels.zone!=b") expect(zone).not.toBe("b");
            }
          }
          // What stays fits nowhere even now: a second round on top of the first places nothing more.
          const after = nodes.map((n) => {
            const given = placements.flatMap((p) => {
              const task = p.nodeId === n.node.id ? byId.get(p.taskId) : undefined;
              return task === undefined
                ? []
                : [{ ...task, nodeId: p.nodeId, status: aStatus({ state: "assigned" }) }];
            });
            const existing = Array.from({ length: n.activeTasks }, (_, k) =>
              running(`${n.node.id}-${k}`, { serviceId: `s${k % 2}`, nodeId: n.node.id }),
            );
            return view(n.node, [...existing, ...given]);
          });
          const left = unplaced.flatMap(({ taskId }) => byId.get(taskId) ?? []);
          expect(schedule(left, after).placements).toEqual([]);
        },
      ),
    );
  });

  test("are level on equal nodes: the fullest has at most one more than the emptiest", () => {
    const shape = fc.tuple(
      fc.integer({ min: 1, max: 12 }),
      fc.nat(60),
      fc.integer({ min: 1, max: 5 }),
    );
    fc.assert(
      fc.property(shape, ([nodeCount, taskCount, services]) => {
        const nodes = Array.from({ length: nodeCount }, (_, i) => view(aNode(`n${i}`)));
        const tasks = many(taskCount).map((task, i) => ({
          ...task,
          serviceId: `s${i % services}`,
        }));
        for (const subset of [
          tasks,
          ...Array.from({ length: services }, (_, s) =>
            tasks.filter((t) => t.serviceId === `s${s}`),
          ),
        ]) {
          const { placements } = schedule(tasks, nodes);
          const ids = new Set(subset.map((t) => t.id));
          const given = nodes.map(
            (n) => placements.filter((p) => p.nodeId === n.node.id && ids.has(p.taskId)).length,
          );
          expect(Math.max(...given) - Math.min(...given)).toBeLessThanOrEqual(1);
        }
      }),
    );
  });
});

test("20,000 tasks of 20 services go to 1,000 nodes, level", () => {
  const nodes = Array.from({ length: 1000 }, (_, i) => view(aNode(`n${i}`)));
  const tasks = Array.from({ length: 20_000 }, (_, i) =>
    pending(`t${i}`, { serviceId: `s${i % 20}` }),
  );
  const { placements } = schedule(tasks, nodes);
  const given = new Map<string, number>();
  for (const { nodeId } of placements) given.set(nodeId, (given.get(nodeId) ?? 0) + 1);
  expect(new Set(given.values())).toEqual(new Set([20]));
});
