/** What a leader does with the messages and the requests that it gets. */
import { assert } from "../lib/assert.ts";
import { ENTRY_BYTES_MAX, READS_WAITING_MAX } from "./limits.ts";
import { changeMembership, decodeMembershipChange, isJoint, leavesJoint } from "./membership.ts";
import { noteState, progressOf } from "./notes.ts";
import type { Progress } from "./progress.ts";
import type { ReadRequest } from "./read-index.ts";
import {
  appendAsLeader,
  broadcastHeartbeat,
  commitByQuorum,
  isQuorum,
  oweAppends,
  release,
  releaseAll,
  sendAppend,
} from "./replication.ts";
import { type RaftState, send } from "./state.ts";
import type { Entry, Message, PeerId, ProposeResult } from "./types.ts";

const NO_BYTES = new Uint8Array(0);

type Proposal = Pick<Entry, "kind" | "data">;
export type ProposeRefusal = Extract<ProposeResult, { ok: false }>["reason"];

/** A peer accepted or refused an append. */
export function onAppendReply(
  r: RaftState,
  peer: Progress,
  reply: Extract<Message, { kind: "append-reply" }>,
): void {
  assert(r.role === "leader", "only a leader hears of appends");
  peer.active = true;
  if (reply.rejected) {
    r.config.note?.({ kind: "refusal-heard", reply }, noteState(r));
    // Skip the whole run of terms that cannot match, on both sides (Raft 5.3, end).
    const hint =
      reply.hintTerm > 0
        ? r.log.conflictByTerm(reply.hintIndex, reply.hintTerm).index
        : reply.hintIndex;
    if (!peer.refusedAt(reply.index, hint)) return;
    r.config.note?.({ kind: "progress-lowered", progress: progressOf(peer) }, noteState(r));
    if (peer.state === "replicate") peer.becomeProbe();
    sendAppend(r, peer, true);
    return;
  }
  assert(reply.index <= r.log.lastIndex, "no peer matches beyond the leader's log");
  if (reply.index > r.log.committed) peer.inTime = reply.index;
  const news = peer.matched(reply.index);
  if (!news && !(peer.match === reply.index && peer.state === "probe")) return;
  if (peer.state === "probe") peer.becomeReplicate();
  else if (peer.state === "snapshot") {
    // Any state that the log can go on from will do, not only the snapshot that was sent.
    if (peer.match + 1 >= r.log.firstIndex) {
      r.config.note?.({ kind: "snapshot-recovered", progress: progressOf(peer) }, noteState(r));
      peer.becomeProbe();
      peer.becomeReplicate();
    }
  } else peer.inflights.freeThrough(reply.index);
  if (commitByQuorum(r)) {
    releaseReads(r);
    oweAppends(r);
  } else if (peer.id !== r.id && peer.canLearnCommit(r.log.committed)) {
    sendAppend(r, peer, true);
  }
  if (peer.id === r.id) return;
  // The window opened: fill it. Each append adds to it, so this ends.
  while (sendAppend(r, peer, false)) {
    if (peer.state !== "replicate") break;
  }
  if (peer.id === r.transferee && peer.match === r.log.lastIndex) {
    sendTimeoutNow(r, peer.id);
    r.config.note?.({ kind: "transfer-sent", to: peer.id, atOnce: false }, noteState(r));
  }
}

/** A peer is alive and follows this leader. */
export function onHeartbeatReply(
  r: RaftState,
  peer: Progress,
  reply: Extract<Message, { kind: "heartbeat-reply" }>,
): void {
  assert(r.role === "leader", "only a leader's heartbeats are answered");
  peer.active = true;
  peer.paused = false;
  // Even with a full window an empty append goes out: if all of the window was lost, its refusal says so.
  if (peer.match < r.log.lastIndex || peer.state === "probe") sendAppend(r, peer, true);
  if (reply.readId === null) return;
  acknowledgeRound(r, reply.readId, peer.id);
}

function acknowledgeRound(r: RaftState, round: number, from: PeerId): void {
  const before = r.reads.confirmed;
  const reads = r.reads.acknowledge(round, from, (acknowledged) => isQuorum(r, acknowledged));
  if (r.reads.confirmed > before) r.lease?.confirmed(r.reads.confirmed);
  answerReads(r, reads);
}

/**
 * Takes proposals into the log. Null when they are in; else why not. A change of membership that may not be
 * proposed now turns into an empty entry, as its proposer hears of it only through what is applied.
 */
export function acceptProposals(
  r: RaftState,
  proposals: readonly Proposal[],
): ProposeRefusal | null {
  assert(r.role === "leader", "only a leader accepts proposals");
  if (!r.peers.has(r.id)) return "removed";
  if (r.transferee !== null) return "transferring";
  let bytes = 0;
  for (const { data } of proposals) {
    if (data.length > ENTRY_BYTES_MAX) return "invalid";
    bytes += data.length;
  }
  // Bounded while no quorum answers. One proposal is let in whatever its size, and empty ones always are.
  const full = r.uncommittedBytes + bytes > r.config.uncommittedBytesMax;
  if (full && r.uncommittedBytes > 0 && bytes > 0) return "log-full";
  const accepted = proposals.map((proposal, at): Proposal => {
    if (proposal.kind !== "membership") return proposal;
    const refusal = r.config.disableMembershipValidation
      ? null
      : membershipRefusal(r, proposal.data);
    if (refusal !== null) {
      if (r.config.note !== undefined) noteRefusedChange(r, proposal.data);
      return { kind: "empty", data: NO_BYTES };
    }
    r.membershipPendingIndex = r.log.lastIndex + 1 + at;
    return proposal;
  });
  appendAsLeader(r, accepted);
  return null;
}

/** Why this change of membership may not be proposed now, or null. One at a time, counted from its application. */
export function membershipRefusal(r: RaftState, data: Uint8Array): ProposeRefusal | null {
  const change = decodeMembershipChange(data);
  if (change === null) return "invalid";
  if (r.membershipPendingIndex > r.log.applied) return "membership-pending";
  if (isJoint(r.membership) !== leavesJoint(change)) {
    return isJoint(r.membership) ? "membership-pending" : "invalid";
  }
  return changeMembership(r.membership, change).ok ? null : "invalid";
}

function noteRefusedChange(r: RaftState, data: Uint8Array): void {
  const { membership, membershipPendingIndex: pendingIndex } = r;
  const change = decodeMembershipChange(data);
  let why: "pending" | "joint" | "not-joint" | "invalid" = "invalid";
  if (change !== null) {
    if (pendingIndex > r.log.applied) why = "pending";
    else if (isJoint(membership) && !leavesJoint(change)) why = "joint";
    else if (!isJoint(membership) && leavesJoint(change)) why = "not-joint";
  }
  r.config.note?.({ kind: "change-refused", change, why, pendingIndex, membership }, noteState(r));
}

/** A read that `from` asks for under `readId`. */
export function askRead(r: RaftState, from: PeerId, readId: number): void {
  assert(r.role === "leader", "only a leader orders reads");
  // It will answer when it has applied what is committed now.
  const asker = r.peers.get(from);
  if (asker !== undefined) release(r, asker);
  // Before the first commit of its term a leader does not know what is committed: the read waits (Raft 8).
  if (!r.committedInTerm()) {
    if (r.readsBeforeCommit.length < READS_WAITING_MAX) {
      r.readsBeforeCommit.push({ from, readId });
    }
    return;
  }
  const read = { from, readId, index: r.log.committed };
  if (leaseHolds(r)) answerReads(r, [read]);
  else r.reads.add(read);
}

/** Whether this leader may answer reads by itself now (raft/lease.ts). */
function leaseHolds(r: RaftState): boolean {
  const clock = r.config.leaseClock;
  return r.lease !== null && clock !== undefined && r.lease.holds(clock.now());
}

/** The heartbeats of a tick. With lease reads each is a round of its own, so that its answers renew the lease. */
export function heartbeat(r: RaftState): void {
  assert(r.role === "leader", "only a leader's heart beats");
  if (r.lease === null) {
    broadcastHeartbeat(r, r.reads.newest());
    return;
  }
  const round = r.reads.open();
  acknowledgeRound(r, round, r.id);
  broadcastHeartbeat(r, round);
}

/** Sends out the round of reads that was collected since the last Ready. */
export function flushReads(r: RaftState): void {
  if (r.role !== "leader") return;
  const round = r.reads.close();
  if (round === null) return;
  // The leader's own word is enough where it is the only voter.
  acknowledgeRound(r, round, r.id);
  if (r.reads.confirmed < round) broadcastHeartbeat(r, round);
}

function releaseReads(r: RaftState): void {
  if (r.readsBeforeCommit.length === 0 || !r.committedInTerm()) return;
  const waiting = r.readsBeforeCommit;
  r.readsBeforeCommit = [];
  for (const { from, readId } of waiting) askRead(r, from, readId);
}

function answerReads(r: RaftState, reads: readonly ReadRequest[]): void {
  for (const { from, readId, index } of reads) {
    assert(index <= r.log.committed, "a read sees only what is committed");
    if (from === r.id) r.readsDone.push({ readId, index });
    else {
      send(r, {
        kind: "read-index-reply",
        from: r.id,
        to: from,
        term: r.term,
        readId,
        index,
      });
    }
  }
}

/** Hands leadership to the voter `to` once it has the whole log. Given up after one election timeout. */
export function startTransfer(r: RaftState, to: PeerId): void {
  assert(r.role === "leader", "only a leader hands over");
  const peer = r.peers.get(to);
  if (peer === undefined || peer.learner || r.transferee === to) return;
  r.transferee = null;
  if (to === r.id) return;
  r.electionElapsed = 0;
  r.transferee = to;
  releaseAll(r);
  r.config.note?.({ kind: "transfer-starts", to }, noteState(r));
  if (peer.match === r.log.lastIndex) {
    sendTimeoutNow(r, to);
    r.config.note?.({ kind: "transfer-sent", to, atOnce: true }, noteState(r));
  } else sendAppend(r, peer, true);
}

function sendTimeoutNow(r: RaftState, to: PeerId): void {
  assert(to !== r.id, "a leader does not hand over to itself");
  // Who gets this message is elected despite a live leader, also when it comes late.
  r.lease?.forfeit();
  send(r, { kind: "timeout-now", from: r.id, to, term: r.term });
}
