/** Values to bytes and back, with msgpack. Log entries and snapshots stand alone; nothing here shares state between messages. */
import { Packr } from "msgpackr";
import { failure } from "../lib/errors.ts";
import type { Entry, Membership, Message, Snapshot } from "../raft/types.ts";
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

const messageKinds = new Set<string>([
  "append",
  "append-reply",
  "heartbeat",
  "heartbeat-reply",
  "vote",
  "prevote",
  "vote-reply",
  "prevote-reply",
  "snapshot",
  "timeout-now",
  "propose",
  "read-index",
  "read-index-reply",
] satisfies Message["kind"][]);

/** Bytes of Raft messages for one peer. */
export function encodeMessages(messages: readonly Message[]): Uint8Array {
  return encode(messages);
}

/** Raft messages from a peer, checked field by field: no number above 2^53, no unknown kind (spec/raft.md 2.4, 20). */
export function decodeMessages(bytes: Uint8Array): readonly Message[] {
  const list = decode(bytes, "raft messages");
  if (!Array.isArray(list)) throw failure("invalid", "decoding raft messages: not a list");
  return list.map(checkMessage);
}

function checkMessage(value: unknown): Message {
  const bad = (field: string): never => {
    throw failure("invalid", `decoding a raft message: its ${field} is wrong`);
  };
  if (!isRecord(value)) return bad("shape");
  const kind = value["kind"];
  if (typeof kind !== "string" || !messageKinds.has(kind)) return bad("kind");
  if (typeof value["from"] !== "string" || typeof value["to"] !== "string") return bad("address");
  if (!isIndex(value["term"])) return bad("term");
  for (const field of [
    "index",
    "prevIndex",
    "prevTerm",
    "commit",
    "hintIndex",
    "hintTerm",
    "lastIndex",
    "lastTerm",
  ]) {
    if (field in value && !isIndex(value[field])) return bad(field);
  }
  if (kind === "append") {
    const entries = value["entries"];
    if (!Array.isArray(entries) || !entries.every(isEntry)) return bad("entries");
    // An append that says where it starts but lacks it would be taken for index NaN.
    if (!isIndex(value["prevIndex"]) || !isIndex(value["commit"])) return bad("prevIndex");
  }
  if (kind === "snapshot" && !isSnapshot(value["snapshot"])) return bad("snapshot");
  return value as unknown as Message;
}

function isEntry(value: unknown): value is Entry {
  return (
    isRecord(value) &&
    isIndex(value["index"]) &&
    isIndex(value["term"]) &&
    (value["kind"] === "normal" || value["kind"] === "membership" || value["kind"] === "empty") &&
    value["data"] instanceof Uint8Array
  );
}

function isSnapshot(value: unknown): value is Snapshot {
  return (
    isRecord(value) &&
    isIndex(value["index"]) &&
    isIndex(value["term"]) &&
    value["data"] instanceof Uint8Array &&
    isMembership(value["membership"])
  );
}

function isMembership(value: unknown): value is Membership {
  return isRecord(value) && Array.isArray(value["voters"]) && Array.isArray(value["learners"]);
}

/** A whole number from 0 to 2^53-1. */
function isIndex(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
