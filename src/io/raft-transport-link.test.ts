/** Goal: what is urgent never waits behind what is long, and what waits is bounded. How: a socket whose buffer the test fills and empties. */
import { EventEmitter } from "node:events";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { WebSocket } from "ws";
import { silentLog } from "../lib/log.ts";
import { append, entry, heartbeat } from "../raft/testing/transport-suite.ts";
import type { Message } from "../raft/types.ts";
import { decodeMessages, EntryBlocks, encodeMessages } from "../wire/raft-frames.ts";
import { raftTransportLimits } from "./raft-transport-limits.ts";
import { RaftLink } from "./raft-transport-link.ts";

/** As much of a websocket as a link uses. */
class FakeSocket extends EventEmitter {
  readonly OPEN = 1;
  readyState = 1;
  bufferedAmount = 0;
  pings = 0;
  readonly frames: Buffer[] = [];
  #pieces: Uint8Array[] = [];
  readonly #waiting: (() => void)[] = [];

  send(piece: Uint8Array, options: { readonly fin: boolean }, sent?: () => void): void {
    this.#pieces.push(piece);
    this.bufferedAmount += piece.byteLength;
    if (sent !== undefined) this.#waiting.push(sent);
    if (!options.fin) return;
    this.frames.push(Buffer.concat(this.#pieces));
    this.#pieces = [];
  }

  /** The peer reads everything. */
  drain(): void {
    this.bufferedAmount = 0;
    for (const sent of this.#waiting.splice(0)) sent();
  }

  ping(): void {
    this.pings += 1;
  }

  close(code: number): void {
    this.emit("close", code);
  }

  terminate(): void {
    this.readyState = 3;
    this.emit("close", 1006);
  }
}

const limits = {
  ...raftTransportLimits,
  socketBytesMax: 1_000,
  socketControlBytesMax: 2_000,
  queueBytesMax: 5_000,
};

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
});
afterEach(() => {
  vi.useRealTimers();
});

function makeLink() {
  const socket = new FakeSocket();
  const heard: Message[] = [];
  const closed: boolean[] = [];
  const link = new RaftLink(
    socket as unknown as WebSocket,
    { peer: "b", incarnation: "i", version: 2 },
    "a",
    limits,
    silentLog,
    {
      message: (message) => heard.push(message),
      frame: () => {},
      closed: (replaced) => closed.push(replaced),
    },
  );
  /** What went out since it was asked last: an append by its last index, a heartbeat by its commit, negative. */
  const out = (): number[][] =>
    socket.frames.splice(0).map((frame) =>
      decodeMessages(frame).map((message) => {
        if (message.kind === "append") return message.entries.at(-1)?.index ?? message.prevIndex;
        return message.kind === "heartbeat" ? -message.commit : 0;
      }),
    );
  const send = (...messages: Message[]) => link.send(messages, new EntryBlocks());
  return { socket, link, heard, closed, out, send };
}

const long = (index: number, bytes = 1_500) => append("a", "b", [entry(index, bytes)]);
const urgent = (commit: number) => heartbeat("a", "b", commit);

test("all of one send() is one frame, in order, while the socket keeps up", () => {
  const { out, send } = makeLink();
  send(long(1), urgent(1), long(2));
  expect(out()).toEqual([[1, -1, 2]]);
});

test("heartbeats overtake appends that wait for a slow socket; appends stay in order", () => {
  const { socket, out, send } = makeLink();
  send(long(1));
  send(long(2), urgent(1));
  send(long(3), urgent(2));
  expect(out()).toEqual([[1], [-1], [-2]]);
  socket.drain();
  expect(out()).toEqual([[2]]);
  // An append without entries waits too: before those it follows it would be refused.
  send(append("a", "b", []), urgent(3));
  expect(out()).toEqual([[-3]]);
  socket.drain();
  expect(out()).toEqual([[3]]);
  socket.drain();
  expect(out()).toEqual([[0]]);
});

test("appends beyond the queue's limit are dropped, and come again once there is room", () => {
  const { socket, out, send } = makeLink();
  send(long(1));
  for (let index = 2; index <= 20; index += 1) send(long(index));
  const got: number[] = [];
  for (let round = 0; round < 20; round += 1) {
    got.push(...out().flat());
    socket.drain();
  }
  // 1 went at once; three of a good 1,500 bytes fit 5,000.
  expect(got).toEqual([1, 2, 3, 4]);
  send(long(21));
  expect(out()).toEqual([[21]]);
});

test("an append longer than the whole queue still gets through", () => {
  const { socket, out, send } = makeLink();
  send(long(1));
  send(long(2, 50_000));
  socket.drain();
  expect(out()).toEqual([[1], [2]]);
});

test("heartbeats are dropped only above the second limit", () => {
  const { socket, out, send } = makeLink();
  socket.bufferedAmount = limits.socketControlBytesMax - 1;
  send(urgent(1));
  expect(out()).toEqual([[-1]]);
  send(urgent(2));
  expect(out()).toEqual([]);
  socket.drain();
  send(urgent(3));
  expect(out()).toEqual([[-3]]);
});

test("more messages than a frame has go in several", () => {
  const { out, send } = makeLink();
  send(...Array.from({ length: 20_000 }, (_, at) => urgent(at)));
  const frames = out();
  expect(frames.length).toBeGreaterThan(1);
  expect(frames.flat().length).toBe(20_000);
});

test("a silent connection is asked, and ended after the named number of asks", () => {
  const { socket, closed } = makeLink();
  vi.advanceTimersByTime(limits.pingMs * 2);
  expect(socket.pings).toBeGreaterThan(0);
  socket.emit("pong");
  vi.advanceTimersByTime(limits.pingMs * limits.silentPingsMax);
  expect(closed).toEqual([]);
  vi.advanceTimersByTime(limits.pingMs);
  expect(closed).toEqual([false]);
});

test("a busy connection is never asked", () => {
  const { socket, heard, closed } = makeLink();
  for (let round = 0; round < 20; round += 1) {
    socket.emit("message", encodeMessages([heartbeat("b", "a", round)]), true);
    vi.advanceTimersByTime(limits.pingMs);
  }
  expect(heard.length).toBe(20);
  // The first interval knows no earlier count of bytes.
  expect(socket.pings).toBe(0);
  expect(closed).toEqual([]);
});

test("after terminate() nothing is heard any more", () => {
  const { socket, link, heard, closed } = makeLink();
  link.terminate();
  socket.emit("message", encodeMessages([heartbeat("b", "a", 1)]), true);
  expect(heard).toEqual([]);
  expect(closed).toEqual([false]);
});
