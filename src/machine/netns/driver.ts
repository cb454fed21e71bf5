/** Machines out of Linux namespaces: each has its own network, mounts, processes, host name, IPC and cgroups, and the box's kernel and files. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { access, mkdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { failure, messageOf } from "../../lib/errors.ts";
import type { Driver, DriverFeatures, SpawnOptions } from "../driver.ts";
import {
  bootMs,
  initGraceMs,
  killWaitMs,
  logTailBytesMax,
  pollMs,
  stopGraceMs,
} from "../limits.ts";
import { pause, run } from "../process.ts";
import type { MachineRecord, MachineState } from "../record.ts";
import { shellQuote } from "../shell-quote.ts";
import { isMissing, type MachineStore } from "../store.ts";
import {
  bootScript,
  type InitIdentity,
  isAlive,
  joinCgroupsScript,
  parseIdentity,
  takesSigterm,
} from "./boot.ts";
import { killAll, makeCgroup, membershipFiles, processesIn, removeCgroup } from "./cgroups.ts";
import {
  machineMac,
  machineNetnsName,
  makeSwitch,
  netnsFile,
  plugIn,
  switchName,
  unpin,
  unplug,
} from "./network.ts";

export interface NetnsPrograms {
  /** Argv of pid 1, before `-- DAEMON…`: normally `shoal-core init --keep`. */
  readonly init: readonly string[];
  /** Argv of the daemon, before its flags: normally `bin/shoald`. */
  readonly daemon: readonly string[];
}

/** A log is put aside at the machine's start when it has more than this. */
const logBytesMax = 16 * 1024 * 1024;
const neededTools = ["nsenter", "unshare", "ip", "mount", "umount", "hostname"];

export class NetnsDriver implements Driver {
  readonly name = "netns";
  readonly features: DriverFeatures = { power: true, exec: true, root: true };
  readonly #store: MachineStore;
  readonly #programs: NetnsPrograms;

  constructor(store: MachineStore, programs: NetnsPrograms) {
    this.#store = store;
    this.#programs = programs;
  }

  async preCreateCheck(machine: MachineRecord): Promise<void> {
    if (process.platform !== "linux") {
      throw failure(
        "failed-precondition",
        `the netns driver needs Linux, this is ${process.platform}`,
      );
    }
    if (process.geteuid?.() !== 0) {
      throw failure("failed-precondition", "the netns driver makes namespaces: run it as root");
    }
    this.#store.checkSocketPath(machine.name);
    // Each of these is covered by a mount of the machine's own, which would hide its state from it.
    for (const hidden of ["/run", "/var/run", "/proc", "/dev/shm"]) {
      if (`${this.#store.path}/`.startsWith(`${hidden}/`)) {
        throw failure(
          "failed-precondition",
          `storage path ${this.#store.path} is below ${hidden}, which every machine has for itself; choose another --storage-path`,
        );
      }
    }
    for (const tool of neededTools) {
      const found = await run(["sh", "-c", `command -v ${tool}`]);
      if (found.code !== 0) {
        throw failure(
          "failed-precondition",
          `the netns driver needs the program ${tool}; install util-linux, iproute2, mount and hostname`,
        );
      }
    }
    for (const [program] of [this.#programs.init, this.#programs.daemon]) {
      if (program?.startsWith("/") !== true) continue;
      try {
        await access(program, constants.X_OK);
      } catch (error) {
        throw failure(
          "failed-precondition",
          `the netns driver needs ${program}: ${messageOf(error)}; build it with script/setup`,
          error,
        );
      }
    }
  }

  async create(machine: MachineRecord): Promise<void> {
    await mkdir(this.#file(machine, "data"), { recursive: true, mode: 0o711 });
    await mkdir(this.#file(machine, "run"), { recursive: true, mode: 0o711 });
    await this.#store.networkLocked(() =>
      makeSwitch(switchName(this.#store.hash), machine.gateway, machine.prefixLength),
    );
  }

  async start(machine: MachineRecord): Promise<void> {
    if (this.#running(machine) !== null) return;
    await this.#clear(machine);
    await this.create(machine);
    await this.#store.networkLocked(() =>
      plugIn({
        switchName: switchName(this.#store.hash),
        netns: this.#netns(machine),
        index: machine.index,
        address: machine.address,
        prefixLength: machine.prefixLength,
        gateway: machine.gateway,
        mac: machineMac(this.#store.hash, machine.index),
      }),
    );
    makeCgroup(`${this.#cgroup(machine)}/init`);
    makeCgroup(`${this.#cgroup(machine)}/containers`);
    await this.#boot(machine);
  }

  async stop(machine: MachineRecord): Promise<void> {
    const init = this.#running(machine);
    if (init !== null) {
      // A pid 1 that has just begun ignores SIGTERM until it asks for it. It passes the signal on to the daemon, and ends
      // everything else when the daemon has ended.
      const isReady = await until(initGraceMs, async () => takesSigterm(init));
      if (isReady) {
        signal(init, "SIGTERM");
        await until(stopGraceMs, async () => !isAlive(init));
      }
    }
    await this.kill(machine);
  }

  async kill(machine: MachineRecord): Promise<void> {
    const init = this.#running(machine);
    if (init !== null) {
      signal(init, "SIGKILL");
      if (!(await until(killWaitMs, async () => !isAlive(init)))) {
        throw failure(
          "internal",
          `killing machine ${machine.name}: pid ${init.pid} still runs ${killWaitMs / 1000} s after SIGKILL; try again later`,
        );
      }
    }
    // Whoever waits for pid 1 outside (unshare, nsenter) ends by itself now, after it has taken its exit status.
    await until(initGraceMs, async () => processesIn(this.#cgroup(machine)).size === 0);
    await this.#clear(machine);
  }

  async remove(machine: MachineRecord): Promise<void> {
    await this.kill(machine);
    await rm(this.#file(machine, "data"), { recursive: true, force: true });
    await rm(this.#file(machine, "run"), { recursive: true, force: true });
  }

  async removeShared(): Promise<void> {
    await unpin(switchName(this.#store.hash));
  }

  async state(machine: MachineRecord): Promise<MachineState> {
    return this.#running(machine) === null ? "Stopped" : "Running";
  }

  async daemonPid(machine: MachineRecord): Promise<number | null> {
    const dataRoot = this.#file(machine, "data");
    for (const pid of processesIn(`${this.#cgroup(machine)}/init`)) {
      try {
        const inner = /^NSpid:\t\d+\t(?:\d+\t)*(\d+)$/m.exec(
          readFileSync(`/proc/${pid}/status`, "utf8"),
        );
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        // Init has the daemon's words among its own; it is pid 1 inside.
        const isInside = inner !== null && inner[1] !== "1";
        if (isInside && words[words.indexOf("--data-root") + 1] === dataRoot) return pid;
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code ?? "";
        if (code !== "ENOENT" && code !== "ESRCH") throw error;
      }
    }
    return null;
  }

  async startDaemon(machine: MachineRecord): Promise<void> {
    const line = [...this.#daemon(machine)].map(shellQuote).join(" ");
    const log = shellQuote(this.#file(machine, "machine.log"));
    const child = this.spawn(
      machine,
      // In its own session and without its parent: pid 1 of the machine takes it over.
      ["sh", "-c", `setsid ${line} >> ${log} 2>&1 < /dev/null &`],
      { stdio: ["ignore", "ignore", "ignore"], tty: false, directory: "/" },
    );
    await new Promise<void>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", () => resolve());
    });
  }

  address(machine: MachineRecord): string {
    return machine.address;
  }

  url(machine: MachineRecord): string {
    return `unix://${this.#store.socket(machine.name)}`;
  }

  async logTail(machine: MachineRecord): Promise<string> {
    try {
      const file = openSync(this.#file(machine, "machine.log"), "r");
      try {
        const size = fstatSync(file).size;
        const tail = Buffer.alloc(Math.min(size, logTailBytesMax));
        readSync(file, tail, 0, tail.length, size - tail.length);
        return tail.toString("utf8").trim();
      } finally {
        closeSync(file);
      }
    } catch (error) {
      if (isMissing(error)) return "";
      throw error;
    }
  }

  spawn(machine: MachineRecord, argv: readonly string[], options: SpawnOptions): ChildProcess {
    const init = this.#running(machine);
    if (init === null) {
      throw failure(
        "failed-precondition",
        `machine ${machine.name} is not running; start it with "shoal machine start ${machine.name}"`,
      );
    }
    // A program in a fresh pid namespace cannot own the caller's terminal: script(1) gives it one of its own.
    const program = options.tty
      ? ["script", "--quiet", "--return", "--command", argv.map(shellQuote).join(" "), "/dev/null"]
      : argv;
    const target = String(init.pid);
    const enter = ["nsenter", "--target", target, "--mount", "--uts", "--ipc", "--net", "--pid"];
    const environment = [...this.#environment(machine), `TERM=${process.env["TERM"] ?? "dumb"}`];
    return this.#inCgroup(
      machine,
      [
        ...enter,
        "--",
        "env",
        "-i",
        `--chdir=${options.directory ?? "/root"}`,
        ...environment,
        `DOCKER_HOST=${this.url(machine)}`,
        ...program,
      ],
      { stdio: options.stdio },
    );
  }

  async #boot(machine: MachineRecord): Promise<void> {
    const identity = this.#file(machine, "init.identity");
    const logFile = this.#file(machine, "machine.log");
    await rm(identity, { force: true });
    await this.#putLogAside(logFile);
    const log = openSync(logFile, "a", 0o600);
    let child: ChildProcess;
    try {
      child = this.#inCgroup(
        machine,
        [
          ...["nsenter", `--net=${netnsFile(this.#netns(machine))}`, "--"],
          ...["unshare", "--mount", "--propagation", "private", "--uts", "--ipc", "--pid"],
          ...["--fork", "--", "sh", "-c", bootScript, "shoal-machine"],
          ...[machine.name, identity, this.#file(machine, "run")],
          ...["env", "-i", ...this.#environment(machine)],
          ...this.#programs.init,
          "--",
          ...this.#daemon(machine),
        ],
        { stdio: ["ignore", log, log], detached: true },
      );
    } finally {
      closeSync(log);
    }
    let ended: string | null = null;
    child.once("exit", (code, by) => {
      ended = by === null ? `ended with ${code}` : `was ended by ${by}`;
    });
    child.once("error", (error) => {
      ended = error.message;
    });
    const up = await until(bootMs, async () => ended !== null || this.#running(machine) !== null);
    child.unref();
    if (ended !== null || !up) {
      const why = ended ?? `did not say who it is within ${bootMs / 1000} s`;
      throw failure(
        "internal",
        `starting machine ${machine.name}: its first process ${why}: ${await this.logTail(machine)}`,
      );
    }
  }

  #inCgroup(
    machine: MachineRecord,
    argv: readonly string[],
    options: { readonly stdio: SpawnOptions["stdio"]; readonly detached?: boolean },
  ): ChildProcess {
    const files = membershipFiles(`${this.#cgroup(machine)}/init`);
    return spawn("sh", ["-c", joinCgroupsScript, "sh", ...files, "--", ...argv], {
      stdio: options.stdio,
      detached: options.detached === true,
      cwd: "/",
    });
  }

  /** Takes away what a machine has only while it runs. Fine when it is not there. */
  async #clear(machine: MachineRecord): Promise<void> {
    await killAll(this.#cgroup(machine));
    await removeCgroup(this.#cgroup(machine));
    await this.#store.networkLocked(() =>
      unplug(switchName(this.#store.hash), this.#netns(machine), machine.index),
    );
    await rm(this.#file(machine, "init.identity"), { force: true });
    await rm(this.#store.socket(machine.name), { force: true });
    await rm(this.#file(machine, "run"), { recursive: true, force: true });
  }

  #running(machine: MachineRecord): InitIdentity | null {
    let text: string;
    try {
      text = readFileSync(this.#file(machine, "init.identity"), "utf8");
    } catch (error) {
      if (isMissing(error)) return null;
      throw error;
    }
    const identity = parseIdentity(text);
    return identity !== null && isAlive(identity) ? identity : null;
  }

  #daemon(machine: MachineRecord): string[] {
    return [
      ...this.#programs.daemon,
      ...["--data-root", this.#file(machine, "data")],
      ...["--exec-root", "/run/shoal"],
      ...["-H", this.url(machine)],
      ...["--cgroup-parent", `${this.#cgroup(machine)}/containers`],
      ...machine.daemonArguments,
    ];
  }

  #environment(machine: MachineRecord): string[] {
    const passed = Object.entries(process.env).filter(([name]) => name.startsWith("SHOAL_"));
    const path =
      process.env["PATH"] ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    return [
      `PATH=${path}:${dirname(process.execPath)}`,
      "HOME=/root",
      `LANG=${process.env["LANG"] ?? "C.UTF-8"}`,
      `HOSTNAME=${machine.name}`,
      ...passed.map(([name, value]) => `${name}=${value ?? ""}`),
      `SHOAL_MACHINE=${machine.name}`,
      ...machine.daemonEnvironment,
    ];
  }

  async #putLogAside(file: string): Promise<void> {
    try {
      if ((await stat(file)).size > logBytesMax) await rename(file, `${file}.1`);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  #file(machine: MachineRecord, name: string): string {
    return join(this.#store.directory(machine.name), name);
  }
  #netns(machine: MachineRecord): string {
    return machineNetnsName(this.#store.hash, machine.index);
  }
  #cgroup(machine: MachineRecord): string {
    return `/shoal-machines/${this.#store.hash}/${machine.name}`;
  }
}

function signal(init: InitIdentity, name: NodeJS.Signals): void {
  if (!isAlive(init)) return;
  try {
    process.kill(init.pid, name);
  } catch (error) {
    // ESRCH: it ended between the look and the signal.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Looks every pollMs until `done`; false when that has not come true within `ms`. */
async function until(ms: number, done: () => Promise<boolean>): Promise<boolean> {
  const deadline = Date.now() + ms;
  for (;;) {
    if (await done()) return true;
    if (Date.now() > deadline) return false;
    await pause(pollMs);
  }
}
