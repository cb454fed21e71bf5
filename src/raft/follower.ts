/** What a follower does with the messages of its leader. */
import { assert } from "../lib/assert.ts";
import { hearLeader, type RaftState, rebuildPeers } from "./state.ts";
import type { Message } from "./types.ts";

/** Appends the leader's entries, or says where the two logs may still agree. */
export function onAppend(r: RaftState, message: Extract<Message, { kind: "append" }>): void {
  hearLeader(r, message.from);
  // What is committed here is committed everywhere: tell the leader to go on from there.
  if (message.prevIndex < r.log.committed) {
    acknowledge(r, message.from, r.log.committed);
    return;
  }
  const last = r.log.appendAfter(
    message.prevIndex,
    message.prevTerm,
    message.entries,
    message.commit,
  );
  if (last !== null) {
    acknowledge(r, message.from, last);
    return;
  }
  const hint = r.log.conflictByTerm(Math.min(message.prevIndex, r.log.lastIndex), message.prevTerm);
  r.messages.push({
    kind: "append-reply",
    from: r.id,
    to: message.from,
    term: r.term,
    index: message.prevIndex,
    rejected: true,
    hintIndex: hint.index,
    hintTerm: hint.term,
  });
}

/** The leader is alive and knows what is committed. */
export function onHeartbeat(r: RaftState, message: Extract<Message, { kind: "heartbeat" }>): void {
  hearLeader(r, message.from);
  r.log.commitThrough(message.commit);
  r.messages.push({
    kind: "heartbeat-reply",
    from: r.id,
    to: message.from,
    term: r.term,
    readId: message.readId,
  });
}

/** Takes a snapshot if it is news; a log that already has its last entry keeps what comes after it. */
export function onSnapshot(r: RaftState, message: Extract<Message, { kind: "snapshot" }>): void {
  hearLeader(r, message.from);
  installSnapshot(r, message.snapshot);
  // Installed, known already or refused: what is committed here is what both certainly share.
  acknowledge(r, message.from, r.log.committed);
}

function installSnapshot(
  r: RaftState,
  snapshot: Extract<Message, { kind: "snapshot" }>["snapshot"],
): void {
  assert(r.role === "follower", "only a follower takes a snapshot");
  if (snapshot.index <= r.log.committed) return;
  // It need not name this peer: a learner added after it was taken gets the entry that adds it right behind it.
  if (r.log.matches(snapshot.index, snapshot.term)) {
    r.log.commitThrough(snapshot.index);
    return;
  }
  r.log.install(snapshot);
  r.membership = snapshot.membership;
  rebuildPeers(r);
  assert(r.log.committed === snapshot.index, "an installed snapshot is committed");
}

function acknowledge(r: RaftState, leader: string, index: number): void {
  assert(index <= r.log.lastIndex, "only what is in the log is acknowledged");
  r.messages.push({
    kind: "append-reply",
    from: r.id,
    to: leader,
    term: r.term,
    index,
    rejected: false,
    hintIndex: 0,
    hintTerm: 0,
  });
}
