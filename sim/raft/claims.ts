/** What a log has promised to keep: seen from outside, by what its saves resolved to, and held against what it loads. */
import type { HardState, PeerId, Ready, SavedState, Snapshot } from "../../src/raft/types.ts";

export type SaveChange = Pick<Ready, "hardState" | "entries" | "snapshot">;

export class Claims {
  term = 0;
  vote: PeerId | null = null;
  /** A snapshot covers everything through here. */
  covered = 0;
  /** Terms of the entries base+1, base+2, … */
  base = 0;
  terms: number[] = [];
  /** Asked for, and not resolved. */
  pending: SaveChange[] = [];
  pendingSnapshots: number[] = [];

  get lastIndex(): number {
    return this.base + this.terms.length;
  }

  /** Whether the entry is durable, alone or in a snapshot. */
  holds(index: number, term: number): boolean {
    return index <= this.covered || this.terms[index - this.base - 1] === term;
  }

  /** Whether a promise made in `term` (with `vote`, or null for any) outlives a power failure. */
  promised(term: number, vote: PeerId | null): boolean {
    return this.term > term || (this.term === term && (vote === null || this.vote === vote));
  }

  asked(change: SaveChange): void {
    this.pending.push(change);
  }

  /** Returns false when saves resolve out of order. */
  resolved(change: SaveChange): boolean {
    if (this.pending.shift() !== change) return false;
    this.#add(change);
    return true;
  }

  compacted(snapshot: Snapshot, keepFrom: number): void {
    this.pendingSnapshots = this.pendingSnapshots.filter((index) => index !== snapshot.index);
    if (snapshot.index <= this.covered) return;
    this.covered = snapshot.index;
    const gone = Math.min(keepFrom - 1, this.lastIndex) - this.base;
    if (gone > 0) {
      this.terms.splice(0, gone);
      this.base += gone;
    }
  }

  /**
   * What was loaded must be what was promised, and a first part of what was still under way. Returns what is wrong, or
   * null; from then on what was loaded is what is promised.
   */
  loaded(saved: SavedState): string | null {
    const pending = this.pending;
    this.pending = [];
    const before = this.#text();
    let wrong = this.#differs(saved);
    for (let at = 0; wrong !== null && at < pending.length; at += 1) {
      const change = pending[at];
      if (change !== undefined) this.#add(change);
      wrong = this.#differs(saved);
    }
    this.#take(saved);
    if (wrong === null) return null;
    return `${wrong}; promised: ${before}, ${pending.length} saves under way; loaded: ${this.#text()}`;
  }

  #differs({ hardState, snapshot, entries }: SavedState): string | null {
    const covered = snapshot?.index ?? 0;
    const last = entries.at(-1)?.index ?? covered;
    if (hardState.term !== this.term || hardState.vote !== this.vote)
      return `term ${hardState.term} and vote ${hardState.vote} were loaded, ${this.term} and ${this.vote} saved`;
    if (Math.max(last, covered) !== Math.max(this.lastIndex, this.covered))
      return `the log was loaded through ${last}, and saved through ${this.lastIndex}`;
    if (covered < this.covered) return `snapshot ${covered} was loaded, and ${this.covered} saved`;
    if (covered > this.covered && !this.pendingSnapshots.includes(covered))
      return `snapshot ${covered} was loaded, and never saved`;
    for (const { index, term } of entries) {
      const known = this.terms[index - this.base - 1];
      if (known !== undefined && known !== term)
        return `entry ${index} of term ${term} was loaded, of term ${known} saved`;
    }
    return null;
  }

  #add({ hardState, entries, snapshot }: SaveChange): void {
    if (hardState !== null) this.#hard(hardState);
    if (snapshot !== null) {
      this.covered = snapshot.index;
      this.base = snapshot.index;
      this.terms = [];
    }
    const first = entries[0];
    if (first === undefined) return;
    this.terms.length = Math.max(0, first.index - 1 - this.base);
    for (const { term } of entries) this.terms.push(term);
  }

  #hard({ term, vote }: HardState): void {
    this.term = term;
    this.vote = vote;
  }

  #take({ hardState, snapshot, entries }: SavedState): void {
    this.#hard(hardState);
    this.covered = snapshot?.index ?? 0;
    this.base = (entries[0]?.index ?? this.covered + 1) - 1;
    this.terms = entries.map(({ term }) => term);
    this.pendingSnapshots = [];
  }

  #text(): string {
    return `term ${this.term}, vote ${this.vote}, entries ${this.base + 1} to ${this.lastIndex}, snapshot ${this.covered}`;
  }
}
