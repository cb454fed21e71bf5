/**
 * Which peers may get new entries a moment later. A quorum commits; what the others do at the same time only takes cores,
 * sockets and disks from it. So few entries at a time go at once to as many voters as a quorum needs ("thrifty"
 * replication: Moraru et al., EPaxos, SOSP 2013), to the rest many together, when the driver or the next tick says so.
 */
import { assert } from "../lib/assert.ts";
import { HELD_BACK_LAG_MAX } from "./limits.ts";
import { isJoint } from "./membership.ts";
import type { Progress } from "./progress.ts";
import type { RaftState } from "./state.ts";

/**
 * Before new entries go out: marks who waits for them. Nobody does while other entries are under way, or in any doubt;
 * who waited before is then sent everything with the others.
 */
export function holdBack(r: RaftState): void {
  assert(r.role === "leader", "only a leader holds anything back");
  if (r.config.holdBackEntriesMax === 0 || !r.log.hasUnoffered()) return;
  const first = whoIsFirst(r);
  for (const peer of r.peers.values()) {
    const lag = r.log.lastIndex - peer.match;
    const asks = peer.proposed > peer.match;
    const isDue = first === null || first.includes(peer) || asks || lag > HELD_BACK_LAG_MAX;
    const lacks = peer.id !== r.id && peer.next <= r.log.lastIndex;
    peer.heldBack = !isDue && lacks && isSteady(peer);
  }
}

/** The last entry of the leader while somebody waits for entries; else null. */
export function heldBackThrough(r: RaftState): number | null {
  if (r.role !== "leader" || r.config.holdBackEntriesMax === 0) return null;
  for (const peer of r.peers.values()) if (peer.heldBack) return r.log.lastIndex;
  return null;
}

/**
 * The voters that make a quorum together with the leader: those with everything but the new entries, and of these who
 * answered in time to be counted most lately. Null when all are to be told.
 */
function whoIsFirst(r: RaftState): readonly Progress[] | null {
  const { membership, log, config } = r;
  const isQuiet = r.transferee === null && r.membershipPendingIndex <= log.applied;
  if (!isQuiet || isJoint(membership) || !membership.voters.includes(r.id)) return null;
  // While others are under way, or many come together, each message carries many: there is little to save.
  if (log.offered > log.committed) return null;
  if (log.lastIndex - log.committed > config.holdBackEntriesMax) return null;
  const needed = Math.floor(membership.voters.length / 2);
  const candidates: Progress[] = [];
  for (const id of membership.voters) {
    if (id === r.id) continue;
    const peer = r.peers.get(id);
    if (peer === undefined || !isSteady(peer)) return null;
    if (peer.match === log.committed && peer.next === log.committed + 1) candidates.push(peer);
  }
  if (candidates.length < needed) return null;
  return candidates.sort((a, b) => b.inTime - a.inTime).slice(0, needed);
}

/** Whether its log is known to follow and it was heard of lately. */
function isSteady(peer: Progress): boolean {
  return peer.state === "replicate" && peer.active && !peer.paused;
}
