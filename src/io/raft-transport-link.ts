/**
 * One greeted connection to another manager. Votes, heartbeats and answers go at once; appends and proposals wait in a
 * bounded queue while the socket is slow. A connection that hears nothing is ended.
 */
import type { RawData, WebSocket } from "ws";
import { failure, messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Message, PeerId } from "../raft/types.ts";
import { raftFrameBytesMax, raftFrameMessagesMax } from "../wire/limits.ts";
import { decodeMessages, type EntryBlocks, encodeFrame, frameTypes } from "../wire/raft-frames.ts";
import { decodeLinkFrame, encodeLinkPieces, type LinkFrame } from "../wire/raft-link.ts";
import type { Greeted } from "./raft-transport-greeting.ts";
import type { RaftTransportLimits } from "./raft-transport-limits.ts";
import { innerSocket, wholeFrame, wholeFrameBytesMax } from "./ws-frame.ts";

export interface LinkEvents {
  message(message: Message): void;
  frame(frame: LinkFrame): void;
  /** Once. `replaced`: the peer lives, and keeps another connection. */
  closed(replaced: boolean): void;
}

/** Close code of the one of two connections that is not kept. */
const replacedCode = 4001;

export class RaftLink {
  readonly peer: PeerId;
  readonly incarnation: string;
  readonly version: number;
  /** Which of the two opened it. */
  readonly dialer: PeerId;
  readonly openedAt: number = performance.now();
  readonly #socket: WebSocket;
  readonly #limits: RaftTransportLimits;
  readonly #log: Log;
  readonly #queue: { readonly pieces: readonly Uint8Array[]; readonly bytes: number }[] = [];
  #queuedBytes = 0;
  #dropped = 0;
  #ignored = false;
  /** Something came since the last look. */
  #heard = false;

  constructor(
    socket: WebSocket,
    greeted: Greeted,
    dialer: PeerId,
    limits: RaftTransportLimits,
    log: Log,
    events: LinkEvents,
  ) {
    this.peer = greeted.peer;
    this.incarnation = greeted.incarnation;
    this.version = greeted.version;
    this.dialer = dialer;
    this.#socket = socket;
    this.#limits = limits;
    this.#log = log;
    const forgetPings = this.#watch();
    socket.on("message", (data, isBinary) => this.#take(data, isBinary, events));
    socket.once("close", (code) => {
      forgetPings();
      this.#queue.length = 0;
      events.closed(code === replacedCode);
    });
  }

  /** For looking at who is at its other end. */
  get socket(): WebSocket {
    return this.#socket;
  }

  /** Bytes that were handed to the socket and are not passed on yet. */
  get buffered(): number {
    return this.#socket.bufferedAmount;
  }

  /** Sends what one Ready has for this peer, as one frame while the socket keeps up. What cannot go in time is dropped: Raft sends again. */
  send(messages: readonly Message[], blocks: EntryBlocks): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    if (this.#queue.length === 0 && this.buffered < this.#limits.socketBytesMax) {
      for (const frame of this.#frames(messages, blocks)) this.#write(frame);
      return;
    }
    const urgent = messages.filter((message) => !isBulk(message));
    if (this.buffered < this.#limits.socketControlBytesMax) {
      for (const frame of this.#frames(urgent, blocks)) this.#write(frame);
    } else this.#drop(urgent.length);
    const bulk = messages.filter(isBulk);
    if (this.#queuedBytes >= this.#limits.queueBytesMax) {
      this.#drop(bulk.length);
      return;
    }
    for (const frame of this.#frames(bulk, blocks)) this.#enqueue(frame);
  }

  /** Sends one frame about the connection or a snapshot, at once. */
  sendFrame(frame: LinkFrame): void {
    if (this.#socket.readyState === this.#socket.OPEN) this.#write(encodeLinkPieces(frame));
  }

  /** Gives way to another connection with the same life of the peer: what is under way still arrives. */
  replace(): void {
    this.#socket.close(replacedCode, "another connection is kept");
    const forceful = setTimeout(() => this.#socket.terminate(), this.#limits.greetingMsMax);
    this.#socket.once("close", () => clearTimeout(forceful));
  }

  /** Ends it; nothing that comes on it is heard any more. */
  terminate(): void {
    this.#ignored = true;
    this.#socket.terminate();
  }

  #take(data: RawData, isBinary: boolean, events: LinkEvents): void {
    this.#heard = true;
    if (this.#ignored) return;
    const bytes = data as Buffer;
    let messages: readonly Message[] | null = null;
    let frame: LinkFrame | null = null;
    try {
      if (!isBinary || bytes.length > raftFrameBytesMax) {
        throw failure("invalid", `a frame of ${bytes.length} bytes, binary: ${isBinary}`);
      }
      if (bytes[0] === frameTypes.messages) messages = decodeMessages(bytes);
      else frame = decodeLinkFrame(bytes);
    } catch (error) {
      this.#log.warn(
        { peer: this.peer, error: messageOf(error) },
        "raft connection closed: bad frame",
      );
      this.terminate();
      return;
    }
    if (frame !== null) events.frame(frame);
    for (const message of messages ?? []) events.message(message);
  }

  /** The frames of `messages`: one, or more when they are too many or too long for it. */
  #frames(messages: readonly Message[], blocks: EntryBlocks): readonly (readonly Uint8Array[])[] {
    if (messages.length === 0) return [];
    if (messages.length <= raftFrameMessagesMax) {
      const pieces = encodeFrame(messages, blocks);
      if (bytesOf(pieces) <= raftFrameBytesMax) return [pieces];
      if (messages.length === 1) {
        this.#log.error(
          { peer: this.peer, kind: messages[0]?.kind, bytes: bytesOf(pieces) },
          "raft message dropped: it is longer than any frame may be",
        );
        return [];
      }
    }
    const half = messages.length >>> 1;
    return [
      ...this.#frames(messages.slice(0, half), blocks),
      ...this.#frames(messages.slice(half), blocks),
    ];
  }

  #enqueue(pieces: readonly Uint8Array[]): void {
    const bytes = bytesOf(pieces);
    // One frame always fits: a queue that is shorter than it would never let it through.
    if (this.#queue.length > 0 && this.#queuedBytes + bytes > this.#limits.queueBytesMax) {
      this.#drop(1);
      return;
    }
    this.#queue.push({ pieces, bytes });
    this.#queuedBytes += bytes;
  }

  #drop(count: number): void {
    if (count === 0) return;
    if (this.#dropped === 0) {
      this.#log.debug({ peer: this.peer, buffered: this.buffered }, "raft peer is slow: dropping");
    }
    this.#dropped += count;
  }

  #write(pieces: readonly Uint8Array[]): void {
    const last = pieces.length - 1;
    const [first] = pieces;
    if (last === 0 && first !== undefined && first.byteLength <= wholeFrameBytesMax) {
      const inner = innerSocket(this.#socket);
      if (inner !== null) {
        // Between whole messages of ws: it has none half written, for nothing is compressed and pieces go in one turn.
        inner.write(wholeFrame(first, this.dialer !== this.peer), this.#written);
        return;
      }
    }
    for (const [at, piece] of pieces.entries()) {
      const options = { binary: true, fin: at === last };
      if (at === last) this.#socket.send(piece, options, this.#written);
      else this.#socket.send(piece, options);
    }
  }

  /** The socket passed something on: what waits may follow. */
  readonly #written = (): void => {
    while (this.#queue.length > 0 && this.buffered < this.#limits.socketBytesMax) {
      if (this.#socket.readyState !== this.#socket.OPEN) return;
      const next = this.#queue.shift();
      if (next === undefined) return;
      this.#queuedBytes -= next.bytes;
      if (this.#queue.length === 0) this.#dropped = 0;
      this.#write(next.pieces);
    }
  };

  /** Asks for a sign of life when nothing came for a while, and gives up after several times. Gives how to stop it. */
  #watch(): () => void {
    let bytesBefore = -1;
    let silent = 0;
    const pinger = setInterval(() => {
      // Part of a long frame counts, too; without the socket below, whole frames still do.
      const bytes = innerSocket(this.#socket)?.bytesRead ?? 0;
      if (this.#heard || bytes !== bytesBefore) silent = 0;
      else silent += 1;
      this.#heard = false;
      bytesBefore = bytes;
      // Counted in intervals, not in time: a process that was stopped itself finds one missed, not all.
      if (silent >= this.#limits.silentPingsMax) {
        const silentMs = silent * this.#limits.pingMs;
        this.#log.info({ peer: this.peer, silentMs }, "raft connection closed: the peer is silent");
        this.terminate();
      } else if (silent > 0) this.#socket.ping();
    }, this.#limits.pingMs);
    const heard = (): void => {
      this.#heard = true;
    };
    this.#socket.on("pong", heard);
    this.#socket.on("ping", heard);
    return () => clearInterval(pinger);
  }
}

/** What fills a connection; the rest is small and urgent. Appends stay in order among themselves: one that overtakes is refused. */
function isBulk(message: Message): boolean {
  return message.kind === "append" || message.kind === "propose";
}

function bytesOf(pieces: readonly Uint8Array[]): number {
  let bytes = 0;
  for (const piece of pieces) bytes += piece.byteLength;
  return bytes;
}
