/** What holds of a core after every call, checked in production too: a broken one stops the process before it can lie. */
import { assert } from "../lib/assert.ts";
import type { RaftState } from "./state.ts";

/**
 * Asserts the invariants of `r`. Takes the same short time whatever the log and the membership; what holds of each
 * peer's progress is asserted where that changes (progress.ts, replication.ts).
 */
export function checkInvariants(r: RaftState): void {
  const { log } = r;
  assert(log.firstIndex - 1 <= log.committed, "only committed entries are forgotten");
  assert(log.applied <= log.committed, "only what is committed is applied");
  assert(log.committed <= log.lastIndex, "only what is in the log is committed");
  assert(log.durable <= log.lastIndex, "only what is in the log is durable");
  assert(
    log.lastTerm <= r.term || log.lastIndex === log.snapshot?.index,
    "no entry is of a later term than the peer, but for a snapshot it started with",
  );
  assert((r.role === "leader") === (r.leader === r.id), "who leads knows it, and nobody else does");
  assert(r.transferee === null || r.role === "leader", "only a leader hands over");
  assert(!r.appendsDue || r.role === "leader", "only a leader owes appends");
  if (r.role === "candidate" || r.role === "leader") {
    assert(r.vote === r.id, "who stands for election has voted for itself");
  }
  if (r.role === "candidate" || r.role === "precandidate") {
    assert(r.leader === null, "who stands for election knows no leader");
  }
  if (r.role !== "leader") return;
  assert(r.peers.has(r.id) || !r.config.stepDownOnRemoval, "a leader is a member");
}
