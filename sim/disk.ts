/** A simulated disk for Raft's Storage: each save takes its time, is whole or not there, and a crash loses what was under way. */
import { assert } from "../src/lib/assert.ts";
import { failure } from "../src/lib/errors.ts";
import type { Entry, HardState, SavedState, Snapshot, Storage } from "../src/raft/types.ts";
import type { SimRandom } from "./random.ts";
import type { Process, World } from "./world.ts";

export type SaveChange = Parameters<Storage["save"]>[0];

export interface SimDisk {
  /** The Storage of one life of the process. */
  open(process: Process): Storage;
  /** The process died: of what was not synced yet, any prefix may have reached the disk. */
  crash(): void;
  /** A new disk in place of the old one. */
  wipe(): void;
  /** The next sync fails; what it was to save may have reached the disk or not. */
  failNextSync(): void;
  /** The next sync is well again. */
  forgive(): void;
  /** A sync of this life failed. */
  readonly syncFailed: boolean;
  /** Every save takes so long at most, in ms. */
  slowMsMax: number;
  /** Counts wipes: what one disk promised, another did not. */
  readonly incarnation: number;
  readonly isEmpty: boolean;
  /** Has this entry, or a snapshot that covers it, safe from crashes. */
  holds(index: number, term: number): boolean;
}

interface Durable {
  hardState: HardState;
  snapshot: Snapshot | null;
  entries: Entry[];
}

/** A disk whose saves take from 0 to `slowMsMax` milliseconds; `observe` is told of each save when it is durable. */
export function createDisk(
  name: string,
  world: World,
  random: SimRandom,
  observe: (disk: SimDisk, change: SaveChange) => void,
): SimDisk {
  const empty = (): Durable => ({
    hardState: { term: 0, vote: null, commit: 0 },
    snapshot: null,
    entries: [],
  });
  let durable = empty();
  let pending: (() => void)[] = [];
  let life = 0;
  /** When the last thing that it was asked to do will be done. */
  let busyUntil = 0;
  let failing = false;
  let failed = false;

  function write(change: SaveChange): void {
    if (change.snapshot !== null) {
      const { index, term } = change.snapshot;
      // Entries behind the snapshot stay if they follow it; others are of a log that lost.
      const follows = at(index)?.term === term;
      durable.snapshot = change.snapshot;
      durable.entries = follows ? durable.entries.filter((entry) => entry.index > index) : [];
    }
    const first = change.entries[0];
    if (first !== undefined) {
      const base = durable.entries[0]?.index ?? first.index;
      const keep = first.index - base;
      assert(
        keep >= 0 && keep <= durable.entries.length,
        `${name}: entry ${first.index} follows what is saved, ${base} and ${durable.entries.length} more`,
      );
      durable.entries.length = keep;
      for (const entry of change.entries) durable.entries.push(entry);
    }
    if (change.hardState !== null) durable.hardState = change.hardState;
    observe(disk, change);
  }

  function at(index: number): Entry | undefined {
    const first = durable.entries[0];
    return first === undefined ? undefined : durable.entries[index - first.index];
  }

  /** Does `work` after a while, in order; a crash may do some of it and forgets the rest. */
  function later(process: Process, what: string, work: () => void): Promise<void> {
    const mine = life;
    return new Promise((resolve, reject) => {
      pending.push(work);
      const due = Math.max(world.after(random.between(0, disk.slowMsMax)), busyUntil);
      busyUntil = due;
      world.schedule(due, `${name}:${what}`, () => {
        if (mine !== life) return;
        const next = pending.shift();
        assert(next === work, "a disk does one thing after the other");
        const first = failing && !failed;
        const fails = failing || failed;
        failing = false;
        failed = fails;
        // What follows a failed sync is not written: the log gives up, and a later save without it would leave a gap.
        if (!fails || (first && random.chance(500))) work();
        const settle = fails ? () => reject(failure("internal", `${name}: syncing: EIO`)) : resolve;
        // The disk goes on while its process is held up, which hears of it afterwards.
        if (process.pausedUntil <= world.now()) settle();
        else world.schedule(world.now(), `${name}:${what}:heard`, settle, process);
      });
    });
  }

  const disk: SimDisk = {
    slowMsMax: 0,
    incarnation: 0,
    open(process) {
      life += 1;
      pending = [];
      busyUntil = 0;
      failing = false;
      failed = false;
      return {
        load: async (): Promise<SavedState> => ({
          ...durable,
          entries: [...durable.entries],
        }),
        save: (change) => later(process, "save", () => write(change)),
        compact: (snapshot, keepFrom) =>
          later(process, "compact", () => {
            durable.snapshot = snapshot;
            durable.entries = durable.entries.filter((entry) => entry.index >= keepFrom);
          }),
        close: async () => {},
      };
    },
    crash() {
      const reached = pending.length === 0 || failed ? 0 : random.below(pending.length + 1);
      for (const work of pending.slice(0, reached)) work();
      pending = [];
      life += 1;
    },
    wipe() {
      durable = empty();
      pending = [];
      life += 1;
      (disk as { incarnation: number }).incarnation += 1;
    },
    failNextSync() {
      failing = true;
    },
    forgive() {
      failing = false;
    },
    get syncFailed() {
      return failed;
    },
    get isEmpty() {
      return (
        durable.hardState.term === 0 && durable.snapshot === null && durable.entries.length === 0
      );
    },
    holds(index, term) {
      return (durable.snapshot?.index ?? 0) >= index || at(index)?.term === term;
    },
  };
  return disk;
}
