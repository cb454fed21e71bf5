/** Goal: what was acknowledged is there after any stop, or the log refuses to start and says where it is damaged. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ShoalError } from "../lib/errors.ts";
import { type Log, silentLog } from "../lib/log.ts";
import { storageSuite } from "../raft/testing/storage-suite.ts";
import type { Entry, SavedState, Snapshot } from "../raft/types.ts";
import { openLogOn, openRaftLog, type RaftLog } from "./raft-log.ts";
import { segmentName, snapshotName } from "./raft-log-recovery.ts";
import { MemoryLogDisk, system } from "./testing/memory-log-disk.ts";

/** Small, so that a handful of saves rotates. */
const SMALL = { segmentBytes: 512, freeMarginBytes: 0 };

storageSuite("the raft log on disk", async () => {
  const directory = await mkdtemp(join(tmpdir(), "shoal-raft-log-"));
  return {
    open: () => openRaftLog({ directory, log: silentLog }),
    remove: () => rm(directory, { recursive: true }),
  };
});

storageSuite("the raft log in small segments", async () => {
  const disk = new MemoryLogDisk();
  return { open: () => openLogOn(disk, silentLog, SMALL), remove: async () => {} };
});

describe("after a power failure", () => {
  test("everything that save() resolved for is there, at every moment", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog, SMALL);
    const saved: Entry[] = [];
    for (let index = 1; index <= 40; index += 1) {
      saved.push(entry(index));
      await log.save({
        hardState: { term: 1, vote: "n1", commit: 0 },
        entries: saved.slice(-1),
        snapshot: null,
      });
      if (index % 10 === 0) await log.compact(snapshot(index - 2), index - 4);
      const state = await loaded(disk.afterPowerLoss());
      const first = state.entries[0]?.index ?? 0;
      expect(state.entries).toEqual(saved.slice(first - 1));
      expect(first).toBeLessThanOrEqual((state.snapshot?.index ?? 0) + 1);
      expect(state.hardState.vote).toBe("n1");
    }
    await log.close();
  });

  test("a log that was cut goes on and is whole", async () => {
    const { disk } = await fourSaves();
    const name = segmentName(1);
    disk.put(name, disk.get(name).slice(0, usedBytes(disk.get(name)) - 5));
    const again = await openLogOn(disk, silentLog);
    expect((await again.load()).entries).toEqual([entry(1), entry(2), entry(3)]);
    await again.save({
      hardState: { term: 2, vote: null, commit: 0 },
      entries: [entry(4, 2)],
      snapshot: null,
    });
    await again.close();
    expect((await loaded(disk)).entries).toEqual([entry(1), entry(2), entry(3), entry(4, 2)]);
  });
});

describe("damage", () => {
  test("truncation at every byte gives a prefix of the saves, or an error that names the file", async () => {
    const { disk, ends } = await fourSaves();
    const bytes = disk.get(segmentName(1));
    for (let length = 0; length <= (ends.at(-1) ?? 0) + 8; length += 1) {
      const copy = disk.copy();
      copy.put(segmentName(1), bytes.slice(0, length));
      const outcome = await openedOrRefused(copy);
      if (outcome instanceof ShoalError) {
        expect(length, "only the header is refused").toBeLessThan(64);
        expect(outcome.message).toContain(segmentName(1));
        continue;
      }
      const whole = ends.filter((end) => end <= length + 7 && padded(bytes, end, length)).length;
      expect(outcome.entries).toEqual([1, 2, 3, 4].slice(0, whole).map((index) => entry(index)));
    }
  });

  test("a flipped bit in any byte loses at most the last save, or is an error that names file and offset", async () => {
    const { disk, ends } = await fourSaves();
    const bytes = disk.get(segmentName(1));
    const lastStart = ends[2] ?? 0;
    let refused = 0;
    for (let at = 0; at < (ends[3] ?? 0) + 16; at += 1) {
      const copy = disk.copy();
      const spoiled = bytes.slice();
      spoiled[at] = (spoiled[at] ?? 0) ^ (1 << (at % 8));
      copy.put(segmentName(1), spoiled);
      const outcome = await openedOrRefused(copy);
      if (outcome instanceof ShoalError) {
        refused += 1;
        expect(at, "a torn tail is not refused").toBeLessThan(lastStart);
        expect(outcome.code).toBe("internal");
        expect(outcome.message).toMatch(/segment-0000000000000001 is damaged at byte \d+/);
        expect(outcome.message).toContain("join again as a new node");
        continue;
      }
      const all = [1, 2, 3, 4].map((index) => entry(index));
      const lost = outcome.entries.length === 3;
      expect(outcome.entries).toEqual(lost ? all.slice(0, 3) : all);
      if (lost) expect(at).toBeGreaterThanOrEqual(lastStart);
    }
    expect(refused).toBeGreaterThan(100);
  });

  test("a flipped bit anywhere in an earlier segment is an error or harmless", async () => {
    const disk = await manySegments();
    const before = await loaded(disk.copy());
    const bytes = disk.get(segmentName(2));
    let refused = 0;
    for (let at = 0; at < bytes.length; at += 1) {
      const copy = disk.copy();
      const spoiled = bytes.slice();
      spoiled[at] = (spoiled[at] ?? 0) ^ 64;
      copy.put(segmentName(2), spoiled);
      const outcome = await openedOrRefused(copy);
      if (outcome instanceof ShoalError) {
        refused += 1;
        expect(outcome.message).toContain(segmentName(2));
      } else expect(outcome).toEqual(before);
    }
    expect(refused).toBeGreaterThan(100);
  });

  test.each([1, 2, 3])("segment %d missing is an error that names it", async (number) => {
    const disk = await manySegments();
    disk.files.delete(segmentName(number));
    const outcome = await openedOrRefused(disk);
    expect(outcome).toBeInstanceOf(ShoalError);
    // The first one's absence shows in the one that is now first.
    const named = number === 1 ? segmentName(2) : segmentName(number);
    expect(String(outcome)).toContain(named);
  });

  test("a snapshot that is spoiled, cut or gone is an error that names it", async () => {
    const disk = await compacted();
    const name = snapshotName({ index: 8, term: 1 });
    const bytes = disk.get(name);
    for (let at = 0; at < bytes.length; at += 1) {
      // Bytes 12 to 15 hold nothing.
      if (at >= 12 && at < 16) continue;
      const copy = disk.copy();
      const spoiled = bytes.slice();
      spoiled[at] = (spoiled[at] ?? 0) ^ 1;
      copy.put(name, spoiled);
      expect(String(await openedOrRefused(copy))).toContain(name);
      copy.put(name, bytes.slice(0, at));
      expect(String(await openedOrRefused(copy))).toContain(name);
    }
    disk.files.delete(name);
    expect(String(await openedOrRefused(disk))).toContain(name);
  });

  test("segments gone beside a snapshot are an error, not a new log", async () => {
    const disk = await compacted();
    for (const name of [...disk.files.keys()])
      if (name.startsWith("segment")) disk.files.delete(name);
    expect(String(await openedOrRefused(disk))).toContain("without any segment");
  });

  test("a stop between a segment's creation and its first record is no damage", async () => {
    const disk = await manySegments();
    const before = await loaded(disk.copy());
    const next = [...disk.files.keys()].filter((name) => name.startsWith("segment")).length + 1;
    disk.put(segmentName(next), new Uint8Array(512));
    const log = await openLogOn(disk, silentLog, SMALL);
    const state = await log.load();
    expect(state).toEqual(before);
    const index = (state.entries.at(-1)?.index ?? 0) + 1;
    await log.save({ hardState: null, entries: [entry(index)], snapshot: null });
    await log.close();
    expect((await loaded(disk)).entries.at(-1)?.index).toBe(index);
  });

  test("a torn tail is told in the log, with file and offset", async () => {
    const { disk, ends } = await fourSaves();
    const bytes = disk.get(segmentName(1)).slice();
    bytes[(ends[3] ?? 0) - 9] = (bytes[(ends[3] ?? 0) - 9] ?? 0) ^ 1;
    disk.put(segmentName(1), bytes);
    const warnings: unknown[] = [];
    const log: Log = { ...silentLog, warn: (fields) => warnings.push(fields) };
    await (await openLogOn(disk, log)).close();
    expect(warnings).toMatchObject([{ file: `${disk.path}/${segmentName(1)}`, offset: ends[2] }]);
  });
});

describe("a failing disk", () => {
  test("a failed sync kills the log for ever; nothing is tried again", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog, SMALL);
    await log.save({ hardState: null, entries: [entry(1)], snapshot: null });
    disk.failNextSync = system("EIO", "i/o error");
    const save = (index: number) =>
      log.save({ hardState: null, entries: [entry(index)], snapshot: null });
    await expect(save(2)).rejects.toMatchObject({ code: "internal" });
    const syncs = disk.syncs;
    await expect(save(2)).rejects.toThrow("EIO");
    await expect(log.compact(snapshot(1), 1)).rejects.toThrow("EIO");
    expect(await log.roomFor(0)).toBe(false);
    expect(disk.syncs).toBe(syncs);
    await log.close();
    expect((await loaded(disk.afterPowerLoss())).entries).toEqual([entry(1)]);
  });

  test("a disk that fills up is told before saves fail, and again when there is room", async () => {
    const disk = new MemoryLogDisk();
    disk.capacityBytes = 4 * 512;
    const log = await openLogOn(disk, silentLog, SMALL);
    expect(await log.roomFor(100)).toBe(true);
    disk.capacityBytes = 2 * 512;
    expect(await log.roomFor(100)).toBe(false);
    // What is under way still has the segment that is allocated ahead.
    for (let index = 1; index <= 5; index += 1) {
      await log.save({ hardState: null, entries: [entry(index)], snapshot: null });
    }
    expect(await log.roomFor(100)).toBe(false);
    await expect(log.compact(snapshot(2), 1)).rejects.toMatchObject({ code: "unavailable" });
    disk.capacityBytes = 8 * 512;
    expect(await log.roomFor(100)).toBe(true);
    await log.compact(snapshot(2), 1);
    await log.close();
    expect((await loaded(disk)).entries).toHaveLength(5);
  });

  test("a save with no room left at all is unavailable, and the log is dead", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog, SMALL);
    await log.roomFor(0);
    disk.capacityBytes = 0;
    const save = async (): Promise<void> => {
      for (let index = 1; index <= 20; index += 1) {
        await log.save({ hardState: null, entries: [entry(index)], snapshot: null });
      }
    };
    await expect(save()).rejects.toMatchObject({ code: "unavailable" });
    await expect(
      log.save({ hardState: null, entries: [entry(1)], snapshot: null }),
    ).rejects.toThrow("free space");
    await log.close();
  });
});

describe("openRaftLog()", () => {
  test("refuses a directory that another living opener has, and takes over a dead one's", async () => {
    const directory = await mkdtemp(join(tmpdir(), "shoal-raft-log-"));
    try {
      const log = await openRaftLog({ directory, log: silentLog });
      await expect(openRaftLog({ directory, log: silentLog })).rejects.toMatchObject({
        code: "conflict",
      });
      await log.close();
      // A process that is gone: same number, another start.
      await writeFile(join(directory, "lock"), JSON.stringify({ pid: process.pid, started: "1" }));
      await (await openRaftLog({ directory, log: silentLog })).close();
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  test("uses one sync for a save, and none for the commit index alone", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog);
    const before = disk.syncs;
    await log.save({
      hardState: { term: 1, vote: "n1", commit: 0 },
      entries: [entry(1), entry(2)],
      snapshot: null,
    });
    expect(disk.syncs - before).toBe(1);
    await log.save({ hardState: { term: 1, vote: "n1", commit: 2 }, entries: [], snapshot: null });
    expect(disk.syncs - before).toBe(1);
    await log.save({ hardState: { term: 2, vote: null, commit: 2 }, entries: [], snapshot: null });
    expect(disk.syncs - before).toBe(2);
    await log.close();
  });
});

/** Four saves of one entry each, and where each ends in the one segment. */
async function fourSaves(): Promise<{ disk: MemoryLogDisk; ends: number[] }> {
  const disk = new MemoryLogDisk();
  const log = await openLogOn(disk, silentLog, { segmentBytes: 4096 });
  const ends: number[] = [];
  for (let index = 1; index <= 4; index += 1) {
    await log.save({
      hardState: { term: 1, vote: "n1", commit: 0 },
      entries: [entry(index)],
      snapshot: null,
    });
    ends.push(Math.ceil(usedBytes(disk.get(segmentName(1))) / 8) * 8);
  }
  await log.close();
  return { disk, ends };
}

async function manySegments(): Promise<MemoryLogDisk> {
  const disk = new MemoryLogDisk();
  const log = await openLogOn(disk, silentLog, SMALL);
  await fill(log, 14);
  await log.close();
  expect(disk.files.has(segmentName(4))).toBe(true);
  return disk;
}

async function compacted(): Promise<MemoryLogDisk> {
  const disk = new MemoryLogDisk();
  const log = await openLogOn(disk, silentLog, SMALL);
  await fill(log, 10);
  await log.compact(snapshot(8), 8);
  await log.close();
  expect(disk.files.has(segmentName(1))).toBe(false);
  return disk;
}

async function fill(log: RaftLog, count: number): Promise<void> {
  for (let index = 1; index <= count; index += 1) {
    await log.save({
      hardState: { term: 1, vote: "n1", commit: 0 },
      entries: [entry(index)],
      snapshot: null,
    });
  }
}

async function loaded(disk: MemoryLogDisk): Promise<SavedState> {
  const log = await openLogOn(disk, silentLog, SMALL);
  const state = await log.load();
  await log.close();
  return state;
}

async function openedOrRefused(disk: MemoryLogDisk): Promise<SavedState | ShoalError> {
  try {
    return await loaded(disk);
  } catch (error) {
    if (error instanceof ShoalError) return error;
    throw error;
  }
}

function entry(index: number, term = 1): Entry {
  const data = new TextEncoder().encode(`some bytes of entry ${index}`);
  return { index, term, kind: "normal", data };
}

function snapshot(index: number): Snapshot {
  const membership = {
    voters: ["n1"],
    outgoing: [],
    learners: [],
    learnersNext: [],
    autoLeave: false,
  };
  return { index, term: 1, membership, data: new TextEncoder().encode(`state ${index}`) };
}

/** Bytes up to the last that is not zero. */
function usedBytes(bytes: Uint8Array): number {
  return bytes.findLastIndex((byte) => byte !== 0) + 1;
}

/** Whether what a cut at `length` took of the record that ends at `end` was only its padding. */
function padded(bytes: Uint8Array, end: number, length: number): boolean {
  return length >= end || usedBytes(bytes.subarray(0, end)) <= length;
}
