/** Bytes written and read one field after another: big-endian, every length checked before it is believed. */
import { assert } from "../lib/assert.ts";
import { failure } from "../lib/errors.ts";

/** Blocks from this size on travel as they are; smaller ones are copied into one piece with what surrounds them. */
const blockCopyBytesMax: number = 32 * 1024;
const scratchBytesMin: number = 4 * 1024;
/** A scratch that grew beyond this for one large value is given back. */
const scratchBytesKept: number = 1024 * 1024;
const highWord = 0x1_0000_0000;

/** Collects fields; `finish` gives them as pieces that nobody writes to again. One is used for many frames, one after another. */
export class ByteWriter {
  #scratch: Buffer = Buffer.allocUnsafeSlow(scratchBytesMin);
  #at = 0;
  /** Blocks that stand between bytes of the scratch, each before the byte at `before`. */
  #blocks: { readonly before: number; readonly block: Uint8Array }[] = [];
  #blockBytes = 0;

  /** Bytes so far. */
  get length(): number {
    return this.#at + this.#blockBytes;
  }

  u8(value: number): void {
    this.#room(1);
    this.#scratch[this.#at] = value;
    this.#at += 1;
  }

  u16(value: number): void {
    this.#room(2);
    this.#at = this.#scratch.writeUInt16BE(value, this.#at);
  }

  u32(value: number): void {
    this.#room(4);
    this.#at = this.#scratch.writeUInt32BE(value, this.#at);
  }

  /** A whole number from 0 to 2^53-1, in eight bytes. */
  u53(value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0, "only a safe whole number goes on the wire");
    this.#room(8);
    this.#at = writeU53(this.#scratch, value, this.#at);
  }

  /** At most 255 bytes of UTF-8. */
  text(value: string): void {
    this.#room(1 + 3 * value.length);
    const bytes = this.#scratch.write(value, this.#at + 1, "utf8");
    assert(bytes <= 255, "a text on the wire has at most 255 bytes");
    this.#scratch[this.#at] = bytes;
    this.#at += 1 + bytes;
  }

  /** Bytes as they are, without their length. They are read until `finish`, and later when the block is large: nobody may change them. */
  block(bytes: Uint8Array): void {
    if (bytes.byteLength < blockCopyBytesMax) {
      this.#room(bytes.byteLength);
      this.#scratch.set(bytes, this.#at);
      this.#at += bytes.byteLength;
      return;
    }
    this.#blocks.push({ before: this.#at, block: bytes });
    this.#blockBytes += bytes.byteLength;
  }

  /** Leaves four bytes to be filled by `endLength`. */
  beginLength(): { readonly slot: number; readonly from: number } {
    this.u32(0);
    return { slot: this.#at - 4, from: this.length };
  }

  /** Writes how many bytes were written since `begun`. */
  endLength(begun: { readonly slot: number; readonly from: number }): void {
    this.#scratch.writeUInt32BE(this.length - begun.from, begun.slot);
  }

  /** All of it, in order, and starts anew. Large blocks are the very ones that were handed in. */
  finish(): readonly Uint8Array[] {
    const pieces: Uint8Array[] = [];
    let from = 0;
    for (const { before, block } of this.#blocks) {
      if (before > from) pieces.push(this.#copy(from, before));
      pieces.push(block);
      from = before;
    }
    if (this.#at > from || pieces.length === 0) pieces.push(this.#copy(from, this.#at));
    this.reset();
    return pieces;
  }

  /** Forgets what was written. */
  reset(): void {
    this.#at = 0;
    this.#blocks = [];
    this.#blockBytes = 0;
    if (this.#scratch.length > scratchBytesKept) {
      this.#scratch = Buffer.allocUnsafeSlow(scratchBytesMin);
    }
  }

  #copy(from: number, to: number): Buffer {
    const piece = Buffer.allocUnsafe(to - from);
    this.#scratch.copy(piece, 0, from, to);
    return piece;
  }

  #room(bytes: number): void {
    const needed = this.#at + bytes;
    if (needed <= this.#scratch.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#scratch.length));
    this.#scratch.copy(grown, 0, 0, this.#at);
    this.#scratch = grown;
  }
}

/** Reads what a ByteWriter wrote, from a peer that may be hostile: only ShoalError("invalid") is thrown, and nothing is allocated on its word alone. */
export class ByteReader {
  readonly #bytes: Buffer;
  readonly #what: string;
  readonly #owned: boolean;
  #at = 0;
  #end: number;

  /** `what` names the value in errors. */
  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = Buffer.isBuffer(bytes)
      ? bytes
      : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
    this.#end = bytes.byteLength;
    this.#owned = bytes.byteLength === bytes.buffer.byteLength;
  }

  /** Bytes that are left of what may be read. */
  get left(): number {
    return this.#end - this.#at;
  }

  fail(why: string): never {
    throw failure("invalid", `decoding ${this.#what} at byte ${this.#at}: ${why}`);
  }

  u8(field: string): number {
    return this.#bytes[this.#take(1, field)] as number;
  }

  u16(field: string): number {
    return this.#bytes.readUInt16BE(this.#take(2, field));
  }

  u32(field: string): number {
    return this.#bytes.readUInt32BE(this.#take(4, field));
  }

  u53(field: string): number {
    const value = readU53(this.#bytes, this.#take(8, field));
    if (value > Number.MAX_SAFE_INTEGER) this.fail(`its ${field} is above 2^53-1`);
    return value;
  }

  flag(field: string): boolean {
    const value = this.u8(field);
    if (value > 1) this.fail(`its ${field} is ${value}, neither 0 nor 1`);
    return value === 1;
  }

  text(field: string): string {
    const length = this.u8(field);
    const at = this.#take(length, field);
    return this.#bytes.toString("utf8", at, at + length);
  }

  /** `length` bytes that stay as they are and hold no larger memory than the frame's own: copied once, unless the frame's memory is its own. */
  keep(length: number, field: string): Uint8Array {
    const at = this.#take(length, field);
    const { buffer, byteOffset } = this.#bytes;
    if (this.#owned) return new Uint8Array(buffer, byteOffset + at, length);
    const copy = new Uint8Array(length);
    copy.set(this.#bytes.subarray(at, at + length));
    return copy;
  }

  /** `length` bytes to be used at once: they may be part of larger memory. */
  view(length: number, field: string): Uint8Array {
    const at = this.#take(length, field);
    return this.#bytes.subarray(at, at + length);
  }

  /** Reads only the next `length` bytes until `leave`, which skips what is left of them: fields of a newer version. */
  enter(length: number, field: string): number {
    if (length > this.left) this.fail(`its ${field} says ${length} bytes, ${this.left} are left`);
    const outer = this.#end;
    this.#end = this.#at + length;
    return outer;
  }

  leave(outer: number): void {
    this.#at = this.#end;
    this.#end = outer;
  }

  #take(length: number, field: string): number {
    const at = this.#at;
    if (length > this.#end - at) this.fail(`its ${field} is missing or cut off`);
    this.#at = at + length;
    return at;
  }
}

/** Writes a safe whole number at `at`; gives the position after it. */
export function writeU53(to: Buffer, value: number, at: number): number {
  to.writeUInt32BE(Math.floor(value / highWord), at);
  return to.writeUInt32BE(value >>> 0, at + 4);
}

/** The number at `at`; it may be above 2^53, and is then rounded but still above. */
export function readU53(from: Buffer, at: number): number {
  return from.readUInt32BE(at) * highWord + from.readUInt32BE(at + 4);
}
