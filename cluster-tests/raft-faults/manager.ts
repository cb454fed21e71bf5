/** One manager under faults: a real shoald on a disk and in a network of its own, which is killed, stopped, starved and lied to. */
import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
} from "node:fs";
import { mkdir, open, readFile, rm, writeFile } from "node:fs/promises";
import { Agent } from "node:http";
import { join } from "node:path";
import { checkout, must, run, until } from "../lib/command.ts";
import { type Answer, ask } from "./engine-api.ts";
import { failingSyncEnvironment } from "./failing-sync.ts";
import { Namespaces, onlyChildOf } from "./namespaces.ts";

/** Size of a manager's disk, in bytes: it keeps 64 MiB free for its log, and its log and records need as much again. */
const diskBytes: number = 192 * 1024 * 1024;
/** How long a daemon may take from its start to the answer of its API, in milliseconds, on a busy machine. */
export const startMsMax = 30_000;
/** How long an API may take to say that it is there, in milliseconds. */
const pingMsMax = 1_000;
/** Starts before it is given up. */
const startsMax = 3;
/** How long a daemon may take to end after it was told to, in milliseconds. */
const endMsMax = 15_000;

/** How a daemon ended. */
export interface End {
  readonly code: number | null;
  readonly signal: string | null;
  /** What it wrote since it was started. */
  readonly said: string;
}
interface Daemon {
  /** nsenter, which waits for the daemon, and stops when that is stopped. */
  readonly waiter: ChildProcess;
  readonly pid: number;
  readonly ended: Promise<End>;
}

export class FaultyManager {
  readonly index: number;
  readonly name: string;
  readonly address: string;
  readonly socket: string;
  readonly dataRoot: string;
  readonly machine: Namespaces;
  readonly #folder: string;
  readonly #library: string;
  readonly #agent: Agent = new Agent({ keepAlive: true });
  readonly #cgroupParent: string;
  #daemon: Daemon | null = null;
  /** How the last daemon ended, until another is started. */
  #lastEnd: End | null = null;
  #logRead = 0;
  #logRest = "";
  /** Told when a daemon ended that nobody had told to. */
  onEnd: (end: End) => void = () => {};
  /** Whether an end of the daemon is what the present fault is about. */
  endExpected = false;

  private constructor(options: ManagerOptions, machine: Namespaces) {
    this.index = options.index;
    this.name = options.name;
    this.address = options.address;
    this.machine = machine;
    this.#folder = options.folder;
    this.#library = options.library;
    this.dataRoot = join(options.folder, "data");
    this.socket = join(options.folder, "docker.sock");
    this.#cgroupParent = `/shoal-rf-${options.name}-${process.pid}`;
  }

  /** Makes the machine with its disk. No daemon yet. */
  static async create(options: ManagerOptions): Promise<FaultyManager> {
    const { folder } = options;
    await mkdir(join(folder, "data"), { recursive: true });
    await mkdir(join(folder, "exec"));
    const image = join(folder, "disk.img");
    await must("truncate", ["-s", String(diskBytes), image]);
    await must("mkfs.ext4", ["-q", "-m", "0", "-F", image]);
    const machine = await Namespaces.create(options.name);
    const manager = new FaultyManager(options, machine);
    try {
      // The loop device goes with the last mount of it, and that with the machine.
      await machine.inside("mount", "-o", "loop", image, manager.dataRoot);
    } catch (error) {
      await manager.destroy();
      throw error;
    }
    return manager;
  }

  get runs(): boolean {
    return this.#daemon !== null;
  }
  get logPath(): string {
    return join(this.#folder, "daemon.log");
  }
  get #control(): string {
    return join(this.#folder, "sync-control");
  }

  /** Starts the daemon and does not wait for its API. Nothing when it runs. */
  async start(): Promise<void> {
    if (this.#daemon !== null) return;
    this.endExpected = false;
    this.#lastEnd = null;
    const [program = "", ...rest] = this.machine.entered(
      "env",
      ...failingSyncEnvironment(this.#library, this.#control),
      ...[join(checkout, "bin/shoald"), "--data-root", this.dataRoot],
      ...["--exec-root", join(this.#folder, "exec"), "-H", `unix://${this.socket}`],
      ...["--cgroup-parent", this.#cgroupParent, "--node-name", this.name],
    );
    const log = openSync(this.logPath, "a");
    const logFrom = fstatSync(log).size;
    const waiter = spawn(program, rest, { stdio: ["ignore", log, log] });
    closeSync(log);
    const ended = new Promise<End>((resolve) => {
      waiter.once("error", (error) => resolve({ code: null, signal: null, said: String(error) }));
      waiter.once("exit", (code, signal) => {
        this.#daemon = null;
        const said = readFileSync(this.logPath).subarray(logFrom).toString("utf8");
        const end = { code, signal, said };
        this.#lastEnd = end;
        resolve(end);
        if (!this.endExpected) this.onEnd(end);
      });
    });
    const pid = await until(`the daemon of ${this.name} to be started`, async () => {
      if (waiter.exitCode !== null || waiter.signalCode !== null) return -1;
      return onlyChildOf(waiter.pid ?? 0) || null;
    });
    const isOver = waiter.exitCode !== null || waiter.signalCode !== null;
    if (!isOver) this.#daemon = { waiter, pid, ended };
  }

  /** Starts it if need be, and resolves when the API answers. Throws with what the daemon said when it ends again and again. */
  async answers(): Promise<void> {
    let starts = 0;
    const error = await until(
      `shoald of ${this.name} to answer (${this.logPath})`,
      async () => {
        if (this.#daemon === null) {
          if (starts === startsMax) return `it ended ${startsMax} times`;
          starts += 1;
          await this.start();
        }
        return (await this.isUp()) ? "" : null;
      },
      startMsMax,
    );
    if (error !== "") throw new Error(`starting shoald of ${this.name}: ${error}, see its log`);
  }

  /** Whether its API answers now. */
  async isUp(): Promise<boolean> {
    const answer = await this.ask("GET", "/_ping", null, pingMsMax);
    return answer.kind === "answered" && answer.status === 200;
  }

  async ask(
    method: "GET" | "POST",
    path: string,
    body: unknown = null,
    timeoutMs = 30_000,
  ): Promise<Answer> {
    return await ask({
      socket: this.socket,
      agent: this.#agent,
      method,
      path,
      body,
      timeoutMs,
    });
  }

  /** Kills the daemon without a word, also a stopped one; resolves when it has ended. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }
  /** Ends the daemon in order. */
  async stop(): Promise<End | null> {
    return await this.#end("SIGTERM");
  }
  /** Stops every thread of the daemon where it is. */
  pause(): void {
    if (this.#daemon !== null) sendSignal(this.#daemon.pid, "SIGSTOP");
  }
  resume(): void {
    if (this.#daemon === null) return;
    sendSignal(this.#daemon.pid, "SIGCONT");
    this.#daemon.waiter.kill("SIGCONT");
  }

  async #end(name: "SIGKILL" | "SIGTERM"): Promise<End | null> {
    const daemon = this.#daemon;
    if (daemon === null) return null;
    this.endExpected = true;
    sendSignal(daemon.pid, name);
    if (name === "SIGKILL") daemon.waiter.kill("SIGCONT");
    return await this.waitEnd(endMsMax);
  }

  /** How the daemon ended, also when it has; null when it still runs after `ms`. */
  async waitEnd(ms: number): Promise<End | null> {
    if (this.#daemon === null) return this.#lastEnd;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<null>((resolve) => {
      timer = setTimeout(() => resolve(null), ms);
    });
    const end = await Promise.race([this.#daemon.ended, late]);
    clearTimeout(timer);
    return end;
  }

  /** From now on every sync of the Raft log fails, or the next one only. */
  async failSyncs(mode: "always" | "once"): Promise<void> {
    await rm(`${this.#control}.hits`, { force: true });
    await writeFile(`${this.#control}.new`, mode);
    await must("mv", [`${this.#control}.new`, this.#control]);
  }
  /** Syncs work again; answers the files whose syncs have failed since failSyncs(). */
  async healSyncs(): Promise<readonly string[]> {
    await rm(this.#control, { force: true });
    return await this.failedSyncs();
  }
  async failedSyncs(): Promise<readonly string[]> {
    if (!existsSync(`${this.#control}.hits`)) return [];
    const text = await readFile(`${this.#control}.hits`, "utf8");
    return text.split("\n").filter(Boolean);
  }

  /** Leaves no byte free on the disk. */
  async fillDisk(): Promise<void> {
    const filler = join(this.dataRoot, "filler");
    const script = `
      free=$(( $(stat -f -c '%a*%S' ${this.dataRoot}) - 1048576 ))
      [ $free -le 0 ] || fallocate -l $free ${filler} || true
      cat /dev/zero > ${filler}2 2>/dev/null || true`;
    await this.machine.inside("sh", "-c", script);
  }
  async freeDisk(): Promise<void> {
    const filler = join(this.dataRoot, "filler");
    await this.machine.inside("rm", "-f", filler, `${filler}2`);
  }

  /** The whole lines that the daemons have written since the last look. */
  async newLines(): Promise<readonly string[]> {
    if (!existsSync(this.logPath)) return [];
    const file = await open(this.logPath, "r");
    try {
      const { size } = await file.stat();
      const bytes = Buffer.alloc(size - this.#logRead);
      await file.read(bytes, 0, bytes.length, this.#logRead);
      this.#logRead = size;
      const lines = (this.#logRest + bytes.toString("utf8")).split("\n");
      this.#logRest = lines.pop() ?? "";
      return lines;
    } finally {
      await file.close();
    }
  }

  /** The directories of Raft logs on its disk, as paths of this box; while the machine lives. */
  raftDirectories(): readonly string[] {
    const swarm = this.machine.outside(join(this.dataRoot, "swarm"));
    return readdirSync(swarm)
      .filter((name) => name.startsWith("raft-"))
      .map((name) => join(swarm, name));
  }

  /** Ends everything in the machine and takes its disk away; the log stays. */
  async destroy(): Promise<void> {
    this.endExpected = true;
    this.#agent.destroy();
    await this.machine.close();
    await until(`the cgroups of ${this.name} to be empty`, async () => {
      for (const path of this.#cgroups()) removeTree(path);
      return this.#cgroups().length === 0 ? true : null;
    });
    const disk = join(this.#folder, "disk.img");
    await until(`the disk of ${this.name} to be let go`, async () => {
      const { out } = await run("losetup", ["-j", disk]);
      return out === "" ? true : null;
    });
    for (const name of ["disk.img", "data", "exec", "docker.sock"])
      await rm(join(this.#folder, name), { recursive: true, force: true });
  }

  #cgroups(): readonly string[] {
    const root = "/sys/fs/cgroup";
    return [root, ...readdirSync(root).map((name) => join(root, name))]
      .map((path) => join(path, this.#cgroupParent))
      .filter((path) => existsSync(path));
  }
}

export interface ManagerOptions {
  readonly index: number;
  readonly name: string;
  readonly address: string;
  /** Folder of its own, on a real file system. */
  readonly folder: string;
  /** What buildFailingSync() made. */
  readonly library: string;
}

/** Fine when the process has just ended: its waiter is about to tell. */
function sendSignal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function removeTree(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) removeTree(join(path, entry.name));
  }
  rmdirSync(path);
}
