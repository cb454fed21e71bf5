/** What a peer's storage holds, in memory: every save is whole and durable at once, as Storage promises. */
import { assert } from "../../lib/assert.ts";
import { EMPTY_STATE } from "../bootstrap.ts";
import type { Entry, Ready, SavedState, Snapshot, Storage } from "../types.ts";

/** The synchronous heart of it, for clusters of cores that run in one call. */
export class MemoryDisk {
  #state: SavedState;

  constructor(state: SavedState = EMPTY_STATE) {
    this.#state = state;
  }

  get state(): SavedState {
    return this.#state;
  }

  save(change: Pick<Ready, "hardState" | "entries" | "snapshot">): void {
    let entries = this.#state.entries;
    if (change.snapshot !== null) entries = [];
    const first = change.entries[0];
    if (first !== undefined) {
      entries = [...entries.filter((entry) => entry.index < first.index), ...change.entries];
    }
    for (const [at, entry] of entries.entries()) {
      assert(entry.index === (entries[0] as Entry).index + at, "saved entries have no gaps");
    }
    this.#state = {
      hardState: change.hardState ?? this.#state.hardState,
      snapshot: change.snapshot ?? this.#state.snapshot,
      entries,
    };
  }

  compact(snapshot: Snapshot, keepFrom: number): void {
    // A newer one came from the leader meanwhile.
    if (this.#state.snapshot !== null && snapshot.index <= this.#state.snapshot.index) return;
    const entries = this.#state.entries.filter((entry) => entry.index >= keepFrom);
    this.#state = { ...this.#state, snapshot, entries };
  }
}

/** The same behind the Storage contract. */
export function memoryStorage(disk: MemoryDisk = new MemoryDisk()): Storage {
  return {
    load: async () => disk.state,
    save: async (change) => disk.save(change),
    compact: async (snapshot, keepFrom) => disk.compact(snapshot, keepFrom),
    close: async () => {},
  };
}
