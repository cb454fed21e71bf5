/** Goal: members come and go without a moment of two leaders or none. Method: small clusters, step by step. */
import { describe, expect, test } from "vitest";
import { EMPTY_STATE } from "./bootstrap.ts";
import { RAFT_DEFAULTS } from "./limits.ts";
import { ABC, drain, electByHand, lone, one, withLog } from "./testing/by-hand.ts";
import { Cluster } from "./testing/cluster.ts";
import type { MembershipChange } from "./types.ts";

const TICKS = RAFT_DEFAULTS.electionTicks;

describe("membership", () => {
  test("a learner gets the log and counts in no quorum; promoted, it counts", () => {
    const cluster = Cluster.of(["a", "b"]);
    cluster.add("c", EMPTY_STATE);
    cluster.elect("a");
    cluster.core("a").proposeMembership(one("add-learner", "c"));
    cluster.tick(2);
    cluster.propose("a", "x");
    cluster.settle();
    expect(cluster.peer("c").applied).toEqual(["x"]);
    cluster.isolate("b");
    const stuck = cluster.core("a").status().commit;
    cluster.propose("a", "y");
    cluster.settle();
    expect(cluster.core("a").status().commit).toBe(stuck);
    cluster.heal();
    cluster.tick(2);
    cluster.core("a").proposeMembership(one("add-voter", "c"));
    cluster.tick(2);
    cluster.isolate("b");
    cluster.propose("a", "z");
    cluster.settle();
    expect(cluster.peer("c").applied).toEqual(["x", "y", "z"]);
  });

  test("several at once go through a joint membership and leave it by themselves", () => {
    const cluster = Cluster.of(ABC);
    for (const id of ["d", "e"]) cluster.add(id, EMPTY_STATE);
    cluster.elect("a");
    const changes = [
      one("add-voter", "d"),
      one("add-voter", "e"),
      one("remove", "b"),
      one("add-learner", "c"),
    ];
    const seen: string[] = [];
    cluster.core("a").proposeMembership({
      changes: changes.flatMap((change) => change.changes),
      transition: "auto",
    });
    for (let i = 0; i < 60; i += 1) {
      for (const id of ["a", "b", "c", "d", "e"]) cluster.work(id);
      for (let n = cluster.network.length; n > 0; n -= 1) cluster.deliver();
      const { voters, outgoing, learners } = cluster.core("a").status().membership;
      const now = `${voters.join("")}|${outgoing.join("")}|${learners.join("")}`;
      if (seen.at(-1) !== now) seen.push(now);
    }
    expect(seen).toEqual(["abc||", "ade|abc|", "ade||c"]);
  });

  test("an explicit joint membership waits to be left, and both halves must agree meanwhile", () => {
    const cluster = Cluster.of(["a"]);
    cluster.add("b", EMPTY_STATE);
    cluster.elect("a");
    cluster.core("a").proposeMembership({ ...one("add-voter", "b"), transition: "joint-explicit" });
    cluster.tick(5);
    expect(cluster.core("a").status().membership).toMatchObject({
      voters: ["a", "b"],
      outgoing: ["a"],
    });
    cluster.isolate("b");
    const { commit } = cluster.core("a").status();
    cluster.propose("a", "x");
    cluster.settle();
    expect(cluster.core("a").status().commit).toBe(commit);
    cluster.heal();
    cluster.tick(1);
    cluster.core("a").proposeMembership({ changes: [], transition: "auto" });
    cluster.tick(1);
    expect(cluster.core("a").status().membership).toMatchObject({
      voters: ["a", "b"],
      outgoing: [],
    });
  });

  test("a change is refused with its reason", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    const core = cluster.core("a");
    const reason = (change: MembershipChange): string | null => {
      const result = core.proposeMembership(change);
      return result.ok ? null : result.reason;
    };
    expect(reason({ changes: [], transition: "auto" })).toBe("invalid");
    expect(reason({ changes: ABC.map((id) => ({ kind: "remove", id })), transition: "auto" })).toBe(
      "invalid",
    );
    expect(reason(one("add-voter", ""))).toBe("invalid");
    expect(reason(one("remove", "c"))).toBeNull();
    expect(reason(one("remove", "b"))).toBe("membership-pending");
    cluster.settle();
    expect(reason(one("remove", "b"))).toBeNull();
  });

  test("no change is accepted before the leader committed in its term", () => {
    const core = lone("a", withLog([]));
    electByHand(core);
    const refused = { ok: false, reason: "membership-pending", leader: "a" };
    expect(core.proposeMembership(one("remove", "c"))).toEqual(refused);
  });

  test("a forwarded change that may not be becomes an empty entry", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.core("b").proposeMembership(one("remove", "c"));
    cluster.core("b").proposeMembership(one("remove", "b"));
    cluster.tick(2);
    expect(cluster.core("a").status().membership.voters).toEqual(["a", "b"]);
    expect(cluster.peer("a").disk.state.entries.at(-1)?.kind).toBe("empty");
  });

  test("a leader that removed itself steps down, and the others go on without it", () => {
    const cluster = Cluster.of(ABC);
    cluster.elect("a");
    cluster.core("a").proposeMembership(one("remove", "a"));
    cluster.settle();
    expect(cluster.core("a").status()).toMatchObject({ role: "follower", leader: null });
    cluster.tick(4 * TICKS);
    expect(["b", "c"]).toContain(cluster.leader());
    cluster.core("a").campaign();
    cluster.tick(2 * TICKS);
    expect(cluster.core("a").status().role).toBe("follower");
    expect(cluster.propose("a", "x")).toEqual({ ok: false, reason: "removed", leader: null });
    expect(cluster.core("b").status().membership.voters).toEqual(["b", "c"]);
  });

  test("a voter that missed the removal of its leader learns of it when that one refuses its vote", () => {
    const cluster = Cluster.of(["a", "b"]);
    cluster.elect("a");
    cluster.core("a").proposeMembership(one("remove", "a"));
    cluster.work("a");
    cluster.propose("a", "never committed");
    cluster.deliver();
    cluster.work("b");
    cluster.deliver();
    // Everything a says after it knew of the commit is lost.
    while (cluster.core("a").hasReady()) cluster.work("a");
    cluster.network = [];
    expect(cluster.core("a").status().role).toBe("follower");
    expect(cluster.propose("a", "x")).toEqual({ ok: false, reason: "removed", leader: null });
    expect(cluster.core("b").status().membership.voters).toEqual(["a", "b"]);
    cluster.tick(8 * TICKS);
    expect(cluster.leader()).toBe("b");
    expect(cluster.core("b").status().membership.voters).toEqual(["b"]);
  });

  test("a learner votes when asked: it may have been promoted without knowing", () => {
    const core = lone("c", EMPTY_STATE);
    core.step({
      kind: "vote",
      from: "a",
      to: "c",
      term: 3,
      lastIndex: 5,
      lastTerm: 2,
      transfer: false,
    });
    expect(drain(core)).toMatchObject([{ kind: "vote-reply", granted: true, term: 3 }]);
  });
});
