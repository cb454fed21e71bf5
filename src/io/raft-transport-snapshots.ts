/**
 * Snapshots in pieces: offered, sent within a window that follows how quickly the peer acknowledges, gone on with after a
 * lost connection, checked as a whole before anybody sees them.
 */
import { crc32c } from "../lib/crc32c.ts";
import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Message, PeerId, Snapshot } from "../raft/types.ts";
import { raftSnapshotBytesMax } from "../wire/limits.ts";
import type { Chunk, Have, LinkFrame, Offer } from "../wire/raft-link.ts";
import type { RaftTransportLimits } from "./raft-transport-limits.ts";

export type SnapshotMessage = Extract<Message, { kind: "snapshot" }>;
/** The connection that frames go out on; the same object means the same connection. */
export interface SnapshotPort {
  sendFrame(frame: LinkFrame): void;
  readonly buffered: number;
}

interface Outgoing {
  message: SnapshotMessage;
  readonly transfer: number;
  checksum: number | null;
  port: SnapshotPort | null;
  /** The peer answered the offer made on `port`. */
  begun: boolean;
  acknowledged: number;
  sent: number;
  windowBytes: number;
  /** Pieces under way: where each ends, and when it left. */
  underWay: { readonly end: number; readonly atMs: number }[];
  readonly stall: NodeJS.Timeout;
}
/** Bytes whose checksum is taken in one turn of the event loop: about 5 ms. */
const checksumTurnBytes: number = 4 * 1024 * 1024;

/** Sends snapshots, one to each peer at a time; a newer one takes the place of an older. */
export class SnapshotSender {
  readonly #limits: RaftTransportLimits;
  readonly #log: Log;
  readonly #report: (peer: PeerId, ok: boolean) => void;
  readonly #checksums = new WeakMap<Snapshot, number>();
  readonly #outgoing = new Map<PeerId, Outgoing>();
  #transfers = 0;

  /** `report` is told how each snapshot ended, never from within a call of this object. */
  constructor(limits: RaftTransportLimits, log: Log, report: (peer: PeerId, ok: boolean) => void) {
    this.#limits = limits;
    this.#log = log;
    this.#report = report;
  }

  /** Sends `message` to its peer, over `port` or whatever connection comes in time. */
  start(message: SnapshotMessage, port: SnapshotPort | null): void {
    const peer = message.to;
    const before = this.#outgoing.get(peer);
    if (before?.message.snapshot === message.snapshot) {
      before.message = message;
      return;
    }
    if (before !== undefined) this.#drop(peer, before);
    this.#transfers += 1;
    const outgoing: Outgoing = {
      message,
      transfer: this.#transfers,
      checksum: this.#checksums.get(message.snapshot) ?? null,
      port,
      begun: false,
      acknowledged: 0,
      sent: 0,
      windowBytes: this.#limits.snapshotWindowBytesMin,
      underWay: [],
      stall: setTimeout(() => {
        this.#log.info({ peer, acknowledged: outgoing.acknowledged }, "raft snapshot stalled");
        this.#end(peer, outgoing, false);
      }, this.#limits.snapshotStallMsMax),
    };
    this.#outgoing.set(peer, outgoing);
    const bytes = message.snapshot.data.byteLength;
    if (bytes > raftSnapshotBytesMax) {
      this.#log.error({ peer, bytes, most: raftSnapshotBytesMax }, "raft snapshot is too large");
      this.#end(peer, outgoing, false);
    } else if (outgoing.checksum === null) this.#sum(peer, outgoing, 0, 0);
    else this.#offer(outgoing);
  }

  /** A connection to `peer` is there: goes on with what it has not got. */
  connected(peer: PeerId, port: SnapshotPort): void {
    const outgoing = this.#outgoing.get(peer);
    if (outgoing === undefined) return;
    outgoing.port = port;
    this.#offer(outgoing);
  }

  disconnected(peer: PeerId): void {
    const outgoing = this.#outgoing.get(peer);
    if (outgoing === undefined) return;
    outgoing.port = null;
    outgoing.begun = false;
  }

  /** The peer's answer, which came over `port`. */
  have(peer: PeerId, have: Have, port: SnapshotPort): void {
    const outgoing = this.#outgoing.get(peer);
    if (outgoing?.transfer !== have.transfer || outgoing.port !== port) return;
    const { byteLength } = outgoing.message.snapshot.data;
    const isFirst = !outgoing.begun;
    const most = isFirst ? byteLength : outgoing.sent;
    const isSane = have.bytes <= most && (isFirst || have.bytes >= outgoing.acknowledged);
    if (have.state === "refused" || !isSane) {
      this.#log.warn({ peer, bytes: have.bytes, state: have.state }, "raft snapshot refused");
      this.#end(peer, outgoing, false);
      return;
    }
    if (have.state === "whole") {
      this.#end(peer, outgoing, true);
      return;
    }
    if (isFirst) {
      outgoing.begun = true;
      outgoing.sent = have.bytes;
      outgoing.underWay = [];
    } else this.#measure(outgoing, have.bytes);
    // Only what moves counts: a peer that answers and takes nothing is given up too.
    if (have.bytes !== outgoing.acknowledged) outgoing.stall.refresh();
    outgoing.acknowledged = have.bytes;
    this.#pump(outgoing, port);
  }

  /** `peer` is no member any more. */
  forget(peer: PeerId): void {
    const outgoing = this.#outgoing.get(peer);
    if (outgoing !== undefined) this.#end(peer, outgoing, false);
  }

  close(): void {
    for (const [peer, outgoing] of this.#outgoing) this.#drop(peer, outgoing);
  }

  /** Takes the checksum a part a turn: heartbeats go on meanwhile. */
  #sum(peer: PeerId, outgoing: Outgoing, from: number, seed: number): void {
    if (this.#outgoing.get(peer) !== outgoing) return;
    const { snapshot } = outgoing.message;
    const to = Math.min(from + checksumTurnBytes, snapshot.data.byteLength);
    const checksum = crc32c(snapshot.data.subarray(from, to), seed);
    if (to < snapshot.data.byteLength) {
      setImmediate(() => this.#sum(peer, outgoing, to, checksum));
      return;
    }
    this.#checksums.set(snapshot, checksum);
    outgoing.checksum = checksum;
    this.#offer(outgoing);
  }

  #offer(outgoing: Outgoing): void {
    outgoing.begun = false;
    const { message, transfer, checksum, port } = outgoing;
    if (checksum === null || port === null) return;
    const { index, term, membership, data } = message.snapshot;
    port.sendFrame({
      kind: "offer",
      transfer,
      term: message.term,
      index,
      snapshotTerm: term,
      bytes: data.byteLength,
      checksum,
      membership,
    });
  }

  /** Widens the window while acknowledgements come quickly, narrows it when they do not: what a heartbeat waits for stays short on any link. */
  #measure(outgoing: Outgoing, acknowledged: number): void {
    const { snapshotAckMsGoal, snapshotWindowBytesMin, snapshotWindowBytesMax } = this.#limits;
    const now = performance.now();
    while (outgoing.underWay.length > 0) {
      const [oldest] = outgoing.underWay;
      if (oldest === undefined || oldest.end > acknowledged) break;
      outgoing.underWay.shift();
      const isQuick = now - oldest.atMs <= snapshotAckMsGoal;
      const next = isQuick ? outgoing.windowBytes * 2 : outgoing.windowBytes / 2;
      outgoing.windowBytes = Math.max(
        snapshotWindowBytesMin,
        Math.min(Math.floor(next), snapshotWindowBytesMax),
      );
    }
  }

  #pump(outgoing: Outgoing, port: SnapshotPort): void {
    const { data } = outgoing.message.snapshot;
    while (outgoing.sent < data.byteLength) {
      const underWay = outgoing.sent - outgoing.acknowledged;
      const room = outgoing.windowBytes - underWay;
      if (room <= 0) return;
      // Behind other messages only one piece waits; its acknowledgement brings the next.
      if (underWay > 0 && port.buffered > this.#limits.snapshotChunkBytesMax) return;
      const length = Math.min(
        room,
        this.#limits.snapshotChunkBytesMax,
        data.byteLength - outgoing.sent,
      );
      const offset = outgoing.sent;
      outgoing.sent += length;
      outgoing.underWay.push({ end: outgoing.sent, atMs: performance.now() });
      const piece = data.subarray(offset, outgoing.sent);
      port.sendFrame({ kind: "chunk", transfer: outgoing.transfer, offset, data: piece });
    }
  }

  #end(peer: PeerId, outgoing: Outgoing, ok: boolean): void {
    if (this.#outgoing.get(peer) !== outgoing) return;
    this.#drop(peer, outgoing);
    queueMicrotask(() => this.#report(peer, ok));
  }

  #drop(peer: PeerId, outgoing: Outgoing): void {
    clearTimeout(outgoing.stall);
    this.#outgoing.delete(peer);
  }
}

interface Part {
  offer: Offer;
  from: PeerId;
  port: SnapshotPort;
  readonly bytes: Uint8Array;
  received: number;
  checksum: number;
  readonly forget: NodeJS.Timeout;
}

/** Takes snapshots, one at a time; a part of one is kept for a sender that comes back, or another that has the same bytes. */
export class SnapshotReceiver {
  readonly #self: PeerId;
  readonly #limits: RaftTransportLimits;
  readonly #log: Log;
  readonly #deliver: (message: SnapshotMessage) => void;
  #part: Part | null = null;
  /** The last one that was delivered: its sender may not have heard so. */
  #whole: { readonly incarnation: string; readonly transfer: number } | null = null;

  constructor(
    self: PeerId,
    limits: RaftTransportLimits,
    log: Log,
    deliver: (message: SnapshotMessage) => void,
  ) {
    this.#self = self;
    this.#limits = limits;
    this.#log = log;
    this.#deliver = deliver;
  }

  /** Bytes held of an unfinished snapshot. */
  get heldBytes(): number {
    return this.#part?.bytes.byteLength ?? 0;
  }

  offer(from: PeerId, incarnation: string, offer: Offer, port: SnapshotPort): void {
    const whole = this.#whole;
    if (whole?.incarnation === incarnation && whole.transfer === offer.transfer) {
      answer(port, offer.transfer, offer.bytes, "whole");
      return;
    }
    const part = this.#part;
    if (part !== null && isSameContent(part.offer, offer)) {
      part.offer = offer;
      part.from = from;
      part.port = port;
    } else if (part !== null && part.offer.term > offer.term) {
      // An older leader does not push out what the newer one sends.
      answer(port, offer.transfer, 0, "refused");
      return;
    } else if (!this.#begin(from, offer, port)) {
      answer(port, offer.transfer, 0, "refused");
      return;
    }
    if (!this.#finish(incarnation)) answer(port, offer.transfer, this.#part?.received ?? 0, "part");
  }

  chunk(incarnation: string, chunk: Chunk, port: SnapshotPort): void {
    const part = this.#part;
    if (part?.port !== port || part.offer.transfer !== chunk.transfer) {
      // Of an offer that another has replaced.
      answer(port, chunk.transfer, 0, "refused");
      return;
    }
    const end = chunk.offset + chunk.data.byteLength;
    if (chunk.offset !== part.received || end > part.offer.bytes) {
      this.drop();
      answer(port, chunk.transfer, 0, "refused");
      return;
    }
    part.bytes.set(chunk.data, chunk.offset);
    part.checksum = crc32c(chunk.data, part.checksum);
    part.received = end;
    part.forget.refresh();
    if (!this.#finish(incarnation)) answer(port, chunk.transfer, part.received, "part");
  }

  /** Forgets an unfinished one. */
  drop(): void {
    if (this.#part !== null) clearTimeout(this.#part.forget);
    this.#part = null;
  }

  #begin(from: PeerId, offer: Offer, port: SnapshotPort): boolean {
    this.drop();
    let bytes: Uint8Array;
    try {
      // The system gives memory as it is written: an offer alone costs none.
      bytes = new Uint8Array(offer.bytes);
    } catch (error) {
      const text = messageOf(error);
      this.#log.error({ from, bytes: offer.bytes, error: text }, "no memory for a raft snapshot");
      return false;
    }
    const forget = setTimeout(() => this.drop(), this.#limits.snapshotPartMsMax);
    this.#part = { offer, from, port, bytes, received: 0, checksum: 0, forget };
    return true;
  }

  /** Delivers it once it is whole. False while it is not. */
  #finish(incarnation: string): boolean {
    const part = this.#part;
    if (part === null || part.received < part.offer.bytes) return false;
    this.drop();
    const { offer, from, port, bytes } = part;
    if (part.checksum !== offer.checksum) {
      this.#log.warn({ from, index: offer.index }, "raft snapshot refused: its checksum is wrong");
      answer(port, offer.transfer, 0, "refused");
      return true;
    }
    this.#whole = { incarnation, transfer: offer.transfer };
    const { index, snapshotTerm, membership } = offer;
    this.#deliver({
      kind: "snapshot",
      from,
      to: this.#self,
      term: offer.term,
      snapshot: { index, term: snapshotTerm, membership, data: bytes },
    });
    answer(port, offer.transfer, offer.bytes, "whole");
    return true;
  }
}

function isSameContent(some: Offer, other: Offer): boolean {
  return (
    some.index === other.index &&
    some.snapshotTerm === other.snapshotTerm &&
    some.bytes === other.bytes &&
    some.checksum === other.checksum
  );
}

function answer(port: SnapshotPort, transfer: number, bytes: number, state: Have["state"]): void {
  port.sendFrame({ kind: "have", transfer, bytes, state });
}
