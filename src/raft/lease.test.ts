/** Goal: a leader answers reads by itself only while nobody else can lead. Method: clusters with clocks of their own, paused and skewed by hand. */
import { describe, expect, test } from "vitest";
import { createRaft } from "./core.ts";
import { Lease } from "./lease.ts";
import { LEASE_ROUNDS_MAX, RAFT_DEFAULTS } from "./limits.ts";
import { ABC, drain } from "./testing/by-hand.ts";
import { Cluster, startedWith } from "./testing/cluster.ts";
import { seededRandom } from "./testing/seeded-random.ts";
import type { RaftConfig } from "./types.ts";

const TICK_MS = 100;
const TICKS = RAFT_DEFAULTS.electionTicks;

/** Three peers on one true time, which the test moves. */
function leased(): { cluster: Cluster; pass(ms: number): void; config: Partial<RaftConfig> } {
  let now = 1_000;
  const config: Partial<RaftConfig> = {
    readMode: "lease",
    leaseClock: { now: () => now, tickMs: TICK_MS },
  };
  const pass = (ms: number): void => {
    now += ms;
  };
  const cluster = Cluster.of(ABC, 1, config);
  cluster.tick(TICKS, []);
  return { cluster, pass, config };
}

/** Everybody ticks `count` times, in true time. */
function live(
  { cluster, pass }: ReturnType<typeof leased>,
  count: number,
  ids: readonly string[] = ABC,
): void {
  for (let i = 0; i < count; i += 1) {
    pass(TICK_MS);
    cluster.tick(1, ids);
  }
}

/** A leader by timeout, and ticks until its lease began. */
function elected(world: ReturnType<typeof leased>): string {
  for (let i = 0; i < 10 * TICKS && world.cluster.leader() === null; i += 1) live(world, 1);
  live(world, 2);
  const leader = world.cluster.leader();
  expect(leader).not.toBeNull();
  return leader ?? "";
}

describe("Lease", () => {
  test("begins with the sending of a round that a quorum answered", () => {
    const lease = new Lease(500);
    expect(lease.holds(0)).toBe(false);
    lease.sent(1, 100);
    lease.sent(2, 200);
    lease.confirmed(1);
    expect([lease.holds(599), lease.holds(600)]).toEqual([true, false]);
    lease.confirmed(2);
    expect([lease.holds(699), lease.holds(700)]).toEqual([true, false]);
  });

  test("is never longer for rounds that it forgot", () => {
    const lease = new Lease(10);
    for (let id = 1; id <= LEASE_ROUNDS_MAX + 5; id += 1) lease.sent(id, id);
    lease.confirmed(3);
    expect(lease.holds(4)).toBe(false);
  });
});

describe('readMode "lease"', () => {
  test("answers at once, without a message", () => {
    const world = leased();
    const leader = elected(world);
    world.cluster.propose(leader, "x");
    world.cluster.settle();
    const core = world.cluster.core(leader);
    core.readIndex(7);
    const ready = core.ready();
    expect(ready.reads).toEqual([{ readId: 7, index: core.status().commit }]);
    expect(ready.messages).toEqual([]);
  });

  test("a leader that was paused knows that its lease is over (etcd #20418)", () => {
    const world = leased();
    const old = elected(world);
    const others = ABC.filter((id) => id !== old);
    // The old leader's process is stopped: it neither ticks nor hears anything, but its clock runs on.
    world.cluster.isolate(old);
    live(world, 4 * TICKS, others);
    const next = world.cluster.leader();
    expect(others).toContain(next);
    world.cluster.propose(next ?? "", "written while it slept");
    world.cluster.settle();
    world.cluster.core(old).readIndex(1);
    world.cluster.work(old);
    expect(world.cluster.core(old).status().role, "it has not noticed yet").toBe("leader");
    expect(world.cluster.peer(old).reads, "and answers nothing").toEqual([]);
  });

  test("no other leader is elected while a lease holds, however early somebody campaigns", () => {
    const world = leased();
    const old = elected(world);
    const other = ABC.find((id) => id !== old) ?? "";
    world.cluster.core(other).peerUnreachable(old);
    world.cluster.core(other).forgetLeader();
    world.cluster.core(other).campaign();
    world.cluster.settle();
    expect(world.cluster.leader()).toBe(old);
    world.cluster.core(old).readIndex(1);
    world.cluster.settle();
    expect(world.cluster.peer(old).reads).toHaveLength(1);
  });

  test("a peer that starts votes for nobody before a lease it may have granted is over", () => {
    const world = leased();
    const config = { ...RAFT_DEFAULTS, ...world.config, id: "a", random: seededRandom(1) };
    const core = createRaft(config, startedWith(ABC));
    const ask = {
      from: "b",
      to: "a",
      term: 9,
      lastIndex: 9,
      lastTerm: 9,
      transfer: false,
    } as const;
    core.step({ kind: "vote", ...ask });
    expect(drain(core)).toEqual([]);
    for (let i = 0; i < TICKS; i += 1) core.tick();
    core.step({ kind: "vote", ...ask });
    expect(drain(core)).toContainEqual(
      expect.objectContaining({ kind: "vote-reply", granted: true }),
    );
  });

  test("a heartbeat is answered when the term is saved: a restart must know that it may have granted a lease", () => {
    const { config } = leased();
    for (const readMode of ["lease", "quorum"] as const) {
      const core = createRaft(
        { ...RAFT_DEFAULTS, ...config, readMode, id: "a", random: seededRandom(1) },
        startedWith(ABC),
      );
      core.step({ kind: "heartbeat", from: "b", to: "a", term: 5, commit: 1, readId: 3 });
      const { messages, afterSave } = core.ready();
      const replies = readMode === "lease" ? afterSave : messages;
      expect(replies).toMatchObject([{ kind: "heartbeat-reply", readId: 3 }]);
    }
  });

  test("handing over ends the lease for the rest of the term: its receiver is elected despite it", () => {
    const world = leased();
    const leader = elected(world);
    const to = ABC.find((id) => id !== leader) ?? "";
    world.cluster.core(leader).transferLeadership(to);
    world.cluster.work(leader);
    world.cluster.network = [];
    live(world, TICKS);
    expect(world.cluster.core(leader).status()).toMatchObject({ role: "leader", transferee: null });
    world.cluster.core(leader).readIndex(5);
    const ready = world.cluster.core(leader).ready();
    expect(ready.reads).toEqual([]);
    expect(ready.messages.map((message) => message.kind)).toEqual(["heartbeat", "heartbeat"]);
  });

  test("without a lease a round of heartbeats answers", () => {
    const world = leased();
    const leader = elected(world);
    world.pass(TICKS * TICK_MS);
    world.cluster.core(leader).readIndex(5);
    world.cluster.settle();
    expect(world.cluster.peer(leader).reads).toMatchObject([{ readId: 5 }]);
  });

  test.each([
    { wrong: { checkQuorum: false } },
    { wrong: { leaseMarginTicks: 1 } },
    { wrong: { leaseMarginTicks: TICKS } },
  ])("is refused with $wrong", ({ wrong }) => {
    const config = { ...RAFT_DEFAULTS, ...leased().config, id: "a", random: seededRandom(1) };
    expect(() => createRaft({ ...config, ...wrong }, startedWith(ABC))).toThrow("must hold");
  });
});
