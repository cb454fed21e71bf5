/** The log since the snapshot, in memory: what is there, what is durable, committed and applied. */
import { assert } from "../lib/assert.ts";
import { ENTRY_OVERHEAD_BYTES } from "./limits.ts";
import type { Entry, SavedState, Snapshot } from "./types.ts";

/** What an entry counts for against limits in bytes. */
export function entryBytes(entry: Pick<Entry, "data">): number {
  return entry.data.length + ENTRY_OVERHEAD_BYTES;
}

/**
 * Invariant: offset <= committed <= lastIndex, applied <= applying <= committed, durable <= offered <= lastIndex,
 * indexes without gaps. "Offered" and "applying" are what the driver was given and has not acknowledged yet.
 */
export class RaftLog {
  /** Entries of index offset+1, offset+2, … */
  #entries: Entry[] = [];
  /** The last index that is forgotten, and its term. */
  #offset: number;
  #offsetTerm: number;
  /** The last index that storage is known to hold as it is here. */
  #durable: number;
  /** The last index that the driver was given to save: each entry is offered once, unless it was replaced. */
  #offered: number;
  #committed: number;
  #applied: number;
  /** The last index that the driver was given to apply, and the bytes of what it has not applied of that yet. */
  #applying: number;
  #applyingBytes = 0;
  /** Nothing more is given to apply until something is applied: the page was full. */
  #applyingPaused = false;
  /** The newest snapshot, for peers that are too far behind. */
  #snapshot: Snapshot | null;
  /** A snapshot from the leader that storage and the state machine do not have yet. */
  #arrived: Snapshot | null = null;
  #arrivedOffered = false;

  /** Takes what storage has; its entries may begin before the snapshot's end, a suffix kept for slow peers. */
  constructor(saved: SavedState) {
    const { snapshot, entries, hardState } = saved;
    const covered = snapshot === null ? 0 : snapshot.index;
    const first = entries[0];
    this.#snapshot = snapshot;
    if (first === undefined || first.index === covered + 1) {
      this.#offset = covered;
      this.#offsetTerm = snapshot === null ? 0 : snapshot.term;
      this.#entries = [...entries];
    } else {
      assert(first.index <= covered, "saved entries join on to the saved snapshot");
      // The term before the first entry is not known, so that entry only serves as the mark before the second.
      this.#offset = first.index;
      this.#offsetTerm = first.term;
      this.#entries = entries.slice(1);
    }
    let expected = this.#offset + 1;
    for (const entry of this.#entries) {
      assert(entry.index === expected, "saved entries have no gaps");
      expected += 1;
    }
    this.#durable = this.lastIndex;
    this.#offered = this.lastIndex;
    this.#applied = covered;
    this.#applying = covered;
    this.#committed = Math.max(covered, hardState.commit);
    assert(this.#committed <= this.lastIndex, "what was committed is in the saved log");
    if (snapshot !== null) {
      assert(this.term(covered) === snapshot.term, "saved entries agree with the saved snapshot");
    }
  }

  get firstIndex(): number {
    return this.#offset + 1;
  }
  get lastIndex(): number {
    return this.#offset + this.#entries.length;
  }
  get lastTerm(): number {
    return this.#entries.at(-1)?.term ?? this.#offsetTerm;
  }
  get committed(): number {
    return this.#committed;
  }
  get applied(): number {
    return this.#applied;
  }
  get durable(): number {
    return this.#durable;
  }
  /** The last index that the driver was given to save. */
  get offered(): number {
    return this.#offered;
  }
  /** The last index that the driver was given to apply. */
  get applying(): number {
    return this.#applying;
  }
  get snapshot(): Snapshot | null {
    return this.#snapshot;
  }
  /** The snapshot from the leader that is not installed yet; nothing is applied meanwhile. */
  get arrived(): Snapshot | null {
    return this.#arrived;
  }

  /** Term of the entry at `index`, or null when it is forgotten or not there yet. Index 0 has term 0. */
  term(index: number): number | null {
    assert(Number.isSafeInteger(index) && index >= 0, "an index is a safe integer from 0");
    if (index === this.#offset) return this.#offsetTerm;
    return this.#entries[index - this.#offset - 1]?.term ?? null;
  }

  /** Whether the log holds the entry (index, term). */
  matches(index: number, term: number): boolean {
    return this.term(index) === term;
  }

  /** Whether a log that ends with (index, term) is at least as good as this one (Raft 5.4.1). */
  upToDate(index: number, term: number): boolean {
    return term > this.lastTerm || (term === this.lastTerm && index >= this.lastIndex);
  }

  /** Entries from `from` through `to`, as many as fit in `bytesMax`, at least one if there is one. None may be forgotten. */
  slice(from: number, to: number, bytesMax: number): Entry[] {
    assert(from > this.#offset, "forgotten entries cannot be read");
    assert(to <= this.lastIndex, "entries beyond the log cannot be read");
    const start = from - this.#offset - 1;
    let end = start;
    let bytes = 0;
    while (end < to - this.#offset) {
      const entry = this.#entries[end];
      if (entry === undefined) break;
      bytes += entryBytes(entry);
      if (end > start && bytes > bytesMax) break;
      end += 1;
    }
    return this.#entries.slice(start, end);
  }

  /**
   * The last index at or below `index` whose term is at most `term`, and that term (0: not known).
   * With it a leader and a follower skip a whole run of terms in one round trip.
   */
  conflictByTerm(index: number, term: number): { readonly index: number; readonly term: number } {
    let at = index;
    for (; at > 0; at -= 1) {
      const own = this.term(at);
      if (own === null) return { index: at, term: 0 };
      if (own <= term) return { index: at, term: own };
    }
    return { index: 0, term: 0 };
  }

  /** Appends `entries`, replacing what is there from the first one's index on. Never replaces what is committed. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) return;
    assert(first.index > this.#committed, "a committed entry is never replaced");
    assert(first.index <= this.lastIndex + 1, "entries are appended without gaps");
    this.#entries.length = first.index - this.#offset - 1;
    this.#durable = Math.min(this.#durable, first.index - 1);
    this.#offered = Math.min(this.#offered, first.index - 1);
    for (const entry of entries) {
      assert(entry.index === this.lastIndex + 1, "entries are appended without gaps");
      assert(entry.term >= this.lastTerm, "terms never fall along the log");
      this.#entries.push(entry);
    }
  }

  /**
   * Follower's append (Raft 5.3): the last index that now matches the leader, or null when (prevIndex, prevTerm) is not here.
   * Entries that are here already stay, so that an old or doubled message never shortens the log.
   */
  appendAfter(
    prevIndex: number,
    prevTerm: number,
    entries: readonly Entry[],
    commit: number,
  ): number | null {
    if (!this.matches(prevIndex, prevTerm)) return null;
    const last = prevIndex + entries.length;
    const conflict = entries.findIndex((entry) => !this.matches(entry.index, entry.term));
    if (conflict >= 0) this.append(entries.slice(conflict));
    assert(last <= this.lastIndex, "after an append the log reaches its last entry");
    this.commitThrough(Math.min(commit, last));
    return last;
  }

  /** Marks everything through `index` committed; never goes back. */
  commitThrough(index: number): void {
    if (index <= this.#committed) return;
    if (index > this.lastIndex) {
      assert(
        false,
        `a commit index lies within the log: ${index} is beyond ${this.lastIndex}; this manager lost entries it had acknowledged`,
      );
    }
    this.#committed = index;
  }

  /** Storage holds everything through (index, term). Ignored when that entry was replaced meanwhile. */
  durableThrough(index: number, term: number): void {
    if (index > this.#durable && this.matches(index, term)) this.#durable = index;
    assert(this.#durable <= this.lastIndex, "durable entries are in the log");
  }

  /** The state machine has everything through `index`; `bytesMax` as in takeCommitted(). */
  appliedThrough(index: number, bytesMax: number): void {
    assert(index >= this.#applied, "applied never goes back");
    assert(index <= this.#committed, "only what is committed is applied");
    for (let at = this.#applied + 1; at <= Math.min(index, this.#applying); at += 1) {
      const entry = this.at(at);
      if (entry !== null) this.#applyingBytes -= entryBytes(entry);
    }
    assert(this.#applyingBytes >= 0, "no entry is applied twice");
    this.#applied = index;
    this.#applying = Math.max(this.#applying, index);
    this.#applyingPaused = this.#applyingBytes >= bytesMax;
  }

  /** The entry at `index`, or null when it is forgotten or not there yet. */
  at(index: number): Entry | null {
    return this.#entries[index - this.#offset - 1] ?? null;
  }

  /** Whether something here waits for storage, offered or not: entries, or a snapshot. */
  hasUndurable(): boolean {
    return this.lastIndex > this.#durable || this.#arrived !== null;
  }

  /** Whether storage was not given everything yet. */
  hasUnoffered(): boolean {
    return this.lastIndex > this.#offered || (this.#arrived !== null && !this.#arrivedOffered);
  }

  /** Entries for storage, each once. */
  takeUnoffered(): Entry[] {
    const entries = this.#entries.slice(Math.max(0, this.#offered - this.#offset));
    this.#offered = this.lastIndex;
    return entries;
  }

  /** The arrived snapshot for storage and the state machine, once. */
  takeArrived(): Snapshot | null {
    if (this.#arrivedOffered) return null;
    this.#arrivedOffered = this.#arrived !== null;
    return this.#arrived;
  }

  /**
   * Committed entries to apply next, each once: at most `bytesMax` given and not yet applied, but at least one entry.
   * None while a snapshot waits to be installed. `durableOnly`: none that storage is not known to hold.
   */
  takeCommitted(bytesMax: number, durableOnly: boolean): Entry[] {
    if (!this.hasCommitted(durableOnly)) return [];
    const to = this.#appliable(durableOnly);
    const entries = this.slice(this.#applying + 1, to, bytesMax - this.#applyingBytes);
    for (const entry of entries) this.#applyingBytes += entryBytes(entry);
    this.#applying += entries.length;
    this.#applyingPaused = this.#applyingBytes >= bytesMax || this.#applying < to;
    return entries;
  }

  hasCommitted(durableOnly: boolean): boolean {
    if (this.#arrived !== null || this.#applyingPaused) return false;
    return this.#applying < this.#appliable(durableOnly);
  }

  #appliable(durableOnly: boolean): number {
    return durableOnly ? Math.min(this.#committed, this.#durable) : this.#committed;
  }

  /** Whether a change of membership is committed and not yet applied. */
  membershipUnapplied(): boolean {
    for (let index = this.#applied + 1; index <= this.#committed; index += 1) {
      if (this.#entries[index - this.#offset - 1]?.kind === "membership") return true;
    }
    return false;
  }

  /** Replaces the whole log by a snapshot from the leader. It must be beyond what is committed. */
  install(snapshot: Snapshot): void {
    assert(snapshot.index > this.#committed, "a snapshot never takes back what is committed");
    this.#entries = [];
    this.#offset = snapshot.index;
    this.#offsetTerm = snapshot.term;
    this.#durable = snapshot.index;
    this.#offered = snapshot.index;
    this.#committed = snapshot.index;
    this.#applying = snapshot.index;
    this.#applyingBytes = 0;
    this.#applyingPaused = false;
    this.#snapshot = snapshot;
    this.#arrived = snapshot;
    this.#arrivedOffered = false;
  }

  /** The driver has saved and applied the arrived snapshot of `index`. */
  installed(index: number): void {
    if (this.#arrived === null || this.#arrived.index !== index) return;
    this.#arrived = null;
    this.#arrivedOffered = false;
    this.#applied = index;
  }

  /** Forgets entries before `keepFrom`; `snapshot` covers them. An older snapshot than the one here changes nothing. */
  compact(snapshot: Snapshot, keepFrom: number): void {
    assert(snapshot.index <= this.#applied, "only what is applied is in a snapshot");
    assert(keepFrom <= snapshot.index + 1, "every forgotten entry is in the snapshot");
    if (this.#snapshot !== null && snapshot.index < this.#snapshot.index) return;
    const known = this.term(snapshot.index);
    assert(known === snapshot.term, "a snapshot carries the term of its last entry");
    this.#snapshot = snapshot;
    const forgotten = keepFrom - 1;
    if (forgotten <= this.#offset) return;
    const term = this.term(forgotten);
    assert(term !== null, "the entry before the kept ones is still here");
    this.#entries = this.#entries.slice(forgotten - this.#offset);
    this.#offset = forgotten;
    this.#offsetTerm = term;
    // A leader may compact what its quorum holds before its own disk does: then its disk needs it no more.
    this.#durable = Math.max(this.#durable, forgotten);
    this.#offered = Math.max(this.#offered, forgotten);
  }
}
