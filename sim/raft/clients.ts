/** Clients that read, write and compare-and-swap a few registers, one operation at a time, and what they saw. */

import type { KvOp, RegisterResult } from "../history/models.ts";
import type { Operation } from "../history/types.ts";
import type { SimRandom } from "../random.ts";
import type { Agenda } from "./agenda.ts";
import type { Counts } from "./counts.ts";
import type { FaultMix } from "./fault-mix.ts";
import type { Host } from "./host.ts";
import type { Ledger } from "./ledger.ts";
import { type Command, REGISTERS } from "./registers.ts";

/** Operations of all clients of a seed whose history is kept: more are not begun. */
const OPERATIONS_MAX = 300;
/** Attempts at different managers before a client gives an operation up as unknown. */
const ATTEMPTS_MAX = 6;

/** The client whose writes make a leader out of date. */
const DOUBTER = 3_000;

interface Open {
  readonly call: number;
  readonly command: Command;
  readonly padding: number;
  readonly floor: number;
  attempts: number;
}

export class Clients {
  readonly history: Operation<KvOp, RegisterResult>[] = [];
  /** Nobody begins anything new. */
  stopped = false;
  readonly #agenda: Agenda;
  readonly #random: SimRandom;
  readonly #mix: FaultMix;
  readonly #hosts: readonly Host[];
  readonly #ledger: Ledger;
  readonly #counts: Counts;
  #moment = 0;
  #operations = 0;
  #value = 0;
  #noise = 0;

  constructor(parts: {
    readonly agenda: Agenda;
    readonly random: SimRandom;
    readonly mix: FaultMix;
    readonly hosts: readonly Host[];
    readonly ledger: Ledger;
    readonly counts: Counts;
  }) {
    this.#agenda = parts.agenda;
    this.#random = parts.random;
    this.#mix = parts.mix;
    this.#hosts = parts.hosts;
    this.#ledger = parts.ledger;
    this.#counts = parts.counts;
  }

  start(): void {
    for (let client = 1; client <= this.#mix.clients; client += 1) this.#later(client, 0);
  }

  /** A write that nobody waits for. */
  noise(host: Host): void {
    this.#noise += 1;
    const client = 1_000 + this.#random.below(4);
    const command: Command = {
      client,
      sequence: this.#noise,
      verb: "write",
      register: 255,
      value: this.#noise,
      from: 0,
    };
    host.submit(command, this.#padding(), () => {});
  }

  /** A read at `host`, which must see whatever anybody was told of before. */
  doubt(host: Host): void {
    const floor = this.#ledger.acknowledged;
    host.read((_, applied) => this.#see(host, floor, applied));
  }

  /** A write at `newer`, and as soon as it is acknowledged a read at `older`. */
  overtake(newer: Host, older: Host): void {
    this.doubt(older);
    this.#noise += 1;
    const sequence = this.#noise;
    const command: Command = {
      client: DOUBTER,
      sequence,
      verb: "write",
      register: 255,
      value: sequence,
      from: 0,
    };
    newer.submit(command, 0, (answer) => {
      this.#ledger.onAcknowledged(DOUBTER, sequence, answer);
      this.doubt(older);
    });
  }

  /** Reads every register at `host` once more; `done` when it answered. */
  finalReads(host: Host, done: () => void): void {
    const call = this.#now();
    const floor = this.#ledger.acknowledged;
    host.read((registers, applied) => {
      this.#see(host, floor, applied);
      for (let register = 0; register < REGISTERS; register += 1)
        this.#record(0, call, readOf(register), {
          kind: "read",
          value: registers.value(register) || null,
        });
      done();
    });
  }

  #later(client: number, sequence: number): void {
    const wait = this.#random.below(2 * this.#mix.thinkMsMean + 1);
    this.#agenda.after(wait, () => {
      if (!this.stopped && this.#operations < OPERATIONS_MAX) this.#begin(client, sequence + 1);
    });
  }

  #begin(client: number, sequence: number): void {
    this.#operations += 1;
    this.#counts["client operations"] += 1;
    this.#value += 1;
    const verb = this.#random.pick(["read", "read", "write", "write", "cas"] as const);
    const command: Command = {
      client,
      sequence,
      verb,
      register: this.#random.below(REGISTERS),
      value: this.#value,
      // Now and then the right guess: one of the newest values.
      from: Math.max(0, this.#value - 1 - this.#random.below(8)),
    };
    const open: Open = {
      call: this.#now(),
      command,
      padding: this.#padding(),
      floor: this.#ledger.acknowledged,
      attempts: 0,
    };
    this.#attempt(open, this.#random.pick(this.#hosts), { over: false });
  }

  #attempt(open: Open, host: Host, end: { over: boolean }): void {
    const { command, call } = open;
    open.attempts += 1;
    let taken = true;
    if (command.verb === "read") {
      host.read((registers, applied) => {
        if (end.over) return;
        end.over = true;
        this.#see(host, open.floor, applied);
        const value = registers.value(command.register) || null;
        this.#record(command.client, call, readOf(command.register), { kind: "read", value });
        this.#later(command.client, command.sequence);
      });
    } else {
      taken = host.submit(command, open.padding, (answer) => {
        if (end.over) return;
        end.over = true;
        this.#ledger.onAcknowledged(command.client, command.sequence, answer);
        this.#record(command.client, call, opOf(command), resultOf(command, answer));
        this.#later(command.client, command.sequence);
      });
    }
    if (end.over) return;
    const { electionTicks } = this.#mix;
    const patience = taken ? this.#random.between(electionTicks * 2, electionTicks * 20) : 50;
    this.#agenda.after(patience, () => {
      if (end.over) return;
      if (open.attempts < ATTEMPTS_MAX && !this.stopped) {
        this.#attempt(open, this.#random.pick(this.#hosts), end);
        return;
      }
      end.over = true;
      if (command.verb !== "read")
        this.history.push({
          process: command.client,
          call,
          return: null,
          op: opOf(command),
          result: null,
        });
      this.#later(command.client, command.sequence);
    });
  }

  #see(host: Host, floor: number, applied: number): void {
    this.#counts["linearizable reads"] += 1;
    if (applied < floor)
      this.#ledger.violate(
        `a read at ${host.peer} saw entries through ${applied}; ${floor} was acknowledged before it was asked`,
      );
  }

  #record(process: number, call: number, op: KvOp, result: RegisterResult): void {
    this.history.push({ process, call, return: this.#now(), op, result });
  }

  #now(): number {
    this.#moment += 1;
    return this.#moment;
  }

  #padding(): number {
    return this.#mix.paddingBytesMax === 0 ? 0 : this.#random.below(this.#mix.paddingBytesMax + 1);
  }
}

function readOf(register: number): KvOp {
  return { kind: "read", key: String(register) };
}

function opOf({ verb, register, value, from }: Command): KvOp {
  const key = String(register);
  if (verb === "cas") return { kind: "cas", key, from: from === 0 ? null : from, to: value };
  return { kind: "write", key, value };
}

function resultOf({ verb }: Command, answer: number): RegisterResult {
  return verb === "cas" ? { kind: "cas", swapped: answer === 1 } : { kind: "write" };
}
