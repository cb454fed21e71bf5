/** A simulated network between named hosts: loss, delay, duplicates, partitions one-way or both; datagrams for Raft, streams for sessions. */
import { failure } from "../src/lib/errors.ts";
import type { Message, PeerId, Transport } from "../src/raft/types.ts";
import type { Channel } from "../src/wire/channel.ts";
import type { SimRandom } from "./random.ts";
import type { World } from "./world.ts";

export interface Weather {
  /** Of a thousand datagrams. */
  lossPerMille: number;
  duplicatePerMille: number;
  delayMsMax: number;
}
/** How long a silent stream lives before both ends see it closed, as our websockets' pings make it. */
const silentStreamMs = 2_000;

interface Stream {
  readonly hosts: readonly [string, string];
  close(reason: string): void;
}
export class SimNetwork {
  readonly #world: World;
  readonly #random: SimRandom;
  readonly weather: Weather;
  /** `a>b`: what a sends does not reach b. */
  readonly #cut = new Set<string>();
  readonly #peers = new Map<
    PeerId,
    { readonly host: string; readonly receive: (message: Message) => void }
  >();
  readonly #closed = new Map<PeerId, (peer: PeerId) => void>();
  readonly #listeners = new Map<string, (channel: Channel<never, never>, from: string) => void>();
  readonly #streams = new Set<Stream>();
  dropped = 0;
  delivered = 0;

  constructor(world: World, random: SimRandom, weather: Weather) {
    this.#world = world;
    this.#random = random;
    this.weather = weather;
  }

  cut(from: string, to: string): void {
    this.#cut.add(`${from}>${to}`);
    for (const stream of this.#streams) {
      if (!stream.hosts.includes(from) || !stream.hosts.includes(to)) continue;
      this.#world.schedule(this.#world.after(silentStreamMs), "stream:silent", () => {
        if (this.#isCut(from, to)) stream.close("nothing heard");
      });
    }
  }

  heal(): void {
    this.#cut.clear();
  }

  #isCut(a: string, b: string): boolean {
    return this.#cut.has(`${a}>${b}`);
  }

  /** The process of `host` died: its streams close as the kernel closes them, its peers see it. */
  crash(host: string): void {
    for (const [id, peer] of [...this.#peers]) {
      if (peer.host !== host) continue;
      this.#peers.delete(id);
      this.#closed.delete(id);
      for (const [other, closed] of this.#closed) {
        const there = this.#peers.get(other)?.host ?? "";
        this.#world.schedule(this.#world.after(this.#delay()), `closed:${id}`, () => {
          if (!this.#isCut(host, there) && this.#closed.get(other) === closed) closed(id);
        });
      }
    }
    this.#listeners.delete(host);
    for (const stream of [...this.#streams]) {
      if (stream.hosts.includes(host)) {
        this.#world.schedule(this.#world.after(this.#delay()), "stream:reset", () =>
          stream.close("reset"),
        );
      }
    }
  }

  /** Raft's transport of peer `id` on `host`. */
  transport(id: PeerId, host: string): Transport {
    return {
      send: (messages) => {
        for (const message of messages) this.#datagram(host, message);
      },
      onMessage: (receive) => {
        this.#peers.set(id, { host, receive });
        return () => this.#peers.delete(id);
      },
      onClosed: (receive) => {
        this.#closed.set(id, receive);
        return () => this.#closed.delete(id);
      },
      setPeers: () => {},
    };
  }

  #datagram(from: string, message: Message): void {
    const copies = this.#random.chance(this.weather.duplicatePerMille) ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) {
      if (this.#random.chance(this.weather.lossPerMille)) {
        this.dropped += 1;
        continue;
      }
      this.#world.schedule(
        this.#world.after(this.#delay()),
        `raft:${message.kind}:${message.term}`,
        () => {
          const peer = this.#peers.get(message.to);
          if (peer === undefined || this.#isCut(from, peer.host)) {
            this.dropped += 1;
            return;
          }
          this.delivered += 1;
          peer.receive(message);
        },
      );
    }
  }

  #delay(): number {
    return this.#random.between(0, this.weather.delayMsMax);
  }

  /** Takes streams that are opened to `host`. */
  listen<Out, In>(host: string, accept: (channel: Channel<Out, In>, from: string) => void): void {
    this.#listeners.set(host, accept as (channel: Channel<never, never>, from: string) => void);
  }

  /** A stream from one host to another; rejects like a refused connection. */
  connect<Out, In>(from: string, to: string): Promise<Channel<Out, In>> {
    return new Promise((resolve, reject) => {
      this.#world.schedule(this.#world.after(this.#delay() + 1), `connect:${from}>${to}`, () => {
        const accept = this.#listeners.get(to);
        if (accept === undefined || this.#isCut(from, to) || this.#isCut(to, from)) {
          reject(failure("unavailable", `connecting to ${to}: refused`));
          return;
        }
        const [near, far] = this.#stream<Out, In>(from, to);
        accept(far as unknown as Channel<never, never>, from);
        resolve(near);
      });
    });
  }

  #stream<Out, In>(from: string, to: string): [Channel<Out, In>, Channel<In, Out>] {
    const ends = [this.#end<Out, In>(), this.#end<In, Out>()] as const;
    let over = false;
    const close = (reason: string): void => {
      if (over) return;
      over = true;
      this.#streams.delete(stream);
      for (const end of ends) end.closed(reason);
    };
    const stream: Stream = { hosts: [from, to], close };
    this.#streams.add(stream);
    let arrival = 0;
    const carry = (sender: string, receiver: string, deliver: () => void): void => {
      if (over) return;
      // In order: nothing arrives before what was sent earlier.
      arrival = Math.max(arrival, this.#world.after(this.#delay()));
      this.#world.schedule(arrival, `stream:${sender}>${receiver}`, () => {
        if (over) return;
        if (this.#isCut(sender, receiver)) {
          // TCP would send again; for as long as the cut lasts nothing of this stream arrives, so it ends.
          close("connection timed out");
          return;
        }
        deliver();
      });
    };
    const closeLater = (reason: string): void => {
      this.#world.schedule(this.#world.after(this.#delay()), "stream:close", () => close(reason));
    };
    return [
      ends[0].channel((message) => carry(from, to, () => ends[1].received(message)), closeLater),
      ends[1].channel((message) => carry(to, from, () => ends[0].received(message)), closeLater),
    ];
  }

  #end<Out, In>() {
    let receive: ((message: In) => void) | null = null;
    let waiting: In[] = [];
    let onClosed: ((reason: string) => void) | null = null;
    let over: string | null = null;
    return {
      received(message: In): void {
        if (receive === null) waiting.push(message);
        else receive(message);
      },
      closed(reason: string): void {
        if (over !== null) return;
        over = reason;
        onClosed?.(reason);
      },
      channel(send: (message: Out) => void, close: (reason: string) => void): Channel<Out, In> {
        return {
          // Copies, as encoding would: two processes share no object.
          send: (message) => send(structuredClone(message)),
          onMessage(callback) {
            receive = callback;
            const queued = waiting;
            waiting = [];
            for (const message of queued) callback(message);
          },
          onClose(callback) {
            onClosed = callback;
            if (over !== null) callback(over);
          },
          close,
        };
      },
    };
  }
}
