/**
 * The bytes of the Raft log on disk. Little endian; numbers of 64 bits hold safe integers only.
 * Segment: header of 64 bytes, then records, then zeros to its end. Record: header of 32 bytes and payload, padded to 8.
 * One record is one save, so that a torn write loses a whole save or nothing.
 */
import { assert } from "../lib/assert.ts";
import { crc32c } from "../lib/crc32c.ts";
import type { Entry, HardState, Membership, Snapshot } from "../raft/types.ts";

export const SEGMENT_HEADER_BYTES: number = 64;
export const RECORD_HEADER_BYTES: number = 32;
/** Largest payload of one record, in bytes: one save cannot be larger. */
export const RECORD_BYTES_MAX: number = 1024 * 1024 * 1024;
const VERSION = 1;
const SEGMENT_MAGIC = 0x4c525348; // "HSRL"
const RECORD_MAGIC = 0x43525348; // "HSRC"
const SNAPSHOT_MAGIC = 0x4e535348; // "HSSN"
const KINDS: readonly Entry["kind"][] = ["normal", "membership", "empty"];
const NO_VOTE = 0xffff;

/** What a segment says of itself. */
export interface SegmentHeader {
  /** Segments are numbered from 1 without gaps. */
  readonly number: number;
  /** Number of the first record in it; records are numbered from 1 through all segments. */
  readonly firstRecord: number;
  /** Index of the last log entry before it. */
  readonly lastIndexBefore: number;
}
/** Which snapshot file belongs to the log, and where the entries begin. */
export interface SnapshotMark {
  readonly index: number;
  readonly term: number;
  readonly keepFrom: number;
}
/** One save. Every record repeats hard state and mark, so that old segments can go without losing them. */
export interface LogRecord {
  readonly number: number;
  readonly hardState: HardState;
  readonly mark: SnapshotMark | null;
  /** The snapshot replaced the whole log: entries before this record are gone. */
  readonly install: boolean;
  /** They replace whatever the log held from the first one's index on. */
  readonly entries: readonly Entry[];
}

export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const bytes = new Uint8Array(SEGMENT_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, SEGMENT_MAGIC, true);
  view.setUint32(4, VERSION, true);
  putNumber(view, 16, header.number);
  putNumber(view, 24, header.firstRecord);
  putNumber(view, 32, header.lastIndexBefore);
  view.setUint32(8, crc32c(bytes.subarray(16), crc32c(bytes.subarray(0, 8))), true);
  return bytes;
}

/** The header at the start of `bytes`, or null when they are none. */
export function decodeSegmentHeader(bytes: Uint8Array): SegmentHeader | null {
  if (bytes.length < SEGMENT_HEADER_BYTES) return null;
  const head = bytes.subarray(0, SEGMENT_HEADER_BYTES);
  const view = viewOf(head);
  if (view.getUint32(0, true) !== SEGMENT_MAGIC || view.getUint32(4, true) !== VERSION) return null;
  const sum = crc32c(head.subarray(16), crc32c(head.subarray(0, 8)));
  if (view.getUint32(8, true) !== sum) return null;
  return {
    number: getNumber(view, 16),
    firstRecord: getNumber(view, 24),
    lastIndexBefore: getNumber(view, 32),
  };
}

/** Bytes that `record` takes in a segment. */
export function recordBytes(record: LogRecord): number {
  const vote = record.hardState.vote;
  let payload = 1 + 16 + 2 + (vote === null ? 0 : new TextEncoder().encode(vote).length);
  if (record.mark !== null) payload += 24;
  payload += 4;
  for (const { data } of record.entries) payload += 13 + data.length;
  assert(payload <= RECORD_BYTES_MAX, "one save fits in one record");
  return RECORD_HEADER_BYTES + align(payload);
}

/** Writes `record` at the start of `bytes`, which has exactly recordBytes(record), all zero. */
export function encodeRecord(record: LogRecord, bytes: Uint8Array): void {
  const view = viewOf(bytes);
  const { hardState, mark, entries } = record;
  const first = entries[0];
  putNumber(view, 16, record.number);
  putNumber(view, 24, first === undefined ? 0 : first.index);
  let at = RECORD_HEADER_BYTES;
  view.setUint8(at, (mark === null ? 0 : 1) | (record.install ? 2 : 0));
  putNumber(view, at + 1, hardState.term);
  putNumber(view, at + 9, hardState.commit);
  const vote = hardState.vote === null ? null : new TextEncoder().encode(hardState.vote);
  view.setUint16(at + 17, vote === null ? NO_VOTE : vote.length, true);
  at += 19;
  if (vote !== null) {
    assert(vote.length < NO_VOTE, "a vote's name is short");
    bytes.set(vote, at);
    at += vote.length;
  }
  if (mark !== null) {
    putNumber(view, at, mark.index);
    putNumber(view, at + 8, mark.term);
    putNumber(view, at + 16, mark.keepFrom);
    at += 24;
  }
  view.setUint32(at, entries.length, true);
  at += 4;
  for (const entry of entries) {
    putNumber(view, at, entry.term);
    view.setUint8(at + 8, KINDS.indexOf(entry.kind));
    view.setUint32(at + 9, entry.data.length, true);
    bytes.set(entry.data, at + 13);
    at += 13 + entry.data.length;
  }
  assert(align(at) === bytes.length, "a record fills its bytes");
  view.setUint32(0, RECORD_MAGIC, true);
  view.setUint32(4, at - RECORD_HEADER_BYTES, true);
  view.setUint32(8, recordSum(bytes.subarray(0, at)), true);
}

/** The record at `offset` and where the next one starts, or null when there is no whole and undamaged one. */
export function decodeRecord(
  bytes: Uint8Array,
  offset: number,
): { readonly record: LogRecord; readonly next: number } | null {
  if (offset + RECORD_HEADER_BYTES > bytes.length) return null;
  const head = new DataView(bytes.buffer, bytes.byteOffset + offset, RECORD_HEADER_BYTES);
  if (head.getUint32(0, true) !== RECORD_MAGIC) return null;
  const length = head.getUint32(4, true);
  if (length > RECORD_BYTES_MAX || offset + RECORD_HEADER_BYTES + length > bytes.length)
    return null;
  const whole = bytes.subarray(offset, offset + RECORD_HEADER_BYTES + length);
  if (head.getUint32(8, true) !== recordSum(whole)) return null;
  return { record: decodePayload(whole), next: offset + RECORD_HEADER_BYTES + align(length) };
}

/** Takes apart a record whose checksum holds: its shape is what encodeRecord() made. */
function decodePayload(bytes: Uint8Array): LogRecord {
  const view = viewOf(bytes);
  const firstIndex = getNumber(view, 24);
  let at = RECORD_HEADER_BYTES;
  const flags = view.getUint8(at);
  const term = getNumber(view, at + 1);
  const commit = getNumber(view, at + 9);
  const voteLength = view.getUint16(at + 17, true);
  at += 19;
  let vote: string | null = null;
  if (voteLength !== NO_VOTE) {
    vote = new TextDecoder().decode(bytes.subarray(at, at + voteLength));
    at += voteLength;
  }
  let mark: SnapshotMark | null = null;
  if ((flags & 1) !== 0) {
    mark = {
      index: getNumber(view, at),
      term: getNumber(view, at + 8),
      keepFrom: getNumber(view, at + 16),
    };
    at += 24;
  }
  const count = view.getUint32(at, true);
  at += 4;
  const entries: Entry[] = [];
  for (let i = 0; i < count; i += 1) {
    const kind = KINDS[view.getUint8(at + 8)];
    assert(kind !== undefined, "a record with a good checksum has known kinds");
    const length = view.getUint32(at + 9, true);
    // A copy: the entry must not keep the whole segment in memory.
    const data = new Uint8Array(bytes.subarray(at + 13, at + 13 + length));
    entries.push({ index: firstIndex + i, term: getNumber(view, at), kind, data });
    at += 13 + length;
  }
  const number = getNumber(view, 16);
  return {
    number,
    hardState: { term, vote, commit },
    mark,
    install: (flags & 2) !== 0,
    entries,
  };
}

/** The bytes of a snapshot file. */
export function encodeSnapshot(snapshot: Snapshot): Uint8Array {
  const membership = new TextEncoder().encode(JSON.stringify(snapshot.membership));
  const bytes = new Uint8Array(48 + membership.length + snapshot.data.length);
  const view = viewOf(bytes);
  view.setUint32(0, SNAPSHOT_MAGIC, true);
  view.setUint32(4, VERSION, true);
  putNumber(view, 16, snapshot.index);
  putNumber(view, 24, snapshot.term);
  view.setUint32(32, membership.length, true);
  putNumber(view, 40, snapshot.data.length);
  bytes.set(membership, 48);
  bytes.set(snapshot.data, 48 + membership.length);
  view.setUint32(8, crc32c(bytes.subarray(16), crc32c(bytes.subarray(0, 8))), true);
  return bytes;
}

/** The snapshot in `bytes`, or null when they are not a whole and undamaged one. */
export function decodeSnapshot(bytes: Uint8Array): Snapshot | null {
  if (bytes.length < 48) return null;
  const view = viewOf(bytes);
  if (view.getUint32(0, true) !== SNAPSHOT_MAGIC || view.getUint32(4, true) !== VERSION)
    return null;
  const sum = crc32c(bytes.subarray(16), crc32c(bytes.subarray(0, 8)));
  if (view.getUint32(8, true) !== sum) return null;
  const dataAt = 48 + view.getUint32(32, true);
  if (dataAt + getNumber(view, 40) !== bytes.length) return null;
  const membership = JSON.parse(new TextDecoder().decode(bytes.subarray(48, dataAt))) as Membership;
  return {
    index: getNumber(view, 16),
    term: getNumber(view, 24),
    membership,
    data: bytes.subarray(dataAt),
  };
}

/** Over everything but the magic and the sum itself. */
function recordSum(bytes: Uint8Array): number {
  return crc32c(bytes.subarray(12), crc32c(bytes.subarray(4, 8)));
}

function align(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function putNumber(view: DataView, at: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, "a number on disk is a safe integer from 0");
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

function getNumber(view: DataView, at: number): number {
  const value = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
  assert(Number.isSafeInteger(value), "a number on disk is a safe integer");
  return value;
}
