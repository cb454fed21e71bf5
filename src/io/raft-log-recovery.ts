/**
 * Reading the Raft log after a stop of any kind. A torn tail (the last save, which nobody was told of) is cut;
 * damage before it stops the manager: to go on without an entry that was acknowledged could lose committed state.
 */
import { failure, messageOf, type ShoalError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Entry, HardState, SavedState, Snapshot } from "../raft/types.ts";
import type { LogDisk } from "./log-disk.ts";
import { keyOf, type LogCipher, type LogKey } from "./raft-log-cipher.ts";
import {
  decodeFrame,
  decodeSegmentHeader,
  frameAt,
  type LogRecord,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  type SnapshotMark,
} from "./raft-log-format.ts";
import { openSnapshot, snapshotFrame } from "./raft-log-snapshot.ts";

/** A segment as it lies on the disk. */
export interface Segment extends SegmentHeader {
  readonly name: string;
  readonly bytes: number;
}
/** Where writing goes on. */
export interface Recovered {
  readonly state: SavedState;
  readonly mark: SnapshotMark | null;
  readonly lastIndex: number;
  readonly nextRecord: number;
  /** In order; never empty. The last one is written on. */
  readonly segments: readonly Segment[];
  readonly writeAt: number;
  /** Bytes from writeAt on that are not zero and must be before anything is written there. */
  readonly cutBytes: number;
  /** The last segment's header is not on disk, or not whole: it was made just before the stop. */
  readonly headerMissing: boolean;
  /** What the snapshot is sealed with; null also when there is none. */
  readonly snapshotKeyId: string | null;
  /** Files that belong to nothing: half-made snapshots, snapshots and segments that were replaced. */
  readonly leftovers: readonly string[];
}

export const SPARE_NAME = "spare";

export function segmentName(number: number): string {
  return `segment-${String(number).padStart(16, "0")}`;
}
export function snapshotName(mark: Pick<SnapshotMark, "index" | "term">): string {
  return `snapshot-${String(mark.index).padStart(16, "0")}-${String(mark.term).padStart(16, "0")}`;
}

/** What to do about a log that cannot be gone on from. Never to remove it alone: a voter without its votes may elect a leader that lacks committed entries. */
export const lostLogRemedy: string =
  "Restore the directory from a backup of this node; or, if other managers live, remove this node there (`docker node demote`, then `docker node rm --force`), remove the `swarm` directory that holds this log, and join again as a new node.";

/** Why this directory cannot be started from, and the two ways out. */
export function damage(disk: LogDisk, name: string, offset: number, why: string): ShoalError {
  return failure(
    "internal",
    `opening the raft log: ${disk.path}/${name} is damaged at byte ${offset}: ${why}. ` +
      `Nothing was changed. ${lostLogRemedy}`,
  );
}

/** Why what is sealed with this key cannot be read. The file may well be whole: it is not called damaged. */
export function keyMissing(path: string, keyId: string, cipher: LogCipher | null): ShoalError {
  const held = cipher?.held ?? [];
  const where =
    cipher === null
      ? "no key was given"
      : `${cipher.source} holds ${held.length === 0 ? "no data key" : `data key ${held.join(" and ")}`}`;
  return failure(
    "internal",
    `opening the raft log: ${path} is encrypted with data key ${keyId}, and ${where}. ` +
      `Nothing was changed. Put back the key file that belongs to this log. ${lostLogRemedy}`,
  );
}

/**
 * What the directory holds, or null when it is new. Changes nothing on the disk.
 * Throws ShoalError("internal") naming file, byte and remedy when something before the tail is damaged or missing, and
 * naming key and key file when something is sealed with a key that is not at hand.
 */
export async function recover(
  disk: LogDisk,
  log: Log,
  cipher: LogCipher | null = null,
): Promise<Recovered | null> {
  const names = (await disk.list()).sort();
  const segmentNames = names.filter((name) => /^segment-\d{16}$/.test(name));
  const snapshotNames = names.filter((name) => /^snapshot-/.test(name));
  if (segmentNames.length === 0) {
    const orphan = snapshotNames.find((name) => !name.endsWith(".tmp"));
    if (orphan === undefined) return null;
    throw damage(disk, orphan, 0, "it is a snapshot without any segment of the log beside it");
  }
  // Old segments go one by one, but a power failure may undo some removals and not others: what lies before a gap is
  // old, if the snapshot reaches what lies behind it.
  const from = Math.max(
    0,
    segmentNames.findLastIndex(
      (name, at) => at > 0 && numberOf(name) !== numberOf(segmentNames[at - 1] ?? "") + 1,
    ),
  );
  const replay = new Replay(disk, cipher);
  for (const name of segmentNames.slice(from)) {
    await replay.segment(name, numberOf(name), name === segmentNames.at(-1), log);
  }
  const firstName = segmentNames[from] ?? "";
  replay.checkReach(firstName, from > 0);
  const snapshot = await readSnapshot(disk, replay.mark, cipher);
  const kept = replay.mark === null ? null : snapshotName(replay.mark);
  return {
    state: replay.state(snapshot?.snapshot ?? null),
    mark: replay.mark,
    lastIndex: replay.lastIndex,
    nextRecord: replay.nextRecord,
    segments: replay.segments,
    writeAt: replay.writeAt,
    cutBytes: replay.cutBytes,
    headerMissing: replay.headerMissing,
    snapshotKeyId: snapshot?.keyId ?? null,
    leftovers: [...segmentNames.slice(0, from), ...snapshotNames.filter((name) => name !== kept)],
  };
}

async function readSnapshot(
  disk: LogDisk,
  mark: SnapshotMark | null,
  cipher: LogCipher | null,
): Promise<{ readonly snapshot: Snapshot; readonly keyId: string | null } | null> {
  if (mark === null) return null;
  const name = snapshotName(mark);
  let bytes: Uint8Array;
  try {
    bytes = await disk.read(name);
  } catch (error) {
    const why = `the snapshot that the log goes on from cannot be read: ${messageOf(error)}`;
    throw damage(disk, name, 0, why);
  }
  const frame = snapshotFrame(bytes);
  if (frame === null || frame.index !== mark.index || frame.term !== mark.term) {
    throw damage(disk, name, 0, "the snapshot's checksum does not hold");
  }
  const key = keyOf(cipher, frame.keyId);
  if (key === undefined) throw keyMissing(`${disk.path}/${name}`, frame.keyId ?? "", cipher);
  const snapshot = openSnapshot(frame, key);
  if (snapshot === null) throw damage(disk, name, 0, changedText(frame.keyId));
  return { snapshot, keyId: frame.keyId };
}

/** A checksum that holds and a key that does not: no accident of a disk. */
export function changedText(keyId: string | null): string {
  return `its checksum holds, but data key ${keyId} does not open it: it was put there from another log, or changed on purpose`;
}

/** Runs through the records in order and keeps what they add up to. */
class Replay {
  readonly segments: Segment[] = [];
  nextRecord = 1;
  mark: SnapshotMark | null = null;
  writeAt = SEGMENT_HEADER_BYTES;
  cutBytes = 0;
  headerMissing = false;
  readonly #disk: LogDisk;
  readonly #cipher: LogCipher | null;
  #hardState: HardState = { term: 0, vote: null, commit: 0 };
  /** Entries of index base+1, base+2, … */
  #base = 0;
  #entries: Entry[] = [];
  /** The segment read last, and where its last good record ends. */
  #before: { readonly name: string; readonly bytes: Uint8Array; readonly end: number } | null =
    null;

  constructor(disk: LogDisk, cipher: LogCipher | null) {
    this.#disk = disk;
    this.#cipher = cipher;
  }

  get lastIndex(): number {
    return this.#base + this.#entries.length;
  }

  async segment(name: string, number: number, last: boolean, log: Log): Promise<void> {
    const bytes = await this.#disk.read(name);
    const first = this.segments.length === 0;
    const header = this.#header(name, number, bytes, first, last);
    this.segments.push({ ...header, name, bytes: bytes.length });
    if (first) {
      this.nextRecord = header.firstRecord;
      this.#base = header.lastIndexBefore;
    } else if (header.firstRecord !== this.nextRecord) {
      const before = this.segments.at(-2)?.name ?? name;
      throw damage(
        this.#disk,
        before,
        this.writeAt,
        `record ${this.nextRecord} is missing or broken, though ${name} goes on with record ${header.firstRecord}`,
      );
    }
    const key = this.#key(name, header.keyId);
    let at = SEGMENT_HEADER_BYTES;
    for (;;) {
      const frame = frameAt(bytes, at);
      if (frame === null) break;
      if (frame.number !== this.nextRecord) {
        const why = `it holds record ${frame.number} where record ${this.nextRecord} belongs`;
        throw damage(this.#disk, name, at, why);
      }
      const record = decodeFrame(frame, key);
      if (record === null) throw damage(this.#disk, name, at, changedText(header.keyId));
      this.#record(name, at, record);
      at = frame.next;
    }
    this.writeAt = at;
    this.#before = { name, bytes, end: at };
    if (last) this.#tail(name, bytes, at, log);
  }

  #header(
    name: string,
    number: number,
    bytes: Uint8Array,
    first: boolean,
    last: boolean,
  ): SegmentHeader {
    const header = decodeSegmentHeader(bytes);
    if (header !== null && header.number === number) return header;
    // A segment gets its header with its first record, and either may be torn. Only the last one can be, and only one
    // without a good record: then nothing in it was ever acknowledged.
    const untouched =
      bytes.length >= SEGMENT_HEADER_BYTES && findRecord(bytes, SEGMENT_HEADER_BYTES, 0) === null;
    if (!untouched || !last || (first && number !== 1)) {
      throw damage(this.#disk, name, 0, "the segment's header is broken");
    }
    this.#checkSealed(name);
    this.headerMissing = true;
    return {
      number,
      firstRecord: this.nextRecord,
      lastIndexBefore: this.lastIndex,
      keyId: this.#cipher?.current.id ?? null,
    };
  }

  /**
   * A segment is begun when everything in the one before it is durable. So behind that one's last good record there are
   * only zeros: anything else is a record that was acknowledged and is broken. A whole header of `next` would say so.
   */
  #checkSealed(next: string): void {
    const before = this.#before;
    if (before === null || usedBytes(before.bytes) <= before.end) return;
    const why = `record ${this.nextRecord} is broken, though ${next} was begun after it`;
    throw damage(this.#disk, before.name, before.end, why);
  }

  #key(name: string, keyId: string | null): LogKey | null {
    const key = keyOf(this.#cipher, keyId);
    if (key === undefined)
      throw keyMissing(`${this.#disk.path}/${name}`, keyId ?? "", this.#cipher);
    return key;
  }

  #record(name: string, offset: number, record: LogRecord): void {
    this.nextRecord += 1;
    this.#hardState = record.hardState;
    this.mark = record.mark;
    if (record.install && record.mark !== null) {
      this.#base = record.mark.index;
      this.#entries = [];
    }
    const first = record.entries[0];
    if (first !== undefined) {
      if (first.index > this.lastIndex + 1) {
        const why = `its entries begin at ${first.index}, but the log before it ends at ${this.lastIndex}`;
        throw damage(this.#disk, name, offset, why);
      }
      if (first.index <= this.#base) {
        this.#base = first.index - 1;
        this.#entries = [];
      }
      this.#entries.length = first.index - 1 - this.#base;
      for (const entry of record.entries) this.#entries.push(entry);
    }
    const keepFrom = record.mark?.keepFrom ?? 1;
    if (keepFrom - 1 > this.#base) {
      this.#entries.splice(0, keepFrom - 1 - this.#base);
      this.#base = keepFrom - 1;
    }
  }

  /** What follows the last good record of the last segment: nothing, a torn save, or damage. */
  #tail(name: string, bytes: Uint8Array, at: number, log: Log): void {
    const end = usedBytes(bytes);
    if (end <= at) return;
    const later = findRecord(bytes, at, this.nextRecord);
    if (later !== null) {
      const why = `record ${this.nextRecord} is broken, though there is a good record at byte ${later}`;
      throw damage(this.#disk, name, at, why);
    }
    this.cutBytes = end - at;
    log.warn(
      { file: `${this.#disk.path}/${name}`, offset: at, bytes: this.cutBytes },
      "raft log: cut a torn last save, which was never acknowledged",
    );
  }

  /** The entries must reach back to the snapshot, or to the beginning. */
  checkReach(firstName: string, afterGap: boolean): void {
    const covered = this.mark === null ? 0 : this.mark.index;
    if (this.#base > covered && afterGap) {
      const missing = segmentName(numberOf(firstName) - 1);
      throw damage(this.#disk, missing, 0, "this segment is missing, though there are later ones");
    }
    if (this.#base > covered) {
      const why = `entries ${covered + 1} to ${this.#base} are missing: segments before this one are gone`;
      throw damage(this.#disk, firstName, 0, why);
    }
    if (this.#hardState.commit > Math.max(this.lastIndex, covered)) {
      const why = `entry ${this.#hardState.commit} was committed, but the log ends at ${this.lastIndex}`;
      throw damage(this.#disk, this.segments.at(-1)?.name ?? firstName, this.writeAt, why);
    }
  }

  state(snapshot: Snapshot | null): SavedState {
    return { hardState: this.#hardState, snapshot, entries: this.#entries };
  }
}

/** Bytes before the zeros that end a segment. */
export function usedBytes(bytes: Uint8Array): number {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end -= 1;
  return end;
}

/** Where a whole record numbered from `number` on begins, at or after `from`; records lie at multiples of 8 bytes. */
export function findRecord(bytes: Uint8Array, from: number, number: number): number | null {
  for (let at = Math.ceil(from / 8) * 8; at < bytes.length; at += 8) {
    // Cheap before dear: most of a segment is zeros.
    if (bytes[at] === 0) continue;
    const found = frameAt(bytes, at);
    if (found !== null && found.number >= number) return at;
  }
  return null;
}

export function numberOf(name: string): number {
  return Number(name.slice("segment-".length));
}
