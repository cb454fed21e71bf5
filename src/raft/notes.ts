/** What a core notes of its decisions, for the log of an operator: why it voted, why it stepped down, what it waits for. */
import type { Progress } from "./progress.ts";
import type { RaftState } from "./state.ts";
import type {
  Membership,
  MembershipChange,
  Message,
  PeerId,
  RaftStatus,
  Role,
  Snapshot,
} from "./types.ts";

/** One decision. It is told at the moment it is made, before its effect where the name does not say otherwise. */
export type RaftNote =
  /** Life: told once, after the membership and the role of the start. */
  | { readonly kind: "started" }
  | { readonly kind: "became"; readonly role: Role }
  | { readonly kind: "membership-in-effect"; readonly membership: Membership }
  | { readonly kind: "quorum-lost" }
  /** Elections. */
  | { readonly kind: "campaigns" }
  | { readonly kind: "campaign-refused"; readonly why: "not-electable" | "change-unapplied" }
  | { readonly kind: "vote-requested"; readonly request: "vote" | "prevote"; readonly to: PeerId }
  | {
      readonly kind: "vote-counted";
      readonly request: "vote" | "prevote";
      readonly from: PeerId;
      readonly granted: boolean;
      readonly grants: number;
      readonly refusals: number;
    }
  | { readonly kind: "vote-cast" | "vote-refused"; readonly message: VoteRequest }
  | { readonly kind: "vote-ignored"; readonly message: VoteRequest; readonly ticksLeft: number }
  | { readonly kind: "later-term" | "earlier-term"; readonly message: Message }
  | { readonly kind: "leader-forgotten"; readonly leader: PeerId }
  | { readonly kind: "forgetting-refused" }
  | { readonly kind: "transfer-starts"; readonly to: PeerId }
  | { readonly kind: "transfer-sent"; readonly to: PeerId; readonly atOnce: boolean }
  | { readonly kind: "transfer-received"; readonly from: PeerId }
  /** Proposals. */
  | { readonly kind: "proposal-dropped"; readonly leader: PeerId | null }
  | {
      readonly kind: "change-refused";
      readonly change: MembershipChange | null;
      readonly why: "pending" | "joint" | "not-joint" | "invalid";
      readonly pendingIndex: number;
      readonly membership: Membership;
    }
  | { readonly kind: "joint-left-by-itself"; readonly membership: Membership }
  /** Replication. */
  | { readonly kind: "append-refused"; readonly message: AppendMessage; readonly ownTerm: number }
  | {
      readonly kind: "append-conflict";
      readonly index: number;
      readonly own: number;
      readonly theirs: number;
    }
  | { readonly kind: "entries-replaced"; readonly from: number; readonly undurableFrom: number }
  | { readonly kind: "refusal-heard"; readonly reply: AppendReply }
  | {
      readonly kind: "progress-lowered" | "snapshot-recovered" | "peer-unreachable";
      readonly progress: PeerProgress;
    }
  | { readonly kind: "snapshot-held-back"; readonly progress: PeerProgress }
  | {
      readonly kind: "snapshot-sent";
      readonly snapshot: Snapshot;
      readonly progress: PeerProgress;
      readonly firstIndex: number;
    }
  | { readonly kind: "replication-paused"; readonly progress: PeerProgress }
  /** Snapshots received. */
  | {
      readonly kind: "snapshot-restores";
      readonly snapshot: Snapshot;
      readonly applying: number;
      readonly durable: number;
      readonly offered: number;
    }
  | {
      readonly kind: "snapshot-restored" | "snapshot-known" | "snapshot-ignored";
      readonly snapshot: Snapshot;
    }
  /** Saves that vouch for nothing any more. */
  | { readonly kind: "save-of-earlier-term"; readonly savedTerm: number }
  | {
      readonly kind: "save-outlived";
      readonly index: number;
      readonly savedTerm: number;
      readonly ownTerm: number | null;
    };

type VoteRequest = Extract<Message, { kind: "vote" | "prevote" }>;
type AppendMessage = Extract<Message, { kind: "append" }>;
type AppendReply = Extract<Message, { kind: "append-reply" }>;
export type PeerProgress = RaftStatus["progress"][number];

/** Who notes it, and where it stands. */
export interface NoteState {
  readonly id: PeerId;
  readonly term: number;
  readonly vote: PeerId | null;
  readonly commit: number;
  readonly applied: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly voters: readonly PeerId[];
}

/** Where `r` stands. Write `r.config.note?.({ kind: … }, noteState(r))`: nothing of it is made when nobody listens. */
export function noteState(r: RaftState): NoteState {
  const { id, term, vote, log } = r;
  return {
    id,
    term,
    vote,
    commit: log.committed,
    applied: log.applied,
    lastIndex: log.lastIndex,
    lastTerm: log.lastTerm,
    voters: r.membership.voters,
  };
}

/** A peer's progress as a value, for notes and for the status. */
export function progressOf(peer: Progress): PeerProgress {
  return {
    id: peer.id,
    state: peer.state,
    match: peer.match,
    next: peer.next,
    active: peer.active,
    learner: peer.learner,
    paused: peer.blocked(),
    pendingSnapshot: peer.pendingSnapshot,
    inflight: peer.inflights.count,
    inflightFull: peer.inflights.full(),
  };
}
