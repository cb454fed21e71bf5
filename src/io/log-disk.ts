/** The few file operations that the Raft log needs, as a contract, and Node's files behind it. One flat directory. */
import { close, fsync, open, writeSync } from "node:fs";
import { mkdir, open as openHandle, readdir, readFile, rename, rm, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { type SyncThread, startSyncThread } from "./sync-thread.ts";

/** An open file that is written at given places. */
export interface LogFile {
  /** Hands the bytes to the operating system at once, and keeps none of them; they are durable only after sync(). Throws the system's error. */
  write(bytes: Uint8Array, offset: number): void;
  /**
   * Resolves when everything written is on the device. Rejects with the system's error; then nothing is known of it.
   * With `patient` the event loop may be held up for it, for at most patienceMs (sync-thread.ts).
   */
  sync(patient?: boolean): Promise<void>;
  /** Whether syncNow() may be called: no sync is under way, and the device is steadily quick (sync-pace.ts). */
  isQuick(): boolean;
  /** Like sync(), with the event loop held up until it is over. Throws the system's error. */
  syncNow(): void;
  close(): Promise<void>;
}

/** One directory on a device. A created, renamed or removed name is durable only after syncDirectory(). */
export interface LogDisk {
  /** For messages: where this is. */
  readonly path: string;
  list(): Promise<string[]>;
  read(name: string): Promise<Uint8Array>;
  open(name: string): Promise<LogFile>;
  /** A new file of `bytes`, all of it allocated, written and synced; replaces an old one of that name. */
  create(name: string, contents: Uint8Array, bytes: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  remove(name: string): Promise<void>;
  syncDirectory(): Promise<void>;
  /** Bytes that an unprivileged writer could still allocate. */
  freeBytes(): Promise<number>;
}

/** A LogDisk of this machine. */
export interface OpenLogDisk extends LogDisk {
  /** Ends what the disk runs; its files are closed. */
  close(): Promise<void>;
}

/** Zeros are written in pieces of this size, in bytes, so that no piece holds the event loop's thread pool for long. */
const ZERO_BYTES = 1024 * 1024;

const openFd = promisify(open);
const closeFd = promisify(close);
const syncAll = promisify(fsync);

/** The directory `path`, made if it is not there. */
export async function openLogDisk(path: string): Promise<OpenLogDisk> {
  const made = await mkdir(path, { recursive: true, mode: 0o700 });
  // A new directory is itself a name in another one.
  if (made !== undefined) await syncDirectoryAt(dirname(made));
  const at = (name: string): string => join(path, name);
  // Only who writes needs one.
  let started: SyncThread | null = null;
  const thread = (): SyncThread => {
    started ??= startSyncThread();
    return started;
  };
  return {
    path,
    close: async () => started?.close(),
    list: () => readdir(path),
    read: async (name) => {
      const bytes = await readFile(at(name));
      return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
    open: async (name) => logFile(await openFd(at(name), "r+"), thread),
    create: async (name, contents, bytes) => {
      const file = await openHandle(at(name), "w", 0o600);
      try {
        await writeWhole(file, contents, 0);
        const zeros = new Uint8Array(ZERO_BYTES);
        for (let offset = contents.length; offset < bytes; offset += ZERO_BYTES) {
          const piece = zeros.subarray(0, Math.min(ZERO_BYTES, bytes - offset));
          await writeWhole(file, piece, offset);
        }
        await file.sync();
      } finally {
        await file.close();
      }
    },
    rename: (from, to) => rename(at(from), at(to)),
    remove: (name) => rm(at(name), { force: true }),
    syncDirectory: () => syncDirectoryAt(path),
    freeBytes: async () => {
      const { bavail, bsize } = await statfs(path);
      return bavail * bsize;
    },
  };
}

async function syncDirectoryAt(path: string): Promise<void> {
  const fd = await openFd(path, "r");
  try {
    await syncAll(fd);
  } finally {
    await closeFd(fd);
  }
}

function logFile(fd: number, thread: () => SyncThread): LogFile {
  return {
    write: (bytes, offset) => {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(fd, bytes, done, bytes.length - done, offset + done);
      }
    },
    sync: (patient) => thread().sync(fd, patient),
    isQuick: () => thread().isQuick(),
    syncNow: () => thread().syncNow(fd),
    close: () => closeFd(fd),
  };
}

/** A full disk makes a write short before it makes one fail. */
async function writeWhole(
  file: Awaited<ReturnType<typeof openHandle>>,
  bytes: Uint8Array,
  offset: number,
): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}
