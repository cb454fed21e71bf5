/** What a message does to a peer, by its term, its kind and the peer's role. */
import { assert } from "../lib/assert.ts";
import {
  answerVoteRequest,
  campaign,
  countVote,
  leaderSticks,
  learnCommitFromRefusal,
} from "./election.ts";
import { onAppend, onHeartbeat, onSnapshot } from "./follower.ts";
import { acceptProposals, askRead, onAppendReply, onHeartbeatReply } from "./leader.ts";
import { noteState } from "./notes.ts";
import { becomeFollower, type RaftState, sendAfterSave } from "./state.ts";
import { traceMessage } from "./tracing.ts";
import type { Message, PeerId } from "./types.ts";

/**
 * Takes a message that is meant for this peer, from another one or from itself. Messages of later terms are followed,
 * those of earlier ones only answered.
 */
export function receive(r: RaftState, message: Message): void {
  assert(Number.isSafeInteger(message.term), "a message's term is a safe integer");
  if (r.config.trace !== undefined) traceMessage(r, "Receive", message);
  // Requests to whoever leads belong to no term.
  if (message.kind !== "propose" && message.kind !== "read-index") {
    if (message.term > r.term && !meetLaterTerm(r, message)) return;
    if (message.term < r.term) {
      meetEarlierTerm(r, message);
      return;
    }
  }
  switch (message.kind) {
    case "vote":
    case "prevote":
      answerVoteRequest(r, message);
      return;
    case "vote-reply":
    case "prevote-reply":
      if (r.role !== "leader") learnCommitFromRefusal(r, message);
      if (r.role === "candidate" || r.role === "precandidate") countVote(r, message);
      return;
    case "append":
    case "heartbeat":
    case "snapshot":
      if (r.role === "leader") assert(false, `a term has one leader: ${message.from} leads too`);
      if (r.role !== "follower") becomeFollower(r, r.term, message.from);
      if (message.kind === "append") onAppend(r, message);
      else if (message.kind === "heartbeat") onHeartbeat(r, message);
      else onSnapshot(r, message);
      return;
    case "timeout-now":
      if (r.role !== "follower") return;
      r.config.note?.({ kind: "transfer-received", from: message.from }, noteState(r));
      campaign(r, "transfer");
      return;
    case "read-index-reply":
      r.readsDone.push({ readId: message.readId, index: message.index });
      return;
    case "append-reply":
    case "heartbeat-reply": {
      const peer = r.role === "leader" ? r.peers.get(message.from) : undefined;
      if (peer === undefined) return;
      if (message.kind === "append-reply") onAppendReply(r, peer, message);
      else onHeartbeatReply(r, peer, message);
      return;
    }
    case "propose":
      // Handed on once: a proposal that met no leader here is lost, and its proposer asks again.
      if (r.role === "leader" && message.entries.length > 0) {
        const accepted = acceptProposals(r, message.entries) === null;
        const proposer = r.peers.get(message.from);
        if (accepted && proposer !== undefined) proposer.proposed = r.log.lastIndex;
      }
      return;
    case "read-index":
      if (r.role === "leader") askRead(r, message.from, message.readId);
      return;
    default:
      message satisfies never;
  }
}

/** A message from a later term than ours: follow it there, unless it only asks. False when it is to be ignored. */
function meetLaterTerm(r: RaftState, message: Message): boolean {
  switch (message.kind) {
    case "vote":
    case "prevote":
      if (leaderSticks(r, message)) {
        const ticksLeft = r.config.electionTicks - r.electionElapsed;
        r.config.note?.({ kind: "vote-ignored", message, ticksLeft }, noteState(r));
        return false;
      }
      if (message.kind === "vote") followLater(r, message, null);
      return true;
    case "prevote-reply":
      // A grant carries the term that was asked about; it becomes ours only when a quorum has granted.
      if (!message.granted) followLater(r, message, null);
      return true;
    case "append":
    case "heartbeat":
    case "snapshot":
      followLater(r, message, message.from);
      return true;
    default:
      followLater(r, message, null);
      return true;
  }
}

function followLater(r: RaftState, message: Message, leader: PeerId | null): void {
  r.config.note?.({ kind: "later-term", message }, noteState(r));
  becomeFollower(r, message.term, leader);
}

/** A message from an earlier term: tell a leader or a candidate of that term that it is over. */
function meetEarlierTerm(r: RaftState, message: Message): void {
  const reply = { from: r.id, to: message.from, term: r.term };
  const { checkQuorum, preVote } = r.config;
  if (message.kind === "append" || message.kind === "heartbeat") {
    if (!checkQuorum && !preVote) return;
    // Else a leader that never hears a higher term (pre-votes carry none) would hold this peer for ever.
    sendAfterSave(r, {
      ...reply,
      kind: "append-reply",
      index: 0,
      rejected: false,
      hintIndex: 0,
      hintTerm: 0,
    });
  } else if (message.kind === "prevote") {
    r.config.note?.({ kind: "vote-refused", message }, noteState(r));
    sendAfterSave(r, { ...reply, kind: "prevote-reply", granted: false });
  } else r.config.note?.({ kind: "earlier-term", message }, noteState(r));
}
