/** Goal: no order of faults breaks a promise. Method: seeded schedules over a lossy network with crashes, then healing. */
import { expect, test } from "vitest";
import { assert } from "../lib/assert.ts";
import { EMPTY_STATE } from "./bootstrap.ts";
import { LEAVE_JOINT, members } from "./membership.ts";
import { Cluster, type CrashPoint } from "./testing/cluster.ts";
import type { MembershipChange, PeerId, RaftConfig } from "./types.ts";

const SEEDS = 300;
const STEPS = 9_000;
const IDS = ["n1", "n2", "n3", "n4", "n5"];
const CRASHES: CrashPoint[] = ["before-save", "before-send", "before-advance"];
/** Small limits, so that every window, page and bound is met. */
const TIGHT = {
  electionTicks: 5,
  appendBytesMax: 80,
  inflightMessagesMax: 3,
  inflightBytesMax: 160,
  uncommittedBytesMax: 60,
  committedBytesPerReadyMax: 80,
};

const ONE_AT_A_TIME = { asyncStorageWrites: false };
const LATE_SAVES = { asyncStorageWrites: true };
/** As etcd without its options; but a removed leader steps down: left in office it takes no proposal, and waits for its application to act. */
const ETCD_TIMING = {
  appendsAtOnce: true,
  preVote: false,
  refusedMembership: "empty-entry",
} as const;

test.each([
  { mode: "one Ready at a time", options: ONE_AT_A_TIME, seeds: SEEDS },
  { mode: "async storage writes that complete late", options: LATE_SAVES, seeds: SEEDS },
  {
    mode: "entries held back",
    options: { ...LATE_SAVES, holdBackEntriesMax: 3 },
    seeds: SEEDS,
  },
  { mode: "etcd's timing", options: { ...LATE_SAVES, ...ETCD_TIMING }, seeds: 100 },
])(
  "$seeds seeded schedules of loss, reordering, crashes and changes keep every promise and recover: $mode",
  ({ options, seeds }) => {
    let committed = 0;
    let crashes = 0;
    for (let seed = 1; seed <= seeds; seed += 1) {
      try {
        const run = runSchedule(seed, options);
        committed += run.committed;
        crashes += run.crashes;
      } catch (error) {
        throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
      }
    }
    expect(committed).toBeGreaterThan(seeds * 10);
    expect(crashes).toBeGreaterThan(seeds);
  },
  60_000,
);

test("one seed run twice ends in the same state", () => {
  for (const [seed, options] of [
    [7, ONE_AT_A_TIME],
    [77, LATE_SAVES],
    [78, { ...LATE_SAVES, holdBackEntriesMax: 2 }],
  ] as const) {
    expect(runSchedule(seed, options).trace).toBe(runSchedule(seed, options).trace);
  }
});

function runSchedule(
  seed: number,
  options: Partial<RaftConfig>,
): { committed: number; crashes: number; trace: string } {
  const cluster = Cluster.of(IDS.slice(0, 3), seed, { ...TIGHT, ...options });
  const asyncStorageWrites = options.asyncStorageWrites === true;
  for (const id of IDS.slice(3)) cluster.add(id, EMPTY_STATE);
  const { random } = cluster;
  const lossPercent = random.below(30);
  const doublePercent = random.below(20);
  const crashPermille = random.below(6);
  let crashes = 0;
  let proposals = 0;
  const reads = new Map<number, number>();
  const pick = (): PeerId => IDS[random.below(IDS.length)] as PeerId;
  const up = (id: PeerId): boolean => cluster.peer(id).core !== null;

  for (let step = 0; step < STEPS; step += 1) {
    const id = pick();
    const chance = random.below(1000);
    if (chance < crashPermille) {
      if (up(id)) {
        crashes += 1;
        cluster.work(id, CRASHES[random.below(3)] ?? null);
        cluster.crash(id);
      }
    } else if (chance < 30) {
      if (!up(id)) cluster.restart(id);
    } else if (chance < 40) {
      cluster.heal();
      if (random.below(2) === 0) cluster.isolate(id);
    } else if (chance < 48) {
      if (up(id)) cluster.core(id).proposeMembership(someChange(random.below, pick));
    } else if (chance < 54) {
      if (up(id)) cluster.core(id).transferLeadership(pick());
    } else if (chance < 60) {
      if (up(id)) cluster.core(id).peerUnreachable(pick());
    } else if (chance < 70) {
      if (up(id)) compactSomewhere(cluster, id);
    } else if (chance < 100) {
      if (up(id)) {
        reads.set(step, cluster.committedMax);
        cluster.core(id).readIndex(step);
      }
    } else if (chance < 180) {
      proposals += 1;
      if (up(id)) cluster.propose(id, `v${proposals}`);
    } else if (chance < 330) {
      cluster.peer(id).core?.tick();
    } else if (chance < 650) {
      const part = asyncStorageWrites ? random.below(3) : 0;
      if (part === 0) cluster.work(id);
      else if (part === 1) cluster.finishSave(id);
      else cluster.finishApply(id, 1 + random.below(3));
      for (const read of cluster.peer(id).reads.splice(0)) {
        const before = reads.get(read.readId);
        assert(before !== undefined && read.index >= before, "no read is stale");
      }
    } else if (cluster.network.length > 0) {
      const at = random.below(Math.min(cluster.network.length, 8));
      if (random.below(100) < lossPercent) cluster.lose(at);
      else {
        const message = cluster.network[at];
        if (message !== undefined && random.below(100) < doublePercent)
          cluster.network.push(message);
        cluster.deliver(at);
      }
    }
    if (step % 250 === 0) cluster.checkLogs();
  }
  recover(cluster);
  const peers = [...cluster.peers.values()];
  return {
    committed: cluster.committed.size,
    crashes,
    trace: peers.map((peer) => JSON.stringify([peer.up.status(), peer.applied])).join("\n"),
  };
}

/** Safety first, then liveness: with everybody back and nothing lost, the members agree on a new entry. */
function recover(cluster: Cluster): void {
  cluster.heal();
  for (const peer of cluster.peers.values()) if (peer.core === null) peer.start();
  cluster.settle();
  const limit = 400;
  for (let ticks = 0; ticks < limit; ticks += 1) {
    cluster.tick(1);
    const leader = cluster.leader();
    if (leader === null) continue;
    if (ticks % 20 === 19) {
      cluster.core(leader).proposeMembership(LEAVE_JOINT);
      cluster.settle();
      cluster.propose(leader, "last");
      cluster.settle();
    }
    const { membership, commit } = cluster.core(leader).status();
    const everybody = members(membership).map((id) => cluster.peer(id));
    const agreed = everybody.every(
      (peer) => peer.appliedIndex === commit && peer.applied.at(-1) === "last",
    );
    if (!agreed || membership.outgoing.length > 0) continue;
    const first = everybody[0];
    for (const peer of everybody) {
      assert(peer.applied.join() === first?.applied.join(), "all members end with the same state");
    }
    cluster.checkLogs();
    return;
  }
  assert(false, `within ${limit} ticks of healing the members agree again`);
}

function compactSomewhere(cluster: Cluster, id: PeerId): void {
  const { applied, firstIndex } = cluster.core(id).status();
  const snapshot = cluster.peer(id).disk.state.snapshot?.index ?? 0;
  // Not while a snapshot from the leader is about to replace the log.
  if (applied <= snapshot || firstIndex > applied + 1) return;
  const from = Math.max(firstIndex, applied - 3);
  cluster.compact(id, from + cluster.random.below(applied + 2 - from));
}

function someChange(below: (limit: number) => number, pick: () => PeerId): MembershipChange {
  const kinds = ["add-voter", "add-learner", "remove"] as const;
  const change = () => ({ kind: kinds[below(3)] ?? "remove", id: pick() });
  const transition = (["auto", "auto", "joint-implicit", "joint-explicit"] as const)[below(4)];
  if (below(4) === 0) return { changes: [], transition: "auto" };
  return {
    changes: below(2) === 0 ? [change()] : [change(), change()],
    transition: transition ?? "auto",
  };
}
