/** Goal: what one manager says another reads as it was meant, or refuses with one error. How: every kind there and back, and thousands of damaged frames. */
import { describe, expect, test } from "vitest";
import { ShoalError } from "../lib/errors.ts";
import { seededRandom } from "../raft/testing/seeded-random.ts";
import type { Entry, Membership, Message } from "../raft/types.ts";
import { raftFrameMessagesMax, raftSnapshotBytesMax } from "./limits.ts";
import { decodeMessages, EntryBlocks, encodeFrame, encodeMessages } from "./raft-frames.ts";
import { decodeLinkFrame, encodeLinkFrame, type LinkFrame } from "./raft-link.ts";

const envelope = { from: "n1", to: "n2", term: 7 } as const;
const membership: Membership = {
  voters: ["n1", "n2", "n3"],
  outgoing: ["n1"],
  learners: ["ünïcode"],
  learnersNext: [],
  autoLeave: true,
};
const noBytes = new Uint8Array(0);
const everyKind: readonly Message[] = [
  { ...envelope, kind: "append", prevIndex: 0, prevTerm: 0, entries: [], commit: 0 },
  { ...envelope, kind: "append", prevIndex: 4, prevTerm: 2, entries: run(5, 9), commit: 3 },
  {
    ...envelope,
    kind: "append-reply",
    index: 9,
    rejected: true,
    hintIndex: 2 ** 53 - 1,
    hintTerm: 1,
  },
  { ...envelope, kind: "heartbeat", commit: 3, readId: null },
  { ...envelope, kind: "heartbeat", commit: 3, readId: 0 },
  { ...envelope, kind: "heartbeat-reply", readId: 2 ** 40 },
  { ...envelope, kind: "vote", lastIndex: 2 ** 32, lastTerm: 6, transfer: false },
  { ...envelope, kind: "prevote", lastIndex: 9, lastTerm: 6, transfer: true },
  { ...envelope, kind: "vote-reply", granted: true },
  { ...envelope, kind: "prevote-reply", granted: false, committed: { index: 3, term: 2 } },
  {
    ...envelope,
    kind: "snapshot",
    snapshot: { index: 9, term: 6, membership, data: new Uint8Array([1, 2, 3]) },
  },
  { ...envelope, kind: "timeout-now" },
  { ...envelope, kind: "propose", entries: [{ kind: "normal", data: new Uint8Array([255]) }] },
  { ...envelope, kind: "read-index", readId: 12 },
  { ...envelope, kind: "read-index-reply", readId: 12, index: 9 },
];
const everyLinkFrame: readonly LinkFrame[] = [
  {
    kind: "hello",
    versionMin: 2,
    versionMax: 3,
    from: "n1",
    to: "n2",
    incarnation: "a",
    nonce: "b",
    echo: "",
  },
  {
    kind: "offer",
    transfer: 1,
    term: 7,
    index: 9,
    snapshotTerm: 6,
    bytes: 2 ** 20,
    checksum: 2 ** 32 - 1,
    membership,
  },
  { kind: "chunk", transfer: 1, offset: 2 ** 18, data: Buffer.from("piece") },
  { kind: "have", transfer: 1, bytes: 2 ** 20, state: "whole" },
];

describe("encodeMessages() and decodeMessages()", () => {
  test("every kind comes back as it was", () => {
    for (const message of everyKind) {
      expect(decodeMessages(encodeMessages([message]))).toEqual([message]);
    }
    expect(decodeMessages(encodeMessages(everyKind))).toEqual(everyKind);
  });

  test("large entries come back as they were", () => {
    const entries = [entry(1, 33_000), entry(2, 1), entry(3, 100), entry(4, 0)];
    const append: Message = {
      ...envelope,
      kind: "append",
      prevIndex: 0,
      prevTerm: 0,
      entries,
      commit: 0,
    };
    const messages = [everyKind[3] as Message, append, everyKind[11] as Message];
    expect(decodeMessages(encodeMessages(messages))).toEqual(messages);
  });

  test("entries that go to several peers are encoded once", () => {
    const entries = [entry(5, 20_000), entry(6, 20_000)];
    const blocks = new EntryBlocks();
    const frames = ["n2", "n3", "n4"].map((to) =>
      encodeFrame(
        // Another array with the same entries, as each follower's append has.
        [
          {
            ...envelope,
            kind: "append",
            to,
            prevIndex: 4,
            prevTerm: 1,
            entries: [...entries],
            commit: 4,
          },
        ],
        blocks,
      ),
    );
    const shared = frames.map((pieces) => pieces.find((piece) => piece.byteLength > 40_000));
    expect(shared[0]).toBeDefined();
    expect(shared[1]).toBe(shared[0]);
    expect(shared[2]).toBe(shared[0]);
    for (const [at, pieces] of frames.entries()) {
      const [read] = decodeMessages(Buffer.concat(pieces));
      expect(read?.to).toBe(`n${at + 2}`);
      for (const [which, data] of dataOf(read).entries()) {
        expect(Buffer.compare(data, entries[which]?.data ?? noBytes)).toBe(0);
      }
    }
  });

  test("a frame of its own memory is read without a copy; one in a larger chunk leaves the chunk alone", () => {
    const frame = encodeMessages([everyKind[1] as Message]);
    const own = new Uint8Array(frame);
    const [kept] = decodeMessages(own);
    expect(dataOf(kept)[0]?.buffer).toBe(own.buffer);

    const chunk = Buffer.alloc(64 * 1024);
    chunk.set(frame, 1000);
    const [copied] = decodeMessages(chunk.subarray(1000, 1000 + frame.byteLength));
    // What becomes of the chunk afterwards is not seen in the log, and the log does not hold 64 KiB for it.
    chunk.fill(0xee);
    expect(copied).toEqual(everyKind[1]);
    for (const data of dataOf(copied)) {
      expect(data.buffer).not.toBe(chunk.buffer);
      expect(data.buffer.byteLength).toBeLessThan(frame.byteLength);
    }
  });

  test("what the sender does to its bytes afterwards does not change a frame", () => {
    const data = new Uint8Array([1, 2, 3]);
    const entries: readonly Entry[] = [{ index: 1, term: 1, kind: "normal", data }];
    const frame = encodeMessages([
      { ...envelope, kind: "append", prevIndex: 0, prevTerm: 0, entries, commit: 0 },
    ]);
    data.fill(9);
    const again = encodeMessages(everyKind);
    expect(dataOf(decodeMessages(frame)[0])[0]).toEqual(new Uint8Array([1, 2, 3]));
    expect(decodeMessages(again)).toEqual(everyKind);
  });

  test("fields of a newer version behind the known ones are skipped", () => {
    const frame = Buffer.from(encodeMessages([everyKind[11] as Message]));
    // type, "n1", "n2", count, kind: then the length of timeout-now, which holds its term.
    const lengthAt = 1 + 3 + 3 + 2 + 1;
    expect(frame.readUInt32BE(lengthAt)).toBe(8);
    const newer = Buffer.concat([frame, Buffer.from([1, 2, 3])]);
    newer.writeUInt32BE(8 + 3, lengthAt);
    expect(decodeMessages(newer)).toEqual([everyKind[11]]);
  });

  test.each([
    ["nothing", new Uint8Array(0), "frame type"],
    ["another frame", Buffer.from([9]), "frame type 9"],
    [
      "an unknown kind",
      patched(everyKind[11], 9, 200),
      "message kind 200 is unknown to this version",
    ],
    ["a term above 2^53", patched(everyKind[11], 14, 0x7f), "term is above 2^53-1"],
    ["a cut field", encodeMessages([everyKind[2] as Message]).slice(0, -1), "message says"],
    ["a missing field", shortened(everyKind[13] as Message, 8), "its readId is missing or cut off"],
    ["a nameless sender", Buffer.from([2, 0, 1, 65, 0, 0]), "sender has 0 characters"],
    [
      "bytes behind the end",
      Buffer.concat([encodeMessages(everyKind), Buffer.from([0])]),
      "1 byte",
    ],
    [
      "more messages than a frame has",
      Buffer.from([2, 1, 65, 1, 66, 0xff, 0xff]),
      `65535 messages`,
    ],
  ])("%s is refused", (_name, bytes, why) => {
    expect(raftFrameMessagesMax).toBeLessThan(65_535);
    expect(errorOf(() => decodeMessages(bytes))).toContain(why);
  });

  test("a membership that cannot be is refused", () => {
    const odd: Membership = { ...membership, learners: ["n2"] };
    const frame = encodeMessages([
      {
        ...envelope,
        kind: "snapshot",
        snapshot: { index: 9, term: 6, membership: odd, data: new Uint8Array(0) },
      },
    ]);
    expect(errorOf(() => decodeMessages(frame))).toContain("learner n2 has no vote");
  });

  test("entries that would stop the core are refused", () => {
    const append = (entries: readonly Entry[], prevIndex: number, prevTerm: number, term: number) =>
      encodeMessages([
        { ...envelope, kind: "append", term, prevIndex, prevTerm, entries, commit: 0 },
      ]);
    const refused = (bytes: Uint8Array) => errorOf(() => decodeMessages(bytes));
    expect(refused(append(run(5, 6), 5, 2, 7))).toContain("do not follow entry 5");
    expect(refused(append(run(5, 6), 4, 4, 7))).toContain("terms go backwards");
    expect(refused(append(run(5, 6), 4, 2, 2))).toContain("beyond the sender's");
    expect(refused(append([{ ...entry(5), term: 4 }, entry(6)], 4, 2, 7))).toContain("backwards");
  });
});

describe("encodeLinkFrame() and decodeLinkFrame()", () => {
  test("every kind comes back as it was", () => {
    for (const frame of everyLinkFrame) {
      expect(decodeLinkFrame(encodeLinkFrame(frame))).toEqual(frame);
    }
    expect(decodeLinkFrame(encodeMessages(everyKind))).toBeNull();
  });

  test("bytes of a newer version behind the known fields are skipped", () => {
    for (const frame of everyLinkFrame) {
      const newer = Buffer.concat([encodeLinkFrame(frame), Buffer.from("newer")]);
      expect(decodeLinkFrame(newer)).toEqual(frame);
    }
  });

  test("a greeting of the first version, which was a bare name, is refused", () => {
    const error = errorOf(() => decodeLinkFrame(new TextEncoder().encode("abcdefghij")));
    expect(error).toContain("unknown to this version");
  });

  test("a snapshot or a piece beyond the limit is refused before memory is given", () => {
    const [, offer, chunk] = everyLinkFrame as [LinkFrame, LinkFrame, LinkFrame];
    const large = encodeLinkFrame({ ...offer, bytes: raftSnapshotBytesMax + 1 } as LinkFrame);
    expect(errorOf(() => decodeLinkFrame(large))).toContain("the largest is");
    const piece = encodeLinkFrame({ ...chunk, data: Buffer.alloc(300 * 1024) } as LinkFrame);
    expect(errorOf(() => decodeLinkFrame(piece))).toContain("a piece of");
  });
});

describe("damaged frames", () => {
  // Method: bits flipped, bytes set to extremes, cut and doubled; 20,000 each. Anything but ShoalError("invalid") fails.
  const frames = [
    ...everyKind.map((message) => encodeMessages([message])),
    encodeMessages(everyKind),
    ...everyLinkFrame.map(encodeLinkFrame),
  ];

  test.each([1, 2, 3])("seed %i: none throws anything but the one error", (seed) => {
    const random = seededRandom(seed);
    let read = 0;
    let refused = 0;
    for (let round = 0; round < 20_000; round += 1) {
      const original = frames[random.below(frames.length)] as Uint8Array;
      const bytes = damaged(original, random.below);
      for (const decode of [decodeMessages, decodeLinkFrame]) {
        try {
          decode(bytes);
          read += 1;
        } catch (error) {
          if (!(error instanceof ShoalError) || error.code !== "invalid") throw error;
          refused += 1;
        }
      }
    }
    expect(read + refused).toBe(40_000);
    // Some damage is harmless (a payload's byte), most is not: both must have been met.
    expect(read).toBeGreaterThan(1_000);
    expect(refused).toBeGreaterThan(10_000);
  });

  test("what reads without an error is a whole message", () => {
    const random = seededRandom(4);
    for (let round = 0; round < 20_000; round += 1) {
      const original = frames[random.below(everyKind.length)] as Uint8Array;
      const bytes = damaged(original, random.below);
      let messages: readonly Message[];
      try {
        messages = decodeMessages(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(ShoalError);
        continue;
      }
      if (messages.length === 0) continue;
      // It can be said again: no field is missing, none is out of range.
      expect(decodeMessages(encodeMessages(messages))).toEqual(messages);
    }
  });
});

function damaged(original: Uint8Array, below: (limit: number) => number): Buffer {
  let bytes = Buffer.from(original);
  for (let hits = 1 + below(4); hits > 0 && bytes.length > 0; hits -= 1) {
    const at = below(bytes.length);
    const before = bytes[at] as number;
    switch (below(6)) {
      case 0:
        bytes[at] = before ^ (1 << below(8));
        break;
      case 1:
        bytes[at] = below(256);
        break;
      case 2:
        bytes[at] = [0, 0xff, 0x7f, 0x80][below(4)] as number;
        break;
      case 3:
        bytes = bytes.subarray(0, at);
        break;
      case 4:
        bytes = Buffer.concat([bytes, bytes.subarray(at)]);
        break;
      default:
        bytes.fill(0xff, at, Math.min(at + 4, bytes.length));
    }
  }
  return bytes;
}

function entry(index: number, bytes = 3): Entry {
  return { index, term: 3, kind: "normal", data: new Uint8Array(bytes).fill(index) };
}

function run(first: number, last: number): readonly Entry[] {
  const kinds: readonly Entry["kind"][] = ["normal", "membership", "empty"];
  return Array.from({ length: last - first + 1 }, (_, at) => {
    const kind = kinds[at % 3] as Entry["kind"];
    return { ...entry(first + at, kind === "empty" ? 0 : at * 5), kind };
  });
}

function dataOf(message: Message | undefined): readonly Uint8Array[] {
  if (message?.kind !== "append") throw new Error("must be an append");
  return message.entries.map(({ data }) => data).filter((data) => data.byteLength > 0);
}

function patched(message: Message | undefined, at: number, value: number): Uint8Array {
  const bytes = encodeMessages([message as Message]);
  bytes[at] = value;
  return bytes;
}

/** The message with its last `bytes` left out, and a length that says so. */
function shortened(message: Message, bytes: number): Uint8Array {
  const frame = Buffer.from(encodeMessages([message])).subarray(0, -bytes);
  frame.writeUInt32BE(frame.readUInt32BE(10) - bytes, 10);
  return frame;
}

function errorOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(ShoalError);
    return (error as ShoalError).message;
  }
  throw new Error("must be refused");
}
