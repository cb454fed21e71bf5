/** Goal: check says of every log what a manager's start would, file and byte, and repair never loses what was acknowledged. */
import { describe, expect, test } from "vitest";
import { silentLog } from "../lib/log.ts";
import type { SavedState } from "../raft/types.ts";
import { openDataKeyCipher } from "./data-key-cipher.ts";
import { openLogOn } from "./raft-log.ts";
import { checkLog } from "./raft-log-check.ts";
import type { LogCipher } from "./raft-log-cipher.ts";
import { segmentName, snapshotName, usedBytes } from "./raft-log-recovery.ts";
import { planRepair, repairLog } from "./raft-log-repair.ts";
import { MemoryKeyFile } from "./testing/memory-key-file.ts";
import { MemoryLogDisk } from "./testing/memory-log-disk.ts";

const SMALL = { segmentBytes: 512, freeMarginBytes: 0 };
const modes: readonly (readonly [string, LogCipher | null])[] = [
  ["plain", null],
  ["encrypted", await openDataKeyCipher(new MemoryKeyFile())],
];

describe.each(modes)("checkLog(), %s", (_mode, cipher) => {
  test("tells segments, records, entries, hard state, snapshot and key of a whole log", async () => {
    const { report } = await checkLog(await made(cipher), cipher);
    expect(report.problems).toEqual([]);
    expect(report.state).toMatchObject({
      hardState: { term: 2, vote: "n1", commit: 5 },
      snapshot: { index: 5, term: 2, membership: { voters: ["n1"] } },
      indexes: { first: 4, last: 14 },
      terms: { first: 2, last: 2 },
    });
    expect(report.segments.at(-1)?.indexes?.last).toBe(14);
    expect(report.segments.every(({ keyId }) => keyId === (cipher?.current.id ?? null))).toBe(true);
    expect(report.keyIds).toEqual(cipher === null ? [] : [cipher.current.id]);
    expect(report.spareBytes).toBe(512);
  });

  test("agrees with a manager's start on every truncation and every flipped bit, and repair keeps that", {
    timeout: 30_000,
  }, async () => {
    const whole = await made(cipher);
    const names = [...whole.files.keys()].filter((name) => name !== "spare");
    const seen = { clean: 0, repaired: 0, refused: 0 };
    for (const name of names) {
      const bytes = whole.get(name);
      for (let at = 0; at < bytes.length; at += 11) {
        const flipped = bytes.slice();
        flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8));
        for (const spoiled of [flipped, bytes.slice(0, at)]) {
          const disk = whole.copy();
          disk.put(name, spoiled);
          const started = await start(disk.copy(), cipher);
          const checked = await checkLog(disk, cipher);
          expect(checked.report.state !== null, `${name} ${at}`).toBe(started !== null);
          if (started === null) {
            seen.refused += 1;
            const [problem] = checked.report.problems;
            expect(problem?.kind).toBe("damage");
            expect(problem?.file).toContain(disk.path);
            expect(() => planRepair(checked)).toThrow("is not repaired");
            continue;
          }
          const steps = planRepair(checked);
          seen[steps.length === 0 ? "clean" : "repaired"] += 1;
          await repairLog(disk, checked);
          const again = await checkLog(disk, cipher);
          expect(again.report.problems).toEqual([]);
          expect(await start(disk, cipher)).toEqual(started);
        }
      }
    }
    expect(Math.min(seen.clean, seen.repaired, seen.refused)).toBeGreaterThan(10);
  });

  test("a torn last save is cut, its bytes are kept, and what it held is told first", async () => {
    const disk = await made(cipher);
    const name =
      [...disk.files.keys()]
        .filter((it) => it.startsWith("segment"))
        .sort()
        .at(-1) ?? "";
    const bytes = disk.get(name).slice();
    const used = bytes.findLastIndex((byte) => byte !== 0);
    bytes[used - 3] = (bytes[used - 3] ?? 0) ^ 4;
    disk.put(name, bytes.slice());
    const checked = await checkLog(disk, cipher);
    const [torn] = checked.report.problems;
    expect(torn).toMatchObject({ kind: "torn", file: `${disk.path}/${name}` });
    expect(torn?.loss).toMatch(/^record \d+: entries from 14 on, never acknowledged/);
    const steps = planRepair(checked);
    expect(steps.map(({ what }) => what.split(" ")[0])).toEqual(["cut", "remove"]);
    await repairLog(disk, checked);
    const kept = [...disk.files.keys()].find((it) => it.startsWith("cut-"));
    expect(kept).toBe(`cut-${name}-${torn?.offset}`);
    expect(disk.get(kept ?? "")).toEqual(bytes.slice(torn?.offset, used + 1));
    expect((await start(disk, cipher))?.entries.at(-1)?.index).toBe(13);
  });

  test("a stop at any moment of a repair leaves a log that is repaired again", async () => {
    const whole = await made(cipher);
    whole.put("snapshot-9.tmp", new Uint8Array(7));
    whole.put(snapshotName({ index: 1, term: 1 }), new Uint8Array(9));
    const before = await start(whole.copy(), cipher);
    const disk = whole.copy();
    const stops: MemoryLogDisk[] = [];
    disk.onChange = () => {
      stops.push(
        disk.afterPowerLoss(),
        disk.afterPowerLoss((change) => change % 2 === 1),
      );
    };
    await repairLog(disk, await checkLog(disk, cipher));
    disk.onChange = null;
    expect(stops.length).toBeGreaterThan(4);
    for (const stop of stops) {
      await repairLog(stop, await checkLog(stop, cipher));
      expect((await checkLog(stop, cipher)).report.problems).toEqual([]);
      expect(await start(stop, cipher)).toEqual(before);
    }
  });
});

test("every broken place is told, not only the first", async () => {
  const disk = await made(null);
  const names = [...disk.files.keys()].filter((it) => it.startsWith("segment")).sort();
  for (const name of names.slice(0, 2)) {
    const bytes = disk.get(name).slice();
    bytes[120] = (bytes[120] ?? 0) ^ 1;
    disk.put(name, bytes);
  }
  const { report } = await checkLog(disk, null);
  const places = new Set(report.problems.map(({ file }) => file));
  expect(places).toEqual(new Set(names.slice(0, 2).map((name) => `${disk.path}/${name}`)));
  expect(report.problems[0]?.remedy).toContain("join again as a new node");
});

test("without the key the checksums are checked all the same, and nothing is repaired", async () => {
  const cipher = await openDataKeyCipher(new MemoryKeyFile());
  const disk = await made(cipher);
  const checked = await checkLog(disk, null);
  expect(checked.report.problems.length).toBeGreaterThan(0);
  expect(new Set(checked.report.problems.map(({ kind }) => kind))).toEqual(new Set(["sealed"]));
  expect(checked.report.problems[0]?.why).toContain(cipher.current.id);
  expect(checked.report.segments.at(-1)?.records?.last).toBeGreaterThan(10);
  expect(() => planRepair(checked)).toThrow("--key-file");
});

test("damage in a segment is no torn save when the next one was begun and its first record torn", async () => {
  const whole = await made(null);
  const names = [...whole.files.keys()].filter((name) => name.startsWith("segment-")).sort();
  const last = names.at(-1) ?? "";
  const before = names.at(-2) ?? "";
  whole.put(last, new Uint8Array(512).fill(7, 3, 40));
  const unspoiled = await start(whole.copy(), null);
  expect(unspoiled, "a torn first record alone").not.toBeNull();
  let refused = 0;
  const bytes = whole.get(before);
  for (let at = 64; at < usedBytes(bytes); at += 3) {
    const disk = whole.copy();
    const flipped = bytes.slice();
    flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8));
    disk.put(before, flipped);
    const started = await start(disk.copy(), null);
    const { report } = await checkLog(disk, null);
    expect(report.state === null, `byte ${at}`).toBe(started === null);
    // Between records there are bytes that nothing reads.
    if (started !== null) expect(started, `byte ${at}`).toEqual(unspoiled);
    else refused += 1;
  }
  expect(refused).toBeGreaterThan(100);
  expect(before).not.toBe(segmentName(1));
});

/** Fourteen entries, a snapshot of the first five, several segments. */
async function made(cipher: LogCipher | null): Promise<MemoryLogDisk> {
  const disk = new MemoryLogDisk();
  const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
  const data = (index: number): Uint8Array => new TextEncoder().encode(`entry ${index}`);
  for (let index = 1; index <= 14; index += 1) {
    await log.save({
      hardState: { term: 2, vote: "n1", commit: Math.min(index, 5) },
      entries: [{ index, term: 2, kind: "normal", data: data(index) }],
      snapshot: null,
    });
    if (index !== 8) continue;
    const membership = {
      voters: ["n1"],
      outgoing: [],
      learners: [],
      learnersNext: [],
      autoLeave: false,
    };
    await log.compact({ index: 5, term: 2, membership, data: data(5) }, 4);
  }
  await log.close();
  return disk;
}

/** What a manager would start with, or null when it refuses to. */
async function start(disk: MemoryLogDisk, cipher: LogCipher | null): Promise<SavedState | null> {
  try {
    const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
    const state = await log.load();
    await log.close();
    return state;
  } catch (error) {
    expect(String(error)).toContain("opening the raft log");
    return null;
  }
}
