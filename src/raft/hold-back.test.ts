/** Goal: few entries go to a quorum first, the rest follow, and nobody waits in doubt. Method: small clusters, step by step. */
import { describe, expect, test } from "vitest";
import { EMPTY_STATE } from "./bootstrap.ts";
import { HELD_BACK_LAG_MAX, RAFT_DEFAULTS } from "./limits.ts";
import { ABC, one } from "./testing/by-hand.ts";
import { Cluster } from "./testing/cluster.ts";
import type { Message, PeerId, RaftConfig } from "./types.ts";

const TICKS = RAFT_DEFAULTS.electionTicks;

/** A cluster that `a` leads; everything is settled. */
function led(
  ids: readonly PeerId[] = ABC,
  options: Partial<RaftConfig> = { holdBackEntriesMax: 2 },
): Cluster {
  const cluster = Cluster.of(ids, 1, options);
  cluster.elect("a");
  cluster.tick(1);
  return cluster;
}

/** Who gets entries with the leader's next Ready. */
function told(cluster: Cluster): string[] {
  cluster.work("a");
  return cluster.network.filter(hasEntries).map(({ to }) => to);
}

function hasEntries(message: Message): boolean {
  return message.kind === "append" && message.entries.length > 0;
}

function lengths(cluster: Cluster): number[] {
  return [...cluster.peers.keys()].map((id) => cluster.core(id).status().lastIndex);
}

describe("holdBackEntriesMax", () => {
  test("sends an entry to one of two followers; it commits, and the other one gets several together", () => {
    const cluster = led();
    const before = cluster.core("a").status().commit;
    for (let n = 1; n <= 3; n += 1) {
      cluster.propose("a", `v${n}`);
      expect(told(cluster)).toEqual(["b"]);
      cluster.settle();
      expect(cluster.core("a").status().commit).toBe(before + n);
    }
    expect(lengths(cluster)).toEqual([before + 3, before + 3, before]);
    expect(cluster.core("a").heldBackThrough()).toBe(before + 3);
    cluster.core("a").sendHeldBack();
    expect(cluster.core("a").heldBackThrough()).toBeNull();
    cluster.work("a");
    const late = cluster.network.filter(hasEntries);
    expect(late).toMatchObject([{ to: "c", commit: before + 3 }]);
    expect(late[0]).toHaveProperty("entries.length", 3);
    cluster.settle();
    expect(cluster.core("c").status().commit).toBe(before + 3);
  });

  test("is off by default", () => {
    const cluster = led(ABC, {});
    cluster.propose("a", "x");
    expect(told(cluster)).toEqual(["b", "c"]);
    expect(cluster.core("a").heldBackThrough()).toBeNull();
  });

  test.each([
    [2, ["b"]],
    [3, ["b"]],
    [4, ["b", "c"]],
    [5, ["b", "c"]],
  ])("of %i voters as many get it as a quorum needs", (count, first) => {
    const cluster = led(["a", "b", "c", "d", "e"].slice(0, count));
    cluster.propose("a", "x");
    expect(told(cluster)).toEqual(first);
  });

  test("nobody waits longer than a tick, whatever the driver does", () => {
    const cluster = led();
    cluster.propose("a", "x");
    cluster.settle();
    expect(new Set(lengths(cluster)).size).toBe(2);
    cluster.tick(1, ["a"]);
    expect(new Set(lengths(cluster)).size).toBe(1);
  });

  test("where the first one does not answer, the other one does, and is the first from then on", () => {
    const cluster = led();
    cluster.isolate("b");
    cluster.propose("a", "x");
    cluster.settle();
    const { commit, lastIndex } = cluster.core("a").status();
    expect(commit).toBe(lastIndex - 1);
    cluster.core("a").sendHeldBack();
    cluster.settle();
    expect(cluster.core("a").status().commit).toBe(lastIndex);
    cluster.heal();
    cluster.tick(2);
    cluster.propose("a", "y");
    expect(told(cluster)).toEqual(["c"]);
  });

  test("more than so many at a time, or while others are under way, go to all", () => {
    const cluster = led();
    for (let n = 0; n < 3; n += 1) cluster.propose("a", `v${n}`);
    expect(told(cluster)).toEqual(["b", "c"]);
    cluster.settle();
    cluster.propose("a", "alone");
    expect(told(cluster)).toEqual(["b"]);
    cluster.network = cluster.network.filter((message) => !hasEntries(message));
    cluster.propose("a", "behind it");
    expect(told(cluster)).toEqual(["b", "c"]);
    expect(cluster.network.filter(hasEntries)).toMatchObject([
      { to: "b", entries: { length: 1 } },
      { to: "c", entries: { length: 2 } },
    ]);
    expect(cluster.core("a").heldBackThrough()).toBeNull();
  });

  test("a change of membership and what follows before it counts go to all", () => {
    const cluster = led();
    cluster.add("l", EMPTY_STATE);
    cluster.core("a").proposeMembership(one("add-learner", "l"));
    expect(told(cluster)).toEqual(["b", "c"]);
    cluster.settle();
    cluster.tick(2);
    cluster.propose("a", "x");
    expect(told(cluster)).toEqual(["b"]);
    cluster.settle();
    cluster.tick(1);
    expect(new Set(lengths(cluster)).size).toBe(1);
  });

  test("a follower that is not heard of ends it: the others get everything at once", () => {
    const cluster = led();
    cluster.isolate("c");
    cluster.core("a").peerUnreachable("c");
    cluster.tick(TICKS + 1);
    cluster.propose("a", "x");
    expect(told(cluster)).toContain("b");
    expect(cluster.core("a").heldBackThrough()).toBeNull();
  });

  test("the closed connection of the first one lets go of the others", () => {
    const cluster = led();
    cluster.propose("a", "x");
    expect(told(cluster)).toEqual(["b"]);
    cluster.isolate("b");
    cluster.core("a").peerUnreachable("b");
    cluster.settle();
    const { commit, lastIndex } = cluster.core("a").status();
    expect(commit).toBe(lastIndex);
  });

  test("what a follower proposed is not held back from it", () => {
    const cluster = led();
    cluster.propose("a", "before");
    expect(told(cluster)).toEqual(["b"]);
    cluster.settle();
    cluster.propose("c", "its own");
    cluster.work("c");
    while (cluster.network.length > 0) cluster.deliver();
    expect(told(cluster)).toEqual(["b", "c"]);
    cluster.settle();
    expect(cluster.peer("c").appliedIndex).toBe(cluster.core("a").status().commit);
    cluster.propose("a", "after");
    expect(told(cluster)).toEqual(["b"]);
  });

  test("a read that a follower asks for brings it what it must see", () => {
    const cluster = led();
    cluster.propose("a", "x");
    cluster.settle();
    cluster.core("c").readIndex(9);
    cluster.settle();
    expect(cluster.peer("c").reads).toMatchObject([{ readId: 9 }]);
    expect(cluster.peer("c").applied).toContain("x");
  });

  test("leadership goes to who was held back from, after it has everything", () => {
    const cluster = led();
    cluster.propose("a", "x");
    cluster.settle();
    cluster.core("a").transferLeadership("c");
    cluster.settle();
    expect(cluster.leader()).toBe("c");
    expect(cluster.peer("c").applied).toContain("x");
  });

  test(`nobody is kept more than ${HELD_BACK_LAG_MAX} entries behind`, () => {
    const cluster = led(ABC, { holdBackEntriesMax: 2, electionTicks: 50, heartbeatTicks: 40 });
    for (let n = 0; n <= HELD_BACK_LAG_MAX; n += 1) {
      cluster.propose("a", `v${n}`);
      cluster.settle();
    }
    const [a = 0, , c = 0] = lengths(cluster);
    expect(a - c).toBeLessThanOrEqual(HELD_BACK_LAG_MAX);
    expect(cluster.peer("c").applied.length).toBeGreaterThan(0);
  });
});

describe("a leader that is gone", () => {
  test("is followed at once by who has the entries, though another one's name is before it", () => {
    const cluster = led();
    cluster.propose("a", "1");
    cluster.settle();
    cluster.tick(1);
    // c answers first from now on, so b is held back from.
    cluster.isolate("b");
    cluster.propose("a", "2");
    cluster.settle();
    cluster.core("a").sendHeldBack();
    cluster.settle();
    cluster.heal();
    cluster.tick(2);
    cluster.propose("a", "3");
    cluster.settle();
    expect(cluster.peer("b").disk.state.entries.at(-1)?.index).toBeLessThan(
      cluster.core("c").status().lastIndex,
    );
    cluster.crash("a");
    cluster.core("b").peerUnreachable("a");
    cluster.core("c").peerUnreachable("a");
    cluster.settle();
    expect(cluster.leader()).toBe("c");
  });
});
