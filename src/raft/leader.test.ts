/** Goal: leadership moves when asked, and reads are never stale. Method: small clusters, step by step. */
import { describe, expect, test } from "vitest";
import { EMPTY_STATE } from "./bootstrap.ts";
import { RAFT_DEFAULTS } from "./limits.ts";
import { ABC, drain, electByHand, lone, one, withLog } from "./testing/by-hand.ts";
import { Cluster } from "./testing/cluster.ts";
import type { Message } from "./types.ts";

const TICKS = RAFT_DEFAULTS.electionTicks;

describe("transferLeadership()", () => {
  test("makes the other leader, in one term, although the old one lives", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    const { term } = cluster.core("a").status();
    cluster.core("a").transferLeadership("c");
    cluster.settle();
    expect(cluster.leader()).toBe("c");
    expect(cluster.core("c").status().term).toBe(term + 1);
  });

  test("to a peer that is behind first brings it up to date; proposals wait", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.isolate("c");
    for (let i = 0; i < 5; i += 1) cluster.propose("a", `v${i}`);
    cluster.settle();
    cluster.core("a").transferLeadership("c");
    expect(cluster.propose("a", "no")).toEqual({ ok: false, reason: "transferring", leader: "a" });
    cluster.heal();
    cluster.tick(3);
    expect(cluster.leader()).toBe("c");
  });

  test("is given up after one election timeout", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.isolate("c");
    cluster.propose("a", "x");
    cluster.settle();
    cluster.core("a").transferLeadership("c");
    expect(cluster.core("a").status().transferee).toBe("c");
    cluster.tick(TICKS);
    expect(cluster.core("a").status()).toMatchObject({ transferee: null, role: "leader" });
    expect(cluster.propose("a", "y").ok).toBe(true);
  });

  test.each(["a", "z", "l"])("to %s changes nothing", (to) => {
    const cluster = Cluster.of(ABC);
    cluster.add("l", EMPTY_STATE);
    cluster.elect("a");
    cluster.core("a").proposeMembership(one("add-learner", "l"));
    cluster.tick(2);
    cluster.core("a").transferLeadership(to);
    expect(cluster.core("a").status().transferee).toBeNull();
  });
});

describe("readIndex()", () => {
  test("waits for the first commit of the term", () => {
    const core = lone("a", withLog([2]));
    electByHand(core);
    core.readIndex(7);
    drain(core);
    const { term } = core.status();
    const beat: Message = { kind: "heartbeat-reply", from: "b", to: "a", term, readId: null };
    core.step(beat);
    expect(core.ready().reads).toEqual([]);
    core.advance();
    core.step({
      kind: "append-reply",
      from: "b",
      to: "a",
      term,
      index: 3,
      rejected: false,
      hintIndex: 0,
      hintTerm: 0,
    });
    const asked = core.ready().messages.find((m) => m.kind === "heartbeat");
    core.advance();
    expect(asked).toMatchObject({ readId: 1 });
    core.step({ ...beat, readId: 1 });
    expect(core.ready().reads).toEqual([{ readId: 7, index: 3 }]);
  });

  test("confirms many reads with one round of heartbeats", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    for (let id = 0; id < 100; id += 1) cluster.core("a").readIndex(id);
    cluster.work("a");
    expect(cluster.network.filter((m) => m.kind === "heartbeat")).toHaveLength(2);
    cluster.settle();
    expect(cluster.peer("a").reads).toHaveLength(100);
  });

  test("asked at a follower is answered by the leader", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.propose("a", "x");
    cluster.settle();
    cluster.core("b").readIndex(42);
    cluster.settle();
    expect(cluster.peer("b").reads).toEqual([{ readId: 42, index: 3 }]);
  });

  test("asked at a peer that joins, and knows no member yet, is answered by its leader", () => {
    const core = lone("z", EMPTY_STATE);
    core.step({ kind: "heartbeat", from: "a", to: "z", term: 3, commit: 0, readId: null });
    core.readIndex(9);
    drain(core);
    core.step({ kind: "read-index-reply", from: "a", to: "z", term: 3, readId: 9, index: 0 });
    expect(core.ready().reads).toEqual([{ readId: 9, index: 0 }]);
  });

  test("is not answered by a leader that was replaced", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.isolate("a");
    cluster.tick(3 * TICKS, ["b", "c"]);
    expect(cluster.core("a").status().role).toBe("leader");
    cluster.propose(cluster.leader() ?? "", "newer");
    cluster.settle();
    cluster.core("a").readIndex(1);
    cluster.settle();
    expect(cluster.peer("a").reads).toEqual([]);
    cluster.heal();
    cluster.tick(2);
    expect(cluster.peer("a").reads).toEqual([]);
  });

  test("at a single manager is answered after its own commit", () => {
    const cluster = Cluster.of(["a"]);
    cluster.core("a").readIndex(1);
    cluster.elect("a");
    cluster.core("a").readIndex(2);
    cluster.settle();
    expect(cluster.peer("a").reads).toEqual([{ readId: 2, index: 2 }]);
  });
});
