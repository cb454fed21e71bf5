/** A simulated disk for Raft's Storage: each save takes its time, is whole or not there, and a crash loses what was under way. */
import { assert } from "../src/lib/assert.ts";
import type { Entry, HardState, SavedState, Snapshot, Storage } from "../src/raft/types.ts";
import type { SimRandom } from "./random.ts";
import type { World } from "./world.ts";

interface Durable {
  hardState: HardState;
  snapshot: Snapshot | null;
  entries: Entry[];
}
export interface SimDisk {
  /** The Storage of one life of the process. */
  open(): Storage;
  /** The process died: of what was not synced yet, any prefix may have reached the disk. */
  crash(): void;
  /** A new disk in place of the old one. */
  wipe(): void;
  readonly isEmpty: boolean;
}

/** A disk whose saves take from 0 to `slowMsMax` milliseconds. */
export function createDisk(
  name: string,
  world: World,
  random: SimRandom,
  slowMsMax: number,
): SimDisk {
  const empty = (): Durable => ({
    hardState: { term: 0, vote: null, commit: 0 },
    snapshot: null,
    entries: [],
  });
  let durable = empty();
  let pending: (() => void)[] = [];
  let life = 0;

  function write(change: Parameters<Storage["save"]>[0]): void {
    if (change.snapshot !== null) {
      const { index, term } = change.snapshot;
      // Entries behind the snapshot stay if they follow it; others are of a log that lost.
      const follows = durable.entries.some((entry) => entry.index === index && entry.term === term);
      durable.snapshot = change.snapshot;
      durable.entries = follows ? durable.entries.filter((entry) => entry.index > index) : [];
    }
    const first = change.entries[0];
    if (first !== undefined) {
      durable.entries = [
        ...durable.entries.filter((entry) => entry.index < first.index),
        ...change.entries,
      ];
    }
    if (change.hardState !== null) durable.hardState = change.hardState;
  }

  /** Does `work` after a while, in order; a crash may do some of it and forgets the rest. */
  function later(what: string, work: () => void): Promise<void> {
    const mine = life;
    return new Promise((resolve) => {
      pending.push(work);
      world.schedule(world.after(random.between(0, slowMsMax)), `${name}:${what}`, () => {
        if (mine !== life) return;
        const next = pending.shift();
        assert(next === work, "a disk does one thing after the other");
        work();
        resolve();
      });
    });
  }

  return {
    open() {
      life += 1;
      pending = [];
      return {
        load: async (): Promise<SavedState> => structuredClone(durable),
        save: (change) => later("save", () => write(change)),
        compact: (snapshot, keepFrom) =>
          later("compact", () => {
            durable.snapshot = snapshot;
            durable.entries = durable.entries.filter((entry) => entry.index >= keepFrom);
          }),
        close: async () => {},
      };
    },
    crash() {
      const reached = pending.length === 0 ? 0 : random.below(pending.length + 1);
      for (const work of pending.slice(0, reached)) work();
      pending = [];
      life += 1;
    },
    wipe() {
      durable = empty();
    },
    get isEmpty() {
      return (
        durable.hardState.term === 0 && durable.snapshot === null && durable.entries.length === 0
      );
    },
  };
}
