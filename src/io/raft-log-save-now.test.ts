/** Goal: what saveNow() says it saved is durable on return, and one log with what save() saves; else it did nothing. */
import { describe, expect, test } from "vitest";
import { silentLog } from "../lib/log.ts";
import { storageSuite } from "../raft/testing/storage-suite.ts";
import type { Entry, SavedState, Snapshot, Storage } from "../raft/types.ts";
import { openDataKeyCipher } from "./data-key-cipher.ts";
import { openLogOn, type RaftLog } from "./raft-log.ts";
import type { LogCipher } from "./raft-log-cipher.ts";
import { MemoryKeyFile } from "./testing/memory-key-file.ts";
import { MemoryLogDisk, system } from "./testing/memory-log-disk.ts";

/** Small, so that a handful of saves rotates. */
const SMALL = { segmentBytes: 512, freeMarginBytes: 0 };
const modes: readonly (readonly [string, LogCipher | null])[] = [
  ["plain", null],
  ["encrypted", await openDataKeyCipher(new MemoryKeyFile())],
];

describe.each(modes)("%s", (mode, cipher) => {
  storageSuite(`the ${mode} raft log on a quick disk`, async () => {
    let disk = new MemoryLogDisk();
    return {
      open: async () => {
        disk.isQuick = true;
        return inPlace(await openLogOn(disk, silentLog, { ...SMALL, cipher }));
      },
      remove: async () => {},
      failNext: () => {
        disk.failNextSync = system("EIO", "i/o error");
      },
      losePower: () => {
        disk = disk.afterPowerLoss();
      },
    };
  });
});

describe.each(modes)("saveNow(), %s", (_mode, cipher) => {
  const change = (...entries: Entry[]) => ({
    hardState: { term: 1, vote: "n1", commit: 0 },
    entries,
    snapshot: null,
  });

  test("is durable on return, and goes on in one log with save()", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
    disk.isQuick = true;
    let now = 0;
    for (let index = 1; index <= 40; index += 1) {
      const next = change(entry(index));
      if (index % 5 !== 0 && log.saveNow?.(next) === true) now += 1;
      else await log.save(next);
      const state = await loaded(disk.afterPowerLoss(), cipher);
      expect(state.entries).toHaveLength(index);
      expect(state.hardState).toEqual(next.hardState);
    }
    await log.close();
    // The rest is a segment's first record or was not asked for.
    expect(now).toBeGreaterThan(15);
  });

  test("does nothing when it would take long, or cannot know", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
    expect(log.saveNow?.(change(entry(1))), "a device that is not quick").toBe(false);
    disk.isQuick = true;
    expect(log.saveNow?.(change(entry(1), entry(2))), "several entries").toBe(false);
    expect(log.saveNow?.({ ...change(), snapshot: snapshot(3) }), "a snapshot").toBe(false);
    const first = log.save(change(entry(1)));
    expect(log.saveNow?.(change(entry(2))), "a save under way").toBe(false);
    await first;
    const { writes } = disk;
    expect(log.saveNow?.(change(entry(2)))).toBe(true);
    expect(disk.writes).toBe(writes + 1);
    expect(log.saveNow?.({ ...change(), hardState: { term: 1, vote: "n1", commit: 2 } })).toBe(
      false,
    );
    const big = { ...entry(3), data: new Uint8Array(SMALL.segmentBytes) };
    expect(log.saveNow?.(change(big)), "more than the segment has room for").toBe(false);
    expect(disk.writes).toBe(writes + 1);
    await log.save(change(entry(3)));
    await log.close();
    expect((await loaded(disk, cipher)).entries).toEqual([entry(1), entry(2), entry(3)]);
  });

  test("a sync that fails there ends the log for ever", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
    disk.isQuick = true;
    disk.failNextSync = system("EIO", "i/o error");
    expect(() => log.saveNow?.(change(entry(1)))).toThrow("This manager stops");
    expect(() => log.saveNow?.(change(entry(1)))).toThrow("This manager stops");
    await expect(log.save(change(entry(1)))).rejects.toThrow("This manager stops");
    await log.close();
  });
});

/** The log as a driver uses it that others wait for. */
function inPlace(log: RaftLog): Storage {
  return {
    load: () => log.load(),
    async save(change) {
      if (log.saveNow?.(change) !== true) await log.save(change);
    },
    compact: (snapshot, keepFrom) => log.compact(snapshot, keepFrom),
    close: () => log.close(),
  };
}

async function loaded(disk: MemoryLogDisk, cipher: LogCipher | null): Promise<SavedState> {
  const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
  const state = await log.load();
  await log.close();
  return state;
}
function entry(index: number): Entry {
  return { index, term: 1, kind: "normal", data: new TextEncoder().encode(`entry ${index}`) };
}
function snapshot(index: number): Snapshot {
  const membership = {
    voters: ["n1"],
    outgoing: [],
    learners: [],
    learnersNext: [],
    autoLeave: false,
  };
  return { index, term: 1, membership, data: new Uint8Array(8) };
}
