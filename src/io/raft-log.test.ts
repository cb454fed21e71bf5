/** Goal: what was acknowledged is there after any stop, or the log refuses to start and says where it is damaged. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ShoalError } from "../lib/errors.ts";
import { type Log, silentLog } from "../lib/log.ts";
import { storageSuite } from "../raft/testing/storage-suite.ts";
import type { Entry, SavedState, Snapshot } from "../raft/types.ts";
import { openDataKeyCipher } from "./data-key-cipher.ts";
import { openLogOn, openRaftLog, type RaftLog } from "./raft-log.ts";
import type { LogCipher } from "./raft-log-cipher.ts";
import { encodeRecord, encodeSegmentHeader, recordBytes } from "./raft-log-format.ts";
import { segmentName, snapshotName } from "./raft-log-recovery.ts";
import { MemoryKeyFile } from "./testing/memory-key-file.ts";
import { MemoryLogDisk, system } from "./testing/memory-log-disk.ts";

/** Small, so that a handful of saves rotates. */
const SMALL = { segmentBytes: 512, freeMarginBytes: 0 };
const modes: readonly (readonly [string, LogCipher | null])[] = [
  ["plain", null],
  ["encrypted", await openDataKeyCipher(new MemoryKeyFile())],
];

storageSuite("the raft log on disk", async () => {
  const directory = await mkdtemp(join(tmpdir(), "shoal-raft-log-"));
  return {
    open: () => openRaftLog({ directory, log: silentLog }),
    remove: () => rm(directory, { recursive: true }),
  };
});

describe.each(modes)("%s", (mode, cipher) => {
  storageSuite(`the ${mode} raft log in small segments`, async () => {
    let disk = new MemoryLogDisk();
    let losses = 0;
    return {
      open: () => {
        // A sync that takes a while, so that saves pile up behind it.
        disk.beforeSync = async () => {
          for (let turn = 0; turn < 3; turn += 1) await Promise.resolve();
        };
        return openLogOn(disk, silentLog, { ...SMALL, cipher });
      },
      remove: async () => {},
      failNext: () => {
        disk.failNextSync = system("EIO", "i/o error");
      },
      losePower: () => {
        losses += 1;
        disk = disk.afterPowerLoss(
          (change) => ((change + losses) * 7) % 3 === 0,
          (sector) => ((sector + losses) * 5) % (2 + (losses % 3)) === 0,
        );
      },
    };
  });
});

describe.each(modes)("after a power failure, %s", (_mode, cipher) => {
  test("everything that save() resolved for is there, at every moment", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
    const saved: Entry[] = [];
    for (let index = 1; index <= 40; index += 1) {
      saved.push(entry(index));
      await log.save({
        hardState: { term: 1, vote: "n1", commit: 0 },
        entries: saved.slice(-1),
        snapshot: null,
      });
      if (index % 10 === 0) await log.compact(snapshot(index - 2), index - 4);
      const state = await loaded(disk.afterPowerLoss(), cipher);
      const first = state.entries[0]?.index ?? 0;
      expect(state.entries).toEqual(saved.slice(first - 1));
      expect(first).toBeLessThanOrEqual((state.snapshot?.index ?? 0) + 1);
      expect(state.hardState.vote).toBe("n1");
    }
    await log.close();
  });

  test.each([512, 8192])(
    "a stop at any step of snapshots leaves what was acknowledged, segments of %d bytes",
    async (segmentBytes) => {
      const disk = new MemoryLogDisk();
      const log = await openLogOn(disk, silentLog, { segmentBytes, freeMarginBytes: 0, cipher });
      const stops: { disk: MemoryLogDisk; covered: number; last: number }[] = [];
      let covered = 0;
      let last = 0;
      disk.onChange = () => {
        for (const keeps of [
          () => false,
          () => true,
          (at: number) => (at + stops.length) % 2 === 0,
        ]) {
          stops.push({ disk: disk.afterPowerLoss(keeps), covered, last });
        }
      };
      for (let index = 1; index <= 12; index += 1) {
        const hardState = { term: 1, vote: "n1", commit: 0 };
        await log.save({ hardState, entries: [entry(index)], snapshot: null });
        last = index;
        if (index % 4 !== 0) continue;
        await log.compact(snapshot(index - 1), index - 2);
        covered = index - 1;
      }
      await log.save({ hardState: null, entries: [entry(31)], snapshot: snapshot(30) });
      [covered, last] = [30, 31];
      await log.save({ hardState: null, entries: [entry(32)], snapshot: null });
      disk.onChange = null;
      await log.close();
      expect(stops.length).toBeGreaterThan(100);
      for (const at of stops) {
        const state = await loaded(at.disk, cipher);
        expect(state.snapshot?.index ?? 0).toBeGreaterThanOrEqual(at.covered);
        expect(state.entries.at(-1)?.index ?? state.snapshot?.index ?? 0).toBeGreaterThanOrEqual(
          at.last,
        );
        expect(state.entries[0]?.index ?? 0).toBeLessThanOrEqual((state.snapshot?.index ?? 0) + 1);
      }
    },
  );

  test("a log that was cut goes on and is whole", async () => {
    const { disk } = await fourSaves(cipher);
    const name = segmentName(1);
    disk.put(name, disk.get(name).slice(0, usedBytes(disk.get(name)) - 5));
    const again = await openLogOn(disk, silentLog, { cipher });
    expect((await again.load()).entries).toEqual([entry(1), entry(2), entry(3)]);
    await again.save({
      hardState: { term: 2, vote: null, commit: 0 },
      entries: [entry(4, 2)],
      snapshot: null,
    });
    await again.close();
    expect((await loaded(disk, cipher)).entries).toEqual([
      entry(1),
      entry(2),
      entry(3),
      entry(4, 2),
    ]);
  });
});

describe.each(modes)("damage, %s", (_mode, cipher) => {
  test("truncation at every byte gives a prefix of the saves, or an error that names the file", async () => {
    const { disk, ends } = await fourSaves(cipher);
    const bytes = disk.get(segmentName(1));
    for (let length = 0; length <= (ends.at(-1) ?? 0) + 8; length += 1) {
      const copy = disk.copy();
      copy.put(segmentName(1), bytes.slice(0, length));
      const outcome = await openedOrRefused(copy, cipher);
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
    const { disk, ends } = await fourSaves(cipher);
    const bytes = disk.get(segmentName(1));
    const lastStart = ends[2] ?? 0;
    let refused = 0;
    for (let at = 0; at < (ends[3] ?? 0) + 16; at += 1) {
      const copy = disk.copy();
      const spoiled = bytes.slice();
      spoiled[at] = (spoiled[at] ?? 0) ^ (1 << (at % 8));
      copy.put(segmentName(1), spoiled);
      const outcome = await openedOrRefused(copy, cipher);
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
    const disk = await manySegments(cipher);
    const before = await loaded(disk.copy(), cipher);
    const bytes = disk.get(segmentName(2));
    let refused = 0;
    for (let at = 0; at < bytes.length; at += 1) {
      const copy = disk.copy();
      const spoiled = bytes.slice();
      spoiled[at] = (spoiled[at] ?? 0) ^ 64;
      copy.put(segmentName(2), spoiled);
      const outcome = await openedOrRefused(copy, cipher);
      if (outcome instanceof ShoalError) {
        refused += 1;
        expect(outcome.message).toContain(segmentName(2));
      } else expect(outcome).toEqual(before);
    }
    expect(refused).toBeGreaterThan(100);
  });

  test.each([1, 2, 3])("segment %d missing is an error that names it", async (number) => {
    const disk = await manySegments(cipher);
    disk.files.delete(segmentName(number));
    const outcome = await openedOrRefused(disk, cipher);
    expect(outcome).toBeInstanceOf(ShoalError);
    // The first one's absence shows in the one that is now first.
    const named = number === 1 ? segmentName(2) : segmentName(number);
    expect(String(outcome)).toContain(named);
  });

  test("a snapshot that is spoiled, cut or gone is an error that names it", async () => {
    const disk = await compacted(cipher);
    const name = snapshotName({ index: 8, term: 1 });
    const bytes = disk.get(name);
    for (let at = 0; at < bytes.length; at += 1) {
      const copy = disk.copy();
      const spoiled = bytes.slice();
      spoiled[at] = (spoiled[at] ?? 0) ^ 1;
      copy.put(name, spoiled);
      expect(String(await openedOrRefused(copy, cipher))).toContain(name);
      copy.put(name, bytes.slice(0, at));
      expect(String(await openedOrRefused(copy, cipher))).toContain(name);
    }
    disk.files.delete(name);
    expect(String(await openedOrRefused(disk, cipher))).toContain(name);
  });

  test("segments gone beside a snapshot are an error, not a new log", async () => {
    const disk = await compacted(cipher);
    for (const name of [...disk.files.keys()])
      if (name.startsWith("segment")) disk.files.delete(name);
    expect(String(await openedOrRefused(disk, cipher))).toContain("without any segment");
  });

  test("a stop between a segment's creation and its first record is no damage", async () => {
    const disk = await manySegments(cipher);
    const before = await loaded(disk.copy(), cipher);
    const next = [...disk.files.keys()].filter((name) => name.startsWith("segment")).length + 1;
    disk.put(segmentName(next), new Uint8Array(512));
    const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
    const state = await log.load();
    expect(state).toEqual(before);
    const index = (state.entries.at(-1)?.index ?? 0) + 1;
    await log.save({ hardState: null, entries: [entry(index)], snapshot: null });
    await log.close();
    expect((await loaded(disk, cipher)).entries.at(-1)?.index).toBe(index);
  });

  test("a torn tail is cut to its last byte: what is written over it is whole, and it is told once", async () => {
    const disk = new MemoryLogDisk();
    const first = await openLogOn(disk, silentLog, { cipher });
    const long = { ...entry(1), data: new Uint8Array(3000).fill(7) };
    await first.save({ hardState: null, entries: [long], snapshot: null });
    await first.close();
    const bytes = disk.get(segmentName(1));
    bytes[200] = (bytes[200] ?? 0) ^ 1;
    const again = await openLogOn(disk, silentLog, { cipher });
    await again.save({ hardState: null, entries: [entry(1)], snapshot: null });
    await again.close();
    const warnings: unknown[] = [];
    const log: Log = { ...silentLog, warn: (fields) => warnings.push(fields) };
    const last = await openLogOn(disk, log, { cipher });
    expect((await last.load()).entries).toEqual([entry(1)]);
    await last.close();
    expect(warnings).toEqual([]);
  });

  test("a good record of another number is damage, not the next one", async () => {
    const disk = new MemoryLogDisk();
    const keyId = cipher?.current.id ?? null;
    const header = { number: 1, firstRecord: 1, lastIndexBefore: 0, keyId };
    const bytes = new Uint8Array(4096);
    bytes.set(encodeSegmentHeader(header));
    let at = 64;
    let second = 0;
    for (const [number, index] of [
      [1, 1],
      [3, 2],
    ] as const) {
      const hardState = { term: 1, vote: null, commit: 0 };
      const record = { number, hardState, mark: null, install: false, entries: [entry(index)] };
      const size = recordBytes(record, cipher?.current ?? null);
      encodeRecord(record, bytes.subarray(at, at + size), cipher?.current ?? null);
      second = at;
      at += size;
    }
    disk.put(segmentName(1), bytes);
    const outcome = await openedOrRefused(disk, cipher);
    expect(String(outcome)).toContain(
      `damaged at byte ${second}: it holds record 3 where record 2`,
    );
  });

  test("a torn tail is told in the log, with file and offset", async () => {
    const { disk, ends } = await fourSaves(cipher);
    const bytes = disk.get(segmentName(1)).slice();
    bytes[(ends[3] ?? 0) - 9] = (bytes[(ends[3] ?? 0) - 9] ?? 0) ^ 1;
    disk.put(segmentName(1), bytes);
    const warnings: unknown[] = [];
    const log: Log = { ...silentLog, warn: (fields) => warnings.push(fields) };
    await (await openLogOn(disk, log, { cipher })).close();
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

  test("what a failed sync left in the system's cache only is written again before it is built on", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog);
    await fill(log, 2);
    disk.failNextSync = system("EIO", "i/o error");
    const failed = log.save({ hardState: null, entries: [entry(3)], snapshot: null });
    await expect(failed).rejects.toThrow("EIO");
    await log.close();
    expect((await loaded(disk.afterPowerLoss())).entries).toHaveLength(2);
    // The manager starts again, without a power failure: the cache still shows what the device does not hold.
    const again = await openLogOn(disk, silentLog);
    expect((await again.load()).entries).toHaveLength(3);
    await again.save({ hardState: null, entries: [entry(4)], snapshot: null });
    expect((await loaded(disk.afterPowerLoss())).entries).toHaveLength(4);
    await again.close();
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

describe("group commit", () => {
  test("saves that arrive while a sync runs become one write and one sync", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog);
    let release = (): void => {};
    disk.beforeSync = () =>
      new Promise((resolve) => {
        release = resolve;
      });
    const [syncs, writes] = [disk.syncs, disk.writes];
    const first = log.save({ hardState: null, entries: [entry(1)], snapshot: null });
    expect(disk.writes, "the first one is written in the call").toBe(writes + 1);
    const more = Array.from({ length: 500 }, (_, i) =>
      log.save({ hardState: null, entries: [entry(i + 2)], snapshot: null }),
    );
    expect(disk.writes, "the others wait for its sync").toBe(writes + 1);
    release();
    disk.beforeSync = null;
    await first;
    await Promise.all(more);
    expect([disk.writes - writes, disk.syncs - syncs]).toEqual([2, 2]);
    await log.close();
    expect((await loaded(disk)).entries).toHaveLength(501);
  });

  test("a failed sync rejects its saves and all behind it, in order", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog);
    disk.failNextSync = system("EIO", "i/o error");
    const order: number[] = [];
    const saves = [1, 2, 3].map((index) =>
      log
        .save({ hardState: null, entries: [entry(index)], snapshot: null })
        .catch(() => order.push(index)),
    );
    const writes = disk.writes;
    await Promise.all(saves);
    expect(order).toEqual([1, 2, 3]);
    expect(disk.writes, "nothing is written after it").toBe(writes);
    await log.close();
  });

  test("saves go on while a snapshot is written", async () => {
    const disk = new MemoryLogDisk();
    const log = await openLogOn(disk, silentLog);
    await fill(log, 4);
    let finish = (): void => {};
    const create = disk.create.bind(disk);
    disk.create = async (name, contents, bytes) => {
      if (name.startsWith("snapshot")) {
        await new Promise<void>((resolve) => {
          finish = resolve;
        });
      }
      await create(name, contents, bytes);
    };
    const compacting = log.compact(snapshot(3), 3);
    await log.save({ hardState: null, entries: [entry(5)], snapshot: null });
    finish();
    await compacting;
    await log.close();
    const state = await loaded(disk);
    expect(state.snapshot?.index).toBe(3);
    expect(state.entries.map(({ index }) => index)).toEqual([3, 4, 5]);
  });

  test("segments that a power failure brought back before a gap are removed, not missed", async () => {
    const disk = await manySegments(null);
    const old = [1, 2, 3].map(
      (number) => [segmentName(number), disk.get(segmentName(number))] as const,
    );
    const log = await openLogOn(disk, silentLog, SMALL);
    await log.compact(snapshot(14), 15);
    await log.close();
    const before = await loaded(disk.copy());
    for (const [name, bytes] of [old[0], old[2]].flatMap((it) => (it === undefined ? [] : [it]))) {
      disk.put(name, bytes);
    }
    expect(await loaded(disk)).toEqual(before);
    expect(disk.files.has(segmentName(1))).toBe(false);
  });
});

/** Four saves of one entry each, and where each ends in the one segment. */
async function fourSaves(
  cipher: LogCipher | null,
): Promise<{ disk: MemoryLogDisk; ends: number[] }> {
  const disk = new MemoryLogDisk();
  const log = await openLogOn(disk, silentLog, { segmentBytes: 4096, cipher });
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

async function manySegments(cipher: LogCipher | null): Promise<MemoryLogDisk> {
  const disk = new MemoryLogDisk();
  const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
  await fill(log, 14);
  await log.close();
  expect(disk.files.has(segmentName(4))).toBe(true);
  return disk;
}

async function compacted(cipher: LogCipher | null): Promise<MemoryLogDisk> {
  const disk = new MemoryLogDisk();
  const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
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

async function loaded(disk: MemoryLogDisk, cipher: LogCipher | null = null): Promise<SavedState> {
  const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
  const state = await log.load();
  await log.close();
  return state;
}

async function openedOrRefused(
  disk: MemoryLogDisk,
  cipher: LogCipher | null,
): Promise<SavedState | ShoalError> {
  try {
    return await loaded(disk, cipher);
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
