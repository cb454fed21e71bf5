/**
 * The clients: each talks to one manager until that fails it, then to another. They read and write registers, and add to a ledger.
 *
 * A register is the label of a service without tasks: a row with a version, which the Engine API changes only for the version
 * that the client names. A read is a GET of it, which the manager answers after a ReadIndex round; a write reads the version and
 * sends the new label for it, and again when another write came first; a compare-and-set does not try again.
 * The ledger is a set of services: one that was acknowledged must be there for ever.
 */
import { Agent } from "node:http";
import type { SimRandom } from "../../sim/random.ts";
import { type Answer, ask, bodyOf } from "./engine-api.ts";
import type { History, Outcome, RecordedOp } from "./history.ts";
import type { FaultyManager } from "./manager.ts";

/** How long a client waits for the answer to a read or a write, in milliseconds. */
const readTimeoutMs = 2_500;
const writeTimeoutMs = 4_000;
/** Times that a write is sent for a newer version before it gives up. */
const writeAttemptsMax = 5;
/** Pauses between operations, and after a failure, in milliseconds. */
const pauseMs = { least: 5, most: 40 } as const;
const failurePauseMs = 150;
const label = "value";

export interface Register {
  readonly id: string;
  readonly history: History;
}
export interface LedgerEntry {
  readonly name: string;
  outcome: Outcome;
  /** What was answered, for messages. */
  answer: string;
}
export interface WorkloadOptions {
  readonly managers: readonly FaultyManager[];
  readonly registers: readonly Register[];
  readonly clients: number;
  readonly random: SimRandom;
}

/** A service without tasks. */
export function serviceSpec(name: string, value: number | null): object {
  return {
    Name: name,
    Labels: value === null ? {} : { [label]: String(value) },
    TaskTemplate: { ContainerSpec: { Image: "none:latest" } },
    Mode: { Replicated: { Replicas: 0 } },
  };
}

interface Row {
  readonly value: number | null;
  readonly version: number;
}

export class Workload {
  readonly #options: WorkloadOptions;
  readonly ledger: LedgerEntry[] = [];
  /** When writes were acknowledged, in milliseconds of performance.now(). */
  readonly acknowledgedAt: number[] = [];
  /** Why operations failed, and how often. */
  readonly failures: Map<string, number> = new Map();
  #waiting: (() => void)[] = [];
  #stopping = false;
  #processes = 0;
  #clients: Promise<void>[] = [];

  constructor(options: WorkloadOptions) {
    this.#options = options;
  }

  start(): void {
    const { clients, random, managers } = this.#options;
    for (let number = 0; number < clients; number += 1) {
      const home = number % managers.length;
      this.#clients.push(this.#registerClient(home, random.fork(`client ${number}`)));
    }
    this.#clients.push(this.#ledgerClient(random.fork("ledger")));
  }

  /** Lets every client end its operation. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#clients);
  }

  async #registerClient(home: number, random: SimRandom): Promise<void> {
    const connection = new Connection(this.#options.managers, home, random);
    let process = this.#newProcess();
    while (!this.#stopping) {
      const register = random.pick(this.#options.registers);
      const op = await this.#operate(connection, process, register, random.below(10));
      // As in Jepsen: who does not know how its operation ended asks nothing more; another one takes its place.
      if (op.outcome === "unknown") process = this.#newProcess();
      if (op.outcome === "unknown" || op.outcome === "refused") {
        connection.change();
        await pause(failurePauseMs);
      }
      await pause(random.between(pauseMs.least, pauseMs.most));
    }
    connection.close();
  }

  async #operate(
    connection: Connection,
    process: number,
    register: Register,
    draw: number,
  ): Promise<RecordedOp> {
    const read = await this.read(connection, process, register);
    if (draw < 3 || read.outcome !== "ok" || read.version === null) return read;
    if (draw < 6 && read.value !== null) {
      const to = register.history.freshValue();
      const op = register.history.call(process, { kind: "cas", from: read.value, to });
      op.version = read.version;
      const outcome = await this.#update(connection, register, to, read.version);
      register.history.answer(op, outcome);
      return op;
    }
    const value = register.history.freshValue();
    const op = register.history.call(process, { kind: "write", value });
    op.version = read.version;
    let outcome = await this.#update(connection, register, value, read.version);
    for (let attempt = 1; outcome === "stale" && attempt < writeAttemptsMax; attempt += 1) {
      const row = await this.#get(connection, register);
      if (row === null) break;
      op.version = row.version;
      outcome = await this.#update(connection, register, value, row.version);
    }
    // That others were faster says nothing of what the register holds now.
    register.history.answer(op, outcome === "stale" ? "refused" : outcome);
    return op;
  }

  /** One read, recorded. */
  async read(connection: Connection, process: number, register: Register): Promise<RecordedOp> {
    const op = register.history.call(process, { kind: "read" });
    const row = await this.#get(connection, register);
    if (row !== null) {
      op.value = row.value;
      op.version = row.version;
    }
    register.history.answer(op, row === null ? "refused" : "ok");
    return op;
  }

  async #get(connection: Connection, register: Register): Promise<Row | null> {
    const answer = await connection.ask("GET", `/services/${register.id}`, null, readTimeoutMs);
    // A register that is not there any more is not a failure to read: it is the worst answer of all.
    if (answer.kind === "answered" && answer.status === 404) return { value: null, version: 0 };
    if (answer.kind !== "answered" || answer.status !== 200) {
      this.#count("read", answer);
      return null;
    }
    return rowOf(answer.text);
  }

  /** Sends a new value for a version of the row. */
  async #update(
    connection: Connection,
    register: Register,
    value: number,
    version: number,
  ): Promise<Outcome> {
    const path = `/services/${register.id}/update?version=${version}`;
    const spec = serviceSpec(register.history.name, value);
    const answer = await connection.ask("POST", path, spec, writeTimeoutMs);
    const outcome = outcomeOf(answer);
    if (outcome === "ok") this.#acknowledged();
    else if (outcome !== "stale") this.#count("write", answer);
    return outcome;
  }

  async #ledgerClient(random: SimRandom): Promise<void> {
    const connection = new Connection(this.#options.managers, 0, random);
    while (!this.#stopping) {
      const entry: LedgerEntry = {
        name: `ledger-${this.ledger.length}`,
        outcome: "unknown",
        answer: "",
      };
      this.ledger.push(entry);
      const spec = serviceSpec(entry.name, null);
      const answer = await connection.ask("POST", "/services/create", spec, writeTimeoutMs);
      const isCreated = answer.kind === "answered" && answer.status === 201;
      const outcome = isCreated ? "ok" : outcomeOf(answer);
      entry.outcome = outcome;
      entry.answer = answer.kind === "answered" ? `${answer.status} ${answer.text}` : answer.why;
      if (entry.outcome === "ok") this.#acknowledged();
      else {
        this.#count("create", answer);
        connection.change();
        await pause(failurePauseMs);
      }
      await pause(random.between(100, 300));
    }
    connection.close();
  }

  /** Resolves when the next write is acknowledged, or after `ms`. */
  async nextAcknowledged(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #acknowledged(): void {
    this.acknowledgedAt.push(performance.now());
    for (const tell of this.#waiting.splice(0)) tell();
  }

  #newProcess(): number {
    this.#processes += 1;
    return this.#processes - 1;
  }
  /** A process number for reads from outside. */
  newProcess(): number {
    return this.#newProcess();
  }

  #count(what: string, answer: Answer): void {
    const why =
      answer.kind === "answered"
        ? `${answer.status} ${messageIn(answer.text).slice(0, 200)}`
        : `${answer.kind} ${answer.why}`;
    const key = `${what}: ${why}`.replaceAll(/[a-z0-9]{25}/g, "ID");
    this.failures.set(key, (this.failures.get(key) ?? 0) + 1);
  }
}

/** One client's connection: to one manager until it is told to change. */
export class Connection {
  readonly #managers: readonly FaultyManager[];
  readonly #random: SimRandom;
  #at: number;
  #agent: Agent = new Agent({ keepAlive: true });

  constructor(managers: readonly FaultyManager[], home: number, random: SimRandom) {
    this.#managers = managers;
    this.#at = home;
    this.#random = random;
  }

  async ask(
    method: "GET" | "POST",
    path: string,
    body: unknown,
    timeoutMs: number,
  ): Promise<Answer> {
    const socket = this.#managers[this.#at]?.socket ?? "";
    return await ask({ socket, agent: this.#agent, method, path, body, timeoutMs });
  }

  /** Goes to another manager, by chance. */
  change(): void {
    this.#agent.destroy();
    this.#agent = new Agent({ keepAlive: true });
    const step = this.#managers.length > 1 ? 1 + this.#random.below(this.#managers.length - 1) : 0;
    this.#at = (this.#at + step) % this.#managers.length;
  }

  close(): void {
    this.#agent.destroy();
  }
}

/** What an answer to a write means. Only what says that nothing was written is a refusal; all else is unknown. */
function outcomeOf(answer: Answer): Outcome {
  if (answer.kind === "never-sent") return "refused";
  if (answer.kind === "unknown") return "unknown";
  if (answer.status === 200) return "ok";
  if (answer.text.includes("update out of sequence")) return "stale";
  const isRefused = /bytes left; free some room|writes are under way/.test(answer.text);
  return isRefused || (answer.status >= 400 && answer.status < 500) ? "refused" : "unknown";
}

function rowOf(text: string): Row {
  const row = JSON.parse(text) as {
    Version: { Index: number };
    Spec: { Labels?: Record<string, string> };
  };
  const value = row.Spec.Labels?.[label];
  return { value: value === undefined ? null : Number(value), version: row.Version.Index };
}

/** The name of every service that a manager has. */
export async function serviceNames(manager: FaultyManager): Promise<ReadonlySet<string>> {
  const text = bodyOf(await manager.ask("GET", "/services"), `GET /services of ${manager.name}`);
  const rows = JSON.parse(text) as { Spec: { Name: string } }[];
  return new Set(rows.map((row) => row.Spec.Name));
}

function messageIn(text: string): string {
  const found = /"message":"([^"]*)"/.exec(text);
  return found?.[1] ?? text;
}

export async function pause(ms: number): Promise<void> {
  await new Promise((next) => setTimeout(next, ms));
}
