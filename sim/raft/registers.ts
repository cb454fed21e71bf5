/** What the simulated cluster replicates: four registers and the sessions of their clients, small enough to hash at every entry. */
import { assert } from "../../src/lib/assert.ts";

export const REGISTERS = 4;
/** Bytes of a command, and of the padding that some clients add. */
export const COMMAND_BYTES = 20;

export type Verb = "write" | "cas" | "read";
/** Registers hold 0 until they are written. */
export interface Command {
  readonly client: number;
  /** Grows with each command of a client; what is not above the last one that counted has no effect. */
  readonly sequence: number;
  readonly verb: Verb;
  readonly register: number;
  readonly value: number;
  /** cas: what the register must hold. */
  readonly from: number;
}
/** What a command did. */
export interface Outcome {
  /** False: a copy of a command that had counted before, or one that came too late. */
  readonly fresh: boolean;
  /** cas: whether it swapped; write: 1. */
  readonly answer: number;
}

const verbs: readonly Verb[] = ["write", "cas", "read"];

export function encodeCommand(command: Command, padding: number): Uint8Array {
  const bytes = new Uint8Array(COMMAND_BYTES + padding);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, command.client);
  view.setUint32(4, command.sequence);
  view.setUint8(8, verbs.indexOf(command.verb));
  view.setUint8(9, command.register);
  view.setUint32(10, command.value);
  view.setUint32(14, command.from);
  for (let at = COMMAND_BYTES; at < bytes.length; at += 1) bytes[at] = (command.value + at) & 255;
  return bytes;
}

export function decodeCommand(bytes: Uint8Array): Command {
  assert(bytes.length >= COMMAND_BYTES, "an entry holds a whole command");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    client: view.getUint32(0),
    sequence: view.getUint32(4),
    verb: verbs[view.getUint8(8)] ?? "read",
    register: view.getUint8(9),
    value: view.getUint32(10),
    from: view.getUint32(14),
  };
}

interface Session {
  sequence: number;
  answer: number;
}

/** The replicated state. Two with the same history have the same hash; it costs the same however much there is. */
export class Registers {
  readonly #values: Uint32Array = new Uint32Array(REGISTERS);
  readonly #sessions: Map<number, Session> = new Map();
  /** Sum of what each part contributes, so that a change costs two additions. */
  #hash = 0;

  get hash(): number {
    return this.#hash;
  }

  value(register: number): number {
    return this.#values[register] ?? 0;
  }

  /** What the newest command of `client` that counted answered, if it is `sequence`. */
  answerOf(client: number, sequence: number): number | null {
    const session = this.#sessions.get(client);
    return session !== undefined && session.sequence === sequence ? session.answer : null;
  }

  sequenceOf(client: number): number {
    return this.#sessions.get(client)?.sequence ?? 0;
  }

  apply(command: Command): Outcome {
    const session = this.#sessions.get(command.client);
    if (session !== undefined && command.sequence <= session.sequence) {
      return { fresh: false, answer: session.sequence === command.sequence ? session.answer : 0 };
    }
    let answer = 1;
    if (command.verb === "write") this.#set(command.register, command.value);
    else if (this.value(command.register) === command.from)
      this.#set(command.register, command.value);
    else answer = 0;
    this.#remember(command.client, command.sequence, answer);
    return { fresh: true, answer };
  }

  save(): Uint8Array {
    const bytes = new Uint8Array(REGISTERS * 4 + this.#sessions.size * 12);
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < REGISTERS; at += 1) view.setUint32(at * 4, this.value(at));
    let at = REGISTERS * 4;
    for (const [client, { sequence, answer }] of this.#sessions) {
      view.setUint32(at, client);
      view.setUint32(at + 4, sequence);
      view.setUint32(at + 8, answer);
      at += 12;
    }
    return bytes;
  }

  /** Replaces everything; a snapshot without data is that of an empty cluster. */
  load(bytes: Uint8Array): void {
    this.#values.fill(0);
    this.#sessions.clear();
    this.#hash = 0;
    if (bytes.length === 0) return;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < REGISTERS; at += 1) this.#set(at, view.getUint32(at * 4));
    for (let at = REGISTERS * 4; at < bytes.length; at += 12) {
      this.#remember(view.getUint32(at), view.getUint32(at + 4), view.getUint32(at + 8));
    }
  }

  /** Registers beyond the last one take writes and hold nothing. */
  #set(register: number, value: number): void {
    if (register >= REGISTERS) return;
    const part = register + 1;
    this.#hash = (this.#hash - mix(part, this.value(register), 0) + mix(part, value, 0)) >>> 0;
    this.#values[register] = value;
  }

  #remember(client: number, sequence: number, answer: number): void {
    const session = this.#sessions.get(client);
    const part = 1000 + client;
    if (session === undefined) this.#sessions.set(client, { sequence, answer });
    else {
      this.#hash = (this.#hash - mix(part, session.sequence, session.answer)) >>> 0;
      session.sequence = sequence;
      session.answer = answer;
    }
    this.#hash = (this.#hash + mix(part, sequence, answer)) >>> 0;
  }
}

/** A 32-bit number that hangs on all three; nothing that holds zero adds nothing. */
export function mix(a: number, b: number, c: number): number {
  if (b === 0 && c === 0) return 0;
  let h = Math.imul(a, 0x9e3779b1) ^ Math.imul(b + 0x7f4a7c15, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15) ^ c, 0xc2b2ae35);
  h ^= h >>> 13;
  return Math.imul(h, 0x27d4eb2f) >>> 0;
}
