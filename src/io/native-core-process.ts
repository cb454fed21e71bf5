/** Keeps a resident `shoal-core serve` running: detached, so that it outlives this process; started again when it is gone. */
import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { failure, messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";

/** First wait before a core that ended is started again; doubles up to the maximum while starts fail. */
const restartMsMin = 10;
const restartMsMax = 250;
/** A core that lived so long failed for a new reason: the wait begins anew. */
const settledMs = 1_000;
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
  #watched: Socket | null = null;
  #closed = false;

  constructor(options: CoreOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    const socket = await connected(this.#options.socketPath);
    this.#watch(socket ?? (await this.#launch()));
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#watched?.destroy();
  }

  /** An idle connection ends with the core: no polling, and no moment lost. */
  #watch(socket: Socket | null): void {
    this.#watched = socket;
    if (this.#closed || socket === null) return void socket?.destroy();
    socket.unref();
    // What it may say is for others; unread it would fill the socket.
    socket.resume();
    socket.on("error", (error) =>
      this.#options.log.debug({ error: messageOf(error) }, "native core watch broke"),
    );
    socket.once("close", () => this.#revive());
  }

  #revive(): void {
    if (this.#closed) return;
    if (Date.now() - this.#startedAt > settledMs) this.#waitMs = restartMsMin;
    const waitMs = this.#waitMs;
    this.#waitMs = Math.min(this.#waitMs * 2, restartMsMax);
    this.#timer = setTimeout(() => {
      this.start().catch((error: unknown) => {
        this.#options.log.error({ error: messageOf(error) }, "starting the native core failed");
        this.#revive();
      });
    }, waitMs);
  }

  async #launch(): Promise<Socket | null> {
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
      });
      child.unref();
      log.info({ pid: child.pid ?? 0 }, "native core started");
    } finally {
      closeSync(output);
    }
    this.#startedAt = Date.now();
    for (;;) {
      const socket = await connected(socketPath);
      if (socket !== null || this.#closed) return socket;
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

/** A connection to whatever listens at the socket; null when nothing does. */
function connected(socketPath: string): Promise<Socket | null> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    socket.once("connect", () => resolve(socket));
    socket.once("error", () => resolve(null));
  });
}
