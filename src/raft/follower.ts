/** What a follower does with the messages of its leader. */
import { assert } from "../lib/assert.ts";
import { noteState } from "./notes.ts";
import { hearLeader, type RaftState, rebuildPeers, send, sendAfterSave } from "./state.ts";
import { traceMembership } from "./tracing.ts";
import type { Message } from "./types.ts";

/** Appends the leader's entries, or says where the two logs may still agree. */
export function onAppend(r: RaftState, message: Extract<Message, { kind: "append" }>): void {
  hearLeader(r, message.from);
  // What is committed here is committed everywhere: tell the leader to go on from there.
  if (message.prevIndex < r.log.committed) {
    acknowledge(r, message.from, r.log.committed);
    return;
  }
  if (r.config.note !== undefined) noteConflict(r, message);
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
  r.config.note?.(
    { kind: "append-refused", message, ownTerm: r.log.term(message.prevIndex) ?? 0 },
    noteState(r),
  );
  const hint = r.log.conflictByTerm(Math.min(message.prevIndex, r.log.lastIndex), message.prevTerm);
  sendAfterSave(r, {
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

/** Notes which entries of `message` replace others here. */
function noteConflict(r: RaftState, message: Extract<Message, { kind: "append" }>): void {
  if (!r.log.matches(message.prevIndex, message.prevTerm)) return;
  const first = message.entries.find(({ index, term }) => !r.log.matches(index, term));
  if (first === undefined || first.index > r.log.lastIndex) return;
  const own = r.log.term(first.index) ?? 0;
  const { index, term } = first;
  r.config.note?.({ kind: "append-conflict", index, own, theirs: term }, noteState(r));
  r.config.note?.(
    { kind: "entries-replaced", from: index, undurableFrom: r.log.durable + 1 },
    noteState(r),
  );
}

/** The leader is alive and knows what is committed. */
export function onHeartbeat(r: RaftState, message: Extract<Message, { kind: "heartbeat" }>): void {
  hearLeader(r, message.from);
  r.log.commitThrough(message.commit);
  const reply = { from: r.id, to: message.from, term: r.term, readId: message.readId };
  // It says who is followed now, which needs no disk. With lease reads it also promises to vote for nobody for a while,
  // and after a restart only a saved term says that there may be such a promise.
  if (r.config.readMode === "lease") sendAfterSave(r, { kind: "heartbeat-reply", ...reply });
  else send(r, { kind: "heartbeat-reply", ...reply });
}

/** Takes a snapshot if it is news; a log that already has its last entry keeps what comes after it. */
export function onSnapshot(r: RaftState, message: Extract<Message, { kind: "snapshot" }>): void {
  hearLeader(r, message.from);
  const { snapshot } = message;
  if (!installSnapshot(r, snapshot))
    r.config.note?.({ kind: "snapshot-ignored", snapshot }, noteState(r));
  // Installed, known already or refused: what is committed here is what both certainly share.
  acknowledge(r, message.from, r.log.committed);
}

function installSnapshot(
  r: RaftState,
  snapshot: Extract<Message, { kind: "snapshot" }>["snapshot"],
): boolean {
  assert(r.role === "follower", "only a follower takes a snapshot");
  if (snapshot.index <= r.log.committed) return false;
  // It need not name this peer: a learner added after it was taken gets the entry that adds it right behind it.
  if (r.log.matches(snapshot.index, snapshot.term)) {
    r.config.note?.({ kind: "snapshot-known", snapshot }, noteState(r));
    r.log.commitThrough(snapshot.index);
    return false;
  }
  const { applying, durable, offered } = r.log;
  r.config.note?.(
    { kind: "snapshot-restores", snapshot, applying, durable, offered },
    noteState(r),
  );
  r.log.install(snapshot);
  if (r.config.trace !== undefined) traceMembership(r, snapshot.membership);
  r.membership = snapshot.membership;
  rebuildPeers(r);
  assert(r.log.committed === snapshot.index, "an installed snapshot is committed");
  r.config.note?.({ kind: "membership-in-effect", membership: r.membership }, noteState(r));
  r.config.note?.({ kind: "snapshot-restored", snapshot }, noteState(r));
  return true;
}

function acknowledge(r: RaftState, leader: string, index: number): void {
  assert(index <= r.log.lastIndex, "only what is in the log is acknowledged");
  sendAfterSave(r, {
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
