/** Three members of one engine on this machine, each with its own directory on one disk: started, asked, killed, removed. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export type EngineName = "shoal" | "etcd";
export const memberNames: readonly string[] = ["a", "b", "c"];
/** Entries between two snapshots, and entries kept behind one for slow followers: what each is shipped with (etcd: --snapshot-count, fixed). */
export const snapshots: Readonly<
  Record<EngineName, { readonly count: number; readonly keep: number }>
> = { shoal: { count: 10_000, keep: 500 }, etcd: { count: 100_000, keep: 5_000 } };
/**
 * As bin/shoald starts its Node: a young generation of 12 MiB, for what lives a few turns of the event loop, and a malloc
 * that gives back what large frames and snapshots took. Both cost a few hundredths of speed and save a third of memory.
 */
const memoryFlags: readonly string[] = ["--max-semi-space-size=4"];
const memoryEnvironment: Readonly<Record<string, string>> = {
  MALLOC_ARENA_MAX: "2",
  MALLOC_TRIM_THRESHOLD_: "131072",
  MALLOC_MMAP_THRESHOLD_: "131072",
};
/** How long a cluster may take to have a leader that all follow. */
const readyMsMax = 30_000;
const lookEveryMs = 50;
/** Ticks of the system's clock in a second (sysconf _SC_CLK_TCK), and bytes of a page, on Linux for x86-64 and arm64. */
const clockTicks = 100;
const pageBytes = 4096;

interface Member {
  readonly name: string;
  readonly clientPort: number;
  readonly peerPort: number;
  readonly dir: string;
  child: ChildProcess | null;
}
export interface MemberState {
  readonly leads: boolean;
  readonly leader: boolean;
  /** Leaders this process has seen come, or terms it has been in. */
  readonly changes: number;
}

export class Cluster {
  static readonly #running: Set<Cluster> = new Set();
  readonly engine: EngineName;
  readonly #folder: string;
  readonly #members: readonly Member[];

  private constructor(engine: EngineName, folder: string, members: readonly Member[]) {
    this.engine = engine;
    this.#folder = folder;
    this.#members = members;
  }

  /** A new cluster in a new folder below `under`; resolves when all members follow one leader. */
  static async start(engine: EngineName, under: string): Promise<Cluster> {
    await mkdir(under, { recursive: true });
    const folder = await mkdtemp(join(under, `${engine}-`));
    const members: Member[] = [];
    for (const name of memberNames) {
      const [clientPort, peerPort] = [await freePort(), await freePort()];
      members.push({ name, clientPort, peerPort, dir: join(folder, name), child: null });
    }
    const cluster = new Cluster(engine, folder, members);
    Cluster.#running.add(cluster);
    try {
      for (const member of members) cluster.#spawn(member);
      await cluster.ready();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  /** Ends every cluster that runs: for a run that is interrupted. */
  static async stopAll(): Promise<void> {
    await Promise.all([...Cluster.#running].map((cluster) => cluster.stop()));
  }

  #spawn(member: Member): void {
    const [command, args] = this.engine === "etcd" ? this.#etcd(member) : this.#shoal(member);
    // What it says goes to a file beside its data: on failure the end of it is told.
    const said = openSync(this.#saidBy(member), "a");
    const env = this.engine === "etcd" ? process.env : { ...process.env, ...memoryEnvironment };
    const child = spawn(command, args, { stdio: ["ignore", said, said], env });
    closeSync(said);
    child.once("error", (error) => {
      process.stderr.write(`bench: ${command}: ${error.message}\n`);
    });
    member.child = child;
  }

  #saidBy(member: Member): string {
    return `${member.dir}.log`;
  }

  #etcd(member: Member): [string, string[]] {
    const client = `http://127.0.0.1:${member.clientPort}`;
    const peer = `http://127.0.0.1:${member.peerPort}`;
    const all = this.#members.map(({ name, peerPort }) => `${name}=http://127.0.0.1:${peerPort}`);
    return [
      "etcd",
      [
        ...["--name", member.name, "--data-dir", member.dir],
        ...["--listen-client-urls", client, "--advertise-client-urls", client],
        ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
        ...["--initial-cluster", all.join(","), "--initial-cluster-state", "new"],
        ...["--heartbeat-interval", "100", "--election-timeout", "1000"],
        ...["--snapshot-count", String(snapshots.etcd.count)],
        // Its quota of 2 GiB would end a long run of full load.
        ...["--quota-backend-bytes", String(8 * 2 ** 30)],
        ...["--logger", "zap", "--log-level", "fatal"],
      ],
    ];
  }

  #shoal(member: Member): [string, string[]] {
    const all = this.#members.map(({ name, peerPort }) => `${name}=127.0.0.1:${peerPort}`);
    const profile = process.env["RAFT_BENCH_PROFILE"];
    return [
      process.execPath,
      [
        ...memoryFlags,
        ...(profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profile}`]),
        join(import.meta.dirname, "server.js"),
        ...["--id", member.name, "--dir", member.dir, "--peers", all.join(",")],
        ...["--raft", String(member.peerPort), "--client", String(member.clientPort)],
        ...["--snapshot-count", String(snapshots.shoal.count)],
        ...["--snapshot-keep", String(snapshots.shoal.keep)],
      ],
    ];
  }

  endpoints(): string[] {
    return this.#members.map(({ clientPort }) => `127.0.0.1:${clientPort}`);
  }

  /** Resolves when every member is up and follows one leader. */
  async ready(): Promise<void> {
    const until = Date.now() + readyMsMax;
    while (Date.now() < until) {
      const states = await Promise.all(this.#members.map((member) => this.#state(member)));
      if (states.every((s) => s?.leader) && states.filter((s) => s?.leads).length === 1) return;
      await sleep(lookEveryMs);
    }
    const said = await Promise.all(
      this.#members.map((member) => readFile(this.#saidBy(member), "utf8")),
    );
    throw new Error(
      `bench: three members of ${this.engine} have no leader after ${readyMsMax} ms; they said last: ${said.map((text) => text.slice(-500)).join(" / ")}`,
    );
  }

  /** Where the leader answers clients. */
  async leader(): Promise<string> {
    return `127.0.0.1:${(await this.#leader()).clientPort}`;
  }

  async #leader(): Promise<Member> {
    await this.ready();
    for (const member of this.#members) if ((await this.#state(member))?.leads) return member;
    throw new Error(`bench: ${this.engine} lost its leader`);
  }

  /** The sum of leader or term changes that the members have seen. */
  async changes(): Promise<number> {
    let sum = 0;
    for (const member of this.#members) sum += (await this.#state(member))?.changes ?? 0;
    return sum;
  }

  async #state(member: Member): Promise<MemberState | null> {
    const path = this.engine === "etcd" ? "metrics" : "";
    try {
      const response = await fetch(`http://127.0.0.1:${member.clientPort}/${path}`, {
        signal: AbortSignal.timeout(2_000),
      });
      const text = await response.text();
      if (this.engine === "shoal") {
        const { role, leader, termChanges } = JSON.parse(text) as Record<string, unknown>;
        return {
          leads: role === "leader",
          leader: leader !== null,
          changes: Number(termChanges),
        };
      }
      return {
        leads: metric(text, "etcd_server_is_leader") === 1,
        leader: metric(text, "etcd_server_has_leader") === 1,
        changes: metric(text, "etcd_server_leader_changes_seen_total"),
      };
    } catch {
      // Not up, or not answering: asked again, or counted as no answer, by the caller.
      return null;
    }
  }

  /** kill -9 of the leader. Gives the time, in microseconds since the epoch, before which nothing of this can have been seen. */
  async killLeader(): Promise<number> {
    const member = await this.#leader();
    const child = member.child;
    if (child === null) throw new Error("bench: the leader is not one of ours");
    const gone = once(child, "exit");
    const atUs = Math.round((performance.timeOrigin + performance.now()) * 1000);
    child.kill("SIGKILL");
    await gone;
    member.child = null;
    return atUs;
  }

  /** Starts the members that were killed again, on what they had on disk. */
  async restart(): Promise<void> {
    for (const member of this.#members) if (member.child === null) this.#spawn(member);
    await this.ready();
  }

  /** CPU seconds that the living members have used, and their resident bytes. */
  async usage(): Promise<{ readonly cpuSeconds: number; readonly rssBytes: readonly number[] }> {
    let cpuSeconds = 0;
    const rssBytes: number[] = [];
    for (const { child } of this.#members) {
      if (child?.pid === undefined) continue;
      const stat = await readFile(`/proc/${child.pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      cpuSeconds += (Number(fields[11]) + Number(fields[12])) / clockTicks;
      rssBytes.push(Number(fields[21]) * pageBytes);
    }
    return { cpuSeconds, rssBytes };
  }

  /** Ends the members and removes their folder, whatever state they are in. */
  async stop(): Promise<void> {
    for (const member of this.#members) {
      const { child } = member;
      member.child = null;
      if (child === null || child.exitCode !== null || child.signalCode !== null) continue;
      const gone = once(child, "exit");
      child.kill(process.env["RAFT_BENCH_PROFILE"] === undefined ? "SIGKILL" : "SIGTERM");
      await gone;
    }
    await rm(this.#folder, { recursive: true, force: true });
    Cluster.#running.delete(this);
  }
}

function metric(text: string, name: string): number {
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${name} `));
  return line === undefined ? 0 : Number(line.slice(name.length + 1));
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("bench: no port");
  return address.port;
}
