/** Keeps a resident `shoal-core serve` running: detached, so that it outlives this process; started again when it is gone. */
import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { failure, messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";

/** How often it is asked whether the core still answers, in milliseconds; a connection that breaks is noticed at once. */
const watchMs = 1_000;
/** First wait before a core that ended is started again; doubles up to the maximum while starts fail. */
const restartMsMin = 10;
const restartMsMax = 5_000;
/** A core that lived so long failed for a new reason: the wait begins anew. */
const settledMs = 10_000;
/** How long a started core may take to answer. */
const startTimeoutMs = 10_000;
/** Between two looks whether it answers yet. */
const startPollMs = 5;

export interface CoreOptions {
  /** Path of shoal-core. */
  readonly binary: string;
  readonly execRoot: string;
  readonly socketPath: string;
  /** `/NAME` under each cgroup hierarchy. */
  readonly cgroupParent: string;
  readonly log: Log;
}
export interface CoreKeeper {
  /** Something was lost: look now instead of at the next turn. */
  check(): void;
  /** Stops watching; the core itself goes on, with its containers. */
  close(): void;
}

/** Starts a core unless one answers, and keeps doing so. Resolves when it answers; rejects with what to do when it cannot be started. */
export async function spawnCore(options: CoreOptions): Promise<CoreKeeper> {
  const keeper = new ProcessKeeper(options);
  await keeper.start();
  return keeper;
}

class ProcessKeeper implements CoreKeeper {
  readonly #options: CoreOptions;
  #timer: NodeJS.Timeout | null = null;
  #waitMs = restartMsMin;
  #startedAt = 0;
  #busy = false;
  #closed = false;

  constructor(options: CoreOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    if (!(await answersAt(this.#options.socketPath))) await this.#launch();
    this.#again(watchMs);
  }

  check(): void {
    if (!this.#busy) this.#again(0);
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #again(waitMs: number): void {
    if (this.#closed) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#look().catch((error: unknown) => {
        this.#options.log.error({ error: messageOf(error) }, "starting the native core failed");
        this.#waitMs = Math.min(this.#waitMs * 2, restartMsMax);
        this.#again(this.#waitMs);
      });
    }, waitMs);
  }

  async #look(): Promise<void> {
    this.#busy = true;
    try {
      if (!(await answersAt(this.#options.socketPath))) {
        if (this.#closed) return;
        if (Date.now() - this.#startedAt > settledMs) this.#waitMs = restartMsMin;
        await this.#launch();
      }
      this.#again(watchMs);
    } finally {
      this.#busy = false;
    }
  }

  async #launch(): Promise<void> {
    const { binary, execRoot, socketPath, cgroupParent, log } = this.#options;
    const root = join(execRoot, "core");
    mkdirSync(root, { recursive: true, mode: 0o700 });
    mkdirSync(dirname(socketPath), { recursive: true, mode: 0o700 });
    const logPath = join(execRoot, "core.log");
    const output = openSync(logPath, "a", 0o600);
    let ended: string | null = null;
    try {
      const child = spawn(
        binary,
        ["serve", "--root", root, "--socket", socketPath, "--cgroup-parent", cgroupParent],
        { detached: true, stdio: ["ignore", output, output] },
      );
      child.once("error", (error) => {
        ended = messageOf(error);
      });
      child.once("exit", (code, signal) => {
        ended = `it ended with ${signal ?? `code ${code}`}`;
        this.check();
      });
      child.unref();
      log.info({ pid: child.pid ?? 0 }, "native core started");
    } finally {
      closeSync(output);
    }
    this.#startedAt = Date.now();
    while (!(await answersAt(socketPath))) {
      if (this.#closed) return;
      if (ended !== null || Date.now() - this.#startedAt > startTimeoutMs) {
        throw failure(
          "unavailable",
          `starting ${binary}: ${ended ?? `no answer at ${socketPath} in ${startTimeoutMs} ms`}; see ${logPath}, and that script/setup has built it`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, startPollMs));
    }
  }
}

/** True when something accepts connections at the socket. */
function answersAt(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    const end = (ok: boolean) => {
      socket.destroy();
      resolve(ok);
    };
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
  });
}
