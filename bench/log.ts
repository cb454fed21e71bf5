/**
 * What a durable Raft log costs on this disk: our own (plain and encrypted) and the twin on level, interleaved; and
 * fdatasync from Node's pool against a thread of its own. `node dist/bench/log.js [ROUNDS]`
 */
import { pbkdf2 } from "node:crypto";
import { closeSync, fdatasync, fdatasyncSync, openSync, writeSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { openDataKeyCipher } from "../src/io/data-key-cipher.ts";
import { openLevelRaftLog } from "../src/io/level-raft-log.ts";
import { nodeKeyFile } from "../src/io/node-key-file.ts";
import { openRaftLog } from "../src/io/raft-log.ts";
import { startSyncThread } from "../src/io/sync-thread.ts";
import { silentLog } from "../src/lib/log.ts";
import type { Entry, Storage } from "../src/raft/types.ts";

const valueBytes = 256;
/** Saves in flight at once, one entry each: what a driver with so many proposals under way asks for. */
const inFlight = [1, 10, 100, 500] as const;
/** Syncs of one measurement, about. */
const syncsEach = 150;

interface Subject {
  readonly name: string;
  readonly storage: Storage;
  next: number;
}

const rounds = Number(process.argv[2] ?? 5);
const root = await mkdtemp(join(tmpdir(), "shoal-bench-log-"));
const say = (line: string): void => void process.stdout.write(`${line}\n`);
try {
  say(`entries of ${valueBytes} bytes in ${root}; load ${loadText()}`);
  await benchLogs();
  await benchSyncs();
  say(`load ${loadText()}`);
} finally {
  await rm(root, { recursive: true, force: true });
}

async function benchLogs(): Promise<void> {
  const cipher = await openDataKeyCipher(nodeKeyFile(join(root, "key.pem")));
  const subjects: Subject[] = [
    {
      name: "own log",
      next: 1,
      storage: await openRaftLog({ directory: join(root, "plain"), log: silentLog }),
    },
    {
      name: "own log, encrypted",
      next: 1,
      storage: await openRaftLog({ directory: join(root, "sealed"), log: silentLog, cipher }),
    },
    { name: "level", next: 1, storage: await openLevelRaftLog(join(root, "level")) },
  ];
  const results = new Map<
    string,
    { rate: number[]; p50: number[]; p99: number[]; cpu: number[] }
  >();
  for (let round = 0; round < rounds; round += 1) {
    for (const flight of inFlight) {
      for (const subject of subjects) {
        const key = `${subject.name}|${flight}`;
        const result = results.get(key) ?? { rate: [], p50: [], p99: [], cpu: [] };
        results.set(key, result);
        const measured = await measure(subject, flight);
        result.rate.push(measured.rate);
        result.p50.push(measured.p50);
        result.p99.push(measured.p99);
        result.cpu.push(measured.cpu);
      }
    }
  }
  say("subject               in flight   entries/s   p50 ms   p99 ms   CPU us/entry");
  for (const [key, result] of results) {
    const [name = "", flight = ""] = key.split("|");
    say(
      `${name.padEnd(20)}  ${flight.padStart(9)}  ${Math.round(median(result.rate)).toString().padStart(10)}  ${median(result.p50).toFixed(3).padStart(7)}  ${median(result.p99).toFixed(3).padStart(7)}  ${median(result.cpu).toFixed(1).padStart(13)}`,
    );
  }
  for (const { storage } of subjects) await storage.close();
}

/** Keeps `flight` saves under way until about `syncsEach` groups went through. */
async function measure(
  subject: Subject,
  flight: number,
): Promise<{ rate: number; p50: number; p99: number; cpu: number }> {
  const count = flight * syncsEach;
  const times: number[] = [];
  const cpuBefore = process.cpuUsage();
  const started = performance.now();
  let left = count;
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const at = performance.now();
      const entry = entryOf(subject.next);
      subject.next += 1;
      const hardState = { term: 1, vote: "bench", commit: Math.max(0, entry.index - flight) };
      await subject.storage.save({ hardState, entries: [entry], snapshot: null });
      times.push(performance.now() - at);
    }
  };
  await Promise.all(Array.from({ length: flight }, worker));
  const ms = performance.now() - started;
  const cpu = process.cpuUsage(cpuBefore);
  times.sort((a, b) => a - b);
  return {
    rate: (count / ms) * 1000,
    p50: times[Math.floor(count / 2)] ?? 0,
    p99: times[Math.floor(count * 0.99)] ?? 0,
    cpu: (cpu.user + cpu.system) / count,
  };
}

/** One write of 4 KiB and its sync, in a preallocated file; with Node's pool idle, and with four jobs in it. */
async function benchSyncs(): Promise<void> {
  const fd = openSync(join(root, "probe"), "w+");
  const zeros = new Uint8Array(8 * 1024 * 1024);
  writeSync(fd, zeros);
  fdatasyncSync(fd);
  const thread = startSyncThread();
  const ways: readonly (readonly [string, () => Promise<void>])[] = [
    ["on the event loop", async () => fdatasyncSync(fd)],
    [
      "in Node's pool",
      () =>
        new Promise((resolve, reject) =>
          fdatasync(fd, (error) => (error ? reject(error) : resolve())),
        ),
    ],
    ["own thread", () => thread.sync(fd)],
  ];
  await thread.sync(fd);
  say("fdatasync             pool busy     p50 ms   p99 ms");
  for (const busy of [false, true]) {
    let stop = false;
    const jobs = busy ? [1, 2, 3, 4].map(() => keepBusy(() => stop)) : [];
    const results = new Map<string, { p50: number[]; p99: number[] }>();
    for (let round = 0; round < rounds; round += 1) {
      for (const [name, sync] of ways) {
        const times: number[] = [];
        for (let i = 0; i < 200; i += 1) {
          const at = performance.now();
          writeSync(fd, zeros, 0, 4096, (i % 2000) * 4096);
          await sync();
          times.push(performance.now() - at);
        }
        times.sort((a, b) => a - b);
        const result = results.get(name) ?? { p50: [], p99: [] };
        results.set(name, result);
        result.p50.push(times[100] ?? 0);
        result.p99.push(times[198] ?? 0);
      }
    }
    stop = true;
    await Promise.all(jobs);
    for (const [name, { p50, p99 }] of results) {
      say(
        `${name.padEnd(20)}  ${String(busy).padStart(9)}  ${median(p50).toFixed(3).padStart(9)}  ${median(p99).toFixed(3).padStart(7)}`,
      );
    }
  }
  await thread.close();
  closeSync(fd);
}

/** One job after the other in Node's pool, as a burst of image layers or name look-ups makes them. */
async function keepBusy(ended: () => boolean): Promise<void> {
  while (!ended()) {
    await new Promise<void>((resolve) => {
      pbkdf2("x", "y", 3000, 32, "sha256", () => resolve());
    });
  }
}

function entryOf(index: number): Entry {
  return { index, term: 1, kind: "normal", data: new Uint8Array(valueBytes).fill(index & 255) };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

function loadText(): string {
  return loadavg()
    .map((value) => value.toFixed(1))
    .join(" ");
}
