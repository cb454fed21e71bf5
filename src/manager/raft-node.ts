/** A manager's Raft: the replicated store as the driver's state machine, with writes, reads, leadership and snapshots. */
import { assert, present } from "../lib/assert.ts";
import { after, type Clock } from "../lib/clock.ts";
import { failure } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type {
  Entry,
  MembershipChange,
  PeerId,
  ProposeResult,
  RaftCore,
  RaftStatus,
  Snapshot,
  Storage,
  Transport,
} from "../raft/types.ts";
import type { ActionGroup, Proposer, Store } from "../store/types.ts";
import { decodeBody, decodeStore, encodeStore } from "../wire/codec.ts";
import { diskLookMs, diskReserveBytes, tickMs } from "./limits.ts";
import { createRaftDriver } from "./raft-driver.ts";
import { createProposals } from "./raft-proposals.ts";
import { createReads } from "./raft-reads.ts";
import { snapshotDue } from "./snapshot-due.ts";

export interface RaftNodeOptions {
  readonly core: RaftCore;
  /** The snapshot that the core started from, if any; it is loaded into the store. */
  readonly snapshot: Snapshot | null;
  readonly storage: Storage & { roomFor?(bytes: number): Promise<boolean> };
  readonly transport: Transport;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** See RaftDriverOptions.endOfTurn. */
  readonly endOfTurn: (work: () => void) => void;
  /** Entries between snapshots, and entries kept behind one for slow followers; asked before each look. */
  readonly snapshotPolicy: () => { readonly interval: number; readonly keep: number };
  /** The log can not be written any more: the manager must stop. Called once. */
  readonly onFatal: (error: Error) => void;
}
export interface RaftNode extends Proposer {
  start(): void;
  stop(): Promise<void>;
  status(): RaftStatus;
  /** This manager leads, and has applied everything that earlier leaders committed. */
  isLeader(): boolean;
  /** Told when isLeader() or the leader's id changed. */
  onLeadership(observe: () => void): () => void;
  /** Told after a membership entry was applied. */
  onMembership(observe: () => void): () => void;
  proposeMembership(change: MembershipChange): ProposeResult;
  transferLeadership(to: PeerId): void;
  /** Resolves when this manager's store holds everything that was committed when it was asked. Rejects with ShoalError("unavailable"). */
  linearize(): Promise<void>;
}

/** The Raft of one manager on `options.core`, which is made with asyncStorageWrites. Nothing happens before start(). */
export function createRaftNode(options: RaftNodeOptions): RaftNode {
  const { core, storage, store, clock, random, log } = options;
  const leadershipObservers = new Set<() => void>();
  const membershipObservers = new Set<() => void>();
  let leading = false;
  let knownLeader: PeerId | null = null;
  /** Term of the newest applied entry: this manager leads for good once one of its own term is applied. */
  let appliedTerm = 0;
  let membershipApplied = false;
  let started = false;
  let diskFull = false;
  let lastSnapshotIndex = options.snapshot?.index ?? 0;
  let forgetLook: () => void = () => {};
  if (options.snapshot !== null) loadSnapshot(options.snapshot);

  const driver = createRaftDriver({
    core,
    storage,
    transport: options.transport,
    clock,
    tickMs,
    machine: {
      apply(entries) {
        for (const entry of entries) applyEntry(entry);
      },
      install(snapshot) {
        assert(snapshot.index > store.view().index, "a snapshot is newer than what is applied");
        loadSnapshot(snapshot);
        membershipApplied = true;
        proposals.skipped();
      },
      reads: (readIds) => reads.confirmed(readIds),
      turned,
    },
    endOfTurn: options.endOfTurn,
    onFatal: fatal,
  });
  const parts = { core, clock, random, wake: driver.wake };
  const proposals = createProposals(parts);
  const reads = createReads(parts);

  /** A snapshot without data is that of a cluster that has no rows yet (raft/bootstrap). */
  function loadSnapshot(snapshot: Snapshot): void {
    if (snapshot.data.byteLength > 0) store.load(decodeStore(snapshot.data));
    else store.skip(snapshot.index);
    appliedTerm = Math.max(appliedTerm, snapshot.term);
    lastSnapshotIndex = snapshot.index;
  }

  function applyEntry(entry: Entry): void {
    appliedTerm = entry.term;
    if (entry.kind === "normal") {
      proposals.applied(store.apply(entry.index, decodeBody(entry.data)));
      return;
    }
    membershipApplied ||= entry.kind === "membership";
    store.skip(entry.index);
  }

  function turned(): void {
    reads.turned();
    const status = core.status();
    // The core's membership changes when it hears that the entry is applied, which is before this.
    if (membershipApplied) {
      membershipApplied = false;
      for (const observe of membershipObservers) observe();
    }
    noteLeadership(status);
    if (!driver.compacting) snapshotWhenDue(status);
  }

  function noteLeadership(status: RaftStatus): void {
    const now = status.role === "leader" && appliedTerm === status.term;
    if (now === leading && status.leader === knownLeader) return;
    if (now !== leading) log.info({ term: status.term, leading: now }, "leadership changed");
    leading = now;
    knownLeader = status.leader;
    for (const observe of leadershipObservers) observe();
  }

  function snapshotWhenDue(status: RaftStatus): void {
    const applied = store.view().index;
    const { interval, keep } = options.snapshotPolicy();
    if (!snapshotDue(applied, lastSnapshotIndex, interval, status.id, status.membership.voters)) {
      return;
    }
    if (status.applied !== applied) {
      // A leader's snapshot came while these entries were under way; it is newer than ours, and is about to be installed.
      assert(status.firstIndex > applied, "the core and the store have applied the same entries");
      return;
    }
    const snapshot: Snapshot = {
      index: applied,
      term: appliedTerm,
      membership: status.membership,
      data: encodeStore(store.save()),
    };
    lastSnapshotIndex = applied;
    driver.compact(snapshot, Math.max(applied - keep, 0) + 1).then((room) => {
      if (room || !driver.running) return;
      // The log is whole and goes on; the next try is an interval away.
      log.warn({ index: applied }, "taking a snapshot failed: the log's disk has no room for it");
      diskFull = true;
    }, fatal);
  }

  /** Notices a full disk before a save meets it, and that there is room again. */
  function lookAtDisk(): void {
    if (!driver.running || storage.roomFor === undefined) return;
    storage.roomFor(diskReserveBytes).then((room) => {
      if (room === diskFull)
        log.warn({ room }, room ? "there is room again" : "the log's disk is full");
      diskFull = !room;
      if (driver.running) forgetLook = clock.wakeAt(after(clock.now(), diskLookMs), lookAtDisk);
    }, driver.fail);
  }

  function fatal(reason: Error): void {
    forgetLook();
    log.error({ error: reason.message }, "this manager's Raft stopped");
    const error = failure("unavailable", `this manager stopped: ${reason.message}`, reason);
    proposals.rejectAll(error);
    reads.rejectAll(error);
    options.onFatal(reason);
  }

  return {
    start() {
      assert(!started, "a Raft node is started once");
      started = true;
      driver.start();
      lookAtDisk();
    },
    async stop() {
      forgetLook();
      const stopped = driver.stop();
      const error = failure("unavailable", "this manager is stopping");
      proposals.rejectAll(error);
      reads.rejectAll(error);
      await stopped;
      leading = false;
      for (const observe of leadershipObservers) observe();
      await storage.close();
    },
    status: () => core.status(),
    isLeader: () => leading && driver.running,
    onLeadership(observe) {
      leadershipObservers.add(observe);
      return () => leadershipObservers.delete(observe);
    },
    onMembership(observe) {
      membershipObservers.add(observe);
      return () => membershipObservers.delete(observe);
    },
    proposeMembership(change) {
      const result = core.proposeMembership(change);
      driver.wake();
      return result;
    },
    transferLeadership(to) {
      core.transferLeadership(to);
      driver.wake();
    },
    propose(groups: readonly ActionGroup[]) {
      if (!driver.running)
        return Promise.reject(failure("unavailable", "this manager is stopping"));
      if (diskFull) {
        return Promise.reject(
          failure(
            "unavailable",
            `writing to the cluster's state: the disk of this manager's Raft log has less than ${diskReserveBytes} bytes left; free some room`,
          ),
        );
      }
      return proposals.propose(groups);
    },
    linearize() {
      if (!driver.running)
        return Promise.reject(failure("unavailable", "this manager is stopping"));
      return reads.linearize();
    },
  };
}

/** The address of each Raft peer, from the node rows. */
export function peerAddresses(store: Store): ReadonlyMap<PeerId, string> {
  const addresses = new Map<PeerId, string>();
  for (const node of store.view().table("nodes").all()) {
    if (node.manager !== null) {
      addresses.set(present(node.manager, "manager record").raftId, node.manager.address);
    }
  }
  return addresses;
}
