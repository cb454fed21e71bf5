/** What holds of a core after every call, checked in production too: a broken one stops the process before it can lie. */
import { assert } from "../lib/assert.ts";
import type { RaftState } from "./state.ts";

/** Asserts the invariants of `r`. Linear in the number of members, not in the log. */
export function checkInvariants(r: RaftState): void {
  const { log } = r;
  assert(log.firstIndex - 1 <= log.committed, "only committed entries are forgotten");
  assert(log.applied <= log.committed, "only what is committed is applied");
  assert(log.committed <= log.lastIndex, "only what is in the log is committed");
  assert(log.durable <= log.lastIndex, "only what is in the log is durable");
  assert(log.lastTerm <= r.term, "no entry is of a later term than the peer");
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
  assert(r.peers.has(r.id), "a leader is a member");
  for (const peer of r.peers.values()) {
    assert(peer.match < peer.next, "match is below next");
    assert(peer.match <= log.lastIndex, "no peer matches beyond the leader's log");
    if (peer.id !== r.id) {
      assert(peer.next <= log.lastIndex + 1, "nothing beyond the leader's log is sent");
    }
  }
}
