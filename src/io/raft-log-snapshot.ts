/** The bytes of a snapshot file: a header, a checksum over all of it, and membership and data, sealed when the log is. */
import { crc32c } from "../lib/crc32c.ts";
import type { Membership, Snapshot } from "../raft/types.ts";
import { getNumber, putNumber, viewOf } from "./raft-log-bytes.ts";
import type { LogKey } from "./raft-log-cipher.ts";

const SNAPSHOT_MAGIC = 0x4e535348; // "HSSN"
/** Version 1 knew no encryption; it is read, and not written any more. */
const VERSION = 2;
const HEADER_BYTES = 64;
const OLD_HEADER_BYTES = 48;

/** A snapshot file whose checksum holds; what is in it may still be sealed. */
export interface SnapshotFrame {
  readonly index: number;
  readonly term: number;
  readonly keyId: string | null;
  readonly membershipBytes: number;
  readonly bound: Uint8Array;
  readonly payload: Uint8Array;
}

/** Bytes that are summed up in one go, about half a millisecond of work. */
const SLICE_BYTES = 256 * 1024;

/** The bytes of the file of `snapshot`, at once. */
export function encodeSnapshot(snapshot: Snapshot, key: LogKey | null): Uint8Array {
  const encoding = encodingSnapshot(snapshot, key);
  for (;;) {
    const step = encoding.next();
    if (step.done === true) return step.value;
  }
}

/** The same in slices: summing up megabytes in one go would hold up every write that waits for its answer. */
export function* encodingSnapshot(
  snapshot: Snapshot,
  key: LogKey | null,
): Generator<undefined, Uint8Array> {
  const membership = new TextEncoder().encode(JSON.stringify(snapshot.membership));
  const plainBytes = membership.length + snapshot.data.length;
  const bytes = new Uint8Array(HEADER_BYTES + plainBytes + (key?.sealBytes ?? 0));
  const view = viewOf(bytes);
  view.setUint32(0, SNAPSHOT_MAGIC, true);
  view.setUint32(4, VERSION, true);
  putNumber(view, 16, snapshot.index);
  putNumber(view, 24, snapshot.term);
  view.setUint32(32, membership.length, true);
  putNumber(view, 40, bytes.length - HEADER_BYTES);
  view.setBigUint64(48, key === null ? 0n : BigInt(`0x${key.id}`), true);
  const payload = bytes.subarray(HEADER_BYTES);
  const plain = key === null ? payload : new Uint8Array(plainBytes);
  plain.set(membership);
  plain.set(snapshot.data, membership.length);
  key?.seal(plain, boundOf(bytes), payload);
  let sum = crc32c(bytes.subarray(0, 8));
  for (let from = 12; from < bytes.length; from += SLICE_BYTES) {
    yield;
    sum = crc32c(bytes.subarray(from, from + SLICE_BYTES), sum);
  }
  view.setUint32(8, sum, true);
  return bytes;
}

/** The snapshot file in `bytes`, or null when they are not a whole and undamaged one. */
export function snapshotFrame(bytes: Uint8Array): SnapshotFrame | null {
  if (bytes.length < OLD_HEADER_BYTES) return null;
  const view = viewOf(bytes);
  if (view.getUint32(0, true) !== SNAPSHOT_MAGIC) return null;
  const version = view.getUint32(4, true);
  if (version === 1) return oldFrame(bytes, view);
  if (version !== VERSION || bytes.length < HEADER_BYTES) return null;
  const sum = crc32c(bytes.subarray(12), crc32c(bytes.subarray(0, 8)));
  if (view.getUint32(8, true) !== sum || HEADER_BYTES + getNumber(view, 40) !== bytes.length) {
    return null;
  }
  const keyId = view.getBigUint64(48, true);
  return {
    index: getNumber(view, 16),
    term: getNumber(view, 24),
    keyId: keyId === 0n ? null : keyId.toString(16).padStart(16, "0"),
    membershipBytes: view.getUint32(32, true),
    bound: boundOf(bytes),
    payload: bytes.subarray(HEADER_BYTES),
  };
}

/** What `frame` holds, or null when `key` does not open it. */
export function openSnapshot(frame: SnapshotFrame, key: LogKey | null): Snapshot | null {
  const plain = key === null ? frame.payload : key.open(frame.payload, frame.bound);
  if (plain === null) return null;
  const { index, term, membershipBytes } = frame;
  const text = new TextDecoder().decode(plain.subarray(0, membershipBytes));
  return {
    index,
    term,
    membership: JSON.parse(text) as Membership,
    data: plain.subarray(membershipBytes),
  };
}

function oldFrame(bytes: Uint8Array, view: DataView): SnapshotFrame | null {
  const sum = crc32c(bytes.subarray(16), crc32c(bytes.subarray(0, 8)));
  if (view.getUint32(8, true) !== sum) return null;
  const membershipBytes = view.getUint32(32, true);
  if (OLD_HEADER_BYTES + membershipBytes + getNumber(view, 40) !== bytes.length) return null;
  return {
    index: getNumber(view, 16),
    term: getNumber(view, 24),
    keyId: null,
    membershipBytes,
    bound: bytes.subarray(0, 0),
    payload: bytes.subarray(OLD_HEADER_BYTES),
  };
}

/** Which snapshot it is: what is sealed for one index does not open as another's. */
function boundOf(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(16, 40);
}
