/**
 * Raft's messages as bytes. The fields of each kind stand in one table, in wire order; what a newer version adds stands
 * behind them and is skipped by an older one. Entries are encoded once, however many peers get them.
 */
import { assert } from "../lib/assert.ts";
import { messageOf } from "../lib/errors.ts";
import { MEMBERS_MAX, PEER_ID_LENGTH_MAX } from "../raft/limits.ts";
import { assertMembership } from "../raft/membership.ts";
import type { Entry, Membership, Message, PeerId, Snapshot } from "../raft/types.ts";
import { ByteReader, ByteWriter, readU53, writeU53 } from "./bytes.ts";
import { raftEntriesMax, raftFrameMessagesMax } from "./limits.ts";

/** First byte of a frame. */
export const frameTypes = { hello: 1, messages: 2, offer: 3, chunk: 4, have: 5 } as const;

/** Bytes of entries that were already encoded for another peer of the same send. */
export class EntryBlocks {
  readonly #known: { readonly entries: readonly Entry[]; readonly block: Uint8Array }[] = [];

  /** The block of `entries`; the same bytes for the same entries. */
  of(entries: readonly Entry[]): Uint8Array {
    for (const known of this.#known) {
      if (isSame(known.entries, entries)) return known.block;
    }
    const block = encodeEntries(entries);
    this.#known.push({ entries, block });
    return block;
  }
}

/** Bytes of messages that share sender and receiver. */
export function encodeMessages(messages: readonly Message[]): Uint8Array {
  const pieces = encodeFrame(messages, new EntryBlocks());
  return pieces.length === 1 ? (pieces[0] as Uint8Array) : Buffer.concat(pieces);
}

/** The frame of messages that share sender and receiver, in pieces; a large block of entries is a piece that frames to other peers share. */
export function encodeFrame(
  messages: readonly Message[],
  blocks: EntryBlocks,
): readonly Uint8Array[] {
  const [first] = messages;
  assert(first !== undefined, "a frame has messages");
  assert(messages.length <= raftFrameMessagesMax, "a frame has at most raftFrameMessagesMax");
  const { from, to } = first;
  writer.reset();
  writer.u8(frameTypes.messages);
  writer.text(from);
  writer.text(to);
  writer.u16(messages.length);
  sharedBlocks = blocks;
  for (const message of messages) {
    assert(message.from === from && message.to === to, "one frame is from one peer to one peer");
    writer.u8(codeOf[message.kind]);
    const length = writer.beginLength();
    writer.u53(message.term);
    for (const { name, field } of rows[message.kind]) {
      field.write(writer, (message as unknown as Record<string, unknown>)[name]);
    }
    writer.endLength(length);
  }
  sharedBlocks = new EntryBlocks();
  return writer.finish();
}

/**
 * The messages of a frame, checked field by field. Throws ShoalError("invalid") naming what is wrong: an unknown kind,
 * a missing field, a number above 2^53, entries that do not follow each other. Their bytes are not changed by anybody later.
 */
export function decodeMessages(bytes: Uint8Array): readonly Message[] {
  const reader = new ByteReader(bytes, "raft messages");
  const type = reader.u8("frame type");
  if (type !== frameTypes.messages) reader.fail(`frame type ${type} is no list of messages`);
  const from = readPeer(reader, "sender");
  const to = readPeer(reader, "receiver");
  const count = reader.u16("count");
  if (count > raftFrameMessagesMax) reader.fail(`${count} messages in one frame`);
  const messages: Message[] = [];
  for (let at = 0; at < count; at += 1) messages.push(readMessage(reader, from, to));
  if (reader.left > 0) reader.fail(`${reader.left} bytes follow the last message`);
  return messages;
}

/** Membership as it stands in a snapshot and in its offer. */
export function writeMembership(to: ByteWriter, value: Membership): void {
  for (const list of [value.voters, value.outgoing, value.learners, value.learnersNext]) {
    to.u8(list.length);
    for (const id of list) to.text(id);
  }
  to.u8(value.autoLeave ? 1 : 0);
}

export function readMembership(from: ByteReader): Membership {
  const list = (field: string): PeerId[] => {
    const count = from.u8(field);
    if (count > MEMBERS_MAX) from.fail(`its ${field} are ${count}, the most are ${MEMBERS_MAX}`);
    return Array.from({ length: count }, () => readPeer(from, field));
  };
  const membership: Membership = {
    voters: list("voters"),
    outgoing: list("outgoing voters"),
    learners: list("learners"),
    learnersNext: list("next learners"),
    autoLeave: from.flag("autoLeave"),
  };
  try {
    assertMembership(membership);
  } catch (error) {
    // A bug when it is our own; here it is a peer's word.
    from.fail(`its membership cannot be: ${messageOf(error)}`);
  }
  return membership;
}

/** A peer's name: 1 to 64 characters. */
export function readPeer(from: ByteReader, field: string): PeerId {
  const id = from.text(field);
  if (id.length === 0 || id.length > PEER_ID_LENGTH_MAX) {
    from.fail(`its ${field} has ${id.length} characters`);
  }
  return id;
}

type Kind = Message["kind"];
type OfKind<M, K> = M extends { readonly kind: infer Kinds }
  ? K extends Kinds
    ? M
    : never
  : never;
type MessageOf<K extends Kind> = OfKind<Message, K>;
interface Field<T> {
  write(to: ByteWriter, value: T): void;
  read(from: ByteReader, name: string): T;
}
/** One field for each property of a kind: a property that is added to the contract and not here does not compile. */
type Fields<K extends Kind> = {
  readonly [F in Exclude<keyof MessageOf<K>, "kind" | "from" | "to" | "term">]-?: Field<
    MessageOf<K>[F]
  >;
};

const entryKinds: readonly Entry["kind"][] = ["normal", "membership", "empty"];
const noBytes: Uint8Array = new Uint8Array(0);
/** Kind, term and length of one entry. */
const entryHeadBytes = 1 + 8 + 4;
/** First index and count. */
const blockHeadBytes = 8 + 4;

const index: Field<number> = {
  write: (to, value) => to.u53(value),
  read: (from, name) => from.u53(name),
};
const flag: Field<boolean> = {
  write: (to, value) => to.u8(value ? 1 : 0),
  read: (from, name) => from.flag(name),
};
const indexOrNull: Field<number | null> = {
  write(to, value) {
    to.u8(value === null ? 0 : 1);
    if (value !== null) to.u53(value);
  },
  read: (from, name) => (from.flag(name) ? from.u53(name) : null),
};
const mark: Field<{ readonly index: number; readonly term: number } | undefined> = {
  write(to, value) {
    to.u8(value === undefined ? 0 : 1);
    if (value === undefined) return;
    to.u53(value.index);
    to.u53(value.term);
  },
  read: (from, name) =>
    from.flag(name) ? { index: from.u53(name), term: from.u53(name) } : undefined,
};
const entries: Field<readonly Entry[]> = {
  write(to, value) {
    const block = sharedBlocks.of(value);
    to.u32(block.byteLength);
    to.block(block);
  },
  read(from, name) {
    const length = from.u32(name);
    if (length < blockHeadBytes) from.fail(`its ${name} are cut off`);
    return decodeEntries(from.keep(length, name), from);
  },
};
const bodies: Field<MessageOf<"propose">["entries"]> = {
  write(to, value) {
    to.u32(value.length);
    for (const { kind, data } of value) {
      to.u8(entryKinds.indexOf(kind));
      to.u32(data.byteLength);
      to.block(data);
    }
  },
  read(from, name) {
    const count = from.u32(name);
    if (count > raftEntriesMax) from.fail(`${count} ${name}, the most are ${raftEntriesMax}`);
    const list: MessageOf<"propose">["entries"][number][] = [];
    for (let at = 0; at < count; at += 1) {
      const kind = entryKinds[from.u8(name)] ?? from.fail("unknown kind of entry");
      list.push({ kind, data: from.keep(from.u32(name), name) });
    }
    return list;
  },
};
const snapshot: Field<Snapshot> = {
  write(to, value) {
    to.u53(value.index);
    to.u53(value.term);
    writeMembership(to, value.membership);
    to.u32(value.data.byteLength);
    to.block(value.data);
  },
  read(from, name) {
    return {
      index: from.u53(name),
      term: from.u53(name),
      membership: readMembership(from),
      data: from.keep(from.u32(name), name),
    };
  },
};

const vote: Fields<"vote"> = { lastIndex: index, lastTerm: index, transfer: flag };
const voteReply: Fields<"vote-reply"> = { granted: flag, committed: mark };
/** In wire order: a new field goes to the end of its row, a new kind to the end of the table; both need a new wire version. */
const shapes: { readonly [K in Kind]: Fields<K> } = {
  append: { prevIndex: index, prevTerm: index, entries, commit: index },
  "append-reply": { index, rejected: flag, hintIndex: index, hintTerm: index },
  heartbeat: { commit: index, readId: indexOrNull },
  "heartbeat-reply": { readId: indexOrNull },
  vote,
  prevote: vote,
  "vote-reply": voteReply,
  "prevote-reply": voteReply,
  snapshot: { snapshot },
  "timeout-now": {},
  propose: { entries: bodies },
  "read-index": { readId: index },
  "read-index-reply": { readId: index, index },
};
const kinds = Object.keys(shapes) as readonly Kind[];
const codeOf = Object.fromEntries(kinds.map((kind, code) => [kind, code])) as Record<Kind, number>;
type Row = readonly { readonly name: string; readonly field: Field<unknown> }[];
const rows = Object.fromEntries(
  kinds.map((kind) => [
    kind,
    Object.entries(shapes[kind]).map(([name, field]) => ({ name, field: field as Field<unknown> })),
  ]),
) as unknown as Readonly<Record<Kind, Row>>;

const writer = new ByteWriter();
/** The blocks of the frame that is being written: writing is synchronous, one frame at a time. */
let sharedBlocks = new EntryBlocks();

function readMessage(reader: ByteReader, from: PeerId, to: PeerId): Message {
  const code = reader.u8("kind");
  const kind = kinds[code];
  if (kind === undefined) reader.fail(`message kind ${code} is unknown to this version`);
  const outer = reader.enter(reader.u32("length"), "message");
  const message: Record<string, unknown> = { kind, from, to, term: reader.u53("term") };
  for (const { name, field } of rows[kind]) {
    const value = field.read(reader, name);
    if (value !== undefined) message[name] = value;
  }
  reader.leave(outer);
  const read = message as unknown as Message;
  if (read.kind === "append") checkAppend(reader, read);
  return read;
}

/** The core asserts these of its own log: a peer must not be able to stop it by breaking them. */
function checkAppend(reader: ByteReader, append: MessageOf<"append">): void {
  const [first] = append.entries;
  if (first !== undefined && first.index !== append.prevIndex + 1) {
    reader.fail(`entries from ${first.index} do not follow entry ${append.prevIndex}`);
  }
  const lastTerm = append.entries.at(-1)?.term ?? append.prevTerm;
  if (append.prevTerm > (first?.term ?? lastTerm) || lastTerm > append.term) {
    reader.fail("its terms go backwards, or beyond the sender's");
  }
}

function encodeEntries(list: readonly Entry[]): Uint8Array {
  assert(list.length <= raftEntriesMax, "an append has at most raftEntriesMax entries");
  let bytes = blockHeadBytes;
  for (const { data } of list) bytes += entryHeadBytes + data.byteLength;
  const block = Buffer.allocUnsafe(bytes);
  const first = list[0]?.index ?? 0;
  let at = block.writeUInt32BE(list.length, writeU53(block, first, 0));
  let next = first;
  for (const entry of list) {
    assert(entry.index === next, "the entries of an append follow each other");
    next += 1;
    assert(Number.isSafeInteger(entry.term) && entry.term >= 0, "a term is a safe whole number");
    block[at] = entryKinds.indexOf(entry.kind);
    at = block.writeUInt32BE(entry.data.byteLength, writeU53(block, entry.term, at + 1));
    block.set(entry.data, at);
    at += entry.data.byteLength;
  }
  return block;
}

/** Entries are views of `block`: they live and die together, and it holds little else. */
function decodeEntries(block: Uint8Array, from: ByteReader): readonly Entry[] {
  const bytes = Buffer.from(block.buffer, block.byteOffset, block.byteLength);
  const first = readU53(bytes, 0);
  const count = bytes.readUInt32BE(8);
  if (count > raftEntriesMax || count * entryHeadBytes > block.byteLength - blockHeadBytes) {
    from.fail(`${count} entries in ${block.byteLength} bytes`);
  }
  if (!Number.isSafeInteger(first + count)) from.fail("its entries have an index above 2^53-1");
  const list: Entry[] = [];
  let at = blockHeadBytes;
  let term = 0;
  for (let offset = 0; offset < count; offset += 1) {
    if (at + entryHeadBytes > bytes.length) from.fail("its entries are cut off");
    const kind = entryKinds[bytes[at] as number];
    if (kind === undefined) from.fail(`entry ${first + offset} is of unknown kind ${bytes[at]}`);
    const before = term;
    term = readU53(bytes, at + 1);
    if (term < before || term > Number.MAX_SAFE_INTEGER)
      from.fail("an entry's term goes backwards");
    const length = bytes.readUInt32BE(at + 9);
    at += entryHeadBytes;
    if (length > bytes.length - at) from.fail("the bytes of an entry are cut off");
    const data =
      length === 0 ? noBytes : new Uint8Array(bytes.buffer, bytes.byteOffset + at, length);
    list.push({ index: first + offset, term, kind, data });
    at += length;
  }
  if (at !== bytes.length) from.fail("bytes follow the last entry");
  return list;
}

function isSame(some: readonly Entry[], others: readonly Entry[]): boolean {
  if (some === others) return true;
  if (some.length !== others.length) return false;
  for (let at = 0; at < some.length; at += 1) if (some[at] !== others[at]) return false;
  return true;
}
