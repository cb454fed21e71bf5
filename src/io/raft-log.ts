/** The durable Raft log: segments of checksummed records, one write and one sync a save, and never a second try. */
import { assert, present } from "../lib/assert.ts";
import { type ErrorCode, failure, messageOf, ShoalError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { HardState, Ready, SavedState, Snapshot, Storage } from "../raft/types.ts";
import { lockDirectory } from "./directory-lock.ts";
import { type LogDisk, type LogFile, openLogDisk } from "./log-disk.ts";
import {
  encodeRecord,
  encodeSegmentHeader,
  encodeSnapshot,
  type LogRecord,
  recordBytes,
  SEGMENT_HEADER_BYTES,
  type SnapshotMark,
} from "./raft-log-format.ts";
import {
  type Recovered,
  recover,
  type Segment,
  SPARE_NAME,
  segmentName,
  snapshotName,
} from "./raft-log-recovery.ts";

/** Bytes of one segment, allocated ahead: overwriting allocated blocks syncs about twice as fast as growing a file. */
export const SEGMENT_BYTES: number = 8 * 1024 * 1024;
/** Bytes that stay free on the device when roomFor() says yes: for the next segment and for a snapshot being replaced. */
export const FREE_MARGIN_BYTES: number = 32 * 1024 * 1024;
/** Saves and compactions that may wait for their turn. The driver has one of each under way. */
export const WAITING_MAX = 16;

export interface RaftLog extends Storage {
  /**
   * Whether `bytes` more can be proposed with the disk as it is. False when the device is nearly full (or the log has
   * failed): refuse new work then. What is under way still fits into the segment that is allocated ahead.
   */
  roomFor(bytes: number): Promise<boolean>;
}

/**
 * Opens the log in `directory`, made if it is not there, and owns it until close(). A save that changes nothing but the
 * commit index is kept for the next one: a restarted peer learns it again (Raft 5.2 needs term, vote and log only).
 * Throws ShoalError "conflict" when another process has it, "internal" naming file, byte and remedy when it is damaged.
 */
export async function openRaftLog(options: {
  readonly directory: string;
  readonly log: Log;
}): Promise<RaftLog> {
  const { directory, log } = options;
  const disk = await openLogDisk(directory);
  const unlock = await lockDirectory(directory);
  try {
    return await openLogOn(disk, log, { unlock });
  } catch (error) {
    await unlock();
    throw error;
  }
}

/** The same on any LogDisk, for tests and the simulator. */
export async function openLogOn(
  disk: LogDisk,
  log: Log,
  options: {
    readonly segmentBytes?: number;
    readonly freeMarginBytes?: number;
    readonly unlock?: () => Promise<void>;
  } = {},
): Promise<RaftLog> {
  const segmentBytes = options.segmentBytes ?? SEGMENT_BYTES;
  assert(segmentBytes >= 2 * SEGMENT_HEADER_BYTES, "a segment holds more than its header");
  const found = (await recover(disk, log)) ?? (await begin(disk, segmentBytes));
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
  });
}

/** Makes the first segment of a new log. */
async function begin(disk: LogDisk, segmentBytes: number): Promise<Recovered> {
  const header = { number: 1, firstRecord: 1, lastIndexBefore: 0 };
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
    leftovers: [],
  };
}

/** Brings the disk to where writing can go on: header written, torn tail zeroed, leftovers gone. */
async function tidy(disk: LogDisk, found: Recovered, file: LogFile): Promise<void> {
  if (found.headerMissing) file.write(encodeSegmentHeader(last(found.segments)), 0);
  if (found.cutBytes > 0) file.write(new Uint8Array(found.cutBytes), found.writeAt);
  // Also when nothing was cut: what was read may still be on its way to the device, and will be built on.
  await file.sync();
  for (const name of found.leftovers) await disk.remove(name);
  await disk.syncDirectory();
}

class DiskLog implements RaftLog {
  readonly #disk: LogDisk;
  readonly #log: Log;
  readonly #options: { segmentBytes: number; freeMarginBytes: number; unlock: () => Promise<void> };
  #loaded: SavedState | null;
  #segments: Segment[];
  #file: LogFile;
  #writeAt: number;
  #nextRecord: number;
  #lastIndex: number;
  #mark: SnapshotMark | null;
  #hardState: HardState;
  /** The commit index moved and no record says so yet. */
  #commitUnsaved = false;
  /** Set for ever by the first failure: after a failed sync nobody knows what the device holds. */
  #dead: ShoalError | null = null;
  #closed = false;
  /** Resolves when the last waiting job is done; jobs run one after the other. */
  #turn: Promise<void> = Promise.resolve();
  #waiting = 0;
  /** The segment allocated ahead, or null when there is none; resolves to its bytes, 0 when it could not be made. */
  #spare: Promise<number> | null = null;
  /** The segment allocated ahead is being put to use; nobody else may make one. */
  #rotating = false;

  constructor(
    disk: LogDisk,
    log: Log,
    found: Recovered,
    file: LogFile,
    options: { segmentBytes: number; freeMarginBytes: number; unlock: () => Promise<void> },
  ) {
    this.#disk = disk;
    this.#log = log;
    this.#options = options;
    this.#loaded = found.state;
    this.#segments = [...found.segments];
    this.#file = file;
    this.#writeAt = found.writeAt;
    this.#nextRecord = found.nextRecord;
    this.#lastIndex = found.lastIndex;
    this.#mark = found.mark;
    this.#hardState = found.state.hardState;
    this.#spare = this.#makeSpare();
  }

  /** What the log held when it was opened. Once: the log keeps no entries in memory. */
  async load(): Promise<SavedState> {
    this.#assertOpen();
    const state = present(this.#loaded, "what was loaded, before it is loaded again");
    this.#loaded = null;
    return state;
  }

  save(change: Pick<Ready, "hardState" | "entries" | "snapshot">): Promise<void> {
    return this.#inTurn("saving the raft log", async () => {
      const { entries, snapshot } = change;
      const before = this.#hardState;
      const hardState = change.hardState ?? before;
      assert(hardState.term >= before.term, "a saved term never falls");
      const promises = hardState.term !== before.term || hardState.vote !== before.vote;
      this.#hardState = hardState;
      if (entries.length === 0 && snapshot === null && !promises) {
        this.#commitUnsaved ||= hardState.commit !== before.commit;
        return;
      }
      if (snapshot !== null) await this.#writeSnapshot(snapshot);
      const base = snapshot === null ? this.#lastIndex : snapshot.index;
      const first = entries[0];
      assert(first === undefined || first.index <= base + 1, "saved entries join on to the log");
      if (snapshot !== null) {
        this.#mark = { index: snapshot.index, term: snapshot.term, keepFrom: snapshot.index + 1 };
      }
      this.#lastIndex = entries.at(-1)?.index ?? base;
      await this.#append(entries, snapshot !== null);
      if (snapshot !== null) await this.#dropOld(this.#segments.length - 1);
    });
  }

  compact(snapshot: Snapshot, keepFrom: number): Promise<void> {
    return this.#inTurn("compacting the raft log", async () => {
      assert(keepFrom <= snapshot.index + 1, "every forgotten entry is in the snapshot");
      // A newer snapshot came from the leader while this one was made.
      if (this.#mark !== null && snapshot.index <= this.#mark.index) return;
      assert(snapshot.index <= this.#lastIndex, "a snapshot covers entries of this log");
      await this.#writeOwnSnapshot(snapshot);
      const kept = Math.max(keepFrom, this.#mark?.keepFrom ?? 1);
      this.#mark = { index: snapshot.index, term: snapshot.term, keepFrom: kept };
      await this.#append([], false);
      const next = this.#segments.findIndex((segment) => segment.lastIndexBefore >= kept);
      await this.#dropOld((next < 0 ? this.#segments.length : next) - 1);
    });
  }

  async roomFor(bytes: number): Promise<boolean> {
    if (this.#dead !== null || this.#closed) return false;
    const free = await this.#disk.freeBytes();
    if (free < bytes + this.#options.freeMarginBytes) return false;
    if (this.#rotating) return true;
    const spare = this.#spare;
    if (spare !== null && (await spare) > 0) return true;
    // The disk was full once and is not any more: allocate ahead again before more is promised.
    if (this.#spare === spare && !this.#rotating) this.#spare = this.#makeSpare();
    return this.#spare === null || (await this.#spare) > 0;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    if (this.#commitUnsaved && this.#dead === null) {
      await this.#inTurn("closing the raft log", () => this.#append([], false));
    }
    this.#closed = true;
    await this.#turn;
    await this.#spare;
    await this.#file.close();
    await this.#options.unlock();
  }

  /** Runs `job` after those that wait. Its failure is the log's, but for want of room that did no harm: it is never tried again, and nothing after it runs. */
  #inTurn(doing: string, job: () => Promise<void>): Promise<void> {
    this.#assertOpen();
    assert(this.#waiting < WAITING_MAX, "the driver waits for its saves");
    this.#waiting += 1;
    const run = this.#turn.then(async () => {
      this.#waiting -= 1;
      if (this.#dead !== null) throw this.#dead;
      try {
        await job();
      } catch (error) {
        if (error instanceof ShoalError && error.code === "unavailable") throw error;
        this.#dead = this.#death(doing, error);
        throw this.#dead;
      }
    });
    // The caller hears of the failure through `run`; the next job hears of it through #dead.
    this.#turn = run.catch(() => {});
    return run;
  }

  #death(doing: string, error: unknown): ShoalError {
    const full = isFull(error);
    const code: ErrorCode = full ? "unavailable" : "internal";
    const advice = full
      ? "free space on that device and start the manager again"
      : "what the device holds is not known now; check the device and start the manager again";
    const message = `${doing} in ${this.#disk.path}: ${messageOf(error)}. This manager stops: ${advice}.`;
    this.#log.error({ directory: this.#disk.path, error: messageOf(error) }, "raft log failed");
    return failure(code, message, error);
  }

  #assertOpen(): void {
    assert(!this.#closed, "a closed raft log is not used");
  }

  /** One record, one write, one sync. */
  async #append(entries: LogRecord["entries"], install: boolean): Promise<void> {
    const record: LogRecord = {
      number: this.#nextRecord,
      hardState: this.#hardState,
      mark: this.#mark,
      install,
      entries,
    };
    const bytes = recordBytes(record);
    let header: Uint8Array | null = null;
    if (this.#writeAt + bytes > last(this.#segments).bytes) {
      const first = entries[0];
      const before = first === undefined || install ? this.#lastIndex : first.index - 1;
      header = await this.#nextSegment(SEGMENT_HEADER_BYTES + bytes, before);
    }
    // A new segment's header goes out with its first record.
    const lead = header === null ? 0 : header.length;
    const buffer = new Uint8Array(lead + bytes);
    if (header !== null) buffer.set(header);
    encodeRecord(record, buffer.subarray(lead));
    this.#file.write(buffer, this.#writeAt - lead);
    await this.#file.sync();
    this.#writeAt += bytes;
    this.#nextRecord += 1;
    this.#commitUnsaved = false;
  }

  /** Goes on in a new segment of at least `bytes`; returns its header, yet to be written. */
  async #nextSegment(bytes: number, lastIndexBefore: number): Promise<Uint8Array> {
    const spare = this.#spare ?? this.#makeSpare();
    this.#spare = null;
    this.#rotating = true;
    let size = await spare;
    if (size < bytes) {
      size = Math.max(bytes, this.#options.segmentBytes);
      await this.#disk.create(SPARE_NAME, new Uint8Array(0), size);
    }
    const number = last(this.#segments).number + 1;
    const name = segmentName(number);
    await this.#disk.rename(SPARE_NAME, name);
    await this.#disk.syncDirectory();
    const file = await this.#disk.open(name);
    await this.#file.close();
    this.#file = file;
    const header = { number, firstRecord: this.#nextRecord, lastIndexBefore };
    this.#segments.push({ ...header, name, bytes: size });
    this.#writeAt = SEGMENT_HEADER_BYTES;
    this.#rotating = false;
    this.#spare = this.#makeSpare();
    return encodeSegmentHeader(header);
  }

  /** Allocates the next segment. Never rejects: without one, roomFor() says no and rotation tries again. */
  async #makeSpare(): Promise<number> {
    const size = this.#options.segmentBytes;
    try {
      await this.#disk.create(SPARE_NAME, new Uint8Array(0), size);
      return size;
    } catch (error) {
      this.#log.warn(
        { directory: this.#disk.path, bytes: size, error: messageOf(error) },
        "raft log: could not allocate the next segment; new work is refused until there is room",
      );
      // Half of it would only keep the device full.
      await this.#removeOrWarn(SPARE_NAME);
      return 0;
    }
  }

  /** Written whole under another name first, so that a file of the right name is never half. */
  async #writeSnapshot(snapshot: Snapshot): Promise<void> {
    const name = snapshotName(snapshot);
    const bytes = encodeSnapshot(snapshot);
    await this.#disk.create(`${name}.tmp`, bytes, bytes.length);
    await this.#disk.rename(`${name}.tmp`, name);
    await this.#disk.syncDirectory();
  }

  /** A snapshot to compact with may fail for want of room without harm: the log still holds everything it would cover. */
  async #writeOwnSnapshot(snapshot: Snapshot): Promise<void> {
    try {
      await this.#writeSnapshot(snapshot);
    } catch (error) {
      if (!isFull(error)) throw error;
      await this.#removeOrWarn(`${snapshotName(snapshot)}.tmp`);
      throw failure(
        "unavailable",
        `compacting the raft log in ${this.#disk.path}: no room for a snapshot of ${snapshot.data.length} bytes; the log is kept as it was. Free space on that device.`,
        error,
      );
    }
  }

  /** For files that nothing depends on: that one stays behind is worth a word, not a failure. */
  async #removeOrWarn(name: string): Promise<void> {
    try {
      await this.#disk.remove(name);
    } catch (error) {
      this.#log.warn(
        { file: `${this.#disk.path}/${name}`, error: messageOf(error) },
        "raft log: leftover",
      );
    }
  }

  /** Removes the first `count` segments, oldest first so that no gap can be left, and snapshots that were replaced. */
  async #dropOld(count: number): Promise<void> {
    const kept = this.#mark === null ? null : snapshotName(this.#mark);
    for (const segment of this.#segments.splice(0, count)) await this.#disk.remove(segment.name);
    for (const name of await this.#disk.list()) {
      if (name.startsWith("snapshot-") && name !== kept) await this.#disk.remove(name);
    }
    await this.#disk.syncDirectory();
  }
}

function last(segments: readonly Segment[]): Segment {
  return present(segments.at(-1), "the segment that is written");
}

function isFull(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  return code === "ENOSPC" || code === "EDQUOT";
}
