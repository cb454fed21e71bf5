/** Who counts, and how that may change: simple and joint changes as values, and their bytes in the log. */
import { assert } from "../lib/assert.ts";
import { isPeerId, MEMBERS_MAX, MEMBERSHIP_CHANGES_MAX } from "./limits.ts";
import type { Membership, MembershipChange, PeerId } from "./types.ts";

/** Nobody counts: what a manager knows before anybody has contacted it. */
export const EMPTY_MEMBERSHIP: Membership = {
  voters: [],
  outgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
};
/** The change that leaves a joint membership. */
export const LEAVE_JOINT: MembershipChange = { changes: [], transition: "auto" };

export type MembershipResult =
  | { readonly ok: true; readonly membership: Membership }
  | { readonly ok: false; readonly why: string };

export function isJoint(membership: Membership): boolean {
  return membership.outgoing.length > 0;
}

/** Whether `change` asks to leave a joint membership. */
export function leavesJoint(change: MembershipChange): boolean {
  return change.changes.length === 0 && change.transition === "auto";
}

/** Whether `id` votes, in either half. */
export function isVoter(membership: Membership, id: PeerId): boolean {
  return membership.voters.includes(id) || membership.outgoing.includes(id);
}

export function isMember(membership: Membership, id: PeerId): boolean {
  return isVoter(membership, id) || membership.learners.includes(id);
}

/** Everybody whose log the leader looks after, in order of their names. */
export function members(membership: Membership): PeerId[] {
  const all = new Set([...membership.voters, ...membership.outgoing, ...membership.learners]);
  return [...all].sort();
}

/**
 * The membership after `change`, or why it may not be. Simple when one change with "auto"; through a joint
 * membership otherwise; leaving it when there are no changes. A change that is already true changes nothing.
 * Source: Raft thesis chapter 4, with etcd's rules for learners.
 */
export function changeMembership(
  membership: Membership,
  change: MembershipChange,
): MembershipResult {
  if (leavesJoint(change)) return leaveJoint(membership);
  if (change.transition !== "auto" || change.changes.length > 1) {
    return enterJoint(membership, change.changes, change.transition !== "joint-explicit");
  }
  return changeSimply(membership, change.changes);
}

/** Changes at most one voter, with no joint membership between. */
export function changeSimply(
  membership: Membership,
  changes: MembershipChange["changes"],
): MembershipResult {
  if (isJoint(membership)) return refused("can't apply simple config change in joint config");
  const next = applyChanges(membership, changes);
  if (next.ok && difference(membership.voters, next.membership.voters) > 1) {
    return refused("more than one voter changed without entering joint config");
  }
  return next;
}

/** Enters the joint membership of the voters before and after `changes`. */
export function enterJoint(
  membership: Membership,
  changes: MembershipChange["changes"],
  autoLeave: boolean,
): MembershipResult {
  if (isJoint(membership)) return refused("config is already joint");
  if (membership.voters.length === 0) return refused("can't make a zero-voter config joint");
  return applyChanges({ ...membership, outgoing: membership.voters, autoLeave }, changes);
}

/** Leaves the joint membership: the incoming half counts alone, and demoted voters become learners. */
export function leaveJoint(membership: Membership): MembershipResult {
  if (!isJoint(membership)) return refused("can't leave a non-joint config");
  return checked({
    voters: membership.voters,
    outgoing: [],
    learners: sorted([...membership.learners, ...membership.learnersNext]),
    learnersNext: [],
    autoLeave: false,
  });
}

function applyChanges(
  membership: Membership,
  changes: MembershipChange["changes"],
): MembershipResult {
  const voters = new Set(membership.voters);
  const learners = new Set(membership.learners);
  const learnersNext = new Set(membership.learnersNext);
  for (const { kind, id } of changes) {
    const wasVoter = voters.delete(id);
    const wasLearner = learners.delete(id);
    const wasNext = learnersNext.delete(id);
    if (kind === "add-voter") voters.add(id);
    else if (kind === "add-learner") {
      // A voter of the outgoing half still votes: it becomes a learner only when that half is left.
      if (membership.outgoing.includes(id)) learnersNext.add(id);
      else learners.add(id);
    } else {
      assert(kind === "remove", "a membership change adds or removes");
      assert(
        !(wasVoter && wasLearner) && !(wasLearner && wasNext),
        "a member has one part to play",
      );
    }
  }
  if (voters.size === 0) return refused("removed all voters");
  return checked({
    ...membership,
    voters: sorted(voters),
    learners: sorted(learners),
    learnersNext: sorted(learnersNext),
  });
}

function checked(membership: Membership): MembershipResult {
  assertMembership(membership);
  if (members(membership).length > MEMBERS_MAX) return refused(`more than ${MEMBERS_MAX} members`);
  return { ok: true, membership };
}

/** Asserts what holds of every membership. */
export function assertMembership(membership: Membership): void {
  const { voters, outgoing, learners, learnersNext, autoLeave } = membership;
  for (const id of learners) {
    assert(!voters.includes(id) && !outgoing.includes(id), `learner ${id} has no vote in any half`);
  }
  for (const id of learnersNext) {
    assert(outgoing.includes(id), `next learner ${id} still votes in the outgoing half`);
    assert(!voters.includes(id), `next learner ${id} has no vote in the incoming half`);
  }
  if (outgoing.length === 0) {
    assert(learnersNext.length === 0, "only a joint membership has next learners");
    assert(!autoLeave, "only a joint membership is left by itself");
  }
}

/** The bytes of a change, as an entry of kind "membership" carries them. */
export function encodeMembershipChange(change: MembershipChange): Uint8Array {
  const text = JSON.stringify([1, change.transition, change.changes.map((c) => [c.kind, c.id])]);
  return new TextEncoder().encode(text);
}

/** The change in `data`, or null when these bytes are none: they came from a peer, so nothing is taken on trust. */
export function decodeMembershipChange(data: Uint8Array): MembershipChange | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data));
  } catch {
    return null;
  }
  if (!Array.isArray(parsed) || parsed.length !== 3 || parsed[0] !== 1) return null;
  const [, transition, list] = parsed as unknown[];
  if (transition !== "auto" && transition !== "joint-implicit" && transition !== "joint-explicit") {
    return null;
  }
  if (!Array.isArray(list) || list.length > MEMBERSHIP_CHANGES_MAX) return null;
  const changes: { kind: "add-voter" | "add-learner" | "remove"; id: PeerId }[] = [];
  for (const item of list as unknown[]) {
    if (!Array.isArray(item) || item.length !== 2) return null;
    const [kind, id] = item as unknown[];
    if (kind !== "add-voter" && kind !== "add-learner" && kind !== "remove") return null;
    if (!isPeerId(id)) return null;
    changes.push({ kind, id });
  }
  return { changes, transition };
}

function sorted(ids: Iterable<PeerId>): PeerId[] {
  return [...ids].sort();
}

function refused(why: string): MembershipResult {
  return { ok: false, why };
}

/** Size of the symmetric difference. */
function difference(a: readonly PeerId[], b: readonly PeerId[]): number {
  return a.filter((id) => !b.includes(id)).length + b.filter((id) => !a.includes(id)).length;
}
