/** What the core tells of its steps, in the words of etcd's state trace, so that a checker outside can follow them. */
import type { PeerId } from "./types.ts";

/**
 * The steps, each under etcd's name (etcd-io/raft state_trace.go). `state`, `role`, `log` and `conf` of an event show
 * the peer at a fixed moment, on which the checker (conformance/trace/) insists:
 * - after the step: InitState, BecomeFollower, BecomeCandidate, BecomeLeader, Commit, Ready;
 * - before its effect: Replicate and ChangeConf (before the entry is in the log), ApplyConfChange (before the new
 *   membership holds), every Receive...; SendRequestVoteResponse may come before or after the vote is noted.
 * Of entries: a leader tells of each entry that it appends, once and in order: Replicate, or ChangeConf for one that
 * changes the membership (no `changes`: it leaves a joint one). Followers tell nothing of theirs: they follow from what
 * they received. Each Send... shows a log that already has what it sends. Commit is the leader's, when its quorum has
 * more. A message that is told leaves with its sender's next Ready. Pre-votes and their answers are not traced, as in
 * etcd. A peer's vote for itself and its acknowledgement of its own log may be told as a response from itself to itself.
 */
export type TraceEventName =
  | "InitState"
  | "BecomeCandidate"
  | "BecomeFollower"
  | "BecomeLeader"
  | "Commit"
  | "Replicate"
  | "ChangeConf"
  | "ApplyConfChange"
  | "Ready"
  | "SendAppendEntriesRequest"
  | "ReceiveAppendEntriesRequest"
  | "SendAppendEntriesResponse"
  | "ReceiveAppendEntriesResponse"
  | "SendRequestVoteRequest"
  | "ReceiveRequestVoteRequest"
  | "SendRequestVoteResponse"
  | "ReceiveRequestVoteResponse"
  | "SendSnapshot"
  | "ReceiveSnapshot";

export type TraceRole = "StateFollower" | "StatePreCandidate" | "StateCandidate" | "StateLeader";

export type TraceMessageType =
  | "MsgApp"
  | "MsgAppResp"
  | "MsgHeartbeat"
  | "MsgHeartbeatResp"
  | "MsgSnap"
  | "MsgVote"
  | "MsgVoteResp";

/** The id that stands for nobody in a trace. */
export const TRACE_NOBODY = "0";

export interface TraceMessage {
  readonly type: TraceMessageType;
  readonly term: number;
  readonly from: PeerId;
  readonly to: PeerId;
  /** How many entries; of a MsgSnap, the index of its snapshot, with `logTerm` and `index` 0. */
  readonly entries: number;
  /** Of a MsgApp the term at `index`; of a MsgVote the last term. */
  readonly logTerm: number;
  /** Of a MsgApp what its entries follow; of a MsgAppResp what is acknowledged or refused; of a MsgVote the last index. */
  readonly index: number;
  readonly commit: number;
  readonly vote: PeerId;
  readonly reject: boolean;
  readonly rejectHint: number;
}

export interface TraceConfChange {
  readonly changes?: readonly {
    readonly nid: PeerId;
    readonly action: "AddNewServer" | "RemoveServer" | "AddLearner";
  }[];
  /** The incoming voters, once it is in effect. */
  readonly newconf?: readonly PeerId[];
}

export interface TraceEvent {
  readonly name: TraceEventName;
  /** Who did the step. */
  readonly nid: PeerId;
  readonly state: { readonly term: number; readonly vote: PeerId; readonly commit: number };
  readonly role: TraceRole;
  /** The last index of the log. */
  readonly log: number;
  /** Incoming and outgoing voters. */
  readonly conf: readonly [readonly PeerId[], readonly PeerId[]];
  readonly msg?: TraceMessage;
  readonly prop?: {
    /** Of ChangeConf: `changes`; of ApplyConfChange: `newconf`. */
    readonly cc?: TraceConfChange;
    /** Of a sent MsgApp: the sender's progress of itself. */
    readonly match?: number;
    readonly next?: number;
    /** Ours, of InitState: the term of the last entry, which tells one restarted log from another. */
    readonly lastTerm?: number;
  };
}

/** A line of etcd's NDJSON, without its line break. `now` is in seconds since 1970. */
export function encodeTraceEvent(event: TraceEvent, now?: number): string {
  const { name, nid, state, role, log, conf, msg, prop } = event;
  return JSON.stringify({
    level: "debug",
    ...(now === undefined ? {} : { ts: now }),
    caller: "raft/trace.ts",
    msg: "trace",
    tag: "trace",
    event: {
      name,
      nid,
      state: { term: state.term, vote: state.vote, commit: state.commit },
      role,
      log,
      conf,
      ...(msg === undefined ? {} : { msg }),
      ...(prop === undefined ? {} : { prop }),
    },
  });
}
