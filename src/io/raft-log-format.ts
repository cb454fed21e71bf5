/**
 * The bytes of the Raft log on disk. Little endian; numbers of 64 bits hold safe integers only.
 * Segment: header of 64 bytes, then records, then zeros to its end. Record: header of 32 bytes and payload, padded to 8.
 * One record is one write, so that a torn write loses a whole group of saves or nothing. The checksum lies outside the
 * encryption: damage and a wrong key are told apart, and a log can be checked without its key.
 */
import { assert } from "../lib/assert.ts";
import { crc32c } from "../lib/crc32c.ts";
import type { Entry, HardState } from "../raft/types.ts";
import { getNumber, putNumber, viewOf } from "./raft-log-bytes.ts";
import type { LogKey } from "./raft-log-cipher.ts";

export const SEGMENT_HEADER_BYTES: number = 64;
export const RECORD_HEADER_BYTES: number = 32;
/** Largest payload of one record, in bytes: one save cannot be larger. */
export const RECORD_BYTES_MAX: number = 1024 * 1024 * 1024;
/** Version 1 knew no encryption; it is read, and not written any more. */
const VERSION = 2;
const SEGMENT_MAGIC = 0x4c525348; // "HSRL"
const RECORD_MAGIC = 0x43525348; // "HSRC"
const KINDS: readonly Entry["kind"][] = ["normal", "membership", "empty"];
const NO_VOTE = 0xffff;
/** Of an entry in a record, before its data: term, kind, length. */
const ENTRY_HEADER_BYTES = 13;

/** What a segment says of itself. */
export interface SegmentHeader {
  /** Segments are numbered from 1 without gaps. */
  readonly number: number;
  /** Number of the first record in it; records are numbered from 1 through all segments. */
  readonly firstRecord: number;
  /** Index of the last log entry before it. */
  readonly lastIndexBefore: number;
  /** The key that its records are sealed with (16 hexadecimal digits); null: they are not. */
  readonly keyId: string | null;
}
/** Which snapshot file belongs to the log, and where the entries begin. */
export interface SnapshotMark {
  readonly index: number;
  readonly term: number;
  readonly keepFrom: number;
}
/** One write. Every record repeats hard state and mark, so that old segments can go without losing them. */
export interface LogRecord {
  readonly number: number;
  readonly hardState: HardState;
  readonly mark: SnapshotMark | null;
  /** The snapshot replaced the whole log: entries before this record are gone. */
  readonly install: boolean;
  /** They replace whatever the log held from the first one's index on. */
  readonly entries: readonly Entry[];
}
/** A record whose checksum holds; what is in it may still be sealed. */
export interface Frame {
  readonly number: number;
  readonly firstIndex: number;
  /** What the encryption vouches for besides the payload. */
  readonly bound: Uint8Array;
  readonly payload: Uint8Array;
  /** Where the next one starts. */
  readonly next: number;
}

export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const bytes = new Uint8Array(SEGMENT_HEADER_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, SEGMENT_MAGIC, true);
  view.setUint32(4, VERSION, true);
  putNumber(view, 16, header.number);
  putNumber(view, 24, header.firstRecord);
  putNumber(view, 32, header.lastIndexBefore);
  putKeyId(view, 40, header.keyId);
  view.setUint32(8, crc32c(bytes.subarray(16), crc32c(bytes.subarray(0, 8))), true);
  return bytes;
}

/** The header at the start of `bytes`, or null when they are none. */
export function decodeSegmentHeader(bytes: Uint8Array): SegmentHeader | null {
  if (bytes.length < SEGMENT_HEADER_BYTES) return null;
  const head = bytes.subarray(0, SEGMENT_HEADER_BYTES);
  const view = viewOf(head);
  const version = view.getUint32(4, true);
  if (view.getUint32(0, true) !== SEGMENT_MAGIC || version < 1 || version > VERSION) return null;
  const sum = crc32c(head.subarray(16), crc32c(head.subarray(0, 8)));
  if (view.getUint32(8, true) !== sum) return null;
  return {
    number: getNumber(view, 16),
    firstRecord: getNumber(view, 24),
    lastIndexBefore: getNumber(view, 32),
    keyId: getKeyId(view, 40),
  };
}

/** Bytes that `record` takes in a segment whose records are sealed with `key`. */
export function recordBytes(record: LogRecord, key: LogKey | null): number {
  const length = payloadBytes(record) + (key?.sealBytes ?? 0);
  assert(length <= RECORD_BYTES_MAX, "one save fits in one record");
  return RECORD_HEADER_BYTES + align(length);
}

/** Writes `record` into `bytes`, which are exactly recordBytes(record, key) and may hold anything before. */
export function encodeRecord(record: LogRecord, bytes: Uint8Array, key: LogKey | null): void {
  const view = viewOf(bytes);
  const plainBytes = payloadBytes(record);
  const length = plainBytes + (key?.sealBytes ?? 0);
  const end = RECORD_HEADER_BYTES + length;
  assert(align(end) === bytes.length, "a record fills its bytes");
  view.setUint32(0, RECORD_MAGIC, true);
  view.setUint32(4, length, true);
  view.setUint32(12, 0, true);
  putNumber(view, 16, record.number);
  putNumber(view, 24, record.entries[0]?.index ?? 0);
  const payload = bytes.subarray(RECORD_HEADER_BYTES, end);
  if (key === null) encodePayload(record, payload);
  else {
    const plain = new Uint8Array(plainBytes);
    encodePayload(record, plain);
    key.seal(plain, boundOf(bytes), payload);
  }
  bytes.fill(0, end);
  view.setUint32(8, recordSum(bytes.subarray(0, end)), true);
}

/** The record at `offset`, or null when there is no whole and undamaged one. */
export function frameAt(bytes: Uint8Array, offset: number): Frame | null {
  if (offset + RECORD_HEADER_BYTES > bytes.length) return null;
  const head = new DataView(bytes.buffer, bytes.byteOffset + offset, RECORD_HEADER_BYTES);
  if (head.getUint32(0, true) !== RECORD_MAGIC) return null;
  const length = head.getUint32(4, true);
  const end = offset + RECORD_HEADER_BYTES + length;
  if (length > RECORD_BYTES_MAX || end > bytes.length) return null;
  const whole = bytes.subarray(offset, end);
  if (head.getUint32(8, true) !== recordSum(whole)) return null;
  return {
    number: getNumber(head, 16),
    firstIndex: getNumber(head, 24),
    bound: boundOf(whole),
    payload: whole.subarray(RECORD_HEADER_BYTES),
    next: offset + RECORD_HEADER_BYTES + align(length),
  };
}

/** What `frame` holds, or null when `key` does not open it. */
export function decodeFrame(frame: Frame, key: LogKey | null): LogRecord | null {
  const plain = key === null ? frame.payload : key.open(frame.payload, frame.bound);
  return plain === null ? null : decodePayload(frame, plain);
}

function payloadBytes(record: LogRecord): number {
  const vote = record.hardState.vote;
  let bytes = 1 + 16 + 2 + (vote === null ? 0 : voteBytes(vote).length) + 4;
  if (record.mark !== null) bytes += 24;
  for (const { data } of record.entries) bytes += ENTRY_HEADER_BYTES + data.length;
  return bytes;
}

function encodePayload(record: LogRecord, bytes: Uint8Array): void {
  const view = viewOf(bytes);
  const { hardState, mark, entries } = record;
  view.setUint8(0, (mark === null ? 0 : 1) | (record.install ? 2 : 0));
  putNumber(view, 1, hardState.term);
  putNumber(view, 9, hardState.commit);
  const vote = hardState.vote === null ? null : voteBytes(hardState.vote);
  view.setUint16(17, vote === null ? NO_VOTE : vote.length, true);
  let at = 19;
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
    bytes.set(entry.data, at + ENTRY_HEADER_BYTES);
    at += ENTRY_HEADER_BYTES + entry.data.length;
  }
  assert(at === bytes.length, "a payload fills its bytes");
}

/** Takes apart a payload whose checksum holds: its shape is what encodePayload() made. */
function decodePayload(frame: Frame, bytes: Uint8Array): LogRecord {
  const view = viewOf(bytes);
  const flags = view.getUint8(0);
  const term = getNumber(view, 1);
  const commit = getNumber(view, 9);
  const voteLength = view.getUint16(17, true);
  let at = 19;
  let vote: string | null = null;
  if (voteLength !== NO_VOTE) {
    vote = new TextDecoder().decode(bytes.subarray(at, at + voteLength));
    at += voteLength;
  }
  let mark: SnapshotMark | null = null;
  if ((flags & 1) !== 0) {
    const [index, markTerm, keepFrom] = [0, 8, 16].map((by) => getNumber(view, at + by));
    assert(
      index !== undefined && markTerm !== undefined && keepFrom !== undefined,
      "three of three",
    );
    mark = { index, term: markTerm, keepFrom };
    at += 24;
  }
  const count = view.getUint32(at, true);
  at += 4;
  const entries: Entry[] = [];
  for (let i = 0; i < count; i += 1) {
    const kind = KINDS[view.getUint8(at + 8)];
    assert(kind !== undefined, "a record with a good checksum has known kinds");
    const length = view.getUint32(at + 9, true);
    const start = at + ENTRY_HEADER_BYTES;
    // A copy: the entry must not keep the whole segment in memory.
    const data = new Uint8Array(bytes.subarray(start, start + length));
    entries.push({ index: frame.firstIndex + i, term: getNumber(view, at), kind, data });
    at = start + length;
  }
  const { number } = frame;
  return { number, hardState: { term, vote, commit }, mark, install: (flags & 2) !== 0, entries };
}

/** Over everything but the magic and the sum itself. */
function recordSum(bytes: Uint8Array): number {
  return crc32c(bytes.subarray(12), crc32c(bytes.subarray(4, 8)));
}

/** A record's number and first index; its length is vouched for by that of what is sealed. */
function boundOf(record: Uint8Array): Uint8Array {
  return record.subarray(12, RECORD_HEADER_BYTES);
}

let lastVote: { readonly vote: string; readonly bytes: Uint8Array } | null = null;

/** The vote's name in bytes. Remembered: it is the same in thousands of records. */
function voteBytes(vote: string): Uint8Array {
  if (lastVote?.vote !== vote) lastVote = { vote, bytes: new TextEncoder().encode(vote) };
  return lastVote.bytes;
}

function putKeyId(view: DataView, at: number, keyId: string | null): void {
  assert(keyId === null || /^[0-9a-f]{16}$/.test(keyId), "a key id is 16 hexadecimal digits");
  view.setBigUint64(at, keyId === null ? 0n : BigInt(`0x${keyId}`), true);
}

function getKeyId(view: DataView, at: number): string | null {
  const id = view.getBigUint64(at, true);
  return id === 0n ? null : id.toString(16).padStart(16, "0");
}

function align(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}
