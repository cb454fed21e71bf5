/** Putting a committed change of membership into effect, on every member alike, when its entry is applied. */
import { assert, present } from "../lib/assert.ts";
import { acceptProposals } from "./leader.ts";
import {
  changeMembership,
  decodeMembershipChange,
  encodeMembershipChange,
  isVoter,
  LEAVE_JOINT,
} from "./membership.ts";
import { noteState } from "./notes.ts";
import { commitByQuorum, oweAppends, sendAppend } from "./replication.ts";
import { becomeFollower, type RaftState, rebuildPeers } from "./state.ts";
import { traceMembership } from "./tracing.ts";
import type { Entry } from "./types.ts";

/** Applies the change in `entry`. It was checked when it was proposed, against the membership that holds now. */
export function applyMembershipEntry(r: RaftState, entry: Entry): void {
  assert(entry.kind === "membership", "only membership entries change the membership");
  const change = present(decodeMembershipChange(entry.data), "the change of a membership entry");
  const result = changeMembership(r.membership, change);
  assert(result.ok, `membership change ${entry.index} holds: ${result.ok ? "" : result.why}`);
  if (r.config.trace !== undefined) traceMembership(r, result.membership);
  r.membership = result.membership;
  rebuildPeers(r);
  r.config.note?.({ kind: "membership-in-effect", membership: r.membership }, noteState(r));
  if (r.role !== "leader") return;
  if (!isVoter(r.membership, r.id)) {
    // Removed or demoted: the others elect one of themselves.
    if (r.config.stepDownOnRemoval) becomeFollower(r, r.term, null);
    return;
  }
  // A smaller quorum may already have what waits; a new member should hear from its leader now.
  if (commitByQuorum(r)) oweAppends(r);
  else {
    for (const peer of r.peers.values()) if (peer.id !== r.id) sendAppend(r, peer, false);
  }
  if (r.transferee !== null && !isVoter(r.membership, r.transferee)) r.transferee = null;
}

/** The leader proposes to leave a joint membership by itself, once that membership is in effect. */
export function leaveJointWhenDue(r: RaftState): void {
  if (r.role !== "leader" || !r.membership.autoLeave) return;
  if (r.log.applied < r.membershipPendingIndex) return;
  assert(r.membership.outgoing.length > 0, "only a joint membership is left");
  // Refused while leadership moves: the next leader, or the next applied entry, asks again.
  const refusal = acceptProposals(r, [
    { kind: "membership", data: encodeMembershipChange(LEAVE_JOINT) },
  ]);
  if (refusal === null) {
    r.config.note?.({ kind: "joint-left-by-itself", membership: r.membership }, noteState(r));
  }
}
