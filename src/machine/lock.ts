/**
 * A lock that the kernel frees when its holder dies: an abstract unix socket that only one process can bind.
 *
 * Nothing is on disk, so nothing can be stale. Who waits connects to the holder and is woken by the end of that connection.
 */
import { createHash } from "node:crypto";
import { connect, createServer, type Server, type Socket } from "node:net";
import { failure } from "../lib/errors.ts";
import { lockWaitMs, pollMs } from "./limits.ts";

/** Runs `work` while this process alone holds the lock called `name` (any text). Throws `unavailable` after `waitMs`. */
export async function withLock<T>(
  name: string,
  work: () => Promise<T>,
  waitMs: number = lockWaitMs,
): Promise<T> {
  const release = await acquire(name, waitMs);
  try {
    return await work();
  } finally {
    await release();
  }
}

async function acquire(name: string, waitMs: number): Promise<() => Promise<void>> {
  const digest = createHash("sha256").update(name).digest("hex").slice(0, 32);
  const address = `\0shoal-machine-lock-${digest}`;
  const deadline = Date.now() + waitMs;
  for (;;) {
    const release = await bind(address);
    if (release !== null) return release;
    const left = deadline - Date.now();
    if (left <= 0) {
      throw failure(
        "unavailable",
        `waiting for ${name}: another shoal command has worked on it for more than ${waitMs / 1000} s; try again when it has ended`,
      );
    }
    await untilReleased(address, left);
  }
}

/** Binds the address; null when somebody else has it. */
function bind(address: string): Promise<(() => Promise<void>) | null> {
  const waiting = new Set<Socket>();
  const server: Server = createServer((socket) => {
    waiting.add(socket);
    socket.on("close", () => waiting.delete(socket));
    socket.on("error", () => waiting.delete(socket));
  });
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE") resolve(null);
      else reject(failure("internal", `binding a lock: ${error.message}`, error));
    });
    server.listen(address, () => {
      resolve(
        () =>
          new Promise((done) => {
            server.close(() => done());
            for (const socket of waiting) socket.destroy();
          }),
      );
    });
  });
}

/** Resolves when the holder has gone (or at once, when it went in between), at the latest after `waitMs`. */
function untilReleased(address: string, waitMs: number): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(address);
    const timer = setTimeout(() => socket.destroy(), waitMs);
    const finish = (): void => {
      clearTimeout(timer);
      // A short pause: several who waited do not spin on the same instant.
      setTimeout(resolve, Math.min(pollMs, Math.max(0, waitMs)));
    };
    socket.resume();
    socket.once("error", () => socket.destroy());
    socket.once("close", finish);
  });
}
