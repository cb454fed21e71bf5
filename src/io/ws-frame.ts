/**
 * Short websocket frames written whole. What ws does for each message (options, a header of its own, two writes that are
 * corked together) costs as much as the rest of sending a short one; here it is one buffer and one write.
 */
import type { WebSocket } from "ws";
import { assert } from "../lib/assert.ts";

/** Longest message that is copied behind its header, in bytes; the header below has room for 65,535. */
export const wholeFrameBytesMax: number = 16 * 1024;
/** First byte: the last frame of its message, of binary data (RFC 6455, 5.2). */
const binaryFinal = 0x82;
const lengthIn16Bits = 126;
const masked = 0x80;
const maskBytes = 4;

/** The frame of a message of at most wholeFrameBytesMax. From a client it says that it is masked, with a mask of zeros. */
export function wholeFrame(message: Uint8Array, fromClient: boolean): Buffer {
  const bytes = message.byteLength;
  assert(bytes <= wholeFrameBytesMax, "only a short message is copied");
  const isShort = bytes < lengthIn16Bits;
  const lengthEnd = isShort ? 2 : 4;
  const start = fromClient ? lengthEnd + maskBytes : lengthEnd;
  const frame = Buffer.allocUnsafe(start + bytes);
  frame[0] = binaryFinal;
  frame[1] = (isShort ? bytes : lengthIn16Bits) | (fromClient ? masked : 0);
  if (!isShort) frame.writeUInt16BE(bytes, 2);
  frame.fill(0, lengthEnd, start);
  frame.set(message, start);
  return frame;
}

/** The socket below an open websocket, as far as it is used. ws has no public way to it: null when it is not as expected. */
interface Inner {
  readonly bytesRead: number;
  write(bytes: Uint8Array, written: () => void): boolean;
}
export function innerSocket(socket: WebSocket): Inner | null {
  const { _socket: inner } = socket as unknown as { readonly _socket?: Partial<Inner> | null };
  const isWhole = typeof inner?.write === "function" && typeof inner.bytesRead === "number";
  return isWhole ? (inner as Inner) : null;
}
