/**
 * fdatasync on a thread of its own. Node's pool of four threads also serves name look-ups, compression and every other
 * file: a sync that waits there for its turn waits ten times as long (docs/decisions/0007). The two threads wake each
 * other through shared memory: messages both ways cost up to half as much CPU again as the sync itself.
 */
/// <reference lib="es2024.sharedmemory" />
import { getSystemErrorMap } from "node:util";
import { Worker } from "node:worker_threads";
import { assert, present } from "../lib/assert.ts";
import { failure } from "../lib/errors.ts";

export interface SyncThread {
  /** Resolves when everything written to `fd` so far is on the device. Rejects with the system's error. */
  sync(fd: number): Promise<void>;
  /** Ends the thread; nothing is asked of it afterwards. */
  close(): Promise<void>;
}

/** What the shared numbers are: counts of syncs asked for and answered (they wrap), then what is asked, then the answer. */
const cells = { asked: 0, answered: 1, fd: 2, errno: 3 } as const;
/**
 * What runs there. Text, because it must run alike from the sources and from what they are compiled to. It sleeps until
 * more is asked than it has answered. An error that is not the system's is thrown, which ends the thread.
 */
const program = `
const { workerData: shared } = require("node:worker_threads");
const { fdatasyncSync } = require("node:fs");
const { asked, answered, fd, errno } = ${JSON.stringify(cells)};
for (let count = 0; ; ) {
  Atomics.wait(shared, asked, count);
  const next = Atomics.load(shared, asked);
  if (next === count) continue;
  count = next;
  let failed = 0;
  try { fdatasyncSync(Atomics.load(shared, fd)); } catch (error) {
    if (!(error.errno < 0)) throw error;
    failed = error.errno;
  }
  Atomics.store(shared, errno, failed);
  Atomics.store(shared, answered, count);
  Atomics.notify(shared, answered);
}`;
/** Megabytes of heap that the thread may have: it holds nothing, but Node itself takes 4 there. */
const heapMb = 16;

interface Asked {
  readonly fd: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Starts the thread. It keeps the process alive only while a sync is under way. */
export function startSyncThread(): SyncThread {
  const numbers = Object.keys(cells).length;
  const shared = new Int32Array(new SharedArrayBuffer(numbers * Int32Array.BYTES_PER_ELEMENT));
  const worker = new Worker(program, {
    eval: true,
    stdout: false,
    workerData: shared,
    resourceLimits: { maxOldGenerationSizeMb: heapMb, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 },
  });
  /** In the order they were asked for; the thread has the first one. */
  const waiting: Asked[] = [];
  let count = 0;
  let ended: Error | null = null;

  function ask(fd: number): void {
    // Listening begins before the thread is woken: its answer cannot be missed.
    const answer = Atomics.waitAsync(shared, cells.answered, count);
    assert(answer.async, "every earlier sync was answered");
    void answer.value.then(answered);
    count = (count + 1) | 0;
    Atomics.store(shared, cells.fd, fd);
    Atomics.store(shared, cells.asked, count);
    Atomics.notify(shared, cells.asked);
  }

  function answered(): void {
    if (ended !== null) return;
    const errno = Atomics.load(shared, cells.errno);
    const { resolve, reject } = present(waiting.shift(), "someone who waits for this sync");
    const [next] = waiting;
    if (next === undefined) worker.unref();
    else ask(next.fd);
    if (errno === 0) resolve();
    else reject(systemError(errno));
  }

  function end(error: Error): void {
    ended ??= error;
    for (const { reject } of waiting.splice(0)) reject(ended);
  }

  worker.on("error", end);
  worker.on("exit", () => end(failure("internal", "syncing the raft log: its thread has ended")));
  worker.unref();
  return {
    sync: (fd) =>
      new Promise((resolve, reject) => {
        if (ended !== null) return reject(ended);
        waiting.push({ fd, resolve, reject });
        if (waiting.length > 1) return;
        worker.ref();
        ask(fd);
      }),
    async close() {
      await worker.terminate();
    },
  };
}

/** As Node makes it of a failed call. */
function systemError(errno: number): Error {
  const [code, words] = getSystemErrorMap().get(errno) ?? [`errno ${-errno}`, "unknown error"];
  return Object.assign(new Error(`${code}: ${words}, fdatasync`), {
    code,
    errno,
    syscall: "fdatasync",
  });
}
