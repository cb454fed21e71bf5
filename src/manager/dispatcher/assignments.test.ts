// Goal: what a node was sent, patch after patch, always equals what a full look gives. Method: random changes to a real store.
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Network } from "../../model/network.ts";
import type { Service } from "../../model/service.ts";
import type { Attachment, Task } from "../../model/task.ts";
import type { TaskState } from "../../model/task-state.ts";
import { createStore } from "../../store/store.ts";
import { createTestClock } from "../testing/clock.ts";
import { createTestProposer } from "../testing/proposer.ts";
import { add, change, testNode, testServiceSpec, testTask } from "../testing/rows.ts";
import { assignmentsFor, diffAssignments, diffPeers, patch, touchedBy } from "./assignments.ts";

const service: Pick<Service, "id" | "spec" | "specVersion"> = {
  id: "web",
  spec: testServiceSpec(),
  specVersion: 1,
};
const network = (id: string, number: number): Omit<Network, "meta"> => ({
  id,
  spec: {
    name: id,
    labels: {},
    driver: "overlay",
    driverOptions: {},
    internal: false,
    attachable: false,
    ingress: false,
    subnet: null,
    gateway: null,
  },
  vni: 4096 + number,
  subnet: `10.0.${number}.0/24`,
  gateway: "10.0.0.1",
  mtu: 1450,
  cursor: "10.0.0.1",
});
const attachment = (networkId: string, host: number): Attachment => ({
  networkId,
  address: `10.0.0.${host}`,
  prefixLength: 24,
  mac: `02:42:0a:00:00:${host.toString(16).padStart(2, "0")}`,
  aliases: [],
});
const inState = (state: TaskState): Task["status"] => ({
  ...testTask("x", service).status,
  state,
});

function setUp() {
  const store = createStore();
  const proposer = createTestProposer(store, createTestClock());
  proposer.commit([
    add("nodes", testNode("n1")),
    add("nodes", testNode("n2")),
    add("networks", network("net1", 0)),
    add("networks", network("net2", 1)),
  ]);
  const task = (id: string): Task => {
    const found = store.view().table("tasks").get(id);
    if (found === undefined) throw new Error(`no task ${id}`);
    return found;
  };
  const put = (id: string, changed: Partial<Task>): void => {
    const old = store.view().table("tasks").get(id);
    proposer.commit([
      old === undefined
        ? add("tasks", testTask(id, service, changed))
        : change("tasks", old, changed),
    ]);
  };
  return { store, proposer, task, put };
}

describe("assignmentsFor", () => {
  test("gives a node its tasks, their networks and every endpoint on them", () => {
    const t = setUp();
    const attachments = [attachment("net1", 2)];
    t.put("a", { nodeId: "n1", status: inState("running"), attachments });
    t.put("b", { nodeId: "n2", status: inState("starting"), attachments: [attachment("net1", 3)] });
    t.put("c", { nodeId: "n2", status: inState("running"), attachments: [attachment("net2", 2)] });
    t.put("d", { nodeId: null, status: inState("pending"), attachments: [attachment("net1", 4)] });
    const { tasks, networks, peers } = assignmentsFor(t.store.view(), "n1");
    expect([...tasks.keys()]).toEqual(["a"]);
    expect([...networks.keys()]).toEqual(["net1"]);
    expect([...peers.values()].map(({ key, named }) => [key, named])).toEqual([
      ["net1/a", true],
      ["net1/b", false],
    ]);
    expect(peers.get("net1/a")?.containerName).toBe("web.1.a");
  });

  test.each<[string, Partial<Task>, string, boolean | null]>([
    ["running", { status: inState("running") }, "ready", true],
    ["told to stop", { status: inState("running"), desired: "shutdown" }, "ready", false],
    ["on a node that is down", { status: inState("running") }, "down", false],
    ["over", { status: inState("failed") }, "ready", null],
  ])("an endpoint that is %s", (_what, changed, state, named) => {
    const t = setUp();
    t.put("mine", {
      nodeId: "n1",
      status: inState("running"),
      attachments: [attachment("net1", 2)],
    });
    t.put("b", { nodeId: "n2", attachments: [attachment("net1", 3)], ...changed });
    const [node] = [...t.store.view().table("nodes").all()].filter(({ id }) => id === "n2");
    if (node !== undefined) {
      t.proposer.commit([change("nodes", node, { state: state as "ready" | "down" })]);
    }
    const { peers } = assignmentsFor(t.store.view(), "n1");
    expect(peers.get("net1/b")?.named ?? null).toBe(named);
  });

  test("keeps an ended task until its row goes, but not its networks", () => {
    const t = setUp();
    t.put("a", { nodeId: "n1", status: inState("failed"), attachments: [attachment("net1", 2)] });
    const { tasks, networks } = assignmentsFor(t.store.view(), "n1");
    expect([...tasks.keys()]).toEqual(["a"]);
    expect(networks.size).toBe(0);
  });

  test("an address given out changes nobody's assignments", () => {
    const t = setUp();
    t.put("a", { nodeId: "n1", status: inState("running"), attachments: [attachment("net1", 2)] });
    const have = assignmentsFor(t.store.view(), "n1");
    const row = t.store.view().table("networks").get("net1");
    if (row === undefined) throw new Error("no network");
    const { changes } = t.proposer.commit([change("networks", row, { cursor: "10.0.0.9" })]);
    const view = t.store.view();
    for (const one of changes) expect(touchedBy(one, view).networks).toEqual([]);
    expect(diffAssignments(have, assignmentsFor(view, "n1"))).toBeNull();
  });
});

const states = [
  "new",
  "pending",
  "assigned",
  "preparing",
  "running",
  "failed",
  "shutdown",
] as const;
const step = fc.oneof(
  fc.record({
    kind: fc.constant("task" as const),
    id: fc.constantFrom("a", "b", "c", "d"),
    nodeId: fc.constantFrom("n1", "n2", null),
    state: fc.constantFrom(...states),
    desired: fc.constantFrom("running", "shutdown", "remove"),
    networks: fc.subarray(["net1", "net2"]),
  }),
  fc.record({ kind: fc.constant("drop" as const), id: fc.constantFrom("a", "b", "c", "d") }),
  fc.record({
    kind: fc.constant("node" as const),
    id: fc.constantFrom("n1", "n2"),
    state: fc.constantFrom("ready", "down"),
    address: fc.constantFrom("192.0.2.1", "192.0.2.2"),
  }),
);

test("what a change touches is all that differs", async () => {
  await fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const t = setUp();
      const sent = new Map(["n1", "n2"].map((id) => [id, assignmentsFor(t.store.view(), id)]));
      const stale = new Set<string>();
      const stalePeers = new Set<string>();
      t.store.watch(({ changes }) => {
        const view = t.store.view();
        for (const one of changes) {
          const touched = touchedBy(one, view);
          for (const id of touched.nodes) stale.add(id);
          for (const { taskId } of touched.peers) stalePeers.add(taskId);
        }
      });
      for (const one of steps) {
        const view = t.store.view();
        if (one.kind === "task") {
          const status = inState(one.state);
          const desired = one.desired as Task["desired"];
          const attachments = one.networks.map((id, index) => attachment(id, 2 + index));
          t.put(one.id, { nodeId: one.nodeId, status, desired, attachments });
        } else if (one.kind === "drop") {
          const row = view.table("tasks").get(one.id);
          if (row === undefined) continue;
          const expected = row.meta.version;
          t.proposer.commit([{ table: "tasks", kind: "remove", id: one.id, expect: expected }]);
        } else {
          const row = view.table("nodes").get(one.id);
          if (row === undefined || row.description === null) continue;
          const description = { ...row.description, dataPathAddress: one.address };
          const state = one.state as "ready" | "down";
          t.proposer.commit([change("nodes", row, { state, description })]);
        }
        const now = t.store.view();
        for (const [id, have] of sent) {
          const want = assignmentsFor(now, id);
          const diff = stale.has(id)
            ? diffAssignments(have, want)
            : diffPeers(have, now, stalePeers);
          if (diff !== null) patch(have, diff);
          expect(diffAssignments(have, want)).toBeNull();
        }
        stale.clear();
        stalePeers.clear();
      }
    }),
    { numRuns: 300 },
  );
});
