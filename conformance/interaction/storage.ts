/** A memory storage as etcd's: it forgets entries only when told, and a snapshot replaces all of them. */
import { assert } from "../../src/lib/assert.ts";
import type { Entry, Ready, SavedState, Snapshot } from "../../src/raft/types.ts";

export class Storage {
  #entries: Entry[] = [];
  #firstIndex: number;

  constructor(saved: SavedState) {
    this.#firstIndex = (saved.snapshot?.index ?? 0) + 1;
  }

  get firstIndex(): number {
    return this.#firstIndex;
  }
  get lastIndex(): number {
    return this.#firstIndex + this.#entries.length - 1;
  }
  get entries(): readonly Entry[] {
    return this.#entries;
  }

  save({ entries, snapshot }: Pick<Ready, "entries" | "snapshot">): void {
    if (snapshot !== null) this.#restore(snapshot);
    const first = entries[0];
    if (first === undefined) return;
    assert(first.index >= this.#firstIndex, "what was forgotten is not written again");
    assert(first.index <= this.lastIndex + 1, "the storage has no gaps");
    this.#entries = [...this.#entries.slice(0, first.index - this.#firstIndex), ...entries];
  }

  #restore(snapshot: Snapshot): void {
    this.#entries = [];
    this.#firstIndex = snapshot.index + 1;
  }

  /** Forgets every entry before `keepFrom`. */
  compact(keepFrom: number): void {
    assert(
      keepFrom > this.#firstIndex && keepFrom <= this.lastIndex + 1,
      "some entry is forgotten",
    );
    this.#entries = this.#entries.slice(keepFrom - this.#firstIndex);
    this.#firstIndex = keepFrom;
  }
}
