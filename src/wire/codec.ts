/** Values to bytes and back, with msgpack. Log entries and snapshots stand alone; nothing here shares state between messages. */
import { Packr } from "msgpackr";
import { failure } from "../lib/errors.ts";
import type { EntryBody, StoreSnapshot } from "../store/types.ts";

/** Without records: an entry must be readable by itself, in any order, by any later version. */
const packr = new Packr({
  useRecords: false,
  int64AsType: "number",
  copyBuffers: true,
  moreTypes: false,
});

/** Bytes of any plain value; a fresh copy that nobody else writes to. */
export function encode(value: unknown): Uint8Array {
  return new Uint8Array(packr.pack(value));
}

/** The value of `bytes`. Throws ShoalError("invalid") naming `what` when they are no msgpack. */
export function decode(bytes: Uint8Array, what: string): unknown {
  try {
    return packr.unpack(bytes);
  } catch (error) {
    throw failure(
      "invalid",
      `decoding ${what} of ${bytes.byteLength} bytes: ${String(error)}`,
      error,
    );
  }
}

/** Bytes of one log entry's body. */
export function encodeBody(body: EntryBody): Uint8Array {
  return encode(body);
}

/** The body of a committed entry. What is in the log was written by a manager of this cluster: its shape is trusted, its bytes are checked. */
export function decodeBody(data: Uint8Array): EntryBody {
  const body = decode(data, "a log entry");
  if (!isRecord(body) || typeof body["proposalId"] !== "string" || !Array.isArray(body["groups"])) {
    throw failure("invalid", "decoding a log entry: it is not a list of action groups");
  }
  return body as unknown as EntryBody;
}

/** Bytes of a whole store. */
export function encodeStore(snapshot: StoreSnapshot): Uint8Array {
  return encode(snapshot);
}

/** The store of a snapshot's data. */
export function decodeStore(data: Uint8Array): StoreSnapshot {
  const snapshot = decode(data, "a snapshot");
  if (!isRecord(snapshot) || !isRecord(snapshot["tables"]) || !isIndex(snapshot["index"])) {
    throw failure("invalid", "decoding a snapshot: it holds no tables");
  }
  return snapshot as unknown as StoreSnapshot;
}

/** A whole number from 0 to 2^53-1. */
function isIndex(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
