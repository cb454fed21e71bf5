/** One run: managers that become a swarm, clients, faults from a seed, healing, and the verdict on all that was seen. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createRandom, type SimRandom } from "../../sim/random.ts";
import { until } from "../lib/command.ts";
import { bodyOf } from "./engine-api.ts";
import { History, jepsenText, Order } from "./history.ts";
import { objections } from "./judge.ts";
import { Leadership } from "./leadership.ts";
import { FaultyManager } from "./manager.ts";
import { type FaultKind, Nemesis } from "./nemesis.ts";
import { FaultyNetwork } from "./network.ts";
import { disagreements } from "./raft-logs.ts";
import {
  Connection,
  pause,
  type Register,
  serviceNames,
  serviceSpec,
  Workload,
} from "./workload.ts";

const registersCount = 6;
const clientsPerManager = 2;
/** Entries between snapshots and behind one: few, so that managers that were away need snapshots. */
const snapshotInterval = 100;
const entriesKept = 10;
/** How long after the last fault every manager must answer a linearizable read, in milliseconds. */
const recoveryMsMax = 30_000;
/** How long the clients go on after the cluster has recovered, in milliseconds. */
const calmMs = 1_500;

export interface RunOptions {
  readonly managers: 3 | 5;
  readonly seed: number;
  readonly seconds: number;
  /** A new folder for histories, logs and disks. */
  readonly folder: string;
  /** What buildFailingSync() made. */
  readonly library: string;
  /** Ends the run early, with an error. */
  readonly interruption: AbortSignal;
  /** Told what is done to the cluster, one line each. */
  readonly say: (line: string) => void;
}
export interface RunReport {
  readonly managers: number;
  readonly seed: number;
  readonly seconds: number;
  readonly operations: { readonly ok: number; readonly fail: number; readonly unknown: number };
  readonly faults: ReadonlyMap<FaultKind, number>;
  /** Terms that had a leader. */
  readonly elections: number;
  readonly registers: { readonly fine: number; readonly all: number };
  readonly ledger: { readonly acknowledged: number; readonly lost: number };
  /** The longest time without an acknowledged write while faults went on, in milliseconds. */
  readonly longestGapMs: number;
  /** From the end of the last fault until every manager answered, in milliseconds. */
  readonly recoveryMs: number;
  /** Everything that must not be. */
  readonly violations: readonly string[];
}

/** Runs it, and takes away all but the folder's histories and logs, whatever happens. */
export async function runFaults(options: RunOptions): Promise<RunReport> {
  const run = new Run(options);
  const interrupted = new Promise<never>((_, reject) => {
    options.interruption.addEventListener("abort", () => reject(new Error("interrupted")));
  });
  try {
    return await Promise.race([run.report(), interrupted]);
  } finally {
    await run.destroy();
  }
}

class Run {
  readonly #options: RunOptions;
  readonly #random: SimRandom;
  readonly #managers: FaultyManager[] = [];
  #network: FaultyNetwork | null = null;
  #leadership: Leadership | null = null;
  #workload: Workload | null = null;
  readonly #violations: string[] = [];
  readonly #startedAt = performance.now();

  constructor(options: RunOptions) {
    this.#options = options;
    this.#random = createRandom(options.seed, `raft faults ${options.managers}`);
  }

  async report(): Promise<RunReport> {
    const { managers: size, seed, seconds, folder } = this.#options;
    await this.#makeCluster();
    const registers = await this.#makeRegisters();
    const random = this.#random.fork("workload");
    const clients = clientsPerManager * size;
    const workload = new Workload({ managers: this.#managers, registers, clients, random });
    this.#workload = workload;
    workload.start();
    const from = performance.now();
    const faults = await this.#faults(workload);
    const to = performance.now();
    const recoveryMs = await this.#recover(registers);
    await pause(calmMs);
    await workload.stop();
    await this.#readAll(workload, registers);
    const lost = await this.#checkLedger(workload);
    await this.#compareStates();
    await this.#stopAll();
    for (const text of await disagreements(this.#managers)) this.#violate(text);
    const wrong = registers.filter(({ history }) => this.#judge(history));
    await this.#write(folder, registers, workload);
    const gap = longestGap(workload.acknowledgedAt, from, to);
    const gapFrom = ((gap.at - this.#startedAt) / 1_000).toFixed(2);
    this.#say(
      `the longest time without an acknowledged write, ${gap.ms.toFixed(0)} ms, began at ${gapFrom}`,
    );
    const ops = registers.flatMap(({ history }) => history.ops);
    const outcomes = [...ops, ...workload.ledger].map(({ outcome }) => outcome);
    const count = (wanted: string): number => outcomes.filter((one) => one === wanted).length;
    return {
      managers: size,
      seed,
      seconds,
      operations: {
        ok: count("ok"),
        fail: count("stale") + count("refused"),
        unknown: count("unknown"),
      },
      faults,
      elections: this.#leadership?.terms ?? 0,
      registers: { fine: registers.length - wrong.length, all: registers.length },
      ledger: {
        acknowledged: workload.ledger.filter(({ outcome }) => outcome === "ok").length,
        lost,
      },
      longestGapMs: gap.ms,
      recoveryMs,
      violations: this.#violations,
    };
  }

  /** Ends everything and takes it away; tells all that it could not. */
  async destroy(): Promise<void> {
    const failures: unknown[] = [];
    const steps = [
      async () => await this.#workload?.stop(),
      async () => await this.#leadership?.stop(),
      ...this.#managers.map((manager) => async () => await manager.destroy()),
      async () => await this.#network?.close(),
    ];
    for (const step of steps) {
      try {
        await step();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join("\n"));
  }

  async #makeCluster(): Promise<void> {
    const { managers: size, folder, library } = this.#options;
    for (let index = 0; index < size; index += 1) {
      const name = `rf-m${index + 1}`;
      const own = join(folder, name);
      await mkdir(own, { recursive: true });
      const address = FaultyNetwork.address(index);
      const manager = await FaultyManager.create({ index, name, address, folder: own, library });
      manager.onEnd = (end) =>
        this.#violate(
          `${name} ended by itself with ${end.code ?? end.signal}: ${end.said.slice(-800)}`,
        );
      this.#managers.push(manager);
    }
    const machines = this.#managers.map(({ machine }) => machine);
    this.#network = await FaultyNetwork.create("rf", machines);
    this.#leadership = new Leadership(this.#managers, (text) => this.#violate(text));
    this.#leadership.start();
    await Promise.all(this.#managers.map((manager) => manager.answers()));
    await this.#join();
    this.#say(`${size} managers are one swarm`);
  }

  async #join(): Promise<void> {
    const [first, ...others] = this.#managers;
    if (first === undefined) return;
    const port = 2377;
    const listen = { ListenAddr: `0.0.0.0:${port}` };
    const init = await first.ask("POST", "/swarm/init", {
      ...listen,
      AdvertiseAddr: first.address,
      Spec: {
        Raft: { SnapshotInterval: snapshotInterval, LogEntriesForSlowFollowers: entriesKept },
      },
    });
    bodyOf(init, "swarm init");
    const swarm = JSON.parse(bodyOf(await first.ask("GET", "/swarm"), "GET /swarm")) as {
      JoinTokens: { Manager: string };
    };
    for (const manager of others) {
      const answer = await manager.ask("POST", "/swarm/join", {
        ...listen,
        AdvertiseAddr: manager.address,
        RemoteAddrs: [`${first.address}:${port}`],
        JoinToken: swarm.JoinTokens.Manager,
      });
      bodyOf(answer, `swarm join of ${manager.name}`);
    }
    await until("every manager to be a voter", async () => {
      const voters = this.#leadership?.proposed("add-voter") ?? 0;
      return voters >= others.length ? true : null;
    });
  }

  async #makeRegisters(): Promise<Register[]> {
    const order = new Order();
    const registers: Register[] = [];
    for (let number = 1; number <= registersCount; number += 1) {
      const name = `register-${number}`;
      const manager = this.#managers[number % this.#managers.length];
      const answer = await manager?.ask("POST", "/services/create", serviceSpec(name, null));
      if (answer === undefined) continue;
      const { ID } = JSON.parse(bodyOf(answer, `creating ${name}`, 201)) as { ID: string };
      registers.push({ id: ID, history: new History(name, order) });
    }
    return registers;
  }

  async #faults(workload: Workload): Promise<ReadonlyMap<FaultKind, number>> {
    const network = this.#network;
    if (network === null) throw new Error("faults come after the network was made");
    const nemesis = new Nemesis({
      managers: this.#managers,
      network,
      random: this.#random.fork("nemesis"),
      seconds: this.#options.seconds,
      leader: () => this.#leadership?.current() ?? null,
      nextAcknowledged: async (ms) => await workload.nextAcknowledged(ms),
      say: (line) => this.#say(line),
      violation: (text) => this.#violate(text),
    });
    await nemesis.run();
    this.#say("all is healed");
    return nemesis.counts;
  }

  /** Every manager must answer a linearizable read soon. Answers how long that took, in milliseconds. */
  async #recover(registers: readonly Register[]): Promise<number> {
    const from = performance.now();
    const [register] = registers;
    const recovered = this.#managers.map(async (manager) => {
      const answered = until(
        `${manager.name} to answer`,
        async () => {
          const answer = await manager.ask("GET", `/services/${register?.id}`, null, 3_000);
          return answer.kind === "answered" && answer.status === 200 ? true : null;
        },
        recoveryMsMax,
      );
      await Promise.all([manager.answers(), answered]).catch((error: unknown) =>
        this.#violate(`no recovery after the last fault: ${String(error)}`),
      );
    });
    await Promise.all(recovered);
    return performance.now() - from;
  }

  /** Reads every register on every manager, as a client would. */
  async #readAll(workload: Workload, registers: readonly Register[]): Promise<void> {
    for (const [home, manager] of this.#managers.entries()) {
      const connection = new Connection(this.#managers, home, this.#random);
      const process = workload.newProcess();
      for (const register of registers) {
        const op = await workload.read(connection, process, register);
        if (op.outcome !== "ok")
          this.#violate(`${manager.name} did not answer the last read of ${register.history.name}`);
      }
      connection.close();
    }
  }

  /** Every manager must have every service that was acknowledged, and none that was refused. Answers how many are lost. */
  async #checkLedger(workload: Workload): Promise<number> {
    const lost = new Set<string>();
    for (const manager of this.#managers) {
      const names = await this.#seen(() => serviceNames(manager));
      if (names === null) continue;
      for (const { name, outcome, answer } of workload.ledger) {
        const has = names.has(name);
        if (outcome === "ok" && !has) {
          lost.add(name);
          this.#violate(`${name} was acknowledged, and ${manager.name} does not have it`);
        }
        if ((outcome === "refused" || outcome === "stale") && has)
          this.#violate(`${name} was refused, and ${manager.name} has it: ${answer}`);
      }
    }
    return lost.size;
  }

  /** What users wrote must be the same on all managers, down to the version of each row. */
  async #compareStates(): Promise<void> {
    for (const path of ["/services", "/swarm"]) {
      const seen = new Map<string, string[]>();
      for (const manager of this.#managers) {
        const text = await this.#seen(async () =>
          bodyOf(await manager.ask("GET", path), `GET ${path} of ${manager.name}`),
        );
        if (text === null) continue;
        const parsed: unknown = JSON.parse(text);
        const rows = Array.isArray(parsed) ? parsed.map((row) => JSON.stringify(row)).sort() : text;
        const key = String(rows);
        seen.set(key, [...(seen.get(key) ?? []), manager.name]);
      }
      if (seen.size > 1)
        this.#violate(`${path} differs: ${[...seen.values()].map(String).join(" | ")}`);
    }
  }

  async #stopAll(): Promise<void> {
    await Promise.all(
      this.#managers.map(async (manager) => {
        const end = await manager.stop();
        if (manager.runs) this.#violate(`${manager.name} does not end when it is told to`);
        // One that had ended before is known by now.
        if (end !== null && end.code !== 0)
          this.#violate(
            `${manager.name} did not end in order: ${end.code ?? end.signal} ${end.said.slice(-400)}`,
          );
      }),
    );
  }

  #judge(history: History): boolean {
    const found = objections(history.name, history.ops);
    for (const text of found) this.#violate(text);
    return found.length > 0;
  }

  async #write(folder: string, registers: readonly Register[], workload: Workload): Promise<void> {
    for (const { history } of registers) {
      await writeFile(join(folder, `${history.name}.log`), jepsenText(history.ops));
      await writeFile(join(folder, `${history.name}.json`), JSON.stringify(history.ops));
    }
    await writeFile(join(folder, "ledger.json"), JSON.stringify(workload.ledger, null, 1));
    const failures = [...workload.failures].sort((a, b) => b[1] - a[1]);
    await writeFile(
      join(folder, "failures.txt"),
      `${failures.map(([text, count]) => `${count} ${text}`).join("\n")}\n`,
    );
    await writeFile(join(folder, "violations.txt"), `${this.#violations.join("\n")}\n`);
  }

  /** What a manager answers when all is over; that it does not is a violation, and null. */
  async #seen<T>(look: () => Promise<T>): Promise<T | null> {
    try {
      return await look();
    } catch (error) {
      this.#violate(`no answer after the last fault: ${String(error)}`);
      return null;
    }
  }

  #violate(text: string): void {
    this.#say(`VIOLATION: ${text}`);
    this.#violations.push(text);
  }

  #say(line: string): void {
    const seconds = ((performance.now() - this.#startedAt) / 1_000).toFixed(2).padStart(6);
    this.#options.say(`${seconds} ${line}`);
  }
}

/** The longest time between two of `times` within [from, to], and when it began. */
function longestGap(
  times: readonly number[],
  from: number,
  to: number,
): { readonly ms: number; readonly at: number } {
  const inside = [...times].sort((a, b) => a - b).filter((time) => time > from && time < to);
  let longest = { ms: 0, at: from };
  let last = from;
  for (const time of [...inside, to]) {
    if (time - last > longest.ms) longest = { ms: time - last, at: last };
    last = time;
  }
  return longest;
}
