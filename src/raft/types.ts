/** The nouns of consensus: what the core says to its driver and to its peers. Types only. */
import type { Random } from "../lib/random.ts";
import type { NoteState, RaftNote } from "./notes.ts";
import type { TraceEvent } from "./trace.ts";

/** Random, never used twice: a wiped or demoted manager comes back under a new one. */
export type PeerId = string;
export type Role = "follower" | "precandidate" | "candidate" | "leader";

export interface Entry {
  readonly index: number;
  readonly term: number;
  readonly kind: "normal" | "membership" | "empty";
  /** For `membership`: an encoded MembershipChange (raft/membership.ts); for `empty`: zero bytes. */
  readonly data: Uint8Array;
}
/** What a peer must remember across a restart, besides the log. */
export interface HardState {
  readonly term: number;
  readonly vote: PeerId | null;
  readonly commit: number;
}
/** Who counts. Joint while `outgoing` is not empty: both halves must agree (Raft thesis 4.3). */
export interface Membership {
  readonly voters: readonly PeerId[];
  readonly outgoing: readonly PeerId[];
  readonly learners: readonly PeerId[];
  /** Voters that become learners when the joint membership is left. */
  readonly learnersNext: readonly PeerId[];
  readonly autoLeave: boolean;
}
/** One change of membership; more than one change, or `joint`, goes through joint consensus. */
export interface MembershipChange {
  readonly changes: readonly {
    readonly kind: "add-voter" | "add-learner" | "remove";
    readonly id: PeerId;
  }[];
  readonly transition: "auto" | "joint-implicit" | "joint-explicit";
}
export interface Snapshot {
  readonly index: number;
  readonly term: number;
  readonly membership: Membership;
  readonly data: Uint8Array;
}

interface Envelope {
  readonly from: PeerId;
  readonly to: PeerId;
  readonly term: number;
}
export type Message = Envelope &
  (
    | {
        readonly kind: "append";
        readonly prevIndex: number;
        readonly prevTerm: number;
        readonly entries: readonly Entry[];
        readonly commit: number;
      }
    | {
        readonly kind: "append-reply";
        /** Accepted: last index that matches. Rejected: the prevIndex that was refused. */
        readonly index: number;
        readonly rejected: boolean;
        readonly hintIndex: number;
        readonly hintTerm: number;
      }
    | { readonly kind: "heartbeat"; readonly commit: number; readonly readId: number | null }
    | { readonly kind: "heartbeat-reply"; readonly readId: number | null }
    | {
        readonly kind: "vote" | "prevote";
        readonly lastIndex: number;
        readonly lastTerm: number;
        readonly transfer: boolean;
      }
    | {
        readonly kind: "vote-reply" | "prevote-reply";
        readonly granted: boolean;
        /** With a refusal: an entry that is committed. Whoever has it may commit it, and so learn that a refuser counts no more. */
        readonly committed?: { readonly index: number; readonly term: number };
      }
    | { readonly kind: "snapshot"; readonly snapshot: Snapshot }
    | { readonly kind: "timeout-now" }
    /** A follower hands a proposal to the leader (once; the proposer retries). */
    | {
        readonly kind: "propose";
        readonly entries: readonly { readonly kind: Entry["kind"]; readonly data: Uint8Array }[];
      }
    | { readonly kind: "read-index"; readonly readId: number }
    | { readonly kind: "read-index-reply"; readonly readId: number; readonly index: number }
  );

/**
 * What a save was: handed back through RaftCore.saved() once it is durable. It names what the save ended with, so that
 * an acknowledgement which comes after that part of the log was overwritten marks nothing durable (append ABA,
 * etcd-io/raft testdata/async_storage_writes_append_aba_race.txt).
 */
export interface SaveToken {
  /** The term of this core when the save was drawn. */
  readonly term: number;
  readonly lastIndex: number | null;
  readonly lastTerm: number | null;
  readonly snapshotIndex: number | null;
}
/** Work the core asks its driver to do: persist, send, apply. */
export interface Ready {
  readonly leader: PeerId | null;
  readonly role: Role;
  readonly hardState: HardState | null;
  readonly entries: readonly Entry[];
  readonly snapshot: Snapshot | null;
  /** May be sent at once, also before anything of this Ready is durable (Raft thesis 10.2.1). */
  readonly messages: readonly Message[];
  /** Promise something of this disk: sent only when this Ready's save, and every save before it, is durable. */
  readonly afterSave: readonly Message[];
  /** What this core tells itself once the save is durable. For traces only: saved() and advance() deliver it. */
  readonly toSelf: readonly Message[];
  /**
   * Null when nothing waits for this save: there is nothing to save, or only a commit index while all of the log is
   * durable. Otherwise handed to saved(), with async storage writes.
   */
  readonly save: SaveToken | null;
  /**
   * Whether the save must be synced. False when only the commit index changes: it is learned again after a restart, so
   * it may be written lazily, or with the next save.
   */
  readonly mustSync: boolean;
  /** Applied in order, exactly once. Every one of them is durable on a quorum; with async storage writes also here. */
  readonly committed: readonly Entry[];
  readonly reads: readonly { readonly readId: number; readonly index: number }[];
}

export type ProposeResult =
  | { readonly ok: true; readonly index: number; readonly term: number }
  /** Handed to the leader; whether it commits shows only in what is applied. */
  | { readonly ok: true; readonly index: null; readonly term: null }
  | {
      readonly ok: false;
      readonly reason:
        | "no-leader"
        | "log-full"
        | "membership-pending"
        | "transferring"
        | "removed"
        | "invalid";
      readonly leader: PeerId | null;
    };
export interface RaftStatus {
  readonly id: PeerId;
  readonly role: Role;
  readonly term: number;
  readonly leader: PeerId | null;
  readonly commit: number;
  readonly applied: number;
  readonly lastIndex: number;
  readonly firstIndex: number;
  readonly membership: Membership;
  readonly transferee: PeerId | null;
  /** Leader only, else empty. */
  readonly progress: readonly {
    readonly id: PeerId;
    readonly state: "probe" | "replicate" | "snapshot";
    readonly match: number;
    readonly next: number;
    /** Heard from within the last election timeout. */
    readonly active: boolean;
    readonly learner: boolean;
    /** Nothing but heartbeats goes out until something is answered. */
    readonly paused: boolean;
    /** Index of the snapshot under way; 0 when there is none. */
    readonly pendingSnapshot: number;
    /** Appends sent and not yet acknowledged, and whether no more may be under way. */
    readonly inflight: number;
    readonly inflightFull: boolean;
  }[];
}
/** Pure: no promise, no timer, no I/O. The same inputs in the same order give the same Ready. */
export interface RaftCore {
  tick(): void;
  step(message: Message): void;
  /** Starts an election now (pre-vote first). */
  campaign(): void;
  propose(data: Uint8Array): ProposeResult;
  proposeMembership(change: MembershipChange): ProposeResult;
  /** Answers in Ready.reads once every entry committed when asked is known; forwarded by followers. May be dropped: ask again. */
  readIndex(readId: number): void;
  transferLeadership(to: PeerId): void;
  /** The transport saw this peer's connection close: drop to probing, and if it led, pre-vote soon. */
  peerUnreachable(id: PeerId): void;
  /** How a snapshot that Ready.messages carried to `id` ended. */
  snapshotSent(id: PeerId, ok: boolean): void;
  /** Forget the log through `index`, which is applied and covered by `snapshot`. */
  compact(snapshot: Snapshot, keepFrom: number): void;
  hasReady(): boolean;
  ready(): Ready;
  /** Without async storage writes: everything in the last Ready is durable and applied; only then the next one is drawn. */
  advance(): void;
  /**
   * With async storage writes: this save, and every one before it, is durable; its snapshot, if any, is installed in the
   * state machine too. Called once a token, in order. Messages of Ready.afterSave may go from now on.
   */
  saved(token: SaveToken): void;
  /** With async storage writes: entries of Ready.committed through `index` are applied. */
  applied(index: number): void;
  /** Leader: its last entry while some peers wait for entries (holdBackEntriesMax); else null. */
  heldBackThrough(): number | null;
  /** Sends what is held back. To be called some milliseconds after heldBackThrough() first said that there is something. */
  sendHeldBack(): void;
  /** A follower gives up its leader, so that it grants others its pre-vote and vote (etcd ForgetLeader). No-op on a leader. */
  forgetLeader(): void;
  status(): RaftStatus;
}
/** The clock of lease reads: monotonic, and running on while the process is stopped. */
export interface LeaseClock {
  /** Milliseconds since any fixed moment. */
  now(): number;
  /** The shortest time between two calls of tick() on any peer, in milliseconds. */
  readonly tickMs: number;
}
export interface RaftConfig {
  readonly id: PeerId;
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  readonly appendBytesMax: number;
  readonly inflightMessagesMax: number;
  readonly inflightBytesMax: number;
  readonly uncommittedBytesMax: number;
  readonly committedBytesPerReadyMax: number;
  /**
   * True: several Readys may be under way; each save is acknowledged by saved(), each application by applied().
   * False: one at a time, acknowledged by advance().
   */
  readonly asyncStorageWrites: boolean;
  /**
   * True: a candidate asks for votes while its own term, vote and log are still being saved, as etcd does. Not safe when
   * a reply may outlive a restart of the candidate: a vote granted to a log end that the crash took back would then count
   * for the shorter log. False: requests wait in Ready.afterSave.
   */
  readonly voteRequestsAtOnce: boolean;
  /**
   * True: each proposal and each commit is sent to every member at once, as etcd does. False: when the next Ready is
   * drawn, in one message for all that came since.
   */
  readonly appendsAtOnce: boolean;
  /**
   * Up to so many new entries, proposed while all before them is committed, go at once only to as many voters as a quorum
   * needs, and to the others when sendHeldBack() is called, or with the next tick. 0: to all at once, as in etcd.
   */
  readonly holdBackEntriesMax: number;
  /** Asks whether it would win before it stands for election, so that who was cut off disturbs nobody (thesis 9.6). */
  readonly preVote: boolean;
  /** A leader that hears no quorum for an election timeout steps down, and a follower that hears its leader ignores votes. */
  readonly checkQuorum: boolean;
  /** A leader that is no voter any more follows from then on. False: it leads until somebody else is elected, as in etcd. */
  readonly stepDownOnRemoval: boolean;
  /** A follower refuses proposals instead of handing them to its leader. */
  readonly disableProposalForwarding: boolean;
  /** A leader takes changes of membership that its rules refuse. For tests of those rules only: not safe. */
  readonly disableMembershipValidation: boolean;
  /**
   * "told": a leader's proposeMembership() says why it refuses, appends nothing, and waits for a commit in its own term.
   * "empty-entry": an empty entry stands in for what is refused, and the pending index alone guards the term, as in etcd.
   */
  readonly refusedMembership: "told" | "empty-entry";
  /** A refused vote tells of a committed entry, and who hears of it may commit it (see Message). False: as in etcd. */
  readonly refusalsTellCommitted: boolean;
  /**
   * How reads are confirmed. "quorum": a round of heartbeats. "lease": none while a lease lasts, see raft/lease.ts for
   * what that asks of clocks; otherwise a round. "lease" needs checkQuorum and leaseClock on every peer of the cluster.
   */
  readonly readMode: "quorum" | "lease";
  /** Ticks that a lease ends before an election timeout has passed: one for the phase of ticks, the rest for clock rates. */
  readonly leaseMarginTicks: number;
  readonly leaseClock?: LeaseClock;
  /** Told of decisions, for an operator's log. Costs nothing when absent. */
  readonly note?: (note: RaftNote, at: NoteState) => void;
  /** Told of each step, for a checker outside. Costs nothing when absent. */
  readonly trace?: (event: TraceEvent) => void;
  readonly random: Random;
}
/** All the core needs of the past; the log since the snapshot is held in memory by the core. */
export interface SavedState {
  readonly hardState: HardState;
  readonly snapshot: Snapshot | null;
  readonly entries: readonly Entry[];
}
export type CreateRaft = (config: RaftConfig, saved: SavedState) => RaftCore;

/** Durability only. The core never calls it; the driver does. Implementations: io/raft-log.ts, sim/disk.ts. */
export interface Storage {
  load(): Promise<SavedState>;
  /** One atomic, synced write. Entries replace any saved entries from the same index on. Rejects once and for ever when a sync failed. */
  save(change: Pick<Ready, "hardState" | "entries" | "snapshot">): Promise<void>;
  /**
   * For a save that another peer waits for, while no other one is under way: true when it is durable on return. False:
   * nothing was done, because it would take long or cannot be known not to; save() does it. Throws when save() would reject.
   */
  saveNow?(change: Pick<Ready, "hardState" | "entries" | "snapshot">): boolean;
  /** Makes `snapshot` durable and forgets entries before `keepFrom`. */
  compact(snapshot: Snapshot, keepFrom: number): Promise<void>;
  close(): Promise<void>;
}
/** Best effort: messages may be lost, doubled, late. Never throws on a dead peer. */
export interface Transport {
  send(messages: readonly Message[]): void;
  onMessage(receive: (message: Message) => void): () => void;
  /** Told when a peer's connection is seen to close. */
  onClosed(receive: (peer: PeerId) => void): () => void;
  /**
   * Told how the last snapshot given to send() for a peer ended: true when the peer has all of it, false when it was
   * given up. At most once a snapshot; one that a newer snapshot replaced is not told of.
   */
  onSnapshotSent(receive: (peer: PeerId, ok: boolean) => void): () => void;
  /** Where peers are reached: `host:port`. */
  setPeers(addresses: ReadonlyMap<PeerId, string>): void;
}
