import { describe, expect, test } from "vitest";
import { silentLog } from "../lib/log.ts";
import { aDescription, aNetwork, aStatus } from "../model/testing/rows.ts";
import type { AssignedTask, AssignmentSet, ToAgent } from "../wire/session.ts";
import { createAgent } from "./agent.ts";
import { FakeClock, settle } from "./testing/fake-clock.ts";
import {
  anAssigned,
  anExit,
  FakeExecutor,
  FakeManager,
  FakeNetworks,
  MemoryWorkerDb,
} from "./testing/fakes.ts";

function world(over: { executor?: FakeExecutor; db?: MemoryWorkerDb } = {}) {
  const clock = new FakeClock();
  const executor = over.executor ?? new FakeExecutor();
  const db = over.db ?? new MemoryWorkerDb();
  const networks = new FakeNetworks();
  const dialled: string[] = [];
  const sessions: FakeManager[] = [];
  const down = new Set<string>();
  const told = { registered: 0 };
  const agent = createAgent({
    nodeId: "n1",
    clusterAddress: "192.0.2.9:2377",
    managers: ["m1", "m2", "m3"],
    connect: (address) => {
      dialled.push(address);
      if (down.has(address)) return Promise.reject(new Error("refused"));
      const manager = new FakeManager();
      sessions.push(manager);
      return Promise.resolve(manager.channel);
    },
    executor,
    networks,
    db,
    clock,
    random: { below: () => 0, id: () => "id" },
    log: silentLog,
    describe: () => Promise.resolve(aDescription()),
    onMembership: () => {},
    onRegistered: () => {
      told.registered += 1;
    },
  });
  const last = () => sessions.at(-1) ?? new FakeManager();
  return { agent, clock, executor, db, networks, dialled, sessions, down, last, told };
}

function all(revision: number, tasks: readonly AssignedTask[]): ToAgent {
  return { kind: "assign-all", revision, set: setOf(tasks) };
}
function setOf(tasks: readonly AssignedTask[]): AssignmentSet {
  return { tasks, networks: [], peers: [] };
}
function diff(
  from: number,
  revision: number,
  put: readonly AssignedTask[],
  remove: readonly string[] = [],
): ToAgent {
  return {
    kind: "assign-diff",
    from,
    revision,
    put: setOf(put),
    remove: { tasks: remove, networks: [], peers: [] },
  };
}

describe("agent", () => {
  test("says hello, runs what it is assigned, tells what came of it", async () => {
    const { agent, clock, executor, last, told } = world();
    await agent.start();
    await clock.pass(0);
    expect(last().heard[0]).toMatchObject({ kind: "hello", nodeId: "n1", statuses: [] });
    last().welcome();
    expect(told.registered).toBe(0);
    last().say({ kind: "registered" });
    expect(told.registered).toBe(1);
    last().say(all(5, [anAssigned("a")]));
    last().say(diff(5, 6, [anAssigned("b")]));
    await clock.pass(10);
    expect(last().statuses).toContain("a running");
    expect(last().statuses).toContain("b running");
    expect(last().heard).toContainEqual({ kind: "applied", revision: 6 });
    last().say(diff(6, 7, [], ["a"]));
    await clock.pass(10);
    expect([...executor.containers.keys()]).toEqual(["b"]);
    await agent.stop();
  });

  test("a gap in the assignments means a new hello", async () => {
    const { agent, clock, last, sessions } = world();
    await agent.start();
    await clock.pass(0);
    last().welcome();
    last().say(all(5, []));
    last().say(diff(7, 8, [anAssigned("a")]));
    await clock.pass(10);
    expect(sessions).toHaveLength(2);
    expect(sessions[0]?.closedFor).toContain("gap");
    expect(last().heard[0]).toMatchObject({ kind: "hello" });
    await agent.stop();
  });

  test("statuses are sent again until they are stored, and with each hello", async () => {
    const { agent, clock, last } = world();
    await agent.start();
    await clock.pass(0);
    last().welcome();
    last().say(all(1, [anAssigned("a")]));
    await clock.pass(10);
    const times = () => last().statuses.filter((item) => item === "a running").length;
    expect(times()).toBe(1);
    await clock.pass(6_000);
    expect(times()).toBe(2);
    last().say({ kind: "status-stored", taskIds: ["a"] });
    await clock.pass(20_000);
    expect(times()).toBe(2);
    last().hangUp("gone");
    await clock.pass(10);
    expect(last().statuses).toEqual(["a running"]);
    await agent.stop();
  });

  test("follows a goodbye to the leader at once", async () => {
    const { agent, clock, dialled, last } = world();
    await agent.start();
    await clock.pass(0);
    last().say({ kind: "goodbye", reason: "not-leader", leader: "m9" });
    await clock.pass(0);
    expect(dialled).toEqual(["m1", "m9"]);
    await agent.stop();
  });

  test("without managers it dials all, ever slower, and everything keeps running", async () => {
    const { agent, clock, dialled, down, executor, last } = world();
    await agent.start();
    await clock.pass(0);
    last().welcome();
    last().say(all(1, [anAssigned("a"), anAssigned("b")]));
    await clock.pass(10);
    for (const name of ["m1", "m2", "m3"]) down.add(name);
    dialled.length = 0;
    last().hangUp("power off");
    await clock.pass(0);
    expect(dialled).toEqual(["m1", "m2", "m3"]);
    await clock.pass(60_000);
    expect(dialled.length).toBeGreaterThan(9);
    expect(dialled.length).toBeLessThan(100);
    executor.end("b", anExit(2));
    await settle();
    expect(executor.containers.get("a")?.state).toBe("running");
    down.clear();
    await clock.pass(10_000);
    expect(last().statuses).toEqual(["a running", "b failed"]);
    await agent.stop();
  });

  test("a silent manager is left", async () => {
    const { agent, clock, sessions } = world();
    await agent.start();
    await clock.pass(3_500);
    expect(sessions[0]?.closedFor).toContain("no welcome");
    expect(sessions.length).toBeGreaterThan(1);
    await agent.stop();
  });

  test("after a restart it adopts what runs, goes on with what did not, removes what nobody knows", async () => {
    const db = new MemoryWorkerDb();
    const network = aNetwork("net");
    const attachment = {
      networkId: "net",
      address: "10.0.1.2",
      prefixLength: 24,
      mac: "02:42:0a:00:01:02",
      aliases: [],
    };
    db.networks.set("net", network);
    db.tasks.set("run", anAssigned("run", { attachments: [attachment] }));
    db.statuses.set("run", aStatus({ state: "running" }));
    db.tasks.set("ended", anAssigned("ended"));
    db.statuses.set("ended", aStatus({ state: "running" }));
    db.tasks.set("fresh", anAssigned("fresh"));
    const executor = new FakeExecutor();
    executor.containers.set("run", { state: "running", exit: null, waiters: [] });
    executor.containers.set("ended", { state: "exited", exit: anExit(4), waiters: [] });
    executor.containers.set("stray", { state: "running", exit: null, waiters: [] });
    const { agent, clock, networks, last } = world({ db, executor });
    await agent.start();
    await clock.pass(10);
    expect(networks.calls.slice(0, 2)).toEqual(["adopt run", "start"]);
    expect(networks.assignment?.networks).toEqual([network]);
    expect(executor.calls).not.toContain("start run");
    expect(executor.containers.get("fresh")?.state).toBe("running");
    // Nobody has said yet that the stray one is not wanted.
    expect(executor.containers.has("stray")).toBe(true);
    last().welcome();
    expect(db.statuses.get("ended")).toMatchObject({ state: "failed", exitCode: 4 });
    last().say(all(9, [...db.tasks.values()]));
    await clock.pass(10);
    expect(executor.containers.has("stray")).toBe(false);
    await agent.stop();
    expect(executor.containers.get("run")?.state).toBe("running");
  });

  test("leaving shuts everything down", async () => {
    const { agent, clock, db, executor, last } = world();
    await agent.start();
    await clock.pass(0);
    last().welcome();
    last().say(all(1, [anAssigned("a"), anAssigned("b")]));
    await clock.pass(10);
    await agent.leave();
    expect(executor.containers.size).toBe(0);
    expect(db.tasks.size).toBe(0);
  });
});
