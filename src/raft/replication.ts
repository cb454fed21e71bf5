/** The leader's side of replication: what goes to whom, and what is committed by it. */
import { assert, present } from "../lib/assert.ts";
import { holdBack } from "./hold-back.ts";
import { SNAPSHOT_WAIT_ELECTIONS_MAX } from "./limits.ts";
import { entryBytes } from "./log.ts";
import { noteState, progressOf } from "./notes.ts";
import type { Progress } from "./progress.ts";
import { jointCommitted, jointVote } from "./quorum.ts";
import { type RaftState, send, sendAfterSave } from "./state.ts";
import { traceProposal, traceStep } from "./tracing.ts";
import type { Entry, PeerId } from "./types.ts";

/**
 * Appends to the leader's own log. The leader acknowledges it to itself only when it is durable, through a message
 * that waits for the Ready to be saved: a leader's own disk counts like anybody's (etcd #14370).
 * Returns the index of the first one.
 */
export function appendAsLeader(
  r: RaftState,
  proposals: readonly Pick<Entry, "kind" | "data">[],
): number {
  assert(r.role === "leader", "only a leader appends on its own");
  assert(proposals.length > 0, "an append has entries");
  const first = r.log.lastIndex + 1;
  if (r.config.trace !== undefined) for (const proposal of proposals) traceProposal(r, proposal);
  r.log.append(
    proposals.map(({ kind, data }, at) => ({ index: first + at, term: r.term, kind, data })),
  );
  for (const { data } of proposals) r.uncommittedBytes += data.length;
  r.selfAckDue = true;
  if (r.config.appendsAtOnce) flushSelfAck(r);
  oweAppends(r);
  return first;
}

/** The leader's word to itself that its own disk has all it appended; one for many proposals. */
export function flushSelfAck(r: RaftState): void {
  if (!r.selfAckDue) return;
  assert(r.role === "leader", "only a leader acknowledges itself");
  r.selfAckDue = false;
  sendAfterSave(r, {
    kind: "append-reply",
    from: r.id,
    to: r.id,
    term: r.term,
    index: r.log.lastIndex,
    rejected: false,
    hintIndex: 0,
    hintTerm: 0,
  });
}

/** Every other member is owed an append: of new entries, or of a new commit index. */
export function oweAppends(r: RaftState): void {
  r.appendsDue = true;
  if (r.config.appendsAtOnce) flushAppends(r);
}

/** Sends the appends that are due, to every other member. */
export function flushAppends(r: RaftState): void {
  if (!r.appendsDue) return;
  r.appendsDue = false;
  assert(r.role === "leader", "only a leader owes appends");
  holdBack(r);
  for (const peer of r.peers.values()) {
    if (peer.id !== r.id) sendAppend(r, peer, true);
  }
}

/**
 * Sends what `peer` lacks, if its window allows; a snapshot when the log no longer reaches back so far.
 * An append without entries goes only `evenEmpty`: it tells the commit index or probes. False when nothing went out.
 */
export function sendAppend(r: RaftState, peer: Progress, evenEmpty: boolean): boolean {
  assert(r.role === "leader", "only a leader sends appends");
  assert(peer.id !== r.id, "a leader sends nothing to itself");
  if (peer.blocked()) return false;
  assert(peer.next <= r.log.lastIndex + 1, "nothing beyond the leader's log is sent");
  const prevIndex = peer.next - 1;
  const prevTerm = r.log.term(prevIndex);
  if (prevTerm === null) return sendSnapshot(r, peer);
  const windowOpen = peer.state !== "replicate" || !peer.inflights.full();
  const entries = windowOpen
    ? r.log.slice(peer.next, r.log.lastIndex, r.config.appendBytesMax)
    : [];
  if (entries.length === 0 && !evenEmpty) return false;
  send(r, {
    kind: "append",
    from: r.id,
    to: peer.id,
    term: r.term,
    prevIndex,
    prevTerm,
    entries,
    commit: r.log.committed,
  });
  peer.sent(entries.length, totalBytes(entries));
  peer.sentCommitThrough(r.log.committed);
  return true;
}

/** Sends `peer` what was held back from it (raft/hold-back.ts). */
export function release(r: RaftState, peer: Progress): void {
  if (!peer.heldBack) return;
  assert(r.role === "leader", "only a leader holds anything back");
  peer.heldBack = false;
  while (sendAppend(r, peer, false)) {
    if (peer.state !== "replicate") break;
  }
}

/** The same for everybody. */
export function releaseAll(r: RaftState): void {
  for (const peer of r.peers.values()) release(r, peer);
}

function sendSnapshot(r: RaftState, peer: Progress): boolean {
  // A peer that is not heard of would only lose it.
  if (!peer.active) {
    r.config.note?.({ kind: "snapshot-held-back", progress: progressOf(peer) }, noteState(r));
    return false;
  }
  const snapshot = present(r.log.snapshot, "the snapshot of a log that forgot entries");
  const { firstIndex } = r.log;
  r.config.note?.(
    { kind: "snapshot-sent", snapshot, progress: progressOf(peer), firstIndex },
    noteState(r),
  );
  peer.becomeSnapshot(snapshot.index);
  r.config.note?.({ kind: "replication-paused", progress: progressOf(peer) }, noteState(r));
  send(r, { kind: "snapshot", from: r.id, to: peer.id, term: r.term, snapshot });
  return true;
}

/** Heartbeats to every other member, confirming read round `readId` if there is one. */
export function broadcastHeartbeat(r: RaftState, readId: number | null): void {
  assert(r.role === "leader", "only a leader's heart beats");
  if (readId !== null && r.lease !== null && r.config.leaseClock !== undefined) {
    r.lease.sent(readId, r.config.leaseClock.now());
  }
  for (const peer of r.peers.values()) {
    if (peer.id === r.id) continue;
    // Never beyond what this peer has: it may not have the entries that the commit index covers.
    const commit = Math.min(peer.match, r.log.committed);
    send(r, { kind: "heartbeat", from: r.id, to: peer.id, term: r.term, commit, readId });
    peer.sentCommit = Math.max(peer.sentCommit, commit);
  }
}

/**
 * Commits what a quorum has. Only an entry of this term is committed by counting; those before it follow with it
 * (Raft 5.4.2, Figure 8). True when the commit index moved.
 */
export function commitByQuorum(r: RaftState): boolean {
  assert(r.role === "leader", "only a leader commits by counting");
  const index = jointCommitted(r.membership, (id) => r.peers.get(id)?.match ?? null);
  if (index <= r.log.committed || r.log.term(index) !== r.term) return false;
  r.log.commitThrough(index);
  if (r.config.trace !== undefined) traceStep(r, "Commit");
  return true;
}

/** Whether a quorum answered since the last check. */
export function quorumActive(r: RaftState): boolean {
  const result = jointVote(r.membership, (id) => id === r.id || (r.peers.get(id)?.active ?? false));
  return result === "won";
}

/** Forgets who answered, for the next check. */
export function forgetActive(r: RaftState): void {
  for (const peer of r.peers.values()) peer.active = peer.id === r.id;
}

/** Whether `acknowledged` and the leader itself are a quorum. */
export function isQuorum(r: RaftState, acknowledged: ReadonlySet<PeerId>): boolean {
  return jointVote(r.membership, (id) => id === r.id || acknowledged.has(id)) === "won";
}

/** Once each election timeout: a snapshot that nobody reported on is taken for lost after a while. */
export function ageSnapshots(r: RaftState): void {
  for (const peer of r.peers.values()) {
    if (peer.state !== "snapshot") continue;
    assert(peer.pendingSnapshot > 0, "a snapshot under way has an index");
    peer.snapshotElections += 1;
    if (peer.snapshotElections >= SNAPSHOT_WAIT_ELECTIONS_MAX) endSnapshot(peer, false);
  }
}

/** A snapshot to `peer` ended. Either way, wait for its next word before sending more. */
export function endSnapshot(peer: Progress, ok: boolean): void {
  if (peer.state !== "snapshot") return;
  if (!ok) peer.pendingSnapshot = 0;
  peer.becomeProbe();
  peer.paused = true;
}

function totalBytes(entries: readonly Entry[]): number {
  let bytes = 0;
  for (const entry of entries) bytes += entryBytes(entry);
  return bytes;
}
