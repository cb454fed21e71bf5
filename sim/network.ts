/** A simulated network between named hosts: loss, delay, duplicates, clogs, cuts one-way or both; datagrams for Raft, streams for sessions. */
import { failure } from "../src/lib/errors.ts";
import type { Message, PeerId, Transport } from "../src/raft/types.ts";
import type { Channel } from "../src/wire/channel.ts";
import { decode, encode } from "../src/wire/codec.ts";
import { decodeMessages, encodeMessages } from "../src/wire/raft-frames.ts";
import type { SimRandom } from "./random.ts";
import type { Process, World } from "./world.ts";

export interface Weather {
  /** Of a thousand datagrams. */
  lossPerMille: number;
  duplicatePerMille: number;
  delayMsMax: number;
  /** Raft's messages go through the wire's encoding too: slower, and nothing is shared by accident. */
  encoded: boolean;
}
/** How long a stream over a cut lives at most before an end sees it closed, as our websockets' pings make it. */
const silentStreamMs = 4_000;
/** When the sender of a snapshot hears that it arrived, and when that it did not, as our transport tells it. */
const snapshotWordMs = 1;
const snapshotLostMs = 10_000;

interface Peer {
  readonly process: Process;
  readonly host: string;
  receive: ((message: Message) => void) | null;
  closed: ((peer: PeerId) => void) | null;
  snapshotSent: ((peer: PeerId, ok: boolean) => void) | null;
  /** The last snapshot sent to each peer, until it is told how that ended. */
  readonly snapshots: Map<PeerId, Message>;
}
interface End {
  readonly process: Process;
  readonly host: string;
  receive: ((message: never) => void) | null;
  waiting: unknown[];
  onClosed: ((reason: string) => void) | null;
  over: string | null;
  /** Nothing that is sent to this end arrives before this. */
  arrival: number;
}
interface Stream {
  readonly ends: readonly [End, End];
  /** Something was lost on it: it carries nothing any more. */
  broken: boolean;
}
type Accept = (channel: Channel<never, never>, from: string) => void;

export class SimNetwork {
  readonly #world: World;
  readonly #random: SimRandom;
  readonly weather: Weather;
  /** `a>b`: what a sends does not reach b. */
  readonly #cut = new Set<string>();
  /** `a>b`: what a sends reaches b at this time at the earliest. */
  readonly #clogged = new Map<string, number>();
  readonly #peers = new Map<PeerId, Peer>();
  readonly #listeners = new Map<string, { readonly process: Process; readonly accept: Accept }>();
  readonly #streams = new Set<Stream>();
  dropped = 0;
  delivered = 0;
  /** Told of each message that a peer sends. */
  onSend: (message: Message) => void = () => {};

  constructor(world: World, random: SimRandom, weather: Weather) {
    this.#world = world;
    this.#random = random;
    this.weather = weather;
  }

  /** From now on nothing that `from` sends reaches `to`. */
  cut(from: string, to: string): void {
    if (from === to || this.#isCut(from, to)) return;
    this.#cut.add(`${from}>${to}`);
    for (const stream of this.#streams) {
      const [a, b] = stream.ends;
      if ((a.host === from && b.host === to) || (a.host === to && b.host === from)) {
        this.#world.schedule(this.#world.after(silentStreamMs / 2), "stream:silent", () => {
          if (this.#isCut(from, to)) this.#lose(stream);
        });
      }
    }
  }

  /** Ends one cut. */
  mend(from: string, to: string): void {
    this.#cut.delete(`${from}>${to}`);
  }

  /** Ends all cuts and clogs. */
  heal(): void {
    this.#cut.clear();
    this.#clogged.clear();
  }

  /** What `from` sends to `to` waits until `until`, and then comes all at once. */
  clog(from: string, to: string, until: number): void {
    this.#clogged.set(`${from}>${to}`, until);
  }

  #isCut(a: string, b: string): boolean {
    return this.#cut.has(`${a}>${b}`);
  }

  #arrival(from: string, to: string): number {
    const delayed = this.#world.after(this.#random.between(0, this.weather.delayMsMax));
    return Math.max(delayed, this.#clogged.get(`${from}>${to}`) ?? 0);
  }

  /** `process` is dead. Where its machine is still up, the kernel tells everybody whom it was connected to. */
  crash(process: Process, machineIsUp: boolean): void {
    for (const [id, peer] of [...this.#peers])
      if (peer.process === process) this.leave(id, machineIsUp);
    for (const [host, listener] of [...this.#listeners]) {
      if (listener.process === process) this.#listeners.delete(host);
    }
    for (const stream of [...this.#streams]) {
      const [a, b] = stream.ends;
      if (a.process !== process && b.process !== process) continue;
      const [own, other] = a.process === process ? [a, b] : [b, a];
      stream.broken = true;
      if (machineIsUp && !this.#isCut(own.host, other.host)) this.#closeEnd(stream, other, "reset");
      else this.#lose(stream);
    }
  }

  /** Peer `id` is no more: its connections close. */
  leave(id: PeerId, machineIsUp: boolean): void {
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    this.#peers.delete(id);
    if (!machineIsUp) return;
    for (const other of this.#peers.values()) {
      this.#world.schedule(
        this.#arrival(peer.host, other.host),
        `closed:${peer.host}>${other.host}`,
        () => {
          if (!this.#isCut(peer.host, other.host)) other.closed?.(id);
        },
        other.process,
      );
    }
  }

  /** Raft's transport of peer `id`, which runs in `process` on `host`. */
  transport(id: PeerId, host: string, process: Process): Transport {
    const peer: Peer = {
      process,
      host,
      receive: null,
      closed: null,
      snapshotSent: null,
      snapshots: new Map(),
    };
    this.#peers.set(id, peer);
    return {
      send: (messages) => {
        if (!process.alive) return;
        for (const message of messages) {
          this.onSend(message);
          if (message.kind === "snapshot") peer.snapshots.set(message.to, message);
          this.#datagram(host, message);
        }
      },
      onMessage: (receive) => {
        peer.receive = receive;
        return () => {
          peer.receive = null;
        };
      },
      onClosed: (receive) => {
        peer.closed = receive;
        return () => {
          peer.closed = null;
        };
      },
      onSnapshotSent: (receive) => {
        peer.snapshotSent = receive;
        return () => {
          peer.snapshotSent = null;
        };
      },
      setPeers: () => {},
    };
  }

  #datagram(from: string, message: Message): void {
    const to = this.#peers.get(message.to)?.host ?? "";
    const copies = this.#random.chance(this.weather.duplicatePerMille) ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) {
      if (this.#random.chance(this.weather.lossPerMille)) {
        this.dropped += 1;
        this.#reportSnapshot(message, false);
        continue;
      }
      const what = `${from}>${to}:${message.kind}`;
      this.#world.schedule(this.#arrival(from, to), what, () => this.#arrive(from, message, what));
    }
  }

  #arrive(from: string, message: Message, what: string): void {
    const peer = this.#peers.get(message.to);
    if (peer === undefined || this.#isCut(from, peer.host)) {
      this.dropped += 1;
      this.#reportSnapshot(message, false);
      return;
    }
    if (peer.process.pausedUntil > this.#world.now()) {
      this.#world.schedule(peer.process.pausedUntil, what, () => this.#arrive(from, message, what));
      return;
    }
    this.delivered += 1;
    if (this.weather.encoded) {
      for (const copy of decodeMessages(encodeMessages([message]))) peer.receive?.(copy);
    } else peer.receive?.(message);
    this.#reportSnapshot(message, true);
  }

  /** Tells who sent a snapshot how it ended: soon when it arrived, after a while when it did not. */
  #reportSnapshot(message: Message, ok: boolean): void {
    if (message.kind !== "snapshot") return;
    const sender = this.#peers.get(message.from);
    if (sender === undefined) return;
    const waitMs = ok ? snapshotWordMs : snapshotLostMs;
    const what = `snapshot:${sender.host}:${ok}`;
    this.#world.schedule(
      this.#world.after(waitMs),
      what,
      () => {
        // Not of one that a newer replaced, and once.
        if (sender.snapshots.get(message.to) !== message) return;
        sender.snapshots.delete(message.to);
        sender.snapshotSent?.(message.to, ok);
      },
      sender.process,
    );
  }

  /** Takes streams that are opened to `host`. */
  listen<Out, In>(
    host: string,
    process: Process,
    accept: (channel: Channel<Out, In>, from: string) => void,
  ): void {
    this.#listeners.set(host, { process, accept: accept as unknown as Accept });
  }

  /** A stream from a process on one host to another host; rejects like a refused connection, or after a while like one that nobody answers. */
  connect<Out, In>(process: Process, from: string, to: string): Promise<Channel<Out, In>> {
    return new Promise((resolve, reject) => {
      const fail = (at: number, why: string): void => {
        this.#world.schedule(
          at,
          `refused:${from}>${to}`,
          () => reject(failure("unavailable", `connecting to ${to}: ${why}`)),
          process,
        );
      };
      this.#world.schedule(this.#arrival(from, to), `connect:${from}>${to}`, () => {
        if (!process.alive) return;
        const listener = this.#listeners.get(to);
        if (this.#isCut(from, to) || this.#isCut(to, from)) {
          fail(this.#world.after(silentStreamMs), "timed out");
          return;
        }
        if (listener === undefined) {
          fail(this.#arrival(to, from), "refused");
          return;
        }
        const near = newEnd(process, from);
        const far = newEnd(listener.process, to);
        const stream: Stream = { ends: [near, far], broken: false };
        this.#streams.add(stream);
        this.#world.schedule(
          this.#world.now(),
          `accept:${from}>${to}`,
          () => listener.accept(this.#channel(stream, far, near), from),
          listener.process,
        );
        far.arrival = near.arrival = this.#arrival(to, from);
        this.#world.schedule(
          near.arrival,
          `connected:${from}>${to}`,
          () => resolve(this.#channel<Out, In>(stream, near, far)),
          process,
        );
      });
    });
  }

  /** The stream is dead in the net: each end finds out by itself, later. */
  #lose(stream: Stream): void {
    stream.broken = true;
    for (const end of stream.ends) {
      const at = this.#world.after(this.#random.between(1, silentStreamMs));
      this.#world.schedule(at, "stream:lost", () => this.#closeEnd(stream, end, "nothing heard"));
    }
  }

  #closeEnd(stream: Stream, end: End, reason: string): void {
    this.#world.schedule(
      this.#world.now(),
      "stream:closed",
      () => {
        if (end.over !== null) return;
        end.over = reason;
        if (stream.ends.every((one) => one.over !== null || !one.process.alive)) {
          this.#streams.delete(stream);
        }
        end.onClosed?.(reason);
      },
      end.process,
    );
  }

  /** Carries something from one end to the other, in order. */
  #carry(stream: Stream, from: End, to: End, deliver: () => void): void {
    to.arrival = Math.max(to.arrival, this.#arrival(from.host, to.host));
    this.#world.schedule(
      to.arrival,
      `stream:${from.host}>${to.host}`,
      () => {
        if (stream.broken) return;
        if (this.#isCut(from.host, to.host)) this.#lose(stream);
        else deliver();
      },
      to.process,
    );
  }

  #channel<Out, In>(stream: Stream, near: End, far: End): Channel<Out, In> {
    return {
      send: (message) => {
        if (near.over !== null || !near.process.alive) return;
        // Through the wire's encoding: two processes share no object.
        const bytes = encode(message);
        this.#carry(stream, near, far, () => {
          if (far.over !== null) return;
          const copy = decode(bytes, "a session message");
          if (far.receive === null) far.waiting.push(copy);
          else far.receive(copy as never);
        });
      },
      onMessage: (receive) => {
        near.receive = receive as (message: never) => void;
        const queued = near.waiting;
        near.waiting = [];
        for (const message of queued) receive(message as In);
      },
      onClose: (closed) => {
        near.onClosed = closed;
        if (near.over !== null) closed(near.over);
      },
      close: (reason) => {
        if (near.over !== null || !near.process.alive) return;
        this.#carry(stream, near, far, () => this.#closeEnd(stream, far, reason));
        this.#closeEnd(stream, near, reason);
      },
    };
  }
}

function newEnd(process: Process, host: string): End {
  return { process, host, receive: null, waiting: [], onClosed: null, over: null, arrival: 0 };
}
