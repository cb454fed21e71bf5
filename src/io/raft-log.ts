/** The durable Raft log: where it is opened, on a directory of this machine or on any LogDisk. */
import { setImmediate } from "node:timers/promises";
import { assert, present } from "../lib/assert.ts";
import type { Log } from "../lib/log.ts";
import type { Storage } from "../raft/types.ts";
import { lockDirectory } from "./directory-lock.ts";
import { type LogDisk, type LogFile, openLogDisk } from "./log-disk.ts";
import type { LogCipher } from "./raft-log-cipher.ts";
import { encodeSegmentHeader, SEGMENT_HEADER_BYTES } from "./raft-log-format.ts";
import {
  type Recovered,
  recover,
  type Segment,
  SPARE_NAME,
  segmentName,
} from "./raft-log-recovery.ts";
import { DiskLog } from "./raft-log-writer.ts";

/** Bytes of one segment, allocated ahead: overwriting allocated blocks syncs about twice as fast as growing a file. */
export const SEGMENT_BYTES: number = 8 * 1024 * 1024;
/** Bytes that stay free on the device when roomFor() says yes: for the next segment and for a snapshot being replaced. */
export const FREE_MARGIN_BYTES: number = 32 * 1024 * 1024;

export interface RaftLog extends Storage {
  /**
   * Whether `bytes` more can be proposed with the disk as it is. False when the device is nearly full (or the log has
   * failed): refuse new work then. What is under way still fits into the segment that is allocated ahead.
   */
  roomFor(bytes: number): Promise<boolean>;
  /**
   * Index of the last entry that is not sealed with the current data key; null when there is none. While it is not
   * null, the old key stays in the key file; a snapshot of this index or later ends that.
   */
  staleThrough(): number | null;
  /**
   * Seals what comes from now on with a new data key. Resolves when the new key is durable in the key file.
   * Rejects with ShoalError "failed-precondition" while the last rotation is not finished, "unavailable" when the key
   * file cannot be written (then nothing changed).
   */
  rotateKey(): Promise<void>;
}
export interface RaftLogOptions {
  readonly segmentBytes?: number;
  readonly freeMarginBytes?: number;
  readonly unlock?: () => Promise<void>;
  /** Without it nothing is sealed, and a log that is cannot be read. */
  readonly cipher?: LogCipher | null;
  /** See WriterOptions; without it nothing else gets a turn between the slices. */
  readonly nextTurn?: () => Promise<void>;
}

/**
 * Opens the log in `directory`, made if it is not there, and owns it until close(). A save that changes nothing but the
 * commit index is kept for the next one: a restarted peer learns it again (Raft 5.2 needs term, vote and log only).
 * Throws ShoalError "conflict" when another process has it, "internal" naming file, byte and remedy when it is damaged,
 * or naming key and key file when it is sealed with a key that is not at hand.
 */
export async function openRaftLog(options: {
  readonly directory: string;
  readonly log: Log;
  readonly cipher?: LogCipher | null;
}): Promise<RaftLog> {
  const { directory, log, cipher = null } = options;
  const disk = await openLogDisk(directory);
  try {
    const release = await lockDirectory(directory);
    const unlock = async (): Promise<void> => {
      await disk.close();
      await release();
    };
    try {
      return await openLogOn(disk, log, { unlock, cipher, nextTurn: setImmediate });
    } catch (error) {
      await release();
      throw error;
    }
  } catch (error) {
    await disk.close();
    throw error;
  }
}

/** The same on any LogDisk, for tests and the simulator. */
export async function openLogOn(
  disk: LogDisk,
  log: Log,
  options: RaftLogOptions = {},
): Promise<RaftLog> {
  const { segmentBytes = SEGMENT_BYTES, cipher = null } = options;
  assert(segmentBytes >= 2 * SEGMENT_HEADER_BYTES, "a segment holds more than its header");
  const keyId = cipher?.current.id ?? null;
  const old = await recover(disk, log, cipher);
  await cipher?.ensure();
  const found = old ?? (await begin(disk, segmentBytes, keyId));
  const file = await disk.open(last(found.segments).name);
  try {
    await tidy(disk, found, file);
  } catch (error) {
    await file.close();
    throw error;
  }
  return new DiskLog(disk, log, found, file, {
    segmentBytes,
    freeMarginBytes: options.freeMarginBytes ?? FREE_MARGIN_BYTES,
    unlock: options.unlock ?? (async () => {}),
    cipher,
    nextTurn: options.nextTurn ?? (async () => {}),
  });
}

/** Makes the first segment of a new log. */
async function begin(
  disk: LogDisk,
  segmentBytes: number,
  keyId: string | null,
): Promise<Recovered> {
  const header = { number: 1, firstRecord: 1, lastIndexBefore: 0, keyId };
  await disk.create(SPARE_NAME, encodeSegmentHeader(header), segmentBytes);
  await disk.rename(SPARE_NAME, segmentName(1));
  await disk.syncDirectory();
  return {
    state: { hardState: { term: 0, vote: null, commit: 0 }, snapshot: null, entries: [] },
    mark: null,
    lastIndex: 0,
    nextRecord: 1,
    segments: [{ ...header, name: segmentName(1), bytes: segmentBytes }],
    writeAt: SEGMENT_HEADER_BYTES,
    cutBytes: 0,
    headerMissing: false,
    snapshotKeyId: null,
    leftovers: [],
  };
}

/** Brings the disk to where writing can go on: header written, torn tail zeroed, leftovers gone. */
async function tidy(disk: LogDisk, found: Recovered, file: LogFile): Promise<void> {
  if (found.headerMissing) file.write(encodeSegmentHeader(last(found.segments)), 0);
  if (found.cutBytes > 0) file.write(new Uint8Array(found.cutBytes), found.writeAt);
  // What was read will be built on, and may be in the system's cache only. A sync alone does not help: pages that a
  // failed sync lost count as clean. Written again, they are written. Earlier segments were synced before this one began.
  const { name } = last(found.segments);
  const read = await disk.read(name);
  const from = found.headerMissing ? SEGMENT_HEADER_BYTES : 0;
  if (found.writeAt > from) file.write(read.subarray(from, found.writeAt), from);
  await file.sync();
  for (const leftover of found.leftovers) await disk.remove(leftover);
  await disk.syncDirectory();
}

function last(segments: readonly Segment[]): Segment {
  return present(segments.at(-1), "the segment that is written");
}
