/** Elections: pre-vote, vote, and who is believed (Raft 5.2, 5.4.1, thesis 9.6). */
import { assert } from "../lib/assert.ts";
import { Lease } from "./lease.ts";
import { CAMPAIGN_SOON_TICKS_MAX } from "./limits.ts";
import { isVoter } from "./membership.ts";
import { noteState } from "./notes.ts";
import { jointVote } from "./quorum.ts";
import { appendAsLeader } from "./replication.ts";
import { becomeFollower, type RaftState, reset, send, sendAfterSave } from "./state.ts";
import { traceStep } from "./tracing.ts";
import type { Message, PeerId } from "./types.ts";

const NO_BYTES = new Uint8Array(0);

type VoteRequest = Extract<Message, { kind: "vote" | "prevote" }>;
type VoteReply = Extract<Message, { kind: "vote-reply" | "prevote-reply" }>;

/**
 * Stands for election if this peer may. With pre-vote first it asks whether it would win, which changes no term and
 * so disturbs nobody; a transfer of leadership goes straight to the vote, and is believed despite a live leader.
 */
export function campaign(r: RaftState, start: "timeout" | "transfer"): void {
  r.campaignInTicks = null;
  if (r.role === "leader") return;
  if (!r.electable()) {
    r.config.note?.({ kind: "campaign-refused", why: "not-electable" }, noteState(r));
    return;
  }
  // A committed change of membership that is not applied yet might mean that this peer is no voter any more.
  if (r.log.membershipUnapplied()) {
    r.config.note?.({ kind: "campaign-refused", why: "change-unapplied" }, noteState(r));
    return;
  }
  r.config.note?.({ kind: "campaigns" }, noteState(r));
  if (start === "transfer") voteCampaign(r, true);
  else if (r.config.preVote) preCampaign(r);
  else voteCampaign(r, false);
}

function preCampaign(r: RaftState): void {
  r.role = "precandidate";
  r.leader = null;
  r.votes = new Map();
  r.config.note?.({ kind: "became", role: "precandidate" }, noteState(r));
  requestVotes(r, "prevote", false);
}

function voteCampaign(r: RaftState, transfer: boolean): void {
  assert(r.role !== "leader", "a leader is not a candidate");
  reset(r, r.term + 1);
  r.vote = r.id;
  r.role = "candidate";
  if (r.config.trace !== undefined) traceStep(r, "BecomeCandidate");
  r.config.note?.({ kind: "became", role: "candidate" }, noteState(r));
  requestVotes(r, "vote", transfer);
}

function requestVotes(r: RaftState, kind: "vote" | "prevote", transfer: boolean): void {
  // A pre-vote asks about the next term without entering it.
  const term = kind === "prevote" ? r.term + 1 : r.term;
  for (const id of r.peers.keys()) {
    if (!isVoter(r.membership, id)) continue;
    if (id === r.id) {
      // Its own vote counts like any other: when it is durable.
      const reply = kind === "prevote" ? "prevote-reply" : "vote-reply";
      sendAfterSave(r, { kind: reply, from: r.id, to: r.id, term, granted: true });
      continue;
    }
    r.config.note?.({ kind: "vote-requested", request: kind, to: id }, noteState(r));
    const { lastIndex, lastTerm } = r.log;
    const request = { kind, from: r.id, to: id, term, lastIndex, lastTerm, transfer } as const;
    if (kind === "prevote" || r.config.voteRequestsAtOnce) send(r, request);
    else sendAfterSave(r, request);
  }
}

/** Whether a request for votes is to be ignored because a leader is alive here (check-quorum's other half). */
export function leaderSticks(r: RaftState, request: VoteRequest): boolean {
  if (request.transfer || !r.config.checkQuorum) return false;
  // A lease counts on this peer even after it forgot its leader, stood for election or was started anew.
  if (r.config.readMode === "lease") {
    return r.role !== "leader"
      ? r.leaderSilentTicks < r.config.electionTicks
      : r.electionElapsed < r.config.electionTicks;
  }
  return r.leader !== null && r.electionElapsed < r.config.electionTicks;
}

/** Answers a request of this term or, for a pre-vote, of a later one. */
export function answerVoteRequest(r: RaftState, request: VoteRequest): void {
  const pre = request.kind === "prevote";
  assert(
    pre ? request.term >= r.term : request.term === r.term,
    "old requests were answered before",
  );
  const free =
    r.vote === request.from ||
    (r.vote === null && r.leader === null) ||
    (pre && request.term > r.term);
  const granted = free && r.log.upToDate(request.lastIndex, request.lastTerm);
  const kind = pre ? "prevote-reply" : "vote-reply";
  r.config.note?.({ kind: granted ? "vote-cast" : "vote-refused", message: request }, noteState(r));
  // A grant carries the term that was asked about, which for a pre-vote is not ours; a refusal carries our own.
  const term = granted ? request.term : r.term;
  const reply = { kind, from: r.id, to: request.from, term, granted } as const;
  const commitTerm = r.config.refusalsTellCommitted ? r.log.term(r.log.committed) : null;
  if (granted || commitTerm === null) sendAfterSave(r, reply);
  else {
    sendAfterSave(r, { ...reply, committed: { index: r.log.committed, term: commitTerm } });
  }
  // Who saw the leader go first lacks entries that are here: with its rank it would win, but for its log.
  if (pre && !granted && r.campaignInTicks !== null && r.leader === null) campaign(r, "timeout");
  if (granted && !pre) {
    r.electionElapsed = 0;
    r.campaignInTicks = null;
    r.vote = request.from;
  }
}

/** Counts a vote. Returns true when this peer has just become leader. */
export function countVote(r: RaftState, reply: VoteReply): boolean {
  const wanted = r.role === "precandidate" ? "prevote-reply" : "vote-reply";
  if (reply.kind !== wanted) return false;
  assert(r.role === "precandidate" || r.role === "candidate", "only a candidate counts votes");
  if (!r.votes.has(reply.from)) r.votes.set(reply.from, reply.granted);
  noteVote(r, reply);
  const result = jointVote(r.membership, (id) => r.votes.get(id) ?? null);
  if (result === "lost") becomeFollower(r, r.term, null);
  if (result !== "won") return false;
  if (r.role === "precandidate") {
    voteCampaign(r, false);
    return false;
  }
  becomeLeader(r);
  return true;
}

function noteVote(r: RaftState, { kind, from, granted }: VoteReply): void {
  if (r.config.note === undefined) return;
  let grants = 0;
  let refusals = 0;
  for (const [id, vote] of r.votes) {
    if (!isVoter(r.membership, id)) continue;
    if (vote) grants += 1;
    else refusals += 1;
  }
  const request = kind === "vote-reply" ? "vote" : "prevote";
  r.config.note?.({ kind: "vote-counted", request, from, granted, grants, refusals }, noteState(r));
}

/**
 * Commits what a refusal says is committed, if it is here. Without it, a leader that was removed and stepped down before
 * its last voter heard of that could refuse this voter for ever: the voter thinks it needs that vote. (raft-rs does the same.)
 */
export function learnCommitFromRefusal(r: RaftState, reply: VoteReply): void {
  const { committed } = reply;
  if (reply.granted || committed === undefined || committed.index <= r.log.committed) return;
  assert(Number.isSafeInteger(committed.index), "a commit index is a safe integer");
  if (!r.log.matches(committed.index, committed.term)) return;
  r.log.commitThrough(committed.index);
  assert(r.role !== "leader", "a leader learns of no commit from others");
  // The membership is about to change: the votes asked for were those of the old one.
  if (r.role !== "follower" && r.log.membershipUnapplied()) becomeFollower(r, r.term, null);
}

function becomeLeader(r: RaftState): void {
  assert(
    r.role === "candidate" && r.vote === r.id,
    "a leader was a candidate that voted for itself",
  );
  reset(r, r.term);
  r.leader = r.id;
  r.role = "leader";
  const self = r.peers.get(r.id);
  assert(self !== undefined, "a leader is a member");
  self.becomeReplicate();
  self.active = true;
  // Changes of membership in the log it inherited may be uncommitted: it waits until all of them are applied.
  r.membershipPendingIndex = r.log.lastIndex;
  if (r.config.trace !== undefined) traceStep(r, "BecomeLeader");
  const { leaseClock, electionTicks, leaseMarginTicks } = r.config;
  if (r.config.readMode === "lease" && leaseClock !== undefined) {
    r.lease = new Lease((electionTicks - leaseMarginTicks) * leaseClock.tickMs);
  }
  // An entry of its own term lets it commit what it inherited.
  appendAsLeader(r, [{ kind: "empty", data: NO_BYTES }]);
  r.config.note?.({ kind: "became", role: "leader" }, noteState(r));
}

/**
 * The connection to the leader closed: forget it, so that a peer that saw the same may get our pre-vote, and stand
 * for election soon. Voters wait by their rank, so that the first one has won before the next one asks: no split vote.
 */
export function loseLeader(r: RaftState): void {
  const lost = r.leader;
  assert(lost !== null && r.role !== "leader", "a follower loses the leader it had");
  // With lease reads a follower keeps to its leader until that one's lease is over for certain.
  if (r.config.readMode === "lease") return;
  r.leader = null;
  if (!r.electable()) return;
  const rank = rankAmongVoters(r, lost);
  if (rank === 0) campaign(r, "timeout");
  else r.campaignInTicks = Math.min(rank + 1, CAMPAIGN_SOON_TICKS_MAX);
}

function rankAmongVoters(r: RaftState, lost: PeerId): number {
  let rank = 0;
  for (const id of r.peers.keys()) {
    if (id === r.id) break;
    if (id !== lost && isVoter(r.membership, id)) rank += 1;
  }
  return rank;
}
