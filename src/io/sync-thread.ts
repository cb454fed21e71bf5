/**
 * fdatasync on a thread of its own. Node's pool of four threads also serves name look-ups, compression and every other
 * file: a sync that waits there for its turn waits ten times as long (docs/decisions/0007). The two threads wake each
 * other through shared memory: messages both ways cost up to half as much CPU again as the sync itself.
 */
/// <reference lib="es2024.sharedmemory" />
import { fdatasyncSync } from "node:fs";
import { getSystemErrorMap } from "node:util";
import { Worker } from "node:worker_threads";
import { assert, present } from "../lib/assert.ts";
import { failure } from "../lib/errors.ts";
import { createSyncPace } from "./sync-pace.ts";

export interface SyncThread {
  /**
   * Resolves when everything written to `fd` so far is on the device. Rejects with the system's error. With `patient`,
   * for who has nothing else to do meanwhile, the caller's thread sleeps until it is over, but at most patienceMs and
   * only when the sync before took less: one that is quick is cheaper waited for than told of.
   */
  sync(fd: number, patient?: boolean): Promise<void>;
  /** Whether syncNow() may be called: no sync is under way, and the device is steadily quick (sync-pace.ts). */
  isQuick(): boolean;
  /** The same on the caller's thread: it is over on return. Throws the system's error. */
  syncNow(fd: number): void;
  /** Ends the thread; nothing is asked of it afterwards. */
  close(): Promise<void>;
}

/** What the shared numbers are: counts of syncs asked for and answered (they wrap), then what is asked, then the answer. */
export const syncCells = { asked: 0, answered: 1, fd: 2, errno: 3 } as const;
/**
 * What runs there. Text, because it must run alike from the sources and from what they are compiled to. It sleeps until
 * more is asked than it has answered. An error that is not the system's is thrown, which ends the thread.
 */
const program = `
const { workerData: shared } = require("node:worker_threads");
const { fdatasyncSync } = require("node:fs");
const { asked, answered, fd, errno } = ${JSON.stringify(syncCells)};
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
/** The longest that an event loop is held up by a sync, in ms: about ten times what a quiet SSD takes, a fifth of a tick's hundredth. */
export const patienceMs = 0.5;
/** Megabytes of heap that the thread may have: it holds nothing, but Node itself takes 4 there. */
const heapMb = 16;

interface Asked {
  readonly fd: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** The numbers that the two threads share. */
export function newSyncCells(): Int32Array {
  const numbers = Object.keys(syncCells).length;
  return new Int32Array(new SharedArrayBuffer(numbers * Int32Array.BYTES_PER_ELEMENT));
}

/** Starts the thread. It keeps the process alive only while a sync is under way. */
export function startSyncThread(shared: Int32Array = newSyncCells()): SyncThread {
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
  let askedAt = 0;
  /** How long the last sync took, in ms. */
  let lastMs = Number.POSITIVE_INFINITY;
  const pace = createSyncPace();

  function wakeThread(fd: number): void {
    askedAt = performance.now();
    count = (count + 1) | 0;
    Atomics.store(shared, syncCells.fd, fd);
    Atomics.store(shared, syncCells.asked, count);
    Atomics.notify(shared, syncCells.asked);
  }

  function isAnswered(): boolean {
    return Atomics.load(shared, syncCells.answered) === count;
  }

  /** Hears of the answer to the sync under way; false when it is there already. */
  function listen(): boolean {
    const answer = Atomics.waitAsync(shared, syncCells.answered, (count - 1) | 0);
    if (answer.async) void answer.value.then(heard);
    return answer.async;
  }

  /** Somebody was woken; by the answer, or late, by the one before: the thread may be held up between answer and waking. */
  function heard(): void {
    if (ended === null && (isAnswered() || !listen())) answered();
  }

  function ask(fd: number): void {
    wakeThread(fd);
    // It may be that quick: who asks is told later all the same.
    if (!listen()) queueMicrotask(heard);
  }

  /** True when it was answered in time; else its answer is listened for. */
  function askAndWait(fd: number): boolean {
    wakeThread(fd);
    const before = (count - 1) | 0;
    for (let leftMs = patienceMs; leftMs > 0; leftMs = patienceMs - (performance.now() - askedAt)) {
      Atomics.wait(shared, syncCells.answered, before, leftMs);
      if (isAnswered()) return true;
    }
    return !listen();
  }

  /** The error of the sync that was just answered; null when there was none. */
  function takeAnswer(): Error | null {
    took(askedAt, false);
    const errno = Atomics.load(shared, syncCells.errno);
    return errno === 0 ? null : systemError(errno);
  }

  function took(beganMs: number, onLoop: boolean): void {
    const now = performance.now();
    lastMs = now - beganMs;
    pace.took(beganMs, now, onLoop);
  }

  function answered(): void {
    assert(isAnswered(), "a sync is over when the thread says so");
    const error = takeAnswer();
    const { resolve, reject } = present(waiting.shift(), "someone who waits for this sync");
    const [next] = waiting;
    if (next === undefined) worker.unref();
    else ask(next.fd);
    if (error === null) resolve();
    else reject(error);
  }

  function end(error: Error): void {
    ended ??= error;
    for (const { reject } of waiting.splice(0)) reject(ended);
  }

  worker.on("error", end);
  worker.on("exit", () => end(failure("internal", "syncing the raft log: its thread has ended")));
  worker.unref();
  return {
    sync: (fd, patient = false) => {
      if (ended !== null) return Promise.reject(ended);
      const wait = patient && waiting.length === 0 && lastMs < patienceMs;
      if (wait && askAndWait(fd)) {
        const error = takeAnswer();
        return error === null ? Promise.resolve() : Promise.reject(error);
      }
      return new Promise((resolve, reject) => {
        waiting.push({ fd, resolve, reject });
        if (waiting.length > 1) return;
        worker.ref();
        if (!wait) ask(fd);
      });
    },
    isQuick: () => ended === null && waiting.length === 0 && pace.trusts(performance.now()),
    syncNow(fd) {
      assert(
        ended === null && waiting.length === 0,
        "a sync is done at once when none is under way",
      );
      const beganMs = performance.now();
      try {
        fdatasyncSync(fd);
      } finally {
        took(beganMs, true);
      }
    },
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
