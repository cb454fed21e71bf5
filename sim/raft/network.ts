/** The paths between hosts: they lose, double, delay and reorder messages, clog, have a capacity, and are cut one way or both. */
import type { Message, PeerId } from "../../src/raft/types.ts";
import { decodeMessages, encodeMessages } from "../../src/wire/raft-frames.ts";
import type { SimRandom } from "../random.ts";
import type { Agenda } from "./agenda.ts";
import type { Counts } from "./counts.ts";
import { type FaultMix, fairWeather, type Weather } from "./fault-mix.ts";

/** How late a transport may find out how a snapshot ended, in ms. */
const REPORT_MS_MAX = 5_000;

export interface Endpoint {
  /** Whose messages arrive here. */
  readonly peer: PeerId;
  /** An earlier version: what it sends lacks what it does not know. */
  readonly old: boolean;
  /** Runs `what` when the process can hear; null: nobody is there. */
  readonly hear: ((what: () => void) => void) | null;
  receive(message: Message): void;
  closed(peer: PeerId): void;
  snapshotEnded(to: PeerId, ok: boolean): void;
}

export class Network {
  weather: Weather;
  readonly #agenda: Agenda;
  readonly #random: SimRandom;
  readonly #counts: Counts;
  readonly #mix: FaultMix;
  readonly #endpoints: readonly Endpoint[];
  readonly #hosts: number;
  /** By `from * hosts + to`. */
  readonly #cut: Uint8Array;
  readonly #clear: Uint8Array;
  readonly #underWay: Int32Array;
  readonly #cloggedUntil: Float64Array;
  readonly #lastArrival: Float64Array;
  readonly #trace: (code: number, from: number, to: number, message: Message) => void;
  calm = false;

  constructor(parts: {
    readonly agenda: Agenda;
    readonly random: SimRandom;
    readonly counts: Counts;
    readonly mix: FaultMix;
    readonly endpoints: readonly Endpoint[];
    readonly trace: (code: number, from: number, to: number, message: Message) => void;
  }) {
    this.#agenda = parts.agenda;
    this.#random = parts.random;
    this.#counts = parts.counts;
    this.#mix = parts.mix;
    this.#endpoints = parts.endpoints;
    this.#trace = parts.trace;
    this.weather = fairWeather;
    const hosts = parts.endpoints.length;
    this.#hosts = hosts;
    this.#cut = new Uint8Array(hosts * hosts);
    this.#clear = new Uint8Array(hosts * hosts);
    this.#underWay = new Int32Array(hosts * hosts);
    this.#cloggedUntil = new Float64Array(hosts * hosts);
    this.#lastArrival = new Float64Array(hosts * hosts);
  }

  /** Cuts what `cuts` says, and nothing else. */
  cut(cuts: (from: number, to: number) => boolean): void {
    for (let from = 0; from < this.#hosts; from += 1) {
      for (let to = 0; to < this.#hosts; to += 1) {
        this.#cut[from * this.#hosts + to] = from !== to && cuts(from, to) ? 1 : 0;
      }
    }
  }

  isCut(from: number, to: number): boolean {
    return this.#cut[from * this.#hosts + to] === 1;
  }

  /** Between these the weather is fair from now on. */
  clear(hosts: ReadonlySet<number>): void {
    this.#cloggedUntil.fill(0);
    for (const from of hosts) for (const to of hosts) this.#clear[from * this.#hosts + to] = 1;
  }

  clog(from: number, to: number, forMs: number): void {
    this.#cloggedUntil[from * this.#hosts + to] = this.#agenda.now + forMs;
  }

  /** The connections between two hosts close, and both see it. */
  close(one: number, other: number): void {
    this.#tellClosed(one, other);
    this.#tellClosed(other, one);
  }

  /** All that `host` had open is closed: its kernel says so to everybody it reaches. */
  closeAll(host: number): void {
    for (let other = 0; other < this.#hosts; other += 1) {
      if (other !== host && !this.isCut(host, other)) this.#tellClosed(host, other);
    }
  }

  #tellClosed(from: number, to: number): void {
    const peer = this.#at(from).peer;
    this.#agenda.after(this.#delay(), () => {
      const endpoint = this.#at(to);
      endpoint.hear?.(() => endpoint.closed(peer));
    });
  }

  send(from: number, messages: readonly Message[]): void {
    for (const message of messages) this.#send(from, message);
  }

  #send(from: number, message: Message): void {
    const to = this.#numberOf(message.to);
    const sent = this.#prepare(from, message);
    if (to < 0 || !this.#goes(from, to)) {
      this.#report(from, sent, false);
      return;
    }
    const path = from * this.#hosts + to;
    this.#launch(from, to, path, sent);
    if (this.#clear[path] === 0 && this.#random.chance(this.weather.doublePerMille)) {
      this.#counts["messages doubled"] += 1;
      this.#launch(from, to, path, sent);
    }
  }

  /** Whether it is let onto its path. */
  #goes(from: number, to: number): boolean {
    const path = from * this.#hosts + to;
    if (this.#cut[path] === 1) this.#counts["messages cut off"] += 1;
    else if ((this.#underWay[path] ?? 0) >= this.#mix.pathCapacity)
      this.#counts["messages over capacity"] += 1;
    else if (
      this.#clear[path] === 0 &&
      this.weather.lossPerMille > 0 &&
      this.#random.chance(this.weather.lossPerMille)
    )
      this.#counts["messages lost"] += 1;
    else return true;
    return false;
  }

  #launch(from: number, to: number, path: number, message: Message): void {
    const now = this.#agenda.now;
    let at = now + (this.#clear[path] === 1 ? this.#random.below(2) : this.#delay());
    at = Math.max(at, this.#cloggedUntil[path] ?? 0);
    if (this.#mix.ordered) at = Math.max(at, this.#lastArrival[path] ?? 0);
    this.#lastArrival[path] = at;
    this.#underWay[path] = (this.#underWay[path] ?? 0) + 1;
    this.#agenda.after(at - now, () => {
      this.#underWay[path] = (this.#underWay[path] ?? 0) - 1;
      this.#arrive(from, to, path, message);
    });
  }

  #arrive(from: number, to: number, path: number, message: Message): void {
    const endpoint = this.#at(to);
    if (this.#cut[path] === 1) {
      this.#counts["messages cut off"] += 1;
      this.#report(from, message, false);
      return;
    }
    if (endpoint.hear === null || endpoint.peer !== message.to) {
      this.#report(from, message, false);
      return;
    }
    this.#counts["messages delivered"] += 1;
    this.#trace(1, from, to, message);
    endpoint.hear(() => endpoint.receive(message));
    this.#report(from, message, true);
  }

  #report(from: number, message: Message, ok: boolean): void {
    if (message.kind !== "snapshot") return;
    const late = !this.calm && !this.#mix.snapshotsReported;
    const delay = this.#delay() + (late ? this.#random.below(REPORT_MS_MAX) : 0);
    this.#agenda.after(delay, () => {
      const endpoint = this.#at(from);
      if (endpoint.peer !== message.from) return;
      endpoint.hear?.(() => endpoint.snapshotEnded(message.to, ok));
    });
  }

  #prepare(from: number, message: Message): Message {
    let sent = message;
    // Without that hint a removed leader can hold up the last one who needs its vote: the upgrade ends before progress is asked for.
    const old = this.#at(from).old && !this.calm;
    if (old && (message.kind === "vote-reply" || message.kind === "prevote-reply")) {
      const { committed: _, ...rest } = message;
      sent = rest;
    }
    if (this.#mix.codec) sent = decodeMessages(encodeMessages([sent]))[0] ?? sent;
    if (this.#mix.frozen) freeze(sent);
    return sent;
  }

  #delay(): number {
    const { delayMsMin, delayMsMean } = this.weather;
    const part = (this.#random.below(1_000_000) + 1) / 1_000_001;
    return delayMsMin + Math.min(10 * delayMsMean, Math.floor(-Math.log(part) * delayMsMean));
  }

  /** -1: nobody has this name now. */
  #numberOf(peer: PeerId): number {
    for (let number = 0; number < this.#hosts; number += 1) {
      if (this.#at(number).peer === peer) return number;
    }
    return -1;
  }

  #at(host: number): Endpoint {
    return this.#endpoints[host] as Endpoint;
  }
}

function freeze(value: object): void {
  Object.freeze(value);
  for (const part of Object.values(value)) {
    if (typeof part !== "object" || part === null || part instanceof Uint8Array) continue;
    if (!Object.isFrozen(part)) freeze(part);
  }
}
