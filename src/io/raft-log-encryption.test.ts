/** Goal: what the log writes is sealed, keys change without a moment at which a stop loses anything, and a missing key is no damage. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ShoalError } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import type { Entry, SavedState, Snapshot } from "../raft/types.ts";
import { logKey, openDataKeyCipher } from "./data-key-cipher.ts";
import { type DataKeys, dataKeyId, nodeKeyFile } from "./node-key-file.ts";
import { openLogOn, type RaftLog } from "./raft-log.ts";
import { decodeSegmentHeader, frameAt, SEGMENT_HEADER_BYTES } from "./raft-log-format.ts";
import { segmentName } from "./raft-log-recovery.ts";
import { snapshotFrame } from "./raft-log-snapshot.ts";
import { MemoryKeyFile } from "./testing/memory-key-file.ts";
import { MemoryLogDisk, system } from "./testing/memory-log-disk.ts";

const SMALL = { segmentBytes: 512, freeMarginBytes: 0 };

describe("what is on the disk", () => {
  test("holds nothing of entries and snapshots in the clear; the plain log does", async () => {
    for (const sealed of [true, false]) {
      const disk = new MemoryLogDisk();
      const cipher = sealed ? await openDataKeyCipher(new MemoryKeyFile()) : null;
      const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
      await fill(log, 1, 9);
      await log.compact(snapshot(5), 4);
      await log.close();
      const all = Buffer.concat([...disk.files.values()].map(({ bytes }) => bytes)).toString(
        "latin1",
      );
      expect(all.includes("secret of entry"), `sealed: ${sealed}`).toBe(!sealed);
      expect(all.includes("secret state"), `sealed: ${sealed}`).toBe(!sealed);
    }
  });

  test("no nonce is used twice, over restarts, torn tails and snapshots", async () => {
    const keys = new MemoryKeyFile();
    const nonces: string[] = [];
    let disk = new MemoryLogDisk();
    let index = 0;
    for (let life = 0; life < 25; life += 1) {
      const log = await openLogOn(disk, silentLog, {
        ...SMALL,
        cipher: await openDataKeyCipher(keys),
      });
      const state = await log.load();
      index = state.entries.at(-1)?.index ?? index;
      await fill(log, index + 1, 3);
      index += 3;
      if (life % 5 === 4) {
        await log.compact(snapshot(index - 1), index - 1);
        await fill(log, index + 1, 1);
      }
      await log.close();
      nonces.push(...noncesOf(disk));
      // The last record is torn: the next life writes another one of the same number in its place.
      const name =
        [...disk.files.keys()]
          .filter((it) => it.startsWith("segment"))
          .sort()
          .at(-1) ?? "";
      const bytes = disk.get(name).slice();
      const used = bytes.findLastIndex((byte) => byte !== 0);
      bytes.fill(0, used - 4);
      disk = disk.copy();
      disk.put(name, bytes);
    }
    expect(nonces.length).toBeGreaterThan(100);
    // The same record is seen in several lives: nonce and sealed bytes are one pair.
    const pairs = new Set(nonces);
    expect(new Set([...pairs].map((pair) => pair.slice(0, 24))).size).toBe(pairs.size);
  });

  test("a key draws a new salt when its count is used up, and seals nothing alike", () => {
    let salts = 0;
    const key = logKey(new Uint8Array(32).fill(7), () => {
      salts += 1;
      return new Uint8Array(8).fill(salts);
    });
    const seen = new Set<string>();
    for (let i = 0; i < 1000; i += 1) {
      const into = new Uint8Array(3 + key.sealBytes);
      key.seal(new Uint8Array([1, 2, 3]), new Uint8Array(0), into);
      seen.add(Buffer.from(into.subarray(0, 12)).toString("hex"));
      expect(key.open(into, new Uint8Array(0))).toEqual(new Uint8Array([1, 2, 3]));
      expect(key.open(into, new Uint8Array(1)), "another place").toBeNull();
    }
    expect(seen.size).toBe(1000);
    expect(salts).toBe(1);
  });
});

describe("a key that is not at hand", () => {
  test.each([
    ["another key", async () => await openDataKeyCipher(new MemoryKeyFile(keysOf(9)))],
    ["no key in the file", async () => await openDataKeyCipher(new MemoryKeyFile())],
    ["no key file", async () => null],
  ])("%s: an error that names file, key and remedy; nothing is cut", async (_name, other) => {
    const disk = new MemoryLogDisk();
    const cipher = await openDataKeyCipher(new MemoryKeyFile(keysOf(1)));
    const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
    await fill(log, 1, 3);
    await log.close();
    const before = disk.get(segmentName(1)).slice();
    const wrong = await other();
    const error = await openLogOn(disk, silentLog, { ...SMALL, cipher: wrong }).catch(
      (e: unknown) => e,
    );
    expect(error).toBeInstanceOf(ShoalError);
    expect(String(error)).toContain(
      `${disk.path}/${segmentName(1)} is encrypted with data key ${cipher.current.id}`,
    );
    expect(String(error)).toContain("join again");
    expect(String(error)).not.toContain("damaged");
    expect(disk.get(segmentName(1))).toEqual(before);
    expect(wrong?.held ?? [], "no key was made up").toEqual(
      _name === "another key" ? [dataKeyId(keysOf(9).current)] : [],
    );
  });

  test("a record that another log sealed with the same key is told from damage", async () => {
    const keys = new MemoryKeyFile();
    const disks: MemoryLogDisk[] = [];
    for (const first of [1, 3]) {
      const disk = new MemoryLogDisk();
      const log = await openLogOn(disk, silentLog, { cipher: await openDataKeyCipher(keys) });
      await fill(log, 1, first);
      await log.close();
      disks.push(disk);
    }
    const [a, b] = disks;
    if (a === undefined || b === undefined) throw new Error("two logs");
    const [target, source] = [b.get(segmentName(1)).slice(), a.get(segmentName(1))];
    const from = frameAt(source, SEGMENT_HEADER_BYTES);
    const second = frameAt(target, frameAt(target, SEGMENT_HEADER_BYTES)?.next ?? 0);
    expect(from?.payload.length).toBe(second?.payload.length);
    // Its checksum is made to hold, as one who tampers would: the number in the header is the second's.
    const patched = target.slice();
    const at = frameAt(target, SEGMENT_HEADER_BYTES)?.next ?? 0;
    patched.set(from?.payload ?? new Uint8Array(0), at + 32);
    const { crc32c } = await import("../lib/crc32c.ts");
    const end = at + 32 + (from?.payload.length ?? 0);
    const sum = crc32c(patched.subarray(at + 12, end), crc32c(patched.subarray(at + 4, at + 8)));
    new DataView(patched.buffer, patched.byteOffset).setUint32(at + 8, sum, true);
    b.put(segmentName(1), patched);
    const opened = openLogOn(b, silentLog, { cipher: await openDataKeyCipher(keys) });
    await expect(opened).rejects.toThrow(`damaged at byte ${at}: its checksum holds, but data key`);
  });
});

describe("rotation", () => {
  test("ends when a snapshot covers the last entry of the old key", async () => {
    const disk = new MemoryLogDisk();
    const keys = new MemoryKeyFile();
    const log = await openLogOn(disk, silentLog, {
      ...SMALL,
      cipher: await openDataKeyCipher(keys),
    });
    await fill(log, 1, 8);
    await log.compact(snapshot(4), 4);
    expect(log.staleThrough()).toBeNull();
    const old = keys.keys?.current;
    await log.rotateKey();
    expect(keys.keys?.previous).toEqual(old);
    expect(log.staleThrough()).toBe(8);
    await fill(log, 9, 3);
    await expect(log.rotateKey()).rejects.toMatchObject({ code: "failed-precondition" });
    await log.compact(snapshot(7), 1);
    expect(keys.keys?.previous, "entry 8 is still sealed with the old key").toEqual(old);
    await log.compact(snapshot(8), 1);
    expect(keys.keys?.previous).toBeNull();
    expect(keyIdsOn(disk)).toEqual(new Set([dataKeyId(keys.keys?.current ?? new Uint8Array(32))]));
    await log.rotateKey();
    await log.close();
    const state = await loaded(disk, keys);
    expect(state.entries).toEqual([9, 10, 11].map((index) => entry(index)));
  });

  test("the key file is written by one at a time: a key that just became the old one is not forgotten", async () => {
    const disk = new MemoryLogDisk();
    const keys = new MemoryKeyFile();
    const cipher = await openDataKeyCipher(keys);
    const log = await openLogOn(disk, silentLog, { ...SMALL, cipher });
    await fill(log, 1, 8);
    await log.rotateKey();
    await fill(log, 9, 3);
    // Two things are removed at once, and both times the old key is found to be needed no more.
    let writes = 0;
    let most = 0;
    const save = keys.saveDataKeys.bind(keys);
    keys.saveDataKeys = async (wanted) => {
      writes += 1;
      most = Math.max(most, writes);
      for (let turn = 0; turn < 200; turn += 1) await Promise.resolve();
      await save(wanted);
      writes -= 1;
    };
    const one = log.compact(snapshot(9), 1);
    const two = log.compact(snapshot(10), 1);
    const rotations = Array.from({ length: 50 }, async () => {
      await one;
      for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
      return log.rotateKey().then(
        () => 1,
        () => 0,
      );
    });
    const done = await Promise.all([one, two, ...rotations]);
    expect(most).toBe(1);
    expect(done.filter((each) => each === 1).length).toBeLessThanOrEqual(1);
    await fill(log, 12, 3);
    await log.close();
    const state = await loaded(disk, keys);
    expect(state.entries.at(-1)?.index).toBe(14);
  });

  test("a log of two keys is read, with and without a rotation that a stop interrupted", async () => {
    const disk = new MemoryLogDisk();
    const keys = new MemoryKeyFile();
    const log = await openLogOn(disk, silentLog, {
      ...SMALL,
      cipher: await openDataKeyCipher(keys),
    });
    await fill(log, 1, 4);
    await log.rotateKey();
    await fill(log, 5, 2);
    await log.close();
    expect(keyIdsOn(disk).size).toBe(2);
    expect((await loaded(disk, keys)).entries).toHaveLength(6);
    const lost = new MemoryKeyFile(keys.keys === null ? null : { ...keys.keys, previous: null });
    await expect(loaded(disk, lost)).rejects.toThrow("is encrypted with data key");
  });

  test("a log from before encryption is read, and re-covered by the next snapshot", async () => {
    const disk = new MemoryLogDisk();
    const plain = await openLogOn(disk, silentLog, SMALL);
    await fill(plain, 1, 5);
    await plain.compact(snapshot(2), 2);
    await plain.close();
    const keys = new MemoryKeyFile();
    const log = await openLogOn(disk, silentLog, {
      ...SMALL,
      cipher: await openDataKeyCipher(keys),
    });
    expect((await log.load()).entries).toHaveLength(4);
    expect(log.staleThrough()).toBe(5);
    await fill(log, 6, 1);
    await log.compact(snapshot(6), 1);
    expect(log.staleThrough()).toBeNull();
    await log.close();
    expect(keyIdsOn(disk)).toEqual(new Set([dataKeyId(keys.keys?.current ?? new Uint8Array(32))]));
    expect((await loaded(disk, keys)).snapshot).toEqual(snapshot(6));
  });

  test("a key file that cannot be written leaves everything as it was", async () => {
    const disk = new MemoryLogDisk();
    const keys = new MemoryKeyFile();
    const log = await openLogOn(disk, silentLog, {
      ...SMALL,
      cipher: await openDataKeyCipher(keys),
    });
    await fill(log, 1, 2);
    const before = keys.keys;
    keys.failNextSave = system("ENOSPC", "no space left on device");
    await expect(log.rotateKey()).rejects.toMatchObject({ code: "unavailable" });
    await fill(log, 3, 2);
    await log.rotateKey();
    keys.failNextSave = system("ENOSPC", "no space left on device");
    await log.compact(snapshot(4), 5);
    expect(keys.keys?.previous, "not forgotten yet").toEqual(before?.current);
    await fill(log, 5, 1);
    await log.compact(snapshot(5), 6);
    expect(keys.keys?.previous).toBeNull();
    await log.close();
  });

  test("a stop at any step of a rotation loses nothing and needs no other key", async () => {
    const disk = new MemoryLogDisk();
    const keys = new MemoryKeyFile();
    let acknowledged = 0;
    const stops: { disk: MemoryLogDisk; keys: MemoryKeyFile; acknowledged: number }[] = [];
    const stop = (): void => {
      const choices = [
        () => false,
        () => true,
        (n: number) => n % 2 === 0,
        (n: number) => n % 2 === 1,
      ];
      for (const survives of choices) {
        stops.push({
          disk: disk.afterPowerLoss(survives, (n) => n % 3 === stops.length % 4),
          keys: keys.copy(),
          acknowledged,
        });
      }
      stops.push({ disk: disk.copy(), keys: keys.copy(), acknowledged });
    };
    const log = await openLogOn(disk, silentLog, {
      ...SMALL,
      cipher: await openDataKeyCipher(keys),
    });
    disk.onChange = stop;
    keys.onChange = stop;
    const save = async (from: number, count: number): Promise<void> => {
      for (let index = from; index < from + count; index += 1) {
        await fill(log, index, 1);
        acknowledged = index;
      }
    };
    await save(1, 12);
    await log.compact(snapshot(6), 4);
    await log.rotateKey();
    await save(13, 6);
    await log.compact(snapshot(15), 13);
    await log.rotateKey();
    await log.compact(snapshot(18), 16);
    await save(19, 2);
    disk.onChange = null;
    keys.onChange = null;
    await log.close();
    expect(stops.length).toBeGreaterThan(300);
    for (const at of stops) {
      const state = await loaded(at.disk, at.keys);
      const reached = state.entries.at(-1)?.index ?? state.snapshot?.index ?? 0;
      expect(reached).toBeGreaterThanOrEqual(at.acknowledged);
      const first = state.entries[0]?.index ?? reached + 1;
      expect(first).toBeLessThanOrEqual((state.snapshot?.index ?? 0) + 1);
      expect(state.entries).toEqual(state.entries.map(({ index }) => entry(index)));
    }
    expect(keys.keys?.previous).toBeNull();
  });
});

describe("nodeKeyFile()", () => {
  test("keeps data keys over a new certificate, and finds damage in them", async () => {
    const directory = await mkdtemp(join(tmpdir(), "shoal-key-file-"));
    try {
      const path = join(directory, "swarm-node.pem");
      const file = nodeKeyFile(path);
      expect(await file.dataKeys()).toBeNull();
      await file.saveIdentity(
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        "CERT 1\n",
      );
      const keys: DataKeys = { ...keysOf(1), previous: keysOf(2).current };
      // At once: neither undoes the other.
      await Promise.all([file.saveDataKeys(keys), file.saveIdentity("KEY 2", "CERT 2")]);
      expect(await file.dataKeys()).toEqual(keys);
      const text = await readFile(path, "utf8");
      expect(text).toMatch(/^KEY 2\nCERT 2\n-----BEGIN SHOAL DATA KEYS-----\n/);
      const at = text.indexOf("KEYS-----\n") + 10;
      let refused = 0;
      for (let offset = at; offset < text.length; offset += 7) {
        const { writeFile } = await import("node:fs/promises");
        const spoiled = `${text.slice(0, offset)}${text[offset] === "A" ? "B" : "A"}${text.slice(offset + 1)}`;
        await writeFile(path, spoiled);
        const outcome = await nodeKeyFile(path)
          .dataKeys()
          .catch((e: unknown) => e);
        if (outcome instanceof ShoalError) {
          refused += 1;
          expect(outcome.message).toContain(path);
        } else expect(outcome).toEqual(keys);
      }
      expect(refused).toBeGreaterThan(20);
      await file.saveIdentity("KEY 3", "CERT 3");
      await file.saveDataKeys(null);
      expect(await readFile(path, "utf8")).not.toContain("BEGIN SHOAL");
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});

function keysOf(byte: number): DataKeys {
  return { current: new Uint8Array(32).fill(byte), previous: null };
}

async function fill(log: RaftLog, from: number, count: number): Promise<void> {
  for (let index = from; index < from + count; index += 1) {
    await log.save({
      hardState: { term: 1, vote: "n1", commit: 0 },
      entries: [entry(index)],
      snapshot: null,
    });
  }
}

async function loaded(disk: MemoryLogDisk, keys: MemoryKeyFile): Promise<SavedState> {
  const log = await openLogOn(disk, silentLog, { ...SMALL, cipher: await openDataKeyCipher(keys) });
  const state = await log.load();
  await log.close();
  return state;
}

/** Nonce and first sealed bytes of every record and snapshot, in hexadecimal. */
function noncesOf(disk: MemoryLogDisk): string[] {
  const found: string[] = [];
  const note = (payload: Uint8Array): void => {
    found.push(Buffer.from(payload.subarray(0, 28)).toString("hex"));
  };
  for (const [name, { bytes }] of disk.files) {
    if (name.startsWith("snapshot")) note(snapshotFrame(bytes)?.payload ?? new Uint8Array(0));
    if (!name.startsWith("segment")) continue;
    for (let frame = frameAt(bytes, SEGMENT_HEADER_BYTES); frame !== null; ) {
      note(frame.payload);
      frame = frameAt(bytes, frame.next);
    }
  }
  return found;
}

function keyIdsOn(disk: MemoryLogDisk): Set<string | null> {
  const ids = new Set<string | null>();
  for (const [name, { bytes }] of disk.files) {
    if (name.startsWith("segment")) ids.add(decodeSegmentHeader(bytes)?.keyId ?? null);
    if (name.startsWith("snapshot")) ids.add(snapshotFrame(bytes)?.keyId ?? null);
  }
  return ids;
}

function entry(index: number): Entry {
  return {
    index,
    term: 1,
    kind: "normal",
    data: new TextEncoder().encode(`secret of entry ${index}`),
  };
}

function snapshot(index: number): Snapshot {
  const membership = {
    voters: ["n1"],
    outgoing: [],
    learners: [],
    learnersNext: [],
    autoLeave: false,
  };
  return { index, term: 1, membership, data: new TextEncoder().encode(`secret state ${index}`) };
}
