/** Majorities and pairs of majorities: what they have committed and how they have voted. */
import { assert } from "../lib/assert.ts";
import type { Membership, PeerId } from "./types.ts";

export type VoteResult = "won" | "pending" | "lost";

/**
 * Largest index that a majority of `voters` is known to have. Who has told nothing counts as 0.
 * No voters commit everything (Infinity), so that an empty half of a joint membership never holds back the other.
 */
export function majorityCommitted(
  voters: readonly PeerId[],
  matched: (id: PeerId) => number | null,
): number {
  if (voters.length === 0) return Number.POSITIVE_INFINITY;
  const indexes = voters.map((id) => matched(id) ?? 0).sort((a, b) => b - a);
  const committed = indexes[Math.floor(voters.length / 2)];
  assert(committed !== undefined, "a majority lies within its voters");
  assert(committed >= 0, "an index is never negative");
  return committed;
}

/** Whether a majority of `voters` said yes, or can no longer. `null` is a vote not yet heard. No voters: won. */
export function majorityVote(
  voters: readonly PeerId[],
  voteOf: (id: PeerId) => boolean | null,
): VoteResult {
  if (voters.length === 0) return "won";
  let granted = 0;
  let missing = 0;
  for (const id of voters) {
    const vote = voteOf(id);
    if (vote === true) granted += 1;
    else if (vote === null) missing += 1;
  }
  assert(granted + missing <= voters.length, "each voter is counted once");
  const needed = Math.floor(voters.length / 2) + 1;
  if (granted >= needed) return "won";
  return granted + missing >= needed ? "pending" : "lost";
}

/** Largest index that both halves have committed (Raft thesis 4.3). */
export function jointCommitted(
  membership: Pick<Membership, "voters" | "outgoing">,
  matched: (id: PeerId) => number | null,
): number {
  return Math.min(
    majorityCommitted(membership.voters, matched),
    majorityCommitted(membership.outgoing, matched),
  );
}

/** Won when both halves won, lost as soon as one lost. */
export function jointVote(
  membership: Pick<Membership, "voters" | "outgoing">,
  voteOf: (id: PeerId) => boolean | null,
): VoteResult {
  const incoming = majorityVote(membership.voters, voteOf);
  const outgoing = majorityVote(membership.outgoing, voteOf);
  if (incoming === outgoing) return incoming;
  if (incoming === "lost" || outgoing === "lost") return "lost";
  return "pending";
}
