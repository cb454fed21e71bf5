/** Elections: pre-vote, vote, and who is believed (Raft 5.2, 5.4.1, thesis 9.6). */
import { assert } from "../lib/assert.ts";
import { CAMPAIGN_SOON_TICKS_MAX } from "./limits.ts";
import { isVoter } from "./membership.ts";
import { jointVote } from "./quorum.ts";
import { appendAsLeader } from "./replication.ts";
import { becomeFollower, type RaftState, reset } from "./state.ts";
import type { Message, PeerId } from "./types.ts";

type VoteRequest = Extract<Message, { kind: "vote" | "prevote" }>;
type VoteReply = Extract<Message, { kind: "vote-reply" | "prevote-reply" }>;

/**
 * Stands for election if this peer may. With pre-vote first it asks whether it would win, which changes no term and
 * so disturbs nobody; a transfer of leadership goes straight to the vote, and is believed despite a live leader.
 */
export function campaign(r: RaftState, start: "prevote" | "transfer"): void {
  r.campaignInTicks = null;
  if (r.role === "leader" || !r.electable()) return;
  // A committed change of membership that is not applied yet might mean that this peer is no voter any more.
  if (r.log.membershipUnapplied()) return;
  if (start === "prevote") preCampaign(r);
  else voteCampaign(r, true);
}

function preCampaign(r: RaftState): void {
  r.role = "precandidate";
  r.leader = null;
  r.votes = new Map();
  requestVotes(r, "prevote", false);
}

function voteCampaign(r: RaftState, transfer: boolean): void {
  assert(r.role !== "leader", "a leader is not a candidate");
  reset(r, r.term + 1);
  r.vote = r.id;
  r.role = "candidate";
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
      r.selfMessages.push({ kind: reply, from: r.id, to: r.id, term, granted: true });
      continue;
    }
    const { lastIndex, lastTerm } = r.log;
    r.messages.push({ kind, from: r.id, to: id, term, lastIndex, lastTerm, transfer });
  }
}

/** Whether a request for votes is to be ignored because a leader is alive here (check-quorum's other half). */
export function leaderSticks(r: RaftState, request: VoteRequest): boolean {
  return !request.transfer && r.leader !== null && r.electionElapsed < r.config.electionTicks;
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
  // A grant carries the term that was asked about, which for a pre-vote is not ours; a refusal carries our own.
  const term = granted ? request.term : r.term;
  const reply = { kind, from: r.id, to: request.from, term, granted } as const;
  const commitTerm = r.log.term(r.log.committed);
  if (granted || commitTerm === null) r.messages.push(reply);
  else {
    r.messages.push({ ...reply, committed: { index: r.log.committed, term: commitTerm } });
  }
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
  // An entry of its own term lets it commit what it inherited.
  appendAsLeader(r, [{ kind: "empty", data: new Uint8Array(0) }]);
}

/**
 * The connection to the leader closed: forget it, so that a peer that saw the same may get our pre-vote, and stand
 * for election soon. Voters wait by their rank, so that the first one has won before the next one asks: no split vote.
 */
export function loseLeader(r: RaftState): void {
  const lost = r.leader;
  assert(lost !== null && r.role !== "leader", "a follower loses the leader it had");
  r.leader = null;
  if (!r.electable()) return;
  const rank = rankAmongVoters(r, lost);
  if (rank === 0) campaign(r, "prevote");
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
