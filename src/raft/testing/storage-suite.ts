/** What every Storage must do: run this suite on each implementation. */
import { afterEach, describe, expect, test } from "vitest";
import { assert } from "../../lib/assert.ts";
import { crc32c } from "../../lib/crc32c.ts";
import type { Entry, HardState, Membership, Snapshot, Storage } from "../types.ts";

/** One place that survives its storages: a directory, a simulated disk. */
export interface StoragePlace {
  /** Opens what earlier storages of this place left. The suite closes one before it opens the next. */
  open(): Promise<Storage>;
  remove(): Promise<void>;
  /** Makes the next write or sync fail. Left out by places whose device cannot be made to fail. */
  failNext?(): void;
  /** The power goes: what was not synced is lost, and the open storage is never used again. Left out by places that cannot. */
  losePower?(): void;
}

/** Registers the suite for the implementation that `makePlace` gives an empty place of. */
export function storageSuite(name: string, makePlace: () => Promise<StoragePlace>): void {
  describe(`${name} as a Storage`, () => {
    let place: StoragePlace | null = null;
    let storage: Storage | null = null;
    const reopen = async (): Promise<Storage> => {
      place ??= await makePlace();
      await storage?.close();
      storage = await place.open();
      return storage;
    };
    afterEach(async () => {
      await storage?.close();
      await place?.remove();
      storage = null;
      place = null;
    });

    test("load() of a new one is empty", async () => {
      const state = await (await reopen()).load();
      expect(state).toEqual({ hardState: hard(0, null, 0), snapshot: null, entries: [] });
    });

    test("save() keeps hard state and entries", async () => {
      const first = await reopen();
      await first.load();
      await first.save({ hardState: hard(3, "n2", 0), entries: run(1, 3, 3), snapshot: null });
      await first.save({ hardState: hard(3, "n2", 2), entries: run(4, 4, 3), snapshot: null });
      const state = await (await reopen()).load();
      expect(state.hardState).toEqual(hard(3, "n2", 2));
      expect(state.entries).toEqual(run(1, 4, 3));
    });

    test("save() of the commit index alone is kept by close()", async () => {
      const first = await reopen();
      await first.load();
      await first.save({ hardState: hard(1, null, 0), entries: run(1, 2, 1), snapshot: null });
      await first.save({ hardState: hard(1, null, 2), entries: [], snapshot: null });
      expect((await (await reopen()).load()).hardState).toEqual(hard(1, null, 2));
    });

    test("save() replaces saved entries from the first index on", async () => {
      const first = await reopen();
      await first.load();
      await first.save({ hardState: hard(1, null, 0), entries: run(1, 5, 1), snapshot: null });
      await first.save({ hardState: hard(2, "n3", 0), entries: run(3, 3, 2), snapshot: null });
      const state = await (await reopen()).load();
      expect(state.entries).toEqual([...run(1, 2, 1), ...run(3, 3, 2)]);
    });

    test("save() keeps every kind of entry and bytes of every size", async () => {
      const kinds = ["normal", "membership", "empty"] as const;
      const entries = kinds.flatMap((kind, k) =>
        [0, 1, 7, 8, 9, 4096, 70_000].map((size, s): Entry => {
          const data = new Uint8Array(size).map((_, i) => (i * 31 + k) & 255);
          return { index: k * 7 + s + 1, term: 1, kind, data };
        }),
      );
      const first = await reopen();
      await first.load();
      for (const entry of entries) {
        await first.save({ hardState: hard(1, null, 0), entries: [entry], snapshot: null });
      }
      // By checksum: comparing a hundred thousand bytes one by one takes seconds.
      const told = ({ data, ...rest }: Entry): object => {
        return { ...rest, bytes: data.length, sum: crc32c(data) };
      };
      const found = (await (await reopen()).load()).entries;
      expect(found.map(told)).toEqual(entries.map(told));
    });

    test("save() with a snapshot replaces the whole log", async () => {
      const first = await reopen();
      await first.load();
      await first.save({ hardState: hard(1, null, 0), entries: run(1, 30, 1), snapshot: null });
      const snapshot = snap(20, 4);
      await first.save({ hardState: hard(4, null, 20), entries: run(21, 22, 4), snapshot });
      const state = await (await reopen()).load();
      expect(state.snapshot).toEqual(snapshot);
      expect(state.entries).toEqual(run(21, 22, 4));
      expect(state.hardState).toEqual(hard(4, null, 20));
    });

    test("compact() keeps the snapshot and the entries from keepFrom on", async () => {
      const first = await reopen();
      await first.load();
      await first.save({ hardState: hard(1, null, 9), entries: run(1, 10, 1), snapshot: null });
      await first.compact(snap(8, 1), 6);
      const second = await reopen();
      const state = await second.load();
      expect(state.snapshot).toEqual(snap(8, 1));
      expect(state.entries).toEqual(run(6, 10, 1));
      await second.compact(snap(9, 1), 10);
      await second.save({ hardState: hard(2, null, 9), entries: run(11, 11, 2), snapshot: null });
      const last = await (await reopen()).load();
      expect(last.snapshot).toEqual(snap(9, 1));
      expect(last.entries).toEqual([...run(10, 10, 1), ...run(11, 11, 2)]);
    });

    test("saves and compactions asked for at once take effect in order", async () => {
      const first = await reopen();
      await first.load();
      await Promise.all([
        first.save({ hardState: hard(1, null, 0), entries: run(1, 4, 1), snapshot: null }),
        first.save({ hardState: hard(1, null, 3), entries: run(5, 5, 1), snapshot: null }),
        first.compact(snap(3, 1), 3),
        first.save({ hardState: hard(1, null, 5), entries: run(6, 6, 1), snapshot: null }),
      ]);
      const state = await (await reopen()).load();
      expect(state.entries).toEqual(run(3, 6, 1));
      expect(state.hardState.commit).toBe(5);
    });

    test("saves that do not wait for each other are all there, and resolve in order", async () => {
      const first = await reopen();
      await first.load();
      const order: number[] = [];
      const saves = Array.from({ length: 200 }, async (_, i) => {
        const entries = run(i + 1, i + 1, 1);
        await first.save({ hardState: hard(1, "n1", i), entries, snapshot: null });
        order.push(i);
      });
      await Promise.all(saves);
      expect(order).toEqual(Array.from({ length: 200 }, (_, i) => i));
      const state = await (await reopen()).load();
      expect(state.entries).toEqual(run(1, 200, 1));
      expect(state.hardState).toEqual(hard(1, "n1", 199));
    });

    test("a save that replaces entries of one that is under way wins", async () => {
      const first = await reopen();
      await first.load();
      const save = (entries: readonly Entry[], term: number): Promise<void> =>
        first.save({ hardState: hard(term, null, 0), entries, snapshot: null });
      await Promise.all([
        save(run(1, 3, 1), 1),
        save(run(4, 9, 1), 1),
        save(run(6, 7, 2), 2),
        save(run(2, 2, 3), 3),
        save([], 4),
        save(run(3, 5, 5), 5),
      ]);
      const state = await (await reopen()).load();
      expect(state.entries).toEqual([...run(1, 1, 1), ...run(2, 2, 3), ...run(3, 5, 5)]);
      expect(state.hardState).toEqual(hard(5, null, 0));
    });

    test("a snapshot from the leader amid saves under way replaces those before it only", async () => {
      const first = await reopen();
      await first.load();
      await Promise.all([
        first.save({ hardState: hard(1, null, 0), entries: run(1, 4, 1), snapshot: null }),
        first.save({ hardState: hard(2, null, 9), entries: [], snapshot: snap(9, 2) }),
        first.save({ hardState: hard(2, null, 9), entries: run(10, 11, 2), snapshot: null }),
        first.save({ hardState: hard(2, null, 11), entries: run(12, 12, 2), snapshot: null }),
      ]);
      const state = await (await reopen()).load();
      expect(state.snapshot).toEqual(snap(9, 2));
      expect(state.entries).toEqual(run(10, 12, 2));
    });

    test("a compaction that a newer snapshot from the leader overtakes changes nothing", async () => {
      const first = await reopen();
      await first.load();
      await first.save({ hardState: hard(1, null, 4), entries: run(1, 4, 1), snapshot: null });
      await Promise.all([
        first.compact(snap(4, 1), 3),
        first.save({ hardState: hard(2, null, 9), entries: run(10, 10, 2), snapshot: snap(9, 2) }),
      ]);
      await first.compact(snap(4, 1), 3);
      const state = await (await reopen()).load();
      expect(state.snapshot).toEqual(snap(9, 2));
      expect(state.entries).toEqual(run(10, 10, 2));
    });

    test("what was acknowledged survives a power failure, whatever was under way", async (context) => {
      for (let round = 0; round < 20; round += 1) {
        const current = await reopen();
        const at = place;
        if (at?.losePower === undefined) return context.skip();
        const before = await current.load();
        const from = (before.entries.at(-1)?.index ?? before.snapshot?.index ?? 0) + 1;
        let acknowledged = from - 1;
        const under: Promise<unknown>[] = [];
        for (let index = from; index < from + 8; index += 1) {
          const save = current
            .save({ hardState: hard(1, null, 0), entries: run(index, index, 1), snapshot: null })
            .then(() => {
              acknowledged = index;
            });
          under.push(save.catch(() => {}));
        }
        if (round % 4 === 3)
          under.push(current.compact(snap(from - 1, 1), from - 2).catch(() => {}));
        for (let turn = 0; turn < round; turn += 1) await Promise.resolve();
        const promised = acknowledged;
        at.losePower();
        storage = null;
        await Promise.all(under);
        const state = await (await reopen()).load();
        const first = (state.snapshot?.index ?? 0) + 1;
        const last = state.entries.at(-1)?.index ?? first - 1;
        expect(last).toBeGreaterThanOrEqual(promised);
        expect(state.entries).toEqual(run(state.entries[0]?.index ?? 1, last, 1).slice(0, last));
        expect(state.entries[0]?.index ?? first).toBeLessThanOrEqual(first);
      }
    });

    test("a failure is for ever: nothing is acknowledged after it", async (context) => {
      const first = await reopen();
      if (place?.failNext === undefined) return context.skip();
      await first.load();
      await first.save({ hardState: hard(1, null, 0), entries: run(1, 1, 1), snapshot: null });
      place.failNext();
      const save = (index: number): Promise<void> =>
        first.save({ hardState: hard(1, null, 0), entries: run(index, index, 1), snapshot: null });
      const outcomes = await Promise.allSettled([save(2), save(3), save(4)]);
      expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
      await expect(save(2)).rejects.toThrow();
      await expect(first.compact(snap(1, 1), 1)).rejects.toThrow();
      const state = await (await reopen()).load();
      // What failed may have reached the device or not; what was acknowledged is there.
      expect(state.entries.slice(0, 1)).toEqual(run(1, 1, 1));
    });

    test("many rounds of saves, replacements and compactions end as the plain rules say", async () => {
      let expected: Entry[] = [];
      let keepFrom = 1;
      let current = await reopen();
      await current.load();
      for (let round = 1; round <= 60; round += 1) {
        const lastIndex = expected.at(-1)?.index ?? keepFrom - 1;
        const from = Math.max(keepFrom, lastIndex + 1 - (round % 4 === 0 ? 2 : 0));
        const entries = run(from, from + 2, round);
        await current.save({ hardState: hard(round, "n1", keepFrom - 1), entries, snapshot: null });
        expected = [...expected.filter((entry) => entry.index < from), ...entries];
        if (round % 7 === 0) {
          const index = expected[2]?.index;
          assert(index !== undefined, "there is something to compact");
          const term = expected[2]?.term ?? 0;
          keepFrom = index;
          await current.compact(snap(index, term), keepFrom);
          expected = expected.filter((entry) => entry.index >= keepFrom);
        }
        if (round % 10 === 0) {
          current = await reopen();
          expect((await current.load()).entries).toEqual(expected);
        }
      }
    });
  });
}

function hard(term: number, vote: string | null, commit: number): HardState {
  return { term, vote, commit };
}

function run(from: number, to: number, term: number): Entry[] {
  return Array.from({ length: to - from + 1 }, (_, i) => ({
    index: from + i,
    term,
    kind: "normal" as const,
    data: new TextEncoder().encode(`entry ${from + i} of term ${term}`),
  }));
}

function snap(index: number, term: number): Snapshot {
  const membership: Membership = {
    voters: ["n1", "n2"],
    outgoing: [],
    learners: ["n3"],
    learnersNext: [],
    autoLeave: false,
  };
  return { index, term, membership, data: new TextEncoder().encode(`state through ${index}`) };
}
