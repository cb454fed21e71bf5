/**
 * script/bench raft: our Raft against Debian's etcd-server in one run. Rounds of the two alternate, each on a new
 * cluster of three members on one disk; what is compared is the median of the rounds' ratios.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs, promisify } from "node:util";
import { Cluster, type EngineName, snapshots } from "./cluster.ts";
import { type Row, report } from "./report.ts";

const runFile = promisify(execFile);
const engines: readonly EngineName[] = ["shoal", "etcd"];
const keys = 10_000;
const valueBytes = 256;
const levels = [1, 32, 256, 1000];
const readsInFlight = 256;
/** Writes before anything is measured: they fill the keys. */
const fillKeysWrites = 20_000;
/**
 * And so many seconds with so few in flight that each member takes thousands of turns: members live for months, and a
 * just-in-time compiler that is still at work is not what anybody would measure.
 */
const warmSeconds = 8;
const warmInFlight = 4;
const fillWrites = 250_000;
const fillInFlight = 256;
/** How long one kill may take to be followed by an acknowledged write, in ms. */
const failoverMsMax = 20_000;
/** Between the return of a killed member and the next kill, in ms: logs, connections and timers are as ever again. */
const calmMs = 1_500;

const { values } = optionsOf(process.argv.slice(2));
const rounds = Number(values.rounds ?? (values.quick ? 2 : 5));
const seconds = Number(values.seconds ?? (values.quick ? 2 : 5));
const kills = Number(values.kills ?? (values.quick ? 3 : 9));
const parts = values.only.split(",");
const writeLevels = values.levels?.split(",").map(Number) ?? levels;
const chosen = engines.filter((name) => values.engine === undefined || values.engine === name);
const generator = process.env["RAFT_LOAD"] ?? "raft-load";

function optionsOf(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        rounds: { type: "string" },
        seconds: { type: "string" },
        kills: { type: "string" },
        quick: { type: "boolean", default: false },
        /** Parts: load, memory, failover. */
        only: { type: "string", default: "load,memory,failover" },
        levels: { type: "string" },
        engine: { type: "string" },
        soak: { type: "string" },
        dir: { type: "string", default: "/var/tmp" },
      },
    });
  } catch (error) {
    process.stderr.write(
      `bench raft: ${error instanceof Error ? error.message : error}; see script/bench --help\n`,
    );
    process.exit(2);
  }
}

interface Load {
  readonly done: number;
  readonly failed: number;
  readonly seconds: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly clientCpuSeconds: number;
}

/** Connections of the client for so many requests in flight: few enough that both sides can batch, the same for both. */
function connectionsFor(inFlight: number): number {
  return Math.min(inFlight, 8);
}

async function load(
  cluster: Cluster,
  mode: "put" | "get" | "fill",
  inFlight: number,
  more: readonly string[],
): Promise<Load> {
  const running = runFile(generator, [
    ...["-target", cluster.engine, "-endpoints", await cluster.leader(), "-mode", mode],
    ...["-inflight", String(inFlight), "-conns", String(connectionsFor(inFlight))],
    ...["-keys", String(keys), "-bytes", String(valueBytes), ...more],
  ]);
  generators.add(running.child);
  try {
    return JSON.parse((await running).stdout) as Load;
  } finally {
    generators.delete(running.child);
  }
}

const rows: Row[] = [];
/** Load generators that run, and the folder of this run: what an interrupted run has to take with it. */
const generators = new Set<ChildProcess>();
let folder: string | null = null;

function note(engine: EngineName, what: string, unit: string, value: number): void {
  rows.push({ engine, what, unit, value });
}

async function measureLoad(engine: EngineName, under: string): Promise<void> {
  const cluster = await Cluster.start(engine, under);
  try {
    await load(cluster, "fill", fillInFlight, ["-count", String(fillKeysWrites)]);
    await load(cluster, "put", warmInFlight, ["-seconds", String(warmSeconds)]);
    const cells: readonly (readonly ["put" | "get", number])[] = [
      ...writeLevels.map((level) => ["put", level] as const),
      ["get", readsInFlight],
    ];
    for (const [mode, inFlight] of cells) {
      const before = await cluster.usage();
      const result = await load(cluster, mode, inFlight, ["-seconds", String(seconds)]);
      const after = await cluster.usage();
      const what = `${mode === "put" ? "writes" : "reads"} ${inFlight}`;
      note(engine, what, "/s", result.perSecond);
      note(engine, `${what} p50`, "ms", result.p50Ms);
      note(engine, `${what} p99`, "ms", result.p99Ms);
      const each = 1e6 / Math.max(1, result.done);
      note(engine, `${what} CPU members`, "us/op", (after.cpuSeconds - before.cpuSeconds) * each);
      note(engine, `${what} CPU client`, "us/op", result.clientCpuSeconds * each);
      say(
        `${engine.padEnd(5)} ${what.padEnd(12)} ${result.perSecond.toFixed(0).padStart(7)}/s  p50 ${result.p50Ms} ms  p99 ${result.p99Ms} ms  failed ${result.failed}  load ${loadavg()[0]?.toFixed(1)}`,
      );
    }
  } finally {
    await cluster.stop();
  }
}

async function measureMemory(engine: EngineName, under: string): Promise<void> {
  const cluster = await Cluster.start(engine, under);
  try {
    await load(cluster, "fill", fillInFlight, ["-count", String(fillWrites)]);
    const { rssBytes } = await cluster.usage();
    const mib = rssBytes.map((bytes) => bytes / 2 ** 20);
    note(
      engine,
      "RSS, three members",
      "MiB",
      mib.reduce((sum, one) => sum + one, 0),
    );
    note(engine, "RSS, largest member", "MiB", Math.max(...mib));
    say(
      `${engine.padEnd(5)} RSS after ${fillWrites} writes: ${mib.map((one) => one.toFixed(0)).join(" ")} MiB`,
    );
  } finally {
    await cluster.stop();
  }
}

/** Kills the leader so many times; the time to the first acknowledged one of the writes that were sent after it. */
async function measureFailover(engine: EngineName, under: string, times: number): Promise<void> {
  const cluster = await Cluster.start(engine, under);
  try {
    for (let kill = 0; kill < times; kill += 1) {
      const probe = spawn(
        generator,
        ["-target", engine, "-endpoints", cluster.endpoints().join(","), "-mode", "probe"],
        { stdio: ["pipe", "pipe", "inherit"] },
      );
      generators.add(probe);
      const gone = once(probe, "exit");
      try {
        const acknowledged = readAcknowledgements(probe.stdout);
        await acknowledged((_sent) => true);
        await sleep(calmMs);
        const killedUs = await cluster.killLeader();
        const answeredUs = await acknowledged((sentUs) => sentUs > killedUs);
        const ms = (answeredUs - killedUs) / 1000;
        note(engine, "failover", "ms", ms);
        say(
          `${engine.padEnd(5)} kill -9 of the leader to the next acknowledged write: ${ms.toFixed(0)} ms`,
        );
      } finally {
        probe.kill("SIGKILL");
        await gone;
        generators.delete(probe);
      }
      await cluster.restart();
    }
  } finally {
    await cluster.stop();
  }
}

/** Gives a function that waits for an acknowledged write for which `want` holds, and tells when it was answered. */
function readAcknowledgements(
  output: NodeJS.ReadableStream,
): (want: (sentUs: number) => boolean) => Promise<number> {
  const lines = createInterface({ input: output });
  let wanted: { want: (sentUs: number) => boolean; found: (answeredUs: number) => void } | null =
    null;
  lines.on("line", (line) => {
    const [sentUs = 0, answeredUs = 0] = line.split(" ").map(Number);
    if (wanted?.want(sentUs)) {
      const { found } = wanted;
      wanted = null;
      found(answeredUs);
    }
  });
  return (want) =>
    new Promise((resolve, reject) => {
      const limit = setTimeout(
        () => reject(new Error(`bench: no write was acknowledged in ${failoverMsMax} ms`)),
        failoverMsMax,
      );
      wanted = {
        want,
        found(answeredUs) {
          clearTimeout(limit);
          resolve(answeredUs);
        },
      };
    });
}

/** Full load for some minutes, and the elections nobody asked for. */
async function soak(engine: EngineName, under: string, minutes: number): Promise<number> {
  const cluster = await Cluster.start(engine, under);
  try {
    const before = await cluster.changes();
    const result = await load(cluster, "put", fillInFlight, ["-seconds", String(minutes * 60)]);
    await cluster.ready();
    const elections = (await cluster.changes()) - before;
    const { rssBytes } = await cluster.usage();
    const rss = rssBytes.map((bytes) => (bytes / 2 ** 20).toFixed(0)).join(" ");
    say(
      `${engine.padEnd(5)} ${minutes} minutes of full load: ${result.done} writes, ${result.perSecond.toFixed(0)}/s, p99 ${result.p99Ms} ms, failed ${result.failed}, spurious elections ${elections}, RSS ${rss} MiB`,
    );
    return elections;
  } finally {
    await cluster.stop();
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function main(): Promise<void> {
  const under = await mkdtemp(join(values.dir ?? tmpdir(), "raft-bench-"));
  folder = under;
  try {
    say(
      `raft bench: 3 members each, one disk (${values.dir}), client over loopback TCP to the leader, ${keys} keys, ${valueBytes}-byte values, sync on a quorum before the answer, heartbeat 100 ms, election 1000 ms, ${warmSeconds} s of warming up, snapshots each ${snapshots.shoal.count} entries (ours) and ${snapshots.etcd.count} (etcd), as shipped; ${availableParallelism()} cores, load average ${loadavg()
        .map((one) => one.toFixed(2))
        .join(" ")}`,
    );
    if (values.soak !== undefined) {
      let elections = 0;
      for (const engine of chosen)
        if (engine === "shoal" || values.engine === "etcd")
          elections += await soak(engine, under, Number(values.soak));
      process.exitCode = elections === 0 ? 0 : 1;
      return;
    }
    for (let round = 0; round < rounds; round += 1) {
      // Who begins changes each round: neither always has the quieter or the busier disk.
      const order = round % 2 === 0 ? chosen : [...chosen].reverse();
      say(`round ${round + 1} of ${rounds}, load average ${loadavg()[0]?.toFixed(2)}`);
      for (const engine of order) {
        if (parts.includes("load")) await measureLoad(engine, under);
        if (parts.includes("memory")) await measureMemory(engine, under);
        if (parts.includes("failover")) {
          await measureFailover(engine, under, Math.ceil(kills / rounds));
        }
      }
    }
    for (const line of report(rows)) say(line);
    say(
      `load average at the end ${loadavg()
        .map((one) => one.toFixed(2))
        .join(" ")}`,
    );
  } finally {
    await rm(under, { recursive: true, force: true });
  }
}

// Members are children: a run that is interrupted, or fails where nobody catches it, ends them and removes what they
// wrote before it goes.
function leave(code: number): void {
  const exit = (): never => process.exit(code);
  for (const child of generators) child.kill("SIGKILL");
  Cluster.stopAll()
    .then(() => (folder === null ? null : rm(folder, { recursive: true, force: true })))
    .then(exit, exit);
}
process.once("SIGINT", () => leave(130));
process.once("SIGTERM", () => leave(143));
process.stdout.on("error", () => leave(1));
process.once("uncaughtException", (error) => {
  process.stderr.write(`bench: ${error.stack ?? error.message}\n`);
  leave(1);
});
await main();
