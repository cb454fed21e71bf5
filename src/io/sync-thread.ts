/**
 * fdatasync on a thread of its own. Node's pool of four threads also serves name look-ups, compression and every other
 * file: a sync that waits there for its turn waits ten times as long (docs/decisions/0007).
 */
import { Worker } from "node:worker_threads";
import { present } from "../lib/assert.ts";
import { failure } from "../lib/errors.ts";

export interface SyncThread {
  /** Resolves when everything written to `fd` so far is on the device. Rejects with the system's error. */
  sync(fd: number): Promise<void>;
  /** Ends the thread; nothing is asked of it afterwards. */
  close(): Promise<void>;
}

/** What runs there. Text, because it must run alike from the sources and from what they are compiled to. */
const program = `
const { parentPort } = require("node:worker_threads");
const { fdatasyncSync } = require("node:fs");
parentPort.on("message", (fd) => {
  let failed = null;
  try { fdatasyncSync(fd); } catch (error) { failed = { code: error.code, message: error.message }; }
  parentPort.postMessage(failed);
});`;
/** Megabytes of heap that the thread may have: it holds nothing. */
const heapMb = 16;

/** Starts the thread. It keeps the process alive only while a sync is under way. */
export function startSyncThread(): SyncThread {
  const worker = new Worker(program, {
    eval: true,
    stdout: false,
    resourceLimits: { maxOldGenerationSizeMb: heapMb, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 },
  });
  /** In the order they were asked for, which is the order they are answered in. */
  const waiting: { readonly resolve: () => void; readonly reject: (error: Error) => void }[] = [];
  let ended: Error | null = null;
  const end = (error: Error): void => {
    ended ??= error;
    for (const { reject } of waiting.splice(0)) reject(ended);
  };
  worker.on("message", (failed: { readonly code: string; readonly message: string } | null) => {
    const { resolve, reject } = present(waiting.shift(), "someone who waits for this sync");
    if (waiting.length === 0) worker.unref();
    if (failed === null) resolve();
    else reject(Object.assign(new Error(failed.message), { code: failed.code }));
  });
  worker.on("error", end);
  worker.on("exit", () => end(failure("internal", "syncing the raft log: its thread has ended")));
  worker.unref();
  return {
    sync: (fd) =>
      new Promise((resolve, reject) => {
        if (ended !== null) return reject(ended);
        if (waiting.length === 0) worker.ref();
        waiting.push({ resolve, reject });
        worker.postMessage(fd);
      }),
    async close() {
      await worker.terminate();
    },
  };
}
