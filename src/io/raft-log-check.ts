/** Looking at a Raft log that nobody uses: what is in it, what is wrong with it, and what can be done. Changes nothing. */
import { messageOf } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import type { HardState, Membership } from "../raft/types.ts";
import type { LogDisk } from "./log-disk.ts";
import { keyOf, type LogCipher } from "./raft-log-cipher.ts";
import {
  decodeFrame,
  decodeSegmentHeader,
  frameAt,
  RECORD_HEADER_BYTES,
  SEGMENT_HEADER_BYTES,
} from "./raft-log-format.ts";
import {
  changedText,
  findRecord,
  keyMissing,
  lostLogRemedy,
  numberOf,
  type Recovered,
  recover,
  SPARE_NAME,
  snapshotName,
  usedBytes,
} from "./raft-log-recovery.ts";
import { openSnapshot, snapshotFrame } from "./raft-log-snapshot.ts";

/** From one number to another, both in it. */
export interface Range {
  readonly first: number;
  readonly last: number;
}
export interface SegmentReport {
  readonly name: string;
  readonly bytes: number;
  readonly usedBytes: number;
  /** Records whose checksum holds. */
  readonly records: Range | null;
  /** Of the entries in them, also of those that were replaced later; null when there are none or they cannot be opened. */
  readonly indexes: Range | null;
  readonly terms: Range | null;
  readonly keyId: string | null;
}
export interface SnapshotReport {
  readonly name: string;
  readonly index: number;
  readonly term: number;
  readonly bytes: number;
  readonly keyId: string | null;
  readonly membership: Membership;
}
export interface LogProblem {
  readonly file: string;
  readonly offset: number;
  /**
   * torn: a last write that is not whole; leftover: a file that nothing needs; damage: something that was acknowledged
   * is broken or missing; sealed: the key is not at hand.
   */
  readonly kind: "torn" | "leftover" | "damage" | "sealed";
  readonly why: string;
  readonly remedy: string;
  /** What is lost by the remedy. */
  readonly loss: string;
}
export interface LogReport {
  readonly directory: string;
  readonly segments: readonly SegmentReport[];
  /** What a manager would start from; null when it would refuse to, or the directory holds no log. */
  readonly state: {
    readonly hardState: HardState;
    readonly snapshot: SnapshotReport | null;
    readonly indexes: Range | null;
    readonly terms: Range | null;
  } | null;
  /** Keys that something in the directory is sealed with. */
  readonly keyIds: readonly string[];
  readonly problems: readonly LogProblem[];
  /** The segment allocated ahead is there: no problem, and made again when it is gone. */
  readonly spareBytes: number;
}
/** What a repair would do; for repairLog(). */
export interface Checked {
  readonly report: LogReport;
  readonly found: Recovered | null;
}

const startRemoves = "The next start removes it; so does `shoal raft repair`.";

/** Reads all of the log. `cipher` opens what is sealed; without the right key its checksums are checked all the same. */
export async function checkLog(disk: LogDisk, cipher: LogCipher | null): Promise<Checked> {
  const names = (await disk.list()).sort();
  const scan = new Scan(disk, cipher);
  const segments = names.filter((name) => /^segment-\d{16}$/.test(name));
  for (const name of segments) await scan.segment(name, name === segments.at(-1));
  for (const name of names.filter((it) => /^snapshot-/.test(it))) await scan.snapshot(name);
  let found: Recovered | null = null;
  try {
    found = await recover(disk, silentLog, cipher);
  } catch (error) {
    // The scan goes on after the first thing that is wrong; what only shows when all is put together, this error says.
    const message = messageOf(error);
    const told = scan.problems.some(
      ({ file, offset }) =>
        message.includes(`${file} is damaged at byte ${offset}`) ||
        message.includes(`${file} is encrypted`),
    );
    if (!told) scan.note(segments[0] ?? "", 0, "damage", message);
  }
  const spare = names.includes(SPARE_NAME) ? (await disk.read(SPARE_NAME)).length : 0;
  const problems = found === null ? scan.problems : harmless(disk, found, scan);
  const state = found === null ? null : stateOf(found, scan);
  const keyIds = [...new Set([...scan.segments, ...scan.snapshots].flatMap(idOf))];
  const { segments: reports } = scan;
  return {
    report: { directory: disk.path, segments: reports, state, keyIds, problems, spareBytes: spare },
    found,
  };
}

function idOf({ keyId }: { readonly keyId: string | null }): string[] {
  return keyId === null ? [] : [keyId];
}

/** A log that a manager would start from: what it would clear away first. */
function harmless(disk: LogDisk, found: Recovered, scan: Scan): LogProblem[] {
  const problems: LogProblem[] = [];
  const last = found.segments.at(-1);
  if (found.cutBytes > 0 && last !== undefined) {
    problems.push({
      file: `${disk.path}/${last.name}`,
      offset: found.writeAt,
      kind: "torn",
      why: `${found.cutBytes} bytes are no whole record: a last write that a stop cut short`,
      remedy: "The next start cuts it; so does `shoal raft repair`, which keeps a copy.",
      loss: scan.torn ?? `record ${found.nextRecord}, which was never acknowledged`,
    });
  }
  for (const name of found.leftovers) {
    const why = name.endsWith(".tmp")
      ? "a snapshot that was not finished"
      : name.startsWith("segment")
        ? "a segment whose entries the snapshot covers"
        : "a snapshot that the log does not go on from";
    const file = `${disk.path}/${name}`;
    problems.push({
      file,
      offset: 0,
      kind: "leftover",
      why,
      remedy: startRemoves,
      loss: "nothing",
    });
  }
  return problems;
}

function stateOf(found: Recovered, scan: Scan): NonNullable<LogReport["state"]> {
  const { entries, hardState } = found.state;
  const name = found.mark === null ? null : snapshotName(found.mark);
  const terms = entries.map(({ term }) => term);
  return {
    hardState,
    snapshot: scan.snapshots.find((snapshot) => snapshot.name === name) ?? null,
    indexes: rangeOf(entries.map(({ index }) => index)),
    terms: rangeOf(terms),
  };
}

/** Reads file by file, and notes what is wrong without stopping at it. */
class Scan {
  readonly segments: SegmentReport[] = [];
  readonly snapshots: SnapshotReport[] = [];
  readonly problems: LogProblem[] = [];
  /** What the torn last write would have held, as far as that shows. */
  torn: string | null = null;
  readonly #disk: LogDisk;
  readonly #cipher: LogCipher | null;
  #nextSegment: number | null = null;
  #nextRecord: number | null = null;

  constructor(disk: LogDisk, cipher: LogCipher | null) {
    this.#disk = disk;
    this.#cipher = cipher;
  }

  /** Where the segment looked at last holds something behind its last good record. */
  #behindLast: { readonly name: string; readonly offset: number } | null = null;

  note(name: string, offset: number, kind: LogProblem["kind"], why: string): void {
    const remedy =
      kind === "sealed"
        ? "Give the key file that belongs to this log with --key-file."
        : `It cannot be repaired: what was acknowledged is missing. ${lostLogRemedy}`;
    const loss = "entries that others count on";
    this.problems.push({ file: `${this.#disk.path}/${name}`, offset, kind, why, remedy, loss });
  }

  async segment(name: string, isLast: boolean): Promise<void> {
    const bytes = await this.#read(name);
    if (bytes === null) return;
    if (this.#nextSegment !== null && numberOf(name) !== this.#nextSegment) {
      this.note(
        name,
        0,
        "damage",
        `segment ${this.#nextSegment}, which belongs before it, is missing`,
      );
      this.#nextRecord = null;
    }
    this.#nextSegment = numberOf(name) + 1;
    const header = decodeSegmentHeader(bytes);
    const untouched =
      header === null && isLast && findRecord(bytes, SEGMENT_HEADER_BYTES, 0) === null;
    if (!untouched && header?.number !== numberOf(name)) {
      this.note(name, 0, "damage", "the segment's header is broken");
    }
    if (untouched && this.#behindLast !== null) {
      const { name: before, offset } = this.#behindLast;
      const record = `record ${this.#nextRecord ?? "?"}`;
      this.note(before, offset, "damage", `${record} is broken, though ${name} was begun after it`);
    }
    const keyId = header?.keyId ?? null;
    const key = keyOf(this.#cipher, keyId);
    if (key === undefined) this.#sealed(name, keyId ?? "");
    if (header !== null) this.#expect(name, SEGMENT_HEADER_BYTES, header.firstRecord);
    const numbers: number[] = [];
    const indexes: number[] = [];
    const terms: number[] = [];
    let at = SEGMENT_HEADER_BYTES;
    for (;;) {
      const frame = frameAt(bytes, at);
      if (frame === null) {
        const later = findRecord(bytes, at, this.#nextRecord ?? 0);
        if (later === null) break;
        this.note(
          name,
          at,
          "damage",
          `record ${this.#nextRecord ?? "?"} is broken, though there is a good record at byte ${later}`,
        );
        this.#nextRecord = null;
        at = later;
        continue;
      }
      this.#expect(name, at, frame.number);
      this.#nextRecord = frame.number + 1;
      numbers.push(frame.number);
      const record = key === undefined || header === null ? undefined : decodeFrame(frame, key);
      if (record === null) this.note(name, at, "damage", changedText(keyId));
      for (const entry of record?.entries ?? []) {
        indexes.push(entry.index);
        terms.push(entry.term);
      }
      at = frame.next;
    }
    this.#behindLast = usedBytes(bytes) > at ? { name, offset: at } : null;
    if (isLast) this.torn = tornText(bytes, at, this.#nextRecord);
    this.segments.push({
      name,
      bytes: bytes.length,
      usedBytes: at,
      records: rangeOf(numbers),
      indexes: rangeOf(indexes),
      terms: rangeOf(terms),
      keyId,
    });
  }

  async snapshot(name: string): Promise<void> {
    if (name.endsWith(".tmp")) return;
    const bytes = await this.#read(name);
    if (bytes === null) return;
    const frame = snapshotFrame(bytes);
    if (frame === null || snapshotName(frame) !== name) {
      this.note(name, 0, "damage", "the snapshot's checksum does not hold");
      return;
    }
    const key = keyOf(this.#cipher, frame.keyId);
    const snapshot = key === undefined ? undefined : openSnapshot(frame, key);
    if (snapshot === undefined) this.#sealed(name, frame.keyId ?? "");
    if (snapshot === null) this.note(name, 0, "damage", changedText(frame.keyId));
    if (snapshot === null || snapshot === undefined) return;
    const { index, term, membership } = snapshot;
    this.snapshots.push({ name, index, term, membership, bytes: bytes.length, keyId: frame.keyId });
  }

  #expect(name: string, offset: number, number: number): void {
    if (this.#nextRecord !== null && this.#nextRecord !== number) {
      const why = `it goes on with record ${number}, where record ${this.#nextRecord} belongs: what is between is missing or broken`;
      this.note(name, offset, "damage", why);
    }
    this.#nextRecord = number;
  }

  #sealed(name: string, keyId: string): void {
    this.note(
      name,
      0,
      "sealed",
      keyMissing(`${this.#disk.path}/${name}`, keyId, this.#cipher).message,
    );
  }

  async #read(name: string): Promise<Uint8Array | null> {
    try {
      return await this.#disk.read(name);
    } catch (error) {
      this.note(name, 0, "damage", `it cannot be read: ${messageOf(error)}`);
      return null;
    }
  }
}

/** What the header of a torn record says that it held, if that much of it can be believed. */
function tornText(bytes: Uint8Array, at: number, expected: number | null): string | null {
  if (at + RECORD_HEADER_BYTES > bytes.length || expected === null) return null;
  const head = new DataView(bytes.buffer, bytes.byteOffset + at, RECORD_HEADER_BYTES);
  const number = Number(head.getBigUint64(16, true));
  const firstIndex = Number(head.getBigUint64(24, true));
  if (number !== expected || !Number.isSafeInteger(firstIndex)) return null;
  const what =
    firstIndex === 0 ? "a change of term, vote or snapshot" : `entries from ${firstIndex} on`;
  return `record ${number}: ${what}, never acknowledged (unless the disk spoiled it afterwards; other managers have it then)`;
}

function rangeOf(numbers: readonly number[]): Range | null {
  if (numbers.length === 0) return null;
  let first = Number.MAX_SAFE_INTEGER;
  let last = 0;
  for (const number of numbers) {
    first = Math.min(first, number);
    last = Math.max(last, number);
  }
  return { first, last };
}
