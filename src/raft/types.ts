/** The nouns of consensus: what the core says to its driver and to its peers. Types only. */
import type { Random } from "../lib/random.ts";

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

/** Work the core asks its driver to do, in this order: persist, then send, then apply. */
export interface Ready {
  readonly leader: PeerId | null;
  readonly role: Role;
  readonly hardState: HardState | null;
  readonly entries: readonly Entry[];
  readonly snapshot: Snapshot | null;
  readonly messages: readonly Message[];
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
  /** Tells the core that everything in the last Ready is durable and applied. */
  advance(): void;
  status(): RaftStatus;
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
  /** Where peers are reached: `host:port`. */
  setPeers(addresses: ReadonlyMap<PeerId, string>): void;
}
