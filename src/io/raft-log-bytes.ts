/** Numbers in the files of the Raft log: 64 bits, little endian, safe integers only. */
import { assert } from "../lib/assert.ts";

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Writes 8 bytes at `at`. */
export function putNumber(view: DataView, at: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, "a number on disk is a safe integer from 0");
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

/** Reads 8 bytes at `at`; they are within a checksum that holds, so that anything but a safe integer is a bug. */
export function getNumber(view: DataView, at: number): number {
  const value = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
  assert(Number.isSafeInteger(value), "a number on disk is a safe integer");
  return value;
}
