/** Goal: elections, replication and snapshots do what Raft promises. Method: small clusters in one synchronous world, step by step. */
import { describe, expect, test } from "vitest";
import { bootstrap, EMPTY_STATE } from "./bootstrap.ts";
import { createRaft } from "./core.ts";
import {
  CAMPAIGN_SOON_TICKS_MAX,
  ENTRY_BYTES_MAX,
  RAFT_DEFAULTS,
  SNAPSHOT_WAIT_ELECTIONS_MAX,
} from "./limits.ts";
import { ABC, drain, electByHand, lone, one, withLog } from "./testing/by-hand.ts";
import { Cluster, startedWith } from "./testing/cluster.ts";
import { seededRandom } from "./testing/seeded-random.ts";
import type { Message, PeerId, Ready } from "./types.ts";

const TICKS = RAFT_DEFAULTS.electionTicks;

describe("a single manager", () => {
  test("elects itself, and commits only what is durable", () => {
    const core = lone("a", bootstrap("a"));
    drain(core);
    core.campaign();
    drain(core);
    expect(core.status()).toMatchObject({ role: "leader", term: 2, commit: 2, applied: 2 });
    core.propose(Uint8Array.of(1));
    const ready = core.ready();
    expect(ready.entries).toHaveLength(1);
    expect(core.status().commit).toBe(2);
    core.advance();
    expect(core.status().commit).toBe(3);
    expect(core.ready().committed.map((entry) => entry.index)).toEqual([3]);
  });

  test("is not leader before its own vote is durable", () => {
    const core = lone("a", startedWith(["a"]));
    core.campaign();
    const prevote = core.ready();
    expect(prevote.role).toBe("precandidate");
    core.advance();
    const vote = core.ready();
    expect(vote.hardState).toMatchObject({ term: 2, vote: "a" });
    expect(core.status().role).toBe("candidate");
    core.advance();
    expect(core.status().role).toBe("leader");
  });

  test("grows from bootstrap to three: joiners start with nothing and never campaign", () => {
    const cluster = new Cluster();
    cluster.add("a", bootstrap("a"));
    cluster.settle();
    cluster.elect("a");
    cluster.propose("a", "x");
    for (const id of ["b", "c"]) {
      cluster.add(id, EMPTY_STATE);
      cluster.tick(3 * TICKS);
      expect(cluster.core(id).status()).toMatchObject({ role: "follower", term: 0 });
      expect(cluster.core("a").proposeMembership(one("add-learner", id)).ok).toBe(true);
      cluster.settle();
      expect(cluster.peer(id).applied).toEqual(["x"]);
      expect(cluster.core("a").proposeMembership(one("add-voter", id)).ok).toBe(true);
      cluster.settle();
    }
    expect(cluster.core("c").status().membership.voters).toEqual(ABC);
    cluster.crash("a");
    cluster.tick(3 * TICKS);
    expect(["b", "c"]).toContain(cluster.leader());
  });
});

describe("election", () => {
  test("happens by itself, and the leader stays", () => {
    const cluster = Cluster.of(ABC);
    cluster.tick(3 * TICKS);
    const leader = cluster.leader();
    const term = cluster.core("a").status().term;
    cluster.tick(20 * TICKS);
    expect(leader).not.toBeNull();
    expect(cluster.leader()).toBe(leader);
    expect(cluster.core("a").status().term).toBe(term);
  });

  test("a vote is remembered over a restart", () => {
    const ask = (from: PeerId): Message => ({
      kind: "vote",
      from,
      to: "a",
      term: 5,
      lastIndex: 1,
      lastTerm: 1,
      transfer: false,
    });
    const first = lone("a", startedWith(ABC));
    first.step(ask("b"));
    const ready = first.ready();
    expect(ready.messages).toEqual([]);
    expect(ready.afterSave).toMatchObject([{ kind: "vote-reply", to: "b", granted: true }]);
    expect(ready.hardState).toEqual({ term: 5, vote: "b", commit: 1 });
    const second = lone("a", {
      ...startedWith(ABC),
      hardState: ready.hardState ?? bootstrap("a").hardState,
    });
    second.step(ask("c"));
    expect(drain(second)).toMatchObject([{ kind: "vote-reply", to: "c", granted: false }]);
    second.step(ask("b"));
    expect(drain(second)).toMatchObject([{ kind: "vote-reply", to: "b", granted: true }]);
  });

  test("nobody votes for a shorter log", () => {
    const core = lone("a", withLog([1, 2, 2]));
    const ask = { kind: "vote", from: "b", to: "a", term: 7, transfer: false } as const;
    core.step({ ...ask, lastIndex: 9, lastTerm: 1 });
    core.step({ ...ask, lastIndex: 3, lastTerm: 2 });
    expect(drain(core).map((m) => m.kind === "vote-reply" && m.granted)).toEqual([false, false]);
    core.step({ ...ask, lastIndex: 4, lastTerm: 2 });
    expect(drain(core)).toMatchObject([{ granted: true }]);
  });

  test("pre-vote: a peer that was cut off comes back without disturbing anybody", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    const { term } = cluster.core("a").status();
    cluster.isolate("c");
    cluster.tick(20 * TICKS);
    expect(cluster.core("c").status().term).toBe(term);
    cluster.heal();
    cluster.tick(5 * TICKS);
    expect(cluster.leader()).toBe("a");
    expect(cluster.core("a").status().term).toBe(term);
    expect(cluster.core("c").status().leader).toBe("a");
  });

  test("check-quorum: a leader that hears nobody steps down, and refuses nothing it cannot keep", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.isolate("a");
    cluster.tick(2 * TICKS + 1);
    expect(cluster.core("a").status()).toMatchObject({ role: "follower", leader: null });
    expect(cluster.propose("a", "lost")).toEqual({ ok: false, reason: "no-leader", leader: null });
  });

  test("a leader is believed while it is heard: votes without transfer are ignored", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    const { term } = cluster.core("a").status();
    const ask = {
      from: "c",
      to: "b",
      term: term + 3,
      lastIndex: 99,
      lastTerm: 99,
      transfer: false,
    } as const;
    cluster.core("b").step({ kind: "vote", ...ask });
    cluster.core("b").step({ kind: "prevote", ...ask });
    cluster.settle();
    expect(cluster.core("b").status().term).toBe(term);
  });

  test("a leader whose connections close is replaced within a few ticks, with one election", () => {
    for (const leader of ABC) {
      const cluster = Cluster.of(ABC);
      cluster.elect(leader);
      const { term } = cluster.core(leader).status();
      cluster.crash(leader);
      for (const id of ABC) if (id !== leader) cluster.core(id).peerUnreachable(leader);
      cluster.tick(CAMPAIGN_SOON_TICKS_MAX);
      const next = cluster.leader();
      expect(next).not.toBeNull();
      expect(cluster.core(next ?? "").status().term).toBe(term + 1);
    }
  });

  test("one closed connection replaces no leader that the others hear", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("c");
    const { term } = cluster.core("c").status();
    cluster.core("a").peerUnreachable("c");
    cluster.tick(3 * TICKS);
    expect(cluster.leader()).toBe("c");
    expect(cluster.core("a").status()).toMatchObject({ term, leader: "c" });
  });

  test("a majority that is bridged by one peer keeps working when a link between two is cut", () => {
    const cluster = Cluster.of(["a", "b", "c", "d", "e"]);
    cluster.elect("a");
    // c hears all; {a, b} and {d, e} do not hear each other.
    for (const x of ["a", "b"]) {
      for (const y of ["d", "e"]) {
        cluster.cut.add(`${x}>${y}`);
        cluster.cut.add(`${y}>${x}`);
      }
    }
    cluster.tick(10 * TICKS);
    const leader = cluster.leader();
    expect(leader).not.toBeNull();
    const before = cluster.committedMax;
    cluster.propose(leader ?? "", "over the bridge");
    cluster.tick(TICKS);
    expect(cluster.committedMax).toBeGreaterThan(before);
  });
});

describe("replication", () => {
  test("a proposal is applied everywhere, also one made at a follower", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    expect(cluster.propose("a", "one")).toEqual({ ok: true, index: 3, term: 2 });
    expect(cluster.propose("b", "two")).toEqual({ ok: true, index: null, term: null });
    cluster.tick(1);
    for (const id of ABC) expect(cluster.peer(id).applied).toEqual(["one", "two"]);
  });

  test("proposals of one turn go out in one message a peer", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    for (let i = 0; i < 50; i += 1) cluster.propose("a", `${i}`);
    const { messages } = cluster.core("a").ready();
    expect(messages.map((m) => (m.kind === "append" ? m.entries.length : 0))).toEqual([50, 50]);
  });

  test("Figure 8: entries of an earlier term are not committed by counting", () => {
    const core = lone("a", withLog([2]));
    electByHand(core);
    drain(core);
    const { term } = core.status();
    const ack = (from: PeerId, index: number): Message => ({
      kind: "append-reply",
      from,
      to: "a",
      term,
      index,
      rejected: false,
      hintIndex: 0,
      hintTerm: 0,
    });
    core.step(ack("b", 2));
    core.step(ack("c", 2));
    expect(core.status().commit).toBe(1);
    core.step(ack("b", 3));
    expect(core.status().commit).toBe(3);
  });

  // Figure 7 of the Raft paper: what a follower may lack, and what it may have too much of.
  test.each([
    { name: "lacks the end", terms: [1, 1, 1, 4, 4, 5, 5, 6, 6] },
    { name: "lacks much", terms: [1, 1, 1, 4] },
    { name: "has one more", terms: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6] },
    { name: "has a whole term more", terms: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7] },
    { name: "has a term of its own", terms: [1, 1, 1, 4, 4, 4, 4] },
    { name: "has terms of its own", terms: [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3] },
    { name: "has nothing", terms: [] },
  ])("a follower that $name ends with the leader's log", ({ terms }) => {
    const cluster = new Cluster();
    cluster.committedMax = 1;
    const leader = withLog([1, 1, 1, 4, 4, 5, 5, 6, 6, 6]);
    cluster.add("a", { ...leader, hardState: { ...leader.hardState, term: 8 } });
    cluster.add("b", { ...leader, hardState: { ...leader.hardState, term: 8 } });
    cluster.add("c", withLog(terms));
    cluster.elect("a");
    cluster.propose("a", "agreed");
    cluster.tick(2);
    expect(cluster.peer("c").disk.state.entries).toEqual(cluster.peer("a").disk.state.entries);
    expect(cluster.peer("c").applied.at(-1)).toBe("agreed");
  });

  test("backtracking over a long run of terms takes a few round trips, not one per entry", () => {
    const cluster = new Cluster();
    cluster.add("a", withLog([...Array<number>(200).fill(2), ...Array<number>(200).fill(5)]));
    cluster.add("b", withLog([...Array<number>(200).fill(2), ...Array<number>(200).fill(5)]));
    cluster.add("c", withLog([...Array<number>(50).fill(2), ...Array<number>(300).fill(3)]));
    cluster.isolate("c");
    cluster.elect("a");
    cluster.heal();
    let refused = 0;
    cluster.core("a").tick();
    for (let round = 0; round < 40; round += 1) {
      for (const id of ABC) cluster.work(id);
      refused += cluster.network.filter((m) => m.kind === "append-reply" && m.rejected).length;
      for (let i = cluster.network.length; i > 0; i -= 1) cluster.deliver();
    }
    expect(cluster.core("c").status().lastIndex).toBe(cluster.core("a").status().lastIndex);
    expect(refused).toBeLessThanOrEqual(3);
  });

  test("what is under way to a silent peer is bounded by messages and by bytes", () => {
    const bounds = { appendBytesMax: 100, inflightMessagesMax: 4, inflightBytesMax: 300 };
    const cluster = Cluster.of(ABC, 1, bounds);
    cluster.elect("a");
    let toC = 0;
    for (let i = 0; i < 40; i += 1) {
      cluster.propose("a", "x".repeat(60));
      cluster.work("a");
      toC += cluster.network.filter(
        (m) => m.to === "c" && m.kind === "append" && m.entries.length > 0,
      ).length;
      cluster.network = cluster.network.filter((m) => m.to !== "c");
      for (let turns = 0; turns < 4; turns += 1) {
        cluster.work("b");
        while (cluster.network.length > 0) cluster.deliver();
        cluster.work("a");
        toC += cluster.network.filter(
          (m) => m.to === "c" && m.kind === "append" && m.entries.length > 0,
        ).length;
        cluster.network = cluster.network.filter((m) => m.to !== "c");
      }
    }
    expect(toC).toBeLessThanOrEqual(4);
    cluster.tick(4);
    expect(cluster.peer("c").applied).toHaveLength(40);
  });

  test("the uncommitted tail is bounded while no quorum answers", () => {
    const cluster = Cluster.of(ABC, 1, { uncommittedBytesMax: 100 });
    cluster.elect("a");
    cluster.isolate("a");
    const results = Array.from({ length: 4 }, () => cluster.propose("a", "x".repeat(40)));
    expect(results.map((result) => result.ok)).toEqual([true, true, false, false]);
    expect(results[3]).toEqual({ ok: false, reason: "log-full", leader: "a" });
    cluster.heal();
    cluster.tick(1);
    expect(cluster.propose("a", "x".repeat(99)).ok).toBe(true);
  });

  test("committed entries are handed out in pages", () => {
    const cluster = Cluster.of(["a"], 1, { committedBytesPerReadyMax: 100 });
    cluster.elect("a");
    for (let i = 0; i < 10; i += 1) cluster.propose("a", "x".repeat(40));
    const core = cluster.core("a");
    const pages: number[] = [];
    while (core.hasReady()) {
      pages.push(core.ready().committed.length);
      core.advance();
    }
    expect(Math.max(...pages)).toBe(1);
    expect(pages.reduce((sum, page) => sum + page, 0)).toBe(10);
  });

  test("an entry above the limit is refused", () => {
    const cluster = Cluster.of(["a"]);
    cluster.elect("a");
    const result = cluster.core("a").propose(new Uint8Array(ENTRY_BYTES_MAX + 1));
    expect(result).toEqual({ ok: false, reason: "invalid", leader: "a" });
  });

  test("messages from strangers and for others change nothing", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    const before = cluster.core("a").status();
    const stranger = { from: "z", to: "a", term: before.term } as const;
    const core = cluster.core("a");
    core.step({
      ...stranger,
      kind: "append-reply",
      index: 2,
      rejected: false,
      hintIndex: 0,
      hintTerm: 0,
    });
    core.step({ ...stranger, kind: "heartbeat-reply", readId: null });
    core.step({ ...stranger, kind: "vote-reply", granted: true });
    core.step({ ...stranger, to: "b", kind: "timeout-now" });
    core.peerUnreachable("z");
    core.snapshotSent("z", false);
    expect(core.status()).toEqual(before);
  });
});

describe("snapshots", () => {
  function behind(): Cluster {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.isolate("c");
    for (let i = 0; i < 20; i += 1) {
      cluster.propose("a", `v${i}`);
      cluster.settle();
    }
    const { applied } = cluster.core("a").status();
    cluster.compact("a", applied + 1);
    return cluster;
  }

  test("bring a follower back that is behind the log", () => {
    const cluster = behind();
    cluster.heal();
    cluster.tick(3);
    cluster.propose("a", "after");
    cluster.settle();
    expect(cluster.peer("c").applied).toEqual(cluster.peer("a").applied);
    expect(cluster.peer("c").disk.state.snapshot).not.toBeNull();
    expect(
      cluster
        .core("a")
        .status()
        .progress.map((peer) => peer.state),
    ).toEqual(Array(3).fill("replicate"));
  });

  test("that are lost are sent again", () => {
    const cluster = behind();
    cluster.heal();
    cluster.core("a").tick();
    let lost = 0;
    for (let i = 0; i < 200 && lost < 2; i += 1) {
      for (const id of ABC) cluster.work(id);
      const at = cluster.network.findIndex((m) => m.kind === "snapshot");
      if (at >= 0) {
        cluster.network.splice(at, 1);
        lost += 1;
        cluster.core("a").snapshotSent("c", false);
      }
      if (cluster.network.length === 0) cluster.core("a").tick();
      else cluster.deliver();
    }
    expect(lost).toBe(2);
    cluster.tick(3);
    expect(cluster.peer("c").applied).toEqual(cluster.peer("a").applied);
  });

  test("that nobody reports on are given up after a while", () => {
    const cluster = behind();
    cluster.heal();
    const core = cluster.core("a");
    for (let i = 0; i < 30 * TICKS && core.status().progress[2]?.state !== "snapshot"; i += 1) {
      core.tick();
      for (const id of ABC) cluster.work(id);
      cluster.network = cluster.network.filter((m) => m.kind !== "snapshot");
      while (cluster.network.length > 0) cluster.deliver();
    }
    expect(core.status().progress[2]?.state).toBe("snapshot");
    cluster.network = [];
    cluster.tick((SNAPSHOT_WAIT_ELECTIONS_MAX + 5) * TICKS);
    expect(cluster.peer("c").applied).toEqual(cluster.peer("a").applied);
  });

  test("that are older than the log keep its end", () => {
    const core = lone("a", withLog([1, 1, 1, 1]));
    const snapshot = { ...(startedWith(ABC).snapshot as NonNullable<Ready["snapshot"]>), index: 3 };
    core.step({ kind: "snapshot", from: "b", to: "a", term: 1, snapshot });
    const ready = core.ready();
    expect(ready.snapshot).toBeNull();
    expect(ready.afterSave).toMatchObject([{ kind: "append-reply", index: 3, rejected: false }]);
    expect(core.status()).toMatchObject({ commit: 3, lastIndex: 5 });
  });

  test("that conflict with the log replace it", () => {
    const core = lone("a", withLog([1, 1, 1, 1]));
    const snapshot = {
      ...(startedWith(ABC).snapshot as NonNullable<Ready["snapshot"]>),
      index: 3,
      term: 4,
    };
    core.step({ kind: "snapshot", from: "b", to: "a", term: 4, snapshot });
    expect(core.ready().snapshot).toEqual(snapshot);
    core.advance();
    expect(core.status()).toMatchObject({ commit: 3, applied: 3, lastIndex: 3 });
  });
});

test.each([
  { electionTicks: 1, heartbeatTicks: 1 },
  { inflightMessagesMax: 0 },
  { appendBytesMax: 10, inflightBytesMax: 5 },
  { uncommittedBytesMax: Number.NaN },
  { id: "" },
])("a configuration that cannot work is refused: %j", (wrong) => {
  const config = { ...RAFT_DEFAULTS, id: "a", random: seededRandom(1), ...wrong };
  expect(() => createRaft(config, EMPTY_STATE)).toThrow("must hold");
});

test("ready() and advance() alternate", () => {
  const core = lone("a", startedWith(["a"]));
  expect(core.hasReady()).toBe(false);
  core.campaign();
  core.ready();
  expect(core.hasReady()).toBe(false);
  expect(() => core.ready()).toThrow("advanced before");
  core.advance();
  expect(() => core.advance()).toThrow("advance follows ready");
});
