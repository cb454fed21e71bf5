/** Puts the steps of a core into the words of trace.ts. Its callers ask first whether anybody listens. */
import { present } from "../lib/assert.ts";
import { decodeMembershipChange } from "./membership.ts";
import type { RaftState } from "./state.ts";
import {
  TRACE_NOBODY,
  type TraceConfChange,
  type TraceEvent,
  type TraceEventName,
  type TraceMessage,
  type TraceRole,
} from "./trace.ts";
import type { Entry, Membership, Message, Role } from "./types.ts";

const ROLES: Readonly<Record<Role, TraceRole>> = {
  follower: "StateFollower",
  precandidate: "StatePreCandidate",
  candidate: "StateCandidate",
  leader: "StateLeader",
};

/** Tells of a step that no message and no entry belongs to. */
export function traceStep(r: RaftState, name: TraceEventName): void {
  if (name === "InitState") emit(r, name, { prop: { lastTerm: r.log.lastTerm } });
  else emit(r, name, {});
}

/** Tells of an entry that a leader is about to append. */
export function traceProposal(r: RaftState, { kind, data }: Pick<Entry, "kind" | "data">): void {
  if (kind !== "membership") {
    emit(r, "Replicate", {});
    return;
  }
  const change = present(decodeMembershipChange(data), "the change of a membership entry");
  const changes = change.changes.map(({ kind, id }) => ({ nid: id, action: ACTIONS[kind] }));
  emit(r, "ChangeConf", { prop: { cc: changes.length === 0 ? {} : { changes } } });
}

const ACTIONS = {
  "add-voter": "AddNewServer",
  "add-learner": "AddLearner",
  remove: "RemoveServer",
} as const satisfies Record<string, NonNullable<TraceConfChange["changes"]>[number]["action"]>;

/** Tells of a membership that is about to hold. */
export function traceMembership(r: RaftState, { voters }: Membership): void {
  emit(r, "ApplyConfChange", { prop: { cc: { newconf: voters } } });
}

/** Tells of a message, as it is put into a Ready or before it is looked at. Pre-votes, reads and proposals are not told. */
export function traceMessage(r: RaftState, direction: "Send" | "Receive", message: Message): void {
  const msg = inEtcdWords(message);
  if (msg === null) return;
  const self = r.peers.get(r.id);
  const isAppend = message.kind === "append" && direction === "Send" && self !== undefined;
  const prop = isAppend ? { prop: { match: self.match, next: self.next } } : {};
  emit(r, eventName(direction, msg.type), { msg, ...prop });
}

function eventName(direction: "Send" | "Receive", type: TraceMessage["type"]): TraceEventName {
  switch (type) {
    case "MsgApp":
    case "MsgHeartbeat":
      return `${direction}AppendEntriesRequest`;
    case "MsgAppResp":
    case "MsgHeartbeatResp":
      return `${direction}AppendEntriesResponse`;
    case "MsgVote":
      return `${direction}RequestVoteRequest`;
    case "MsgVoteResp":
      return `${direction}RequestVoteResponse`;
    case "MsgSnap":
      return `${direction}Snapshot`;
  }
}

function inEtcdWords(message: Message): TraceMessage | null {
  const base = {
    term: message.term,
    from: message.from,
    to: message.to,
    entries: 0,
    logTerm: 0,
    index: 0,
    commit: 0,
    vote: TRACE_NOBODY,
    reject: false,
    rejectHint: 0,
  };
  switch (message.kind) {
    case "append": {
      const { entries, prevTerm, prevIndex, commit } = message;
      const at = { entries: entries.length, logTerm: prevTerm, index: prevIndex, commit };
      return { ...base, type: "MsgApp", ...at };
    }
    case "append-reply": {
      const { hintTerm, index, rejected, hintIndex } = message;
      const answer = { logTerm: hintTerm, index, reject: rejected, rejectHint: hintIndex };
      return { ...base, type: "MsgAppResp", ...answer };
    }
    case "heartbeat":
      return { ...base, type: "MsgHeartbeat", commit: message.commit };
    case "heartbeat-reply":
      return { ...base, type: "MsgHeartbeatResp" };
    case "vote":
      return { ...base, type: "MsgVote", logTerm: message.lastTerm, index: message.lastIndex };
    case "vote-reply":
      return { ...base, type: "MsgVoteResp", reject: !message.granted };
    case "snapshot":
      return { ...base, type: "MsgSnap", entries: message.snapshot.index };
    default:
      return null;
  }
}

function emit(
  r: RaftState,
  name: TraceEventName,
  more: Pick<TraceEvent, "msg" | "prop"> | Record<string, never>,
): void {
  r.config.trace?.({
    name,
    nid: r.id,
    state: { term: r.term, vote: r.vote ?? TRACE_NOBODY, commit: r.log.committed },
    role: ROLES[r.role],
    log: r.log.lastIndex,
    conf: [r.membership.voters, r.membership.outgoing],
    ...more,
  });
}
