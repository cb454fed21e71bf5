/** Goal: a snapshot fills a quick link and spares a slow one, and goes on wherever it stopped. How: a sender and a receiver joined by hand, with time that the test moves. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { silentLog } from "../lib/log.ts";
import {
  expectSameSnapshot,
  snapshotMessage,
  snapshotOf,
} from "../raft/testing/transport-suite.ts";
import type { Message } from "../raft/types.ts";
import type { LinkFrame } from "../wire/raft-link.ts";
import { raftTransportLimits as limits } from "./raft-transport-limits.ts";
import {
  type SnapshotMessage,
  SnapshotReceiver,
  SnapshotSender,
} from "./raft-transport-snapshots.ts";

beforeEach(() => {
  vi.useFakeTimers({
    toFake: ["performance", "setTimeout", "clearTimeout", "setImmediate", "queueMicrotask"],
  });
});
afterEach(() => {
  vi.useRealTimers();
});

const kib = 1024;
const message = (index: number, bytes: number, term = 7) =>
  ({ ...snapshotMessage("a", "b", snapshotOf(index, bytes)), term }) as SnapshotMessage;

function makeEnds() {
  const reports: boolean[] = [];
  const delivered: Message[] = [];
  const sender = new SnapshotSender(limits, silentLog, (_peer, ok) => reports.push(ok));
  const receiver = new SnapshotReceiver("b", limits, silentLog, (got) => delivered.push(got));
  return { reports, delivered, sender, receiver };
}

/** One connection: what each end said and the other has not got yet. */
class Line {
  readonly toReceiver: LinkFrame[] = [];
  readonly toSender: LinkFrame[] = [];
  buffered = 0;
  readonly sending = {
    sendFrame: (frame: LinkFrame) => this.toReceiver.push(frame),
    line: this as Line,
    get buffered() {
      return this.line.buffered;
    },
  };
  readonly receiving = { sendFrame: (frame: LinkFrame) => this.toSender.push(frame), buffered: 0 };
  carried = 0;

  /** Hands over one frame each way; false when there was none. */
  step(ends: ReturnType<typeof makeEnds>, incarnation = "i"): boolean {
    const there = this.toReceiver.shift();
    if (there?.kind === "offer") ends.receiver.offer("a", incarnation, there, this.receiving);
    if (there?.kind === "chunk") {
      this.carried += there.data.byteLength;
      ends.receiver.chunk(incarnation, there, this.receiving);
    }
    const back = this.toSender.shift();
    if (back?.kind === "have") ends.sender.have("b", back, this.sending);
    return there !== undefined || back !== undefined;
  }

  underWay(): number {
    let bytes = 0;
    for (const frame of this.toReceiver) if (frame.kind === "chunk") bytes += frame.data.byteLength;
    return bytes;
  }
}

/** Frames take `ms` each way, all of those that are under way together. */
function run(ends: ReturnType<typeof makeEnds>, line: Line, ms: number): number {
  let most = 0;
  for (let turn = 0; turn < 10_000; turn += 1) {
    vi.advanceTimersByTime(ms);
    const frames = line.toReceiver.length + line.toSender.length;
    if (frames === 0) break;
    most = Math.max(most, line.underWay());
    for (let at = 0; at < frames; at += 1) line.step(ends);
  }
  vi.advanceTimersByTime(0);
  return most;
}

test("the window opens on a quick link up to its limit", () => {
  const ends = makeEnds();
  const line = new Line();
  const sent = message(9, 64 * 1024 * kib);
  ends.sender.start(sent, line.sending);
  // The checksum takes some turns of the event loop.
  while (line.toReceiver.length === 0) vi.advanceTimersByTime(1);
  const most = run(ends, line, 1);
  expect(ends.reports).toEqual([true]);
  expectSameSnapshot(ends.delivered[0], sent);
  expect(line.carried).toBe(64 * 1024 * kib);
  expect(most).toBeGreaterThan(1024 * kib);
  expect(most).toBeLessThanOrEqual(limits.snapshotWindowBytesMax);
});

test("the window stays at its least on a slow link", () => {
  const ends = makeEnds();
  const line = new Line();
  ends.sender.start(message(9, 512 * kib), line.sending);
  const most = run(ends, line, limits.snapshotAckMsGoal + 1);
  expect(ends.reports).toEqual([true]);
  expect(most).toBe(limits.snapshotWindowBytesMin);
});

test("only one piece waits behind other messages", () => {
  const ends = makeEnds();
  const line = new Line();
  ends.sender.start(message(9, 4 * 1024 * kib), line.sending);
  line.buffered = 10 * 1024 * kib;
  let most = 0;
  while (line.step(ends)) most = Math.max(most, line.underWay());
  vi.advanceTimersByTime(0);
  expect(ends.reports).toEqual([true]);
  expect(most).toBeLessThanOrEqual(limits.snapshotChunkBytesMax);
});

test("after each lost connection it goes on where it was; word that was lost is said again", () => {
  const ends = makeEnds();
  const bytes = 2 * 1024 * kib;
  let line = new Line();
  let carried = 0;
  ends.sender.start(message(9, bytes), line.sending);
  for (let steps = 3; ends.reports.length === 0; steps += 1) {
    expect(steps).toBeLessThan(200);
    for (let step = 0; step < steps; step += 1) line.step(ends);
    carried += line.carried;
    vi.advanceTimersByTime(1);
    ends.sender.disconnected("b");
    line = new Line();
    ends.sender.connected("b", line.sending);
    vi.advanceTimersByTime(0);
  }
  expect(ends.reports).toEqual([true]);
  expect(ends.delivered.length).toBe(1);
  expect(carried).toBe(bytes);
});

test("word that it is whole, lost with its connection, is given again without another delivery", () => {
  const ends = makeEnds();
  const line = new Line();
  ends.sender.start(message(9, 10 * kib), line.sending);
  while (ends.delivered.length === 0) line.step(ends);
  line.toSender.length = 0;
  ends.sender.disconnected("b");
  const next = new Line();
  ends.sender.connected("b", next.sending);
  run(ends, next, 1);
  expect(ends.reports).toEqual([true]);
  expect(ends.delivered.length).toBe(1);
  // Asked for anew, it is sent anew: the peer may have lost it before it was durable.
  ends.sender.start(message(9, 10 * kib), next.sending);
  run(ends, next, 1);
  expect(ends.delivered.length).toBe(2);
});

test("the same snapshot asked for twice is sent once", () => {
  const ends = makeEnds();
  const line = new Line();
  const sent = message(9, 100 * kib);
  ends.sender.start(sent, line.sending);
  ends.sender.start({ ...sent, term: 8 }, line.sending);
  run(ends, line, 1);
  expect(ends.reports).toEqual([true]);
  expect(ends.delivered.length).toBe(1);
});

test("an older leader does not push out a newer one's; a newer one does", () => {
  const ends = makeEnds();
  const [newer, older, newest] = [new Line(), new Line(), new Line()];
  const membership = snapshotOf(1, 0).membership;
  const offer = (transfer: number, term: number, index: number) =>
    ({
      kind: "offer",
      transfer,
      term,
      index,
      snapshotTerm: 3,
      bytes: 100,
      checksum: 1,
      membership,
    }) as const;
  ends.receiver.offer("a", "i", offer(1, 8, 20), newer.receiving);
  ends.receiver.offer("c", "j", offer(1, 7, 19), older.receiving);
  ends.receiver.offer("d", "k", offer(1, 9, 21), newest.receiving);
  expect(newer.toSender).toMatchObject([{ state: "part", bytes: 0 }]);
  expect(older.toSender).toMatchObject([{ state: "refused" }]);
  expect(newest.toSender).toMatchObject([{ state: "part", bytes: 0 }]);
  expect(ends.receiver.heldBytes).toBe(100);
  vi.advanceTimersByTime(limits.snapshotPartMsMax);
  expect(ends.receiver.heldBytes).toBe(0);
});

test("one that no connection takes is given up after its time", () => {
  const ends = makeEnds();
  ends.sender.start(message(9, 100), null);
  vi.advanceTimersByTime(limits.snapshotStallMsMax - 1);
  expect(ends.reports).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(ends.reports).toEqual([false]);
});

test("a peer that answers and takes nothing is given up too", () => {
  const ends = makeEnds();
  const line = new Line();
  ends.sender.start(message(9, 100 * kib), line.sending);
  for (let waited = 0; waited <= limits.snapshotStallMsMax; waited += 100) {
    ends.sender.have("b", { kind: "have", transfer: 1, bytes: 0, state: "part" }, line.sending);
    vi.advanceTimersByTime(100);
  }
  expect(ends.reports).toEqual([false]);
});

test("answers that cannot be are the end of it", () => {
  const ends = makeEnds();
  const line = new Line();
  ends.sender.start(message(9, 100 * kib), line.sending);
  vi.advanceTimersByTime(0);
  ends.sender.have(
    "b",
    { kind: "have", transfer: 1, bytes: 101 * kib, state: "part" },
    line.sending,
  );
  vi.advanceTimersByTime(0);
  expect(ends.reports).toEqual([false]);
});
