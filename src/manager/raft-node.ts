/**
 * Drives one Raft core: ticks it, saves before it sends, sends before it applies, and answers who waits.
 * Save, then send, then apply, then advance: one Ready at a time (etcd-io/raft rawnode.go).
 */
import { assert, present } from "../lib/assert.ts";
import { after, type Clock } from "../lib/clock.ts";
import { failure, messageOf, ShoalError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { mayOvertakeSave } from "../raft/send-order.ts";
import type {
  Entry,
  MembershipChange,
  PeerId,
  ProposeResult,
  RaftCore,
  RaftStatus,
  Ready,
  Snapshot,
  Storage,
  Transport,
} from "../raft/types.ts";
import type { ActionGroup, Committed, Proposer, Store } from "../store/types.ts";
import { decodeBody, decodeStore, encodeBody, encodeStore } from "../wire/codec.ts";
import {
  diskLookMs,
  diskReserveBytes,
  entryBytesMax,
  proposalsMax,
  proposeAgainMs,
  proposeTimeoutMs,
  readAgainMs,
  readTimeoutMs,
  tickMs,
} from "./limits.ts";

/** docker's words for a swarm without a leader; scripts match on them. */
export const noLeaderText =
  "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";

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

interface Waiter {
  readonly data: Uint8Array;
  readonly resolve: (committed: Committed) => void;
  readonly reject: (error: Error) => void;
  forget: () => void;
}
interface Read {
  readonly id: number;
  index: number | null;
  readonly settle: ((error: Error | null) => void)[];
  forget: () => void;
}

/** The driver of `options.core`. Nothing happens before start(). */
export function createRaftNode(options: RaftNodeOptions): RaftNode {
  const { core, storage, transport, store, clock, random, log } = options;
  const waiters = new Map<string, Waiter>();
  const leadershipObservers = new Set<() => void>();
  const membershipObservers = new Set<() => void>();
  let reads: Read[] = [];
  let nextReadId = 1;
  let leading = false;
  let knownLeader: PeerId | null = null;
  /** Term in which this manager was last seen to lead; it leads for good once an entry of it is applied. */
  let appliedTerm = 0;
  let running = false;
  let pumping = false;
  let drained: (() => void) | null = null;
  let diskFull = false;
  let lastSnapshotIndex = options.snapshot?.index ?? 0;
  let forgetTick: () => void = () => {};
  let forgetLook: () => void = () => {};
  const subscriptions: (() => void)[] = [];
  if (options.snapshot !== null) loadSnapshot(options.snapshot);

  /** A snapshot without data is that of a cluster that has no rows yet (raft/bootstrap). */
  function loadSnapshot(snapshot: Snapshot): void {
    if (snapshot.data.byteLength > 0) store.load(decodeStore(snapshot.data));
    else store.skip(snapshot.index);
    appliedTerm = Math.max(appliedTerm, snapshot.term);
    lastSnapshotIndex = snapshot.index;
  }

  function tick(): void {
    if (!running) return;
    core.tick();
    campaignAlone();
    forgetTick = clock.wakeAt(after(clock.now(), tickMs), tick);
    pump();
  }

  /** The only voter has nobody to wait for: it leads at once after a restart. */
  function campaignAlone(): void {
    const { role, id, membership } = core.status();
    const alone = membership.voters.length === 1 && membership.voters[0] === id;
    if (role === "follower" && alone && membership.outgoing.length === 0) core.campaign();
  }

  /** Works off Readys until there is none. Only one runs at a time; whoever comes meanwhile is served by it. */
  function pump(): void {
    if (pumping || !running) return;
    pumping = true;
    work()
      .catch((error: unknown) => fatal(error))
      .finally(() => {
        pumping = false;
        if (drained !== null) drained();
        else if (running && core.hasReady()) pump();
      });
  }

  async function work(): Promise<void> {
    while (running && core.hasReady()) {
      const ready = core.ready();
      // A leader may send its entries while it saves them (Raft thesis 10.2.1); a follower's word must be durable first.
      const early = ready.messages.filter(mayOvertakeSave);
      if (early.length > 0) transport.send(early);
      if (ready.hardState !== null || ready.entries.length > 0 || ready.snapshot !== null) {
        await storage.save({
          hardState: ready.hardState,
          entries: ready.entries,
          snapshot: ready.snapshot,
        });
        if (!running) return;
      }
      const late =
        early.length > 0
          ? ready.messages.filter((message) => !mayOvertakeSave(message))
          : ready.messages;
      if (late.length > 0) transport.send(late);
      if (ready.snapshot !== null) install(ready.snapshot);
      for (const entry of ready.committed) applyEntry(entry);
      takeReads(ready);
      core.advance();
      // The core's membership changes when it hears that the entry is applied.
      if (ready.snapshot !== null || ready.committed.some(isMembership)) {
        for (const observe of membershipObservers) observe();
      }
      noteLeadership();
      await snapshotWhenDue();
    }
  }

  function install(snapshot: Snapshot): void {
    assert(snapshot.index > store.view().index, "a snapshot is newer than what is applied");
    loadSnapshot(snapshot);
  }

  function applyEntry(entry: Entry): void {
    appliedTerm = entry.term;
    if (entry.kind !== "normal") {
      store.skip(entry.index);
      return;
    }
    const committed = store.apply(entry.index, decodeBody(entry.data));
    const waiter = waiters.get(committed.proposalId);
    if (waiter === undefined) return;
    waiters.delete(committed.proposalId);
    waiter.forget();
    waiter.resolve(committed);
  }

  function takeReads(ready: Ready): void {
    for (const { readId, index } of ready.reads) {
      const read = reads.find((candidate) => candidate.id === readId);
      if (read !== undefined) read.index = index;
    }
    const applied = store.view().index;
    const done = reads.filter((read) => read.index !== null && read.index <= applied);
    if (done.length === 0) return;
    reads = reads.filter((read) => !done.includes(read));
    for (const read of done) {
      read.forget();
      for (const settle of read.settle) settle(null);
    }
  }

  function noteLeadership(): void {
    const status = core.status();
    const now = status.role === "leader" && appliedTerm === status.term;
    if (now === leading && status.leader === knownLeader) return;
    if (now !== leading) log.info({ term: status.term, leading: now }, "leadership changed");
    leading = now;
    knownLeader = status.leader;
    for (const observe of leadershipObservers) observe();
  }

  async function snapshotWhenDue(): Promise<void> {
    const applied = store.view().index;
    const { interval, keep } = options.snapshotPolicy();
    if (applied - lastSnapshotIndex < interval) return;
    const status = core.status();
    if (status.applied !== applied) {
      // A leader's snapshot came while these entries were under way; it is newer than ours, and the next Ready installs it.
      assert(status.firstIndex > applied, "the core and the store have applied the same entries");
      return;
    }
    const snapshot: Snapshot = {
      index: applied,
      term: appliedTerm,
      membership: status.membership,
      data: encodeStore(store.save()),
    };
    const keepFrom = Math.max(applied - keep, 0) + 1;
    try {
      await storage.compact(snapshot, keepFrom);
    } catch (error) {
      if (!(error instanceof ShoalError && error.code === "unavailable")) throw error;
      // No room for a snapshot: the log is whole and goes on; the next try is an interval away.
      log.warn({ error: error.message }, "taking a snapshot failed");
      diskFull = true;
      lastSnapshotIndex = applied;
      return;
    }
    core.compact(snapshot, keepFrom);
    lastSnapshotIndex = applied;
  }

  /** Notices a full disk before a save meets it, and that there is room again. */
  function lookAtDisk(): void {
    if (!running || storage.roomFor === undefined) return;
    storage.roomFor(diskReserveBytes).then((room) => {
      if (room === diskFull)
        log.warn({ room }, room ? "there is room again" : "the log's disk is full");
      diskFull = !room;
      forgetLook = clock.wakeAt(after(clock.now(), diskLookMs), lookAtDisk);
    }, fatal);
  }

  function fatal(error: unknown): void {
    if (!running) return;
    running = false;
    forgetTick();
    const reason = error instanceof Error ? error : new Error(messageOf(error));
    log.error({ error: reason.message }, "this manager's Raft stopped");
    rejectAll(failure("unavailable", `this manager stopped: ${reason.message}`, reason));
    options.onFatal(reason);
  }

  function rejectAll(error: ShoalError): void {
    for (const waiter of waiters.values()) {
      waiter.forget();
      waiter.reject(error);
    }
    waiters.clear();
    const failed = reads;
    reads = [];
    for (const read of failed) {
      read.forget();
      for (const settle of read.settle) settle(error);
    }
  }

  /** Hands a waiter's entry to the leader, and again until it is seen applied: its versions make a second one harmless. */
  function submit(proposalId: string, waiter: Waiter, deadline: number): void {
    const result = core.propose(waiter.data);
    if (!result.ok && (result.reason === "log-full" || result.reason === "removed")) {
      waiters.delete(proposalId);
      waiter.reject(failure("unavailable", `writing to the cluster's state: ${result.reason}`));
      return;
    }
    const look = (): void => {
      if (waiters.get(proposalId) !== waiter) return;
      // In our own log while we still lead, it only waits for a majority.
      const inLog = result.ok && result.index !== null && core.status().term === result.term;
      if (clock.now() >= deadline) {
        waiters.delete(proposalId);
        const unknown = `writing to the cluster's state: no answer in ${proposeTimeoutMs} ms; whether it was written is unknown. `;
        waiter.reject(failure("unavailable", `${result.ok ? unknown : ""}${noLeaderText}`));
      } else if (inLog) waiter.forget = clock.wakeAt(after(clock.now(), proposeAgainMs), look);
      else submit(proposalId, waiter, deadline);
    };
    waiter.forget = clock.wakeAt(after(clock.now(), result.ok ? proposeAgainMs : tickMs), look);
    pump();
  }

  return {
    start() {
      assert(!running, "a Raft node is started once");
      running = true;
      subscriptions.push(
        transport.onMessage((message) => {
          if (!running) return;
          core.step(message);
          pump();
        }),
        transport.onClosed((peer) => {
          if (!running) return;
          core.peerUnreachable(peer);
          pump();
        }),
      );
      tick();
      lookAtDisk();
    },
    async stop() {
      running = false;
      forgetTick();
      forgetLook();
      for (const unsubscribe of subscriptions) unsubscribe();
      rejectAll(failure("unavailable", "this manager is stopping"));
      if (pumping) {
        await new Promise<void>((resolve) => {
          drained = resolve;
        });
      }
      leading = false;
      for (const observe of leadershipObservers) observe();
      await storage.close();
    },
    status: () => core.status(),
    isLeader: () => leading && running,
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
      pump();
      return result;
    },
    transferLeadership(to) {
      core.transferLeadership(to);
      pump();
    },
    propose(groups: readonly ActionGroup[]) {
      if (!running) return Promise.reject(failure("unavailable", "this manager is stopping"));
      if (diskFull) {
        return Promise.reject(
          failure(
            "unavailable",
            `writing to the cluster's state: the disk of this manager's Raft log has less than ${diskReserveBytes} bytes left; free some room`,
          ),
        );
      }
      if (waiters.size >= proposalsMax) {
        return Promise.reject(
          failure("unavailable", `${proposalsMax} writes are under way; try again`),
        );
      }
      const proposalId = random.id();
      const data = encodeBody({ proposalId, at: clock.now(), groups });
      if (data.byteLength > entryBytesMax) {
        return Promise.reject(
          failure(
            "invalid",
            `raft message is too large: ${data.byteLength} bytes, the limit is ${entryBytesMax}`,
          ),
        );
      }
      return new Promise<Committed>((resolve, reject) => {
        const waiter: Waiter = { data, resolve, reject, forget: () => {} };
        waiters.set(proposalId, waiter);
        submit(proposalId, waiter, after(clock.now(), proposeTimeoutMs));
      });
    },
    linearize() {
      if (!running) return Promise.reject(failure("unavailable", "this manager is stopping"));
      return new Promise<void>((resolve, reject) => {
        const settle = (error: Error | null) => (error === null ? resolve() : reject(error));
        const open = reads.find((read) => read.index === null && read.id === nextReadId);
        if (open !== undefined) {
          open.settle.push(settle);
          return;
        }
        const read: Read = { id: nextReadId, index: null, settle: [settle], forget: () => {} };
        reads.push(read);
        const deadline = after(clock.now(), readTimeoutMs);
        // Readers of this turn of the event loop share one round: it is asked when the turn ends.
        const ask = (): void => {
          if (!reads.includes(read)) return;
          if (read.id === nextReadId) nextReadId += 1;
          if (clock.now() >= deadline) {
            reads = reads.filter((other) => other !== read);
            for (const waiting of read.settle) waiting(failure("unavailable", noLeaderText));
            return;
          }
          if (read.index === null) core.readIndex(read.id);
          read.forget = clock.wakeAt(after(clock.now(), readAgainMs), ask);
          pump();
        };
        read.forget = clock.wakeAt(clock.now(), ask);
      });
    },
  };
}

function isMembership(entry: Entry): boolean {
  return entry.kind === "membership";
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
