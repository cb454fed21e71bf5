import { describe, expect, test } from "vitest";
import type { InstantMs } from "../../lib/clock.ts";
import { silentLog } from "../../lib/log.ts";
import type { Service } from "../../model/service.ts";
import type { Task, TaskStatus } from "../../model/task.ts";
import type { TaskState } from "../../model/task-state.ts";
import { createStore } from "../../store/store.ts";
import type { ToAgent, ToManager } from "../../wire/session.ts";
import { createTestChannel, type TestChannelPair } from "../testing/channel.ts";
import { createTestClock, settle } from "../testing/clock.ts";
import { createTestProposer } from "../testing/proposer.ts";
import { createTestRandom } from "../testing/random.ts";
import {
  add,
  change,
  testCluster,
  testDescription,
  testNode,
  testServiceSpec,
  testTask,
} from "../testing/rows.ts";
import { createDispatcher } from "./dispatcher.ts";
import { helloTimeoutMs, leaderGraceMs, reconnectGraceMs } from "./limits.ts";

const service: Pick<Service, "id" | "spec" | "specVersion"> = {
  id: "web",
  spec: testServiceSpec(),
  specVersion: 1,
};
type Pair = TestChannelPair<ToAgent, ToManager>;

function setUp() {
  const clock = createTestClock();
  const store = createStore();
  const proposer = createTestProposer(store, clock);
  proposer.commit(
    [add("clusters", testCluster())],
    [add("nodes", testNode("n1"))],
    [add("nodes", testNode("n2", { manager: { raftId: "r2", address: "192.0.2.2:2377" } }))],
  );
  const make = () =>
    createDispatcher({ store, proposer, clock, random: createTestRandom(), log: silentLog });
  const dispatcher = make();
  dispatcher.start();
  const node = (id: string) => {
    const found = store.view().table("nodes").get(id);
    if (found === undefined) throw new Error(`no node ${id}`);
    return found;
  };
  const task = (id: string): Task => {
    const found = store.view().table("tasks").get(id);
    if (found === undefined) throw new Error(`no task ${id}`);
    return found;
  };
  const addTask = (id: string, nodeId: string, state: TaskState = "assigned"): void => {
    const row = testTask(id, service, { nodeId });
    proposer.commit([add("tasks", { ...row, status: { ...row.status, state } })]);
  };
  /** Connects an agent that says hello. */
  const connect = (
    nodeId: string,
    hello: Partial<Extract<ToManager, { kind: "hello" }>> = {},
    to = dispatcher,
  ): Pair => {
    const pair = createTestChannel<ToAgent, ToManager>();
    to.accept(pair.near, { nodeId, role: "worker", address: "192.0.2.7" });
    pair.say({
      kind: "hello",
      version: 1,
      nodeId,
      description: testDescription({ hostname: nodeId }),
      clusterAddress: "0.0.0.0:2377",
      statuses: [],
      ...hello,
    });
    return pair;
  };
  return { clock, store, proposer, dispatcher, make, node, task, addTask, connect };
}
const status = (state: TaskState, changed: Partial<TaskStatus> = {}): TaskStatus => ({
  state,
  message: state,
  error: null,
  exitCode: null,
  containerId: null,
  pid: 0,
  at: 1 as InstantMs,
  appliedAt: null,
  ...changed,
});
const kinds = (pair: Pair): string[] => pair.sent.map(({ kind }) => kind);
const goodbyes = (pair: Pair) => pair.sent.filter((message) => message.kind === "goodbye");
/** Beats for a while as an agent does. */
async function beat(t: ReturnType<typeof setUp>, pairs: readonly Pair[], forMs: number) {
  for (let ms = 0; ms < forMs; ms += 500) {
    for (const pair of pairs) pair.say({ kind: "heartbeat", sequence: ms });
    await t.clock.advance(500);
  }
}

describe("a session", () => {
  test("begins with welcome, membership and all assignments, and makes the node ready", async () => {
    const t = setUp();
    t.proposer.commit([change("nodes", t.node("n1"), { state: "down", stateMessage: "x" })]);
    t.addTask("a", "n1");
    const pair = t.connect("n1");
    expect(kinds(pair)).toEqual(["welcome", "membership", "assign-all"]);
    const [welcome, membership, all] = pair.sent;
    if (
      welcome?.kind !== "welcome" ||
      membership?.kind !== "membership" ||
      all?.kind !== "assign-all"
    ) {
      throw new Error("other messages");
    }
    expect(welcome.heartbeatMs).toBeGreaterThanOrEqual(900);
    expect(welcome.heartbeatMs).toBeLessThanOrEqual(1_100);
    expect(membership.managers).toEqual(["192.0.2.2:2377"]);
    expect(all.set.tasks.map(({ id }) => id)).toEqual(["a"]);
    await t.clock.advance(10);
    expect(kinds(pair).slice(3)).toEqual(["registered"]);
    const { state, stateMessage, address, clusterAddress } = t.node("n1");
    expect([state, stateMessage, address, clusterAddress]).toEqual([
      "ready",
      "",
      "192.0.2.7",
      "192.0.2.7:2377",
    ]);
  });

  test("is told that its node is on record once that is stored, and once only", async () => {
    const t = setUp();
    t.proposer.commit([change("nodes", t.node("n1"), { state: "unknown" })]);
    t.proposer.unavailable = true;
    const pair = t.connect("n1");
    await beat(t, [pair], 1_000);
    expect([kinds(pair).includes("registered"), t.node("n1").state]).toEqual([false, "unknown"]);
    t.proposer.unavailable = false;
    await beat(t, [pair], 1_000);
    expect(t.node("n1").state).toBe("ready");
    pair.say({ kind: "describe", description: testDescription({ hostname: "another" }) });
    await beat(t, [pair], 1_000);
    expect(t.node("n1").description?.hostname).toBe("another");
    expect(kinds(pair).filter((kind) => kind === "registered")).toHaveLength(1);
  });

  test("takes back what an earlier leader wrote of the node when it was silent", async () => {
    const t = setUp();
    const pair = t.connect("n1");
    await t.clock.advance(10);
    t.proposer.commit([change("nodes", t.node("n1"), { state: "down", stateMessage: "silent" })]);
    await beat(t, [pair], 500);
    expect(t.node("n1")).toMatchObject({ state: "ready", stateMessage: "" });
  });

  test("of a node that is as it was writes nothing", async () => {
    const t = setUp();
    t.connect("n1", { clusterAddress: "192.0.2.1:2377" });
    const entries = t.proposer.entries.length;
    await t.clock.advance(10);
    expect(t.proposer.entries.length).toBe(entries);
  });

  test.each<[string, string, Partial<Extract<ToManager, { kind: "hello" }>>, string]>([
    ["another version", "n1", { version: 99 }, "version"],
    ["a node nobody knows", "n9", {}, "unknown-node"],
    ["another node's name", "n1", { nodeId: "n2" }, "unknown-node"],
  ])("refuses %s", (_what, nodeId, hello, reason) => {
    const t = setUp();
    const pair = t.connect(nodeId, hello);
    expect(goodbyes(pair)).toEqual([{ kind: "goodbye", reason, leader: null }]);
    expect(pair.closed()).toBe(reason);
    expect(t.dispatcher.sessions()).toEqual([]);
  });

  test("tells a removed node that it was removed, before and after", () => {
    const t = setUp();
    const pair = t.connect("n1");
    const [cluster] = t.store.view().table("clusters").all();
    if (cluster === undefined) throw new Error("no cluster");
    const removal = {
      table: "nodes",
      kind: "remove",
      id: "n1",
      expect: t.node("n1").meta.version,
    } as const;
    t.proposer.commit([removal, change("clusters", cluster, { removedNodes: ["n1"] })]);
    expect(goodbyes(pair)[0]?.reason).toBe("removed");
    expect(goodbyes(t.connect("n1"))[0]?.reason).toBe("removed");
  });

  test("takes the place of an older one", async () => {
    const t = setUp();
    const first = t.connect("n1");
    const second = t.connect("n1");
    expect(goodbyes(first)[0]?.reason).toBe("superseded");
    await beat(t, [second], 6_000);
    expect(t.node("n1").state).toBe("ready");
  });

  test.each<[string, unknown]>([
    ["nothing", null],
    ["a word", "hello"],
    ["a hello without address", { clusterAddress: 7 }],
    ["a hello without description", { description: {} }],
    ["a heartbeat first", { kind: "heartbeat", sequence: 1 }],
  ])("that begins with %s is closed, and nothing else happens", async (_what, said) => {
    const t = setUp();
    const before = t.store.digest();
    const pair = createTestChannel<ToAgent, ToManager>();
    t.dispatcher.accept(pair.near, { nodeId: "n1", role: "worker", address: "" });
    const hello = {
      kind: "hello",
      version: 1,
      nodeId: "n1",
      description: testDescription(),
      clusterAddress: "0.0.0.0:2377",
      statuses: [],
    };
    const message = typeof said === "object" && said !== null ? { ...hello, ...said } : said;
    pair.say(message as ToManager);
    await t.clock.advance(100);
    expect(pair.closed()).not.toBeNull();
    expect(t.store.digest()).toBe(before);
    expect(t.dispatcher.sessions()).toEqual([]);
  });

  test("that never says hello is closed", async () => {
    const t = setUp();
    const pair = createTestChannel<ToAgent, ToManager>();
    t.dispatcher.accept(pair.near, { nodeId: "n1", role: "worker", address: "" });
    await t.clock.advance(helloTimeoutMs);
    expect(pair.closed()).toMatch(/no hello/);
  });

  test("ends with the leader's address when another leads", () => {
    const t = setUp();
    const pair = t.connect("n1");
    t.dispatcher.stop("192.0.2.2:2377");
    const goodbye = { kind: "goodbye", reason: "not-leader", leader: "192.0.2.2:2377" };
    expect(goodbyes(pair)).toEqual([goodbye]);
    expect(goodbyes(t.connect("n2"))).toEqual([goodbye]);
    expect(t.clock.pending).toBe(0);
  });
});

describe("liveness", () => {
  test("a node that falls silent is down after three heartbeats, one that beats is not", async () => {
    const t = setUp();
    const silent = t.connect("n1");
    const beating = t.connect("n2");
    await beat(t, [beating], 2_500);
    expect(t.node("n1").state).toBe("ready");
    await beat(t, [beating], 1_000);
    expect(t.node("n1").state).toBe("down");
    expect(t.node("n1").stateMessage).toBe('heartbeat failure for node in "ready" state');
    expect(silent.closed()).toBe("heartbeats missed");
    expect(t.node("n2").state).toBe("ready");
    t.connect("n1");
    await t.clock.advance(10);
    expect(t.node("n1").state).toBe("ready");
  });

  test("a node whose session closed is down when it does not come back soon", async () => {
    const t = setUp();
    const other = t.connect("n2");
    t.connect("n1").hangUp();
    await beat(t, [other], reconnectGraceMs - 500);
    expect(t.node("n1").state).toBe("ready");
    await beat(t, [other], 1_000);
    expect(t.node("n1").state).toBe("down");
  });

  test("a daemon that restarts in time is never down", async () => {
    const t = setUp();
    t.connect("n1").hangUp();
    await t.clock.advance(reconnectGraceMs - 100);
    const again = t.connect("n1");
    await beat(t, [again], 10_000);
    expect(t.node("n1").state).toBe("ready");
  });

  test("a new leader gives nodes time to find it", async () => {
    const t = setUp();
    const found = t.connect("n1");
    await beat(t, [found], leaderGraceMs - 500);
    expect(t.node("n2").state).toBe("ready");
    await beat(t, [found], 1_000);
    expect(t.node("n2").state).toBe("down");
    expect(t.node("n1").state).toBe("ready");
  });
});

describe("assignments", () => {
  test("go out as differences, those of one moment together", async () => {
    const t = setUp();
    const pair = t.connect("n1");
    await t.clock.advance(10);
    const before = pair.sent.length;
    t.addTask("a", "n1");
    t.addTask("b", "n1");
    t.addTask("c", "n2");
    await t.clock.advance(10);
    const [diff, ...more] = pair.sent.slice(before);
    expect(more).toEqual([]);
    if (diff?.kind !== "assign-diff") throw new Error("no difference");
    expect([diff.from, diff.revision]).toEqual([1, 2]);
    expect(diff.put.tasks.map(({ id }) => id)).toEqual(["a", "b"]);
    pair.say({ kind: "applied", revision: 2 });
    expect(t.dispatcher.sessions()[0]?.appliedRevision).toBe(2);
    t.proposer.commit([change("tasks", t.task("a"), { desired: "shutdown" })]);
    t.proposer.commit([
      { table: "tasks", kind: "remove", id: "b", expect: t.task("b").meta.version },
    ]);
    await t.clock.advance(10);
    const last = pair.sent.at(-1);
    if (last?.kind !== "assign-diff") throw new Error("no difference");
    expect(last.put.tasks.map(({ desired }) => desired)).toEqual(["shutdown"]);
    expect(last.remove.tasks).toEqual(["b"]);
  });

  test("a manager that comes is told to every node, once", async () => {
    const t = setUp();
    const pair = t.connect("n1");
    await t.clock.advance(10);
    const manager = { raftId: "r1", address: "192.0.2.1:2377" };
    t.proposer.commit([change("nodes", t.node("n1"), { manager })]);
    await t.clock.advance(10);
    const told = pair.sent.filter((message) => message.kind === "membership");
    expect(told).toHaveLength(2);
    expect(told[1]).toMatchObject({
      managers: ["192.0.2.1:2377", "192.0.2.2:2377"],
      role: "manager",
      raftId: "r1",
    });
  });
});

describe("statuses", () => {
  test("are stored in one entry and acknowledged once committed", async () => {
    const t = setUp();
    t.addTask("a", "n1");
    t.addTask("b", "n1");
    const pair = t.connect("n1");
    await t.clock.advance(10);
    const entries = t.proposer.entries.length;
    pair.say({
      kind: "status",
      updates: [
        { taskId: "a", status: status("preparing") },
        { taskId: "b", status: status("running", { pid: 7 }) },
      ],
    });
    pair.say({ kind: "status", updates: [{ taskId: "a", status: status("running") }] });
    await t.clock.advance(10);
    expect(t.proposer.entries.length - entries).toBe(1);
    const { state, appliedAt } = t.task("a").status;
    expect(state).toBe("running");
    expect(appliedAt).toBe(t.task("a").runningAt);
    const stored = pair.sent.filter((message) => message.kind === "status-stored");
    expect(stored.flatMap(({ taskIds }) => taskIds).sort()).toEqual(["a", "b"]);
  });

  test.each<[string, string, unknown]>([
    ["goes back", "a", status("accepted")],
    ["says the same", "a", status("running")],
    ["is another node's", "other", status("failed")],
    ["is of a task that is gone", "gone", status("failed")],
  ])("one that %s changes nothing and is done with", async (_what, taskId, one) => {
    const t = setUp();
    t.addTask("a", "n1");
    t.addTask("other", "n2", "running");
    const pair = t.connect("n1");
    pair.say({ kind: "status", updates: [{ taskId: "a", status: status("running") }] });
    await t.clock.advance(10);
    const before = t.store.digest();
    const sent = pair.sent.length;
    pair.say({ kind: "status", updates: [{ taskId, status: one as TaskStatus }] });
    await t.clock.advance(10);
    expect(t.store.digest()).toBe(before);
    expect(pair.sent.slice(sent)).toEqual([{ kind: "status-stored", taskIds: [taskId] }]);
  });

  test("that are malformed are dropped", async () => {
    const t = setUp();
    t.addTask("a", "n1");
    const pair = t.connect("n1");
    await t.clock.advance(10);
    const before = t.store.digest();
    const bad: unknown[] = [
      null,
      { taskId: 1 },
      { taskId: "a", status: { ...status("running"), state: "orphaned" } },
      { taskId: "a", status: { ...status("running"), message: null } },
      { taskId: "a", status: { ...status("running"), at: "now" } },
    ];
    pair.say({ kind: "status", updates: bad as never });
    await t.clock.advance(10);
    expect(t.store.digest()).toBe(before);
  });

  test("survive a time without leader and a conflict with another writer", async () => {
    const t = setUp();
    t.addTask("a", "n1");
    const pair = t.connect("n1");
    await t.clock.advance(10);
    t.proposer.unavailable = true;
    pair.say({ kind: "status", updates: [{ taskId: "a", status: status("running") }] });
    await t.clock.advance(1_000);
    expect(t.task("a").status.state).toBe("assigned");
    t.proposer.unavailable = false;
    const propose = t.proposer.propose.bind(t.proposer);
    let interfered = false;
    t.proposer.propose = async (groups) => {
      if (!interfered) t.proposer.commit([change("tasks", t.task("a"), { desired: "shutdown" })]);
      interfered = true;
      return await propose(groups);
    };
    await t.clock.advance(300);
    await settle();
    expect([t.task("a").status.state, t.task("a").desired]).toEqual(["running", "shutdown"]);
    expect(kinds(pair).filter((kind) => kind === "status-stored")).toHaveLength(1);
  });

  test("of the hello are taken like any other", async () => {
    const t = setUp();
    t.addTask("a", "n1");
    t.connect("n1", { statuses: [{ taskId: "a", status: status("failed", { exitCode: 3 }) }] });
    await t.clock.advance(10);
    expect(t.task("a").status).toMatchObject({ state: "failed", exitCode: 3 });
  });
});

test("a leader that was held up itself first reads what came meanwhile", async () => {
  const t = setUp();
  let heldUpMs = 0;
  const clock = {
    now: () => (t.clock.now() + heldUpMs) as InstantMs,
    wakeAt: (at: InstantMs, callback: () => void) =>
      t.clock.wakeAt((at - heldUpMs) as InstantMs, callback),
  };
  const parts = {
    store: t.store,
    proposer: t.proposer,
    random: createTestRandom(),
    log: silentLog,
  };
  const dispatcher = createDispatcher({ ...parts, clock });
  t.dispatcher.stop(null);
  dispatcher.start();
  const pair = t.connect("n1", {}, dispatcher);
  await t.clock.advance(2_500);
  heldUpMs = 10_000;
  // The deadline rings late; a heartbeat lies unread.
  await t.clock.advance(1_000);
  pair.say({ kind: "heartbeat", sequence: 1 });
  await t.clock.advance(1_000);
  expect(t.node("n1").state).toBe("ready");
  expect(pair.closed()).toBeNull();
  // Silent from then on, it is down as usual.
  await t.clock.advance(5_000);
  expect(t.node("n1").state).toBe("down");
  dispatcher.stop(null);
});
