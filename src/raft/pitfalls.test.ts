/** Goal: what went wrong in other implementations does not here. Method: one named case for each, from their issue trackers. */
import { describe, expect, test } from "vitest";
import { createRaft } from "./core.ts";
import { RAFT_DEFAULTS, SNAPSHOT_WAIT_ELECTIONS_MAX } from "./limits.ts";
import { ABC, drain, electByHand, lone, one, withLog } from "./testing/by-hand.ts";
import { Cluster, startedWith } from "./testing/cluster.ts";
import { seededRandom } from "./testing/seeded-random.ts";
import type { Message, Snapshot } from "./types.ts";

const TICKS = RAFT_DEFAULTS.electionTicks;

function snapshotAt(index: number, term: number): Snapshot {
  const { snapshot } = startedWith(ABC);
  if (snapshot === null) throw new Error("a started peer has a snapshot");
  return { ...snapshot, index, term };
}

describe("persistence", () => {
  test("term and vote are in one save, and the reply waits for it (hashicorp/raft #661, PySyncObj #201)", () => {
    const core = lone("a", startedWith(ABC));
    const ask = {
      from: "b",
      to: "a",
      term: 7,
      lastIndex: 9,
      lastTerm: 9,
      transfer: false,
    } as const;
    core.step({ kind: "vote", ...ask });
    const ready = core.ready();
    expect(ready.hardState).toEqual({ term: 7, vote: "b", commit: 1 });
    expect(ready).toMatchObject({ mustSync: true, messages: [] });
    expect(ready.afterSave).toMatchObject([{ kind: "vote-reply", granted: true }]);
  });

  test("a single manager commits nothing before its disk has it (etcd #14370)", () => {
    const cluster = Cluster.of(["a"], 1, { asyncStorageWrites: true });
    cluster.elect("a");
    const { commit } = cluster.core("a").status();
    cluster.propose("a", "x");
    cluster.work("a");
    expect(cluster.core("a").status().commit).toBe(commit);
    cluster.crash("a");
    cluster.restart("a");
    cluster.elect("a");
    expect(cluster.peer("a").applied, "never acknowledged, so it may be gone").toEqual([]);
  });
});

describe("disruption", () => {
  test("a leader that can send but not receive steps down: check-quorum", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    for (const id of ["b", "c"]) cluster.cut.add(`${id}>a`);
    cluster.tick(2 * TICKS + 1);
    expect(cluster.core("a").status().role).not.toBe("leader");
    cluster.tick(6 * TICKS);
    expect(["b", "c"]).toContain(cluster.leader());
  });

  test("a peer whose term ran ahead is not stuck: a refused heartbeat tells its leader (etcd #8498, canonical/raft #279)", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.crash("c");
    const { hardState } = cluster.peer("c").disk.state;
    cluster.peer("c").disk.save({
      hardState: { ...hardState, term: hardState.term + 9, vote: null },
      entries: [],
      snapshot: null,
    });
    cluster.restart("c");
    cluster.tick(6 * TICKS);
    const leader = cluster.leader() ?? "";
    cluster.propose(leader, "together again");
    cluster.settle();
    expect(cluster.peer("c").applied.at(-1)).toBe("together again");
  });

  test("a removed peer that never heard of it disturbs nobody", () => {
    const cluster = Cluster.of(["a", "b", "c", "d"]);
    cluster.elect("a");
    cluster.isolate("d");
    cluster.core("a").proposeMembership(one("remove", "d"));
    cluster.tick(2);
    cluster.heal();
    const { term } = cluster.core("a").status();
    cluster.tick(10 * TICKS);
    expect(cluster.core("a").status()).toMatchObject({ role: "leader", term });
  });

  test("what a removed peer answers raises no term", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.core("a").proposeMembership(one("remove", "c"));
    cluster.settle();
    const before = cluster.core("a").status();
    const reply = { index: 2, rejected: false, hintIndex: 0, hintTerm: 0 };
    cluster.core("a").step({ kind: "append-reply", from: "c", to: "a", term: 99, ...reply });
    expect(cluster.core("a").status()).toEqual(before);
  });

  test("a change of membership that is only appended changes no election: it counts when applied", () => {
    const core = lone("a", withLog([2]));
    electByHand(core);
    drain(core);
    const { term } = core.status();
    const ack = { rejected: false, hintIndex: 0, hintTerm: 0 } as const;
    core.step({ kind: "append-reply", from: "b", to: "a", term, index: 3, ...ack });
    drain(core);
    core.proposeMembership(one("remove", "c"));
    drain(core);
    expect(core.status().membership.voters).toEqual(ABC);
    core.step({ kind: "append-reply", from: "b", to: "a", term, index: 4, ...ack });
    drain(core);
    expect(core.status().membership.voters).toEqual(["a", "b"]);
  });
});

describe("snapshots", () => {
  function behind(): Cluster {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.isolate("c");
    for (let i = 0; i < 10; i += 1) {
      cluster.propose("a", `v${i}`);
      cluster.settle();
    }
    for (const id of ["a", "b"]) cluster.compact(id, cluster.core(id).status().applied + 1);
    return cluster;
  }

  test("a follower that every peer has compacted past gets one (camunda #4451)", () => {
    const cluster = behind();
    cluster.heal();
    cluster.tick(3);
    expect(cluster.peer("c").applied).toEqual(cluster.peer("a").applied);
  });

  test("two in a short time: the second replaces the first, also while that is being saved (etcd #18055)", () => {
    for (const asyncStorageWrites of [false, true]) {
      const config = { ...RAFT_DEFAULTS, asyncStorageWrites, id: "a", random: seededRandom(1) };
      const core = createRaft(config, startedWith(ABC));
      const from = { from: "b", to: "a", term: 2 } as const;
      core.step({ kind: "snapshot", ...from, snapshot: snapshotAt(5, 2) });
      const first = core.ready();
      core.step({ kind: "snapshot", ...from, snapshot: snapshotAt(9, 2) });
      if (first.save !== null && asyncStorageWrites) core.saved(first.save);
      else core.advance();
      expect(core.status().applied, "the first is not what counts any more").toBeLessThan(9);
      const second = core.ready();
      expect(second.snapshot?.index).toBe(9);
      if (second.save !== null && asyncStorageWrites) core.saved(second.save);
      else core.advance();
      expect(core.status()).toMatchObject({ applied: 9, commit: 9, lastIndex: 9 });
    }
  });

  test("one that is lost and never reported, with the follower answering heartbeats, is no livelock", () => {
    const cluster = behind();
    cluster.heal();
    let lost = 0;
    for (let i = 0; i < (SNAPSHOT_WAIT_ELECTIONS_MAX + 4) * TICKS; i += 1) {
      cluster.core("a").tick();
      for (const id of ABC) cluster.work(id);
      if (lost === 0 && cluster.network.some((m) => m.kind === "snapshot")) {
        cluster.network = cluster.network.filter((m) => m.kind !== "snapshot");
        lost += 1;
      }
      while (cluster.network.length > 0) cluster.deliver();
    }
    cluster.tick(2);
    expect(lost).toBe(1);
    expect(cluster.peer("c").applied).toEqual(cluster.peer("a").applied);
  });

  test("compacting while one is under way leaves the follower on its feet (camunda #13724)", () => {
    const cluster = behind();
    cluster.heal();
    const core = cluster.core("a");
    const onTheWay = (): boolean => cluster.network.some((m) => m.kind === "snapshot");
    for (let i = 0; i < 30 && !onTheWay(); i += 1) {
      core.tick();
      for (const id of ABC) cluster.work(id);
      while (cluster.network.length > 0 && !onTheWay()) cluster.deliver();
    }
    cluster.network = cluster.network.filter((m) => m.kind === "snapshot");
    expect(core.status().progress[2]?.state).toBe("snapshot");
    cluster.isolate("c");
    cluster.propose("a", "more");
    const under = cluster.network;
    cluster.network = [];
    cluster.settle();
    cluster.compact("a", core.status().applied + 1);
    cluster.heal();
    cluster.network = under;
    cluster.tick(4);
    expect(cluster.peer("c").applied).toEqual(cluster.peer("a").applied);
  });
});

describe("old and doubled messages", () => {
  test("of an earlier term change nothing but the knowledge of its sender", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.core("a").transferLeadership("b");
    cluster.settle();
    const before = cluster.core("c").status();
    const old = { from: "a", to: "c", term: before.term - 1 } as const;
    const messages: Message[] = [
      { kind: "append", ...old, prevIndex: 1, prevTerm: 1, entries: [], commit: 9 },
      { kind: "heartbeat", ...old, commit: 9, readId: null },
      { kind: "snapshot", ...old, snapshot: snapshotAt(50, 1) },
      { kind: "timeout-now", ...old },
      { kind: "vote-reply", ...old, granted: true },
    ];
    for (const message of messages) cluster.core("c").step(message);
    expect(cluster.core("c").status()).toEqual(before);
  });

  test("a doubled vote counts once", () => {
    const core = lone("a", startedWith(["a", "b", "c", "d", "e"]));
    core.campaign();
    drain(core);
    for (let i = 0; i < 5; i += 1) {
      core.step({ kind: "prevote-reply", from: "b", to: "a", term: 2, granted: true });
    }
    drain(core);
    expect(core.status().role).toBe("precandidate");
  });

  test("a refusal of an append that was answered long ago moves nobody back", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    for (let i = 0; i < 5; i += 1) cluster.propose("a", `v${i}`);
    cluster.settle();
    const before = cluster.core("a").status();
    const refusal = { index: 1, rejected: true, hintIndex: 0, hintTerm: 0 } as const;
    cluster
      .core("a")
      .step({ kind: "append-reply", from: "b", to: "a", term: before.term, ...refusal });
    expect(cluster.core("a").status()).toEqual(before);
  });
});

describe("a grant that outlives a crash of the candidate", () => {
  /** a asks for votes with an entry that a crash takes back; c's grant to the longer log arrives after the restart. */
  function lateGrant(voteRequestsAtOnce: boolean): string | null {
    const options = { asyncStorageWrites: true, preVote: false, checkQuorum: false };
    const cluster = Cluster.of(ABC, 1, { ...options, voteRequestsAtOnce });
    cluster.elect("b");
    cluster.propose("b", "committed by b and c");
    cluster.work("b");
    // a has the entry in memory only; b and c commit it.
    for (const m of cluster.network.filter(({ to }) => to === "a")) cluster.core("a").step(m);
    cluster.network = cluster.network.filter(({ to }) => to !== "a");
    cluster.work("a");
    cluster.cut.add("b>a");
    for (const id of ["b", "c"]) cluster.finishSave(id);
    for (let i = 0; i < 4; i += 1) {
      while (cluster.network.length > 0) cluster.deliver();
      for (const id of ["b", "c"]) {
        cluster.work(id);
        cluster.finishSave(id);
        cluster.finishApply(id);
      }
    }
    expect(cluster.peer("c").applied).toEqual(["committed by b and c"]);
    cluster.core("a").campaign();
    cluster.work("a");
    while (cluster.network.length > 0) cluster.deliver();
    cluster.work("c");
    cluster.finishSave("c");
    const grants = cluster.network.filter(({ kind, to }) => kind === "vote-reply" && to === "a");
    cluster.network = [];
    cluster.crash("a");
    cluster.restart("a");
    cluster.core("a").campaign();
    cluster.work("a");
    cluster.finishSave("a");
    for (const grant of grants) cluster.core("a").step(grant);
    try {
      cluster.work("a");
      expect(cluster.core("a").status().role).toBe("candidate");
      return null;
    } catch (error) {
      return String(error);
    }
  }

  test("cannot make it leader: requests for votes wait for its disk", () => {
    expect(lateGrant(false)).toBeNull();
  });

  test("would, without that wait, make a leader that lacks a committed entry", () => {
    expect(lateGrant(true)).toContain("has committed entry");
  });
});

describe("bounds", () => {
  test("a leader that was removed while it hands over takes no proposal", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.isolate("c");
    cluster.core("a").proposeMembership(one("remove", "c"));
    cluster.settle();
    cluster.core("a").transferLeadership("c");
    expect(cluster.core("a").status().transferee, "who is no voter gets nothing").toBeNull();
    expect(cluster.propose("a", "x").ok).toBe(true);
  });

  test("a cut-off leader holds no more uncommitted bytes than its limit, for ever", () => {
    const cluster = Cluster.of(ABC, 1, { uncommittedBytesMax: 1_000, checkQuorum: false });
    cluster.elect("a");
    cluster.isolate("a");
    let taken = 0;
    for (let i = 0; i < 500; i += 1) {
      if (cluster.propose("a", "x".repeat(100)).ok) taken += 1;
      cluster.tick(1, ["a"]);
    }
    expect(taken).toBe(10);
  });
});
