/** What the leader knows of one peer's log, and how much it may send before it hears back. */
import { assert } from "../lib/assert.ts";
import type { PeerId, RaftStatus } from "./types.ts";

export type ProgressState = RaftStatus["progress"][number]["state"];

/**
 * Appends sent and not yet acknowledged, bounded by messages and by bytes.
 * Acknowledgements are of indexes, so freeing one frees all before it.
 */
export class Inflights {
  readonly #messagesMax: number;
  readonly #bytesMax: number;
  #queue: { readonly index: number; readonly bytes: number }[] = [];
  #head = 0;
  #bytes = 0;

  constructor(messagesMax: number, bytesMax: number) {
    assert(messagesMax > 0 && bytesMax > 0, "an inflight window lets at least one message through");
    this.#messagesMax = messagesMax;
    this.#bytesMax = bytesMax;
  }

  get count(): number {
    return this.#queue.length - this.#head;
  }

  full(): boolean {
    return this.count >= this.#messagesMax || this.#bytes >= this.#bytesMax;
  }

  /** Notes that an append whose last entry is `index` was sent. The window must not be full. */
  add(index: number, bytes: number): void {
    assert(!this.full(), "an append is sent only into an open window");
    const last = this.#queue.at(-1);
    assert(
      this.count === 0 || last === undefined || index > last.index,
      "appends go out in order of their indexes",
    );
    this.#queue.push({ index, bytes });
    this.#bytes += bytes;
  }

  /** Frees everything up to and with `index`. */
  freeThrough(index: number): void {
    for (;;) {
      const first = this.#queue[this.#head];
      if (first === undefined || first.index > index) break;
      this.#head += 1;
      this.#bytes -= first.bytes;
    }
    assert(this.#bytes >= 0, "no byte is freed twice");
    if (this.#head > 64 && this.#head * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
  }

  clear(): void {
    this.#queue = [];
    this.#head = 0;
    this.#bytes = 0;
  }
}

/**
 * One peer in the leader's eyes. Probe: its log is not known, one append at a time. Replicate: appends stream
 * ahead of their acknowledgements. Snapshot: it needs a snapshot, nothing else is sent. Source: etcd-io/raft's
 * progress design; invariant match < next.
 */
export class Progress {
  readonly id: PeerId;
  readonly inflights: Inflights;
  state: ProgressState = "probe";
  match: number;
  next: number;
  learner: boolean;
  /** Heard from since the leader last checked its quorum. */
  active = false;
  /** Nothing more goes out until a heartbeat or an append is answered. */
  paused = false;
  /** Index of the snapshot under way, in state "snapshot". */
  pendingSnapshot = 0;
  /** Election timeouts that the snapshot under way has taken. */
  snapshotElections = 0;
  /** Entries wait for this peer until they are let go (raft/hold-back.ts); meanwhile it gets nothing but heartbeats. */
  heldBack = false;
  /** The last entry that this peer proposed, or one about then: it waits to see it applied. */
  proposed = 0;
  /** The last entry that this peer acknowledged before it was committed: its word counted. */
  inTime = 0;
  /** Highest commit index in an append that is under way or has arrived. */
  sentCommit = 0;

  constructor(id: PeerId, match: number, next: number, learner: boolean, inflights: Inflights) {
    assert(match >= 0 && match < next, "match is below next");
    this.id = id;
    this.match = match;
    this.next = next;
    this.learner = learner;
    this.inflights = inflights;
  }

  becomeProbe(): void {
    // After a snapshot that was seen to arrive, go on behind it rather than from what was known before it.
    const from =
      this.state === "snapshot" ? Math.max(this.match, this.pendingSnapshot) : this.match;
    this.#enter("probe");
    this.next = from + 1;
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
  }

  becomeReplicate(): void {
    this.#enter("replicate");
    this.next = this.match + 1;
  }

  becomeSnapshot(index: number): void {
    assert(index > 0, "a snapshot covers something");
    this.#enter("snapshot");
    this.pendingSnapshot = index;
    this.next = Math.max(index, this.match) + 1;
    this.sentCommit = index;
  }

  #enter(state: ProgressState): void {
    this.state = state;
    this.paused = false;
    this.heldBack = false;
    this.pendingSnapshot = 0;
    this.snapshotElections = 0;
    this.inflights.clear();
  }

  /** Whether nothing may be sent but heartbeats. */
  blocked(): boolean {
    return this.state === "snapshot" || this.paused || this.heldBack;
  }

  /** Notes that `count` entries of `bytes` went out behind next-1. */
  sent(count: number, bytes: number): void {
    assert(this.state !== "snapshot", "no entries are sent to a peer that gets a snapshot");
    if (this.state === "replicate") {
      if (count > 0) {
        this.next += count;
        this.inflights.add(this.next - 1, bytes);
      }
      // An empty append may go out though the window is full (its loss costs nothing): then, pause until answered.
      this.paused = this.inflights.full();
    } else if (count > 0) {
      this.paused = true;
    }
  }

  sentCommitThrough(commit: number): void {
    this.sentCommit = commit;
  }

  /** Whether an empty append would tell the peer of a commit that it does not know and can use. */
  canLearnCommit(commit: number): boolean {
    return commit > this.sentCommit && this.sentCommit < this.next - 1;
  }

  /** The peer has everything through `index`. False when that was known. */
  matched(index: number): boolean {
    if (index <= this.match) return false;
    this.match = index;
    this.next = Math.max(this.next, index + 1);
    this.paused = false;
    assert(this.match < this.next, "match is below next");
    return true;
  }

  /**
   * The peer refused an append behind `refused`; `hint` is the last index at which its log may agree.
   * False when that is an old answer that says nothing new.
   */
  refusedAt(refused: number, hint: number): boolean {
    if (this.state === "replicate") {
      if (refused <= this.match) return false;
      this.next = this.match + 1;
    } else {
      if (this.next - 1 !== refused) return false;
      this.next = Math.max(Math.min(refused, hint + 1), this.match + 1);
      this.paused = false;
    }
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
    assert(this.match < this.next, "match is below next");
    return true;
  }
}
