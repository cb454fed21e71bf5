/**
 * Writing the Raft log. Saves that arrive while a sync runs become one record, one write and one sync when it ends;
 * a failed write or sync ends the log for ever. Snapshots are written beside the saves, not between them.
 */
import { assert, present } from "../lib/assert.ts";
import { type ErrorCode, failure, messageOf, type ShoalError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { HardState, SavedState, Snapshot } from "../raft/types.ts";
import type { LogDisk, LogFile } from "./log-disk.ts";
import type { RaftLog } from "./raft-log.ts";
import { keyOf, type LogCipher, type LogKey } from "./raft-log-cipher.ts";
import {
  encodeRecord,
  encodeSegmentHeader,
  type LogRecord,
  recordBytes,
  SEGMENT_HEADER_BYTES,
  type SnapshotMark,
} from "./raft-log-format.ts";
import { bytesOf, groupOf, type SaveChange } from "./raft-log-group.ts";
import {
  type Recovered,
  type Segment,
  SPARE_NAME,
  segmentName,
  snapshotName,
} from "./raft-log-recovery.ts";
import { encodingSnapshot } from "./raft-log-snapshot.ts";

/** Saves and compactions that may wait for their turn; the driver bounds them by bytes long before. */
export const WAITING_MAX = 1024;
/** Compactions that may wait for each other. */
export const COMPACTIONS_MAX = 4;
/** Bytes of saves that become one record, about: what is encoded in one go holds the event loop. One save may be larger. */
export const GROUP_BYTES_MAX: number = 2 * 1024 * 1024;
/** Bytes of the buffer that records are encoded in; a larger record gets one of its own. */
const BUFFER_BYTES = 256 * 1024;

export interface WriterOptions {
  readonly segmentBytes: number;
  readonly freeMarginBytes: number;
  readonly unlock: () => Promise<void>;
  readonly cipher: LogCipher | null;
  /** Resolves in a later turn of the event loop: between the slices of long work. */
  readonly nextTurn: () => Promise<void>;
}
interface Settled {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}
interface WaitingSave extends Settled {
  readonly kind: "save";
  readonly change: SaveChange;
}
interface WaitingJob extends Settled {
  readonly kind: "job";
  readonly doing: string;
  readonly run: () => Promise<void>;
}
type Waiting = WaitingSave | WaitingJob;

/** What a save is called where its failure is told. */
const saving = "saving the raft log";

export class DiskLog implements RaftLog {
  readonly #disk: LogDisk;
  readonly #log: Log;
  readonly #options: WriterOptions;
  readonly #groupBytesMax: number;
  readonly #buffer: Uint8Array = new Uint8Array(BUFFER_BYTES);
  #loaded: SavedState | null;
  #segments: Segment[];
  #file: LogFile;
  #writeAt: number;
  #nextRecord: number;
  #lastIndex: number;
  #mark: SnapshotMark | null;
  /** What the snapshot of the last durable mark is sealed with: until the next one is durable, its key is needed. */
  #snapshotKeyId: string | null;
  #hardState: HardState;
  /** The commit index moved and no record says so yet. */
  #commitUnsaved = false;
  /** Set for ever by the first failure: after a failed sync nobody knows what the device holds. */
  #dead: ShoalError | null = null;
  #closed = false;
  /** In order. The first ones are not in it any more while they are worked on. */
  #waiting: Waiting[] = [];
  #working = false;
  /** Resolves when the last compaction asked for has ended. */
  #compaction: Promise<void> = Promise.resolve();
  #compactions = 0;
  /** Resolves when everything that was replaced is removed; one removal after the other, oldest first. */
  #removal: Promise<void> = Promise.resolve();
  #removals = 0;
  /** The segment allocated ahead, or null when there is none; resolves to its bytes, 0 when it could not be made. */
  #spare: Promise<number> | null = null;
  /** The key file is being written: two of these at once would each forget what the other one did. */
  #changingKeys = false;
  /** The segment allocated ahead is being put to use; nobody else may make one. */
  #rotating = false;

  constructor(disk: LogDisk, log: Log, found: Recovered, file: LogFile, options: WriterOptions) {
    this.#disk = disk;
    this.#log = log;
    this.#options = options;
    this.#groupBytesMax = Math.min(GROUP_BYTES_MAX, Math.floor(options.segmentBytes / 2));
    this.#loaded = found.state;
    this.#segments = [...found.segments];
    this.#file = file;
    this.#writeAt = found.writeAt;
    this.#nextRecord = found.nextRecord;
    this.#lastIndex = found.lastIndex;
    this.#mark = found.mark;
    this.#snapshotKeyId = found.snapshotKeyId;
    this.#hardState = found.state.hardState;
    this.#spare = this.#makeSpare();
    // What a compaction before the stop did not come to remove, and a key that is not needed since.
    this.#remove(this.#unneeded(), []);
  }

  /** What the log held when it was opened. Once: the log keeps no entries in memory. */
  async load(): Promise<SavedState> {
    this.#assertOpen();
    const state = present(this.#loaded, "what was loaded, before it is loaded again");
    this.#loaded = null;
    return state;
  }

  save(change: SaveChange): Promise<void> {
    this.#assertOpen();
    return new Promise((resolve, reject) => {
      this.#wait({ kind: "save", change, resolve, reject });
    });
  }

  /** One small record into the segment that is written, and its sync in place, where the device is steadily quick. */
  saveNow(change: SaveChange): boolean {
    this.#assertOpen();
    if (this.#dead !== null) throw this.#dead;
    const isSmall = change.snapshot === null && change.entries.length <= 1;
    const isAlone = !this.#working && this.#waiting.length === 0;
    if (!isSmall || !isAlone || !this.#file.isQuick()) return false;
    const group = groupOf([change], this.#hardState, this.#lastIndex);
    if (group.entries.length === 0 && !group.promises) return false;
    const record = this.#recordOf(group.hardState, group.entries, false);
    if (!this.#fits(record)) return false;
    this.#hardState = group.hardState;
    this.#lastIndex = group.lastIndex;
    try {
      const bytes = this.#write(record, null);
      this.#file.syncNow();
      this.#written(bytes);
    } catch (error) {
      throw this.#die(saving, error);
    }
    return true;
  }

  compact(snapshot: Snapshot, keepFrom: number): Promise<void> {
    this.#assertOpen();
    assert(keepFrom <= snapshot.index + 1, "every forgotten entry is in the snapshot");
    assert(this.#compactions < COMPACTIONS_MAX, "the driver waits for its compactions");
    this.#compactions += 1;
    const run = this.#compaction.then(() => this.#compactNow(snapshot, keepFrom));
    this.#compaction = run
      .catch(() => {})
      .then(() => {
        this.#compactions -= 1;
      });
    return run;
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

  staleThrough(): number | null {
    const entries = this.#staleEntries();
    if (this.#mark === null || this.#snapshotKeyId === this.#currentKeyId()) return entries;
    return Math.max(entries ?? 0, this.#mark.index);
  }

  async rotateKey(): Promise<void> {
    this.#assertOpen();
    const { cipher } = this.#options;
    assert(cipher !== null, "a log without encryption has no key to change");
    if (cipher.previous !== null || this.#changingKeys) {
      throw failure(
        "failed-precondition",
        `changing the data key of ${this.#disk.path}: the last change is not finished; it is when a snapshot covers entry ${this.staleThrough() ?? 0}. Try again then.`,
      );
    }
    this.#changingKeys = true;
    try {
      await cipher.rotate();
    } catch (error) {
      throw failure(
        "unavailable",
        `changing the data key of ${this.#disk.path}: ${messageOf(error)}; the key is what it was`,
        error,
      );
    } finally {
      this.#changingKeys = false;
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.#compaction;
      await this.#inTurn("closing the raft log", async () => {
        if (this.#commitUnsaved) await this.#append([], false);
      });
    } catch (error) {
      // The log says what failed; a commit index that is not kept is learned again.
      if (error !== this.#dead) throw error;
    } finally {
      await this.#removal;
      await this.#spare;
      await this.#file.close();
      await this.#options.unlock();
    }
  }

  #inTurn(doing: string, run: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#wait({ kind: "job", doing, run, resolve, reject });
    });
  }

  #wait(what: Waiting): void {
    if (this.#dead !== null) {
      what.reject(this.#dead);
      return;
    }
    assert(this.#waiting.length < WAITING_MAX, "the driver waits for its saves");
    this.#waiting.push(what);
    if (!this.#working) void this.#work();
  }

  /** Works off what waits. Never rejects: failures go to those who wait. */
  async #work(): Promise<void> {
    this.#working = true;
    for (;;) {
      const group = this.#takeGroup();
      const [first] = group;
      if (first === undefined) break;
      try {
        if (this.#dead !== null) throw this.#dead;
        if (first.kind === "job") await first.run();
        else await this.#saveGroup(group.flatMap((it) => (it.kind === "save" ? [it.change] : [])));
      } catch (error) {
        const dead = this.#die(first.kind === "job" ? first.doing : saving, error);
        for (const { reject } of group) reject(dead);
        continue;
      }
      // They hear of it after the next write is under way: the device is not left waiting.
      for (const { resolve } of group) resolve();
    }
    this.#working = false;
  }

  /** The next job, or the saves that can be one record. */
  #takeGroup(): Waiting[] {
    let count = 0;
    let bytes = 0;
    for (const next of this.#waiting) {
      const alone = next.kind === "job" || next.change.snapshot !== null;
      if (count > 0 && alone) break;
      if (next.kind === "save") bytes += bytesOf(next.change);
      if (count > 0 && bytes > this.#groupBytesMax) break;
      count += 1;
      if (alone) break;
    }
    return this.#waiting.splice(0, count);
  }

  async #saveGroup(changes: readonly SaveChange[]): Promise<void> {
    const [only] = changes;
    const snapshot = only?.snapshot ?? null;
    const before = this.#hardState;
    const keyId = snapshot === null ? null : await this.#writeSnapshot(snapshot);
    const group = groupOf(changes, before, snapshot?.index ?? this.#lastIndex);
    this.#hardState = group.hardState;
    if (group.entries.length === 0 && snapshot === null && !group.promises) {
      this.#commitUnsaved ||= group.hardState.commit !== before.commit;
      return;
    }
    this.#lastIndex = group.lastIndex;
    const replaced = this.#mark;
    if (snapshot !== null) {
      this.#mark = { index: snapshot.index, term: snapshot.term, keepFrom: snapshot.index + 1 };
    }
    await this.#append(group.entries, snapshot !== null);
    if (snapshot === null) return;
    this.#snapshotKeyId = keyId;
    this.#remove(this.#segments.length - 1, replaced === null ? [] : [snapshotName(replaced)]);
  }

  /** One compaction; no other one runs. Its snapshot may fail for want of room without harm: the log still holds everything it would cover. */
  async #compactNow(snapshot: Snapshot, keepFrom: number): Promise<void> {
    if (this.#dead !== null) throw this.#dead;
    // A newer snapshot came from the leader while this one was made.
    const superseded = (): boolean => this.#mark !== null && snapshot.index <= this.#mark.index;
    if (superseded()) return;
    const keyId = await this.#writeOwnSnapshot(snapshot);
    await this.#inTurn("compacting the raft log", async () => {
      if (superseded()) {
        this.#remove(0, [snapshotName(snapshot)]);
        return;
      }
      assert(snapshot.index <= this.#lastIndex, "a snapshot covers entries of this log");
      const replaced = this.#mark;
      let kept = Math.max(keepFrom, replaced?.keepFrom ?? 1);
      // A rotation of the key ends with the snapshot that covers its last entry: what slow followers may still want is in memory.
      const stale = this.#staleEntries();
      if (stale !== null && stale <= snapshot.index) kept = Math.max(kept, stale + 1);
      this.#mark = { index: snapshot.index, term: snapshot.term, keepFrom: kept };
      await this.#append([], false);
      this.#snapshotKeyId = keyId;
      this.#remove(this.#unneeded(), replaced === null ? [] : [snapshotName(replaced)]);
    });
    await this.#removal;
    if (this.#dead !== null) throw this.#dead;
  }

  #die(doing: string, error: unknown): ShoalError {
    if (this.#dead !== null) return this.#dead;
    const full = isFull(error);
    const code: ErrorCode = full ? "unavailable" : "internal";
    const advice = full
      ? "free space on that device and start the manager again"
      : "what the device holds is not known now; check the device and start the manager again";
    const message = `${doing} in ${this.#disk.path}: ${messageOf(error)}. This manager stops: ${advice}.`;
    this.#log.error({ directory: this.#disk.path, error: messageOf(error) }, "raft log failed");
    this.#dead = failure(code, message, error);
    return this.#dead;
  }

  #assertOpen(): void {
    assert(!this.#closed, "a closed raft log is not used");
  }

  #currentKeyId(): string | null {
    return this.#options.cipher?.current.id ?? null;
  }

  /** Index of the last entry in a segment that is not sealed with the current key; null when there is no such segment. */
  #staleEntries(): number | null {
    const current = this.#currentKeyId();
    const fresh = this.#segments.findLastIndex((segment) => segment.keyId !== current) + 1;
    return fresh === 0 ? null : (this.#segments[fresh]?.lastIndexBefore ?? this.#lastIndex);
  }

  /** One record, one write, one sync. Synchronous up to the sync unless a new segment is begun. */
  async #append(entries: LogRecord["entries"], install: boolean): Promise<void> {
    const record = this.#recordOf(this.#hardState, entries, install);
    let header: Uint8Array | null = null;
    if (!this.#fits(record)) {
      const first = entries[0];
      const before = first === undefined || install ? this.#lastIndex : first.index - 1;
      const most = recordBytes(record, this.#options.cipher?.current ?? null);
      header = await this.#nextSegment(SEGMENT_HEADER_BYTES + most, before);
    }
    const bytes = this.#write(record, header);
    // One entry, and nobody behind it: who has one write at a time has nothing else to do meanwhile.
    const patient = entries.length <= 1 && this.#waiting.length === 0;
    await this.#file.sync(patient);
    this.#written(bytes);
  }

  #recordOf(hardState: HardState, entries: LogRecord["entries"], install: boolean): LogRecord {
    return { number: this.#nextRecord, hardState, mark: this.#mark, install, entries };
  }

  /** Whether `record` goes into the segment that is written. */
  #fits(record: LogRecord): boolean {
    const { bytes: size, keyId } = last(this.#segments);
    if (keyId !== this.#currentKeyId()) return false;
    return this.#writeAt + recordBytes(record, this.#keyOfLast()) <= size;
  }

  /** Hands `record` to the system, behind the header of a segment that it is the first of. Returns its bytes. */
  #write(record: LogRecord, header: Uint8Array | null): number {
    const key = this.#keyOfLast();
    const bytes = recordBytes(record, key);
    const lead = header === null ? 0 : header.length;
    const whole = lead + bytes;
    const buffer =
      whole <= this.#buffer.length ? this.#buffer.subarray(0, whole) : new Uint8Array(whole);
    if (header !== null) buffer.set(header);
    encodeRecord(record, buffer.subarray(lead), key);
    this.#file.write(buffer, this.#writeAt - lead);
    return bytes;
  }

  /** The record of so many bytes is durable. */
  #written(bytes: number): void {
    this.#writeAt += bytes;
    this.#nextRecord += 1;
    this.#commitUnsaved = false;
  }

  #keyOfLast(): LogKey | null {
    const key = keyOf(this.#options.cipher, last(this.#segments).keyId);
    assert(key !== undefined, "the key of the segment that is written is at hand");
    return key;
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
    const keyId = this.#currentKeyId();
    const header = { number, firstRecord: this.#nextRecord, lastIndexBefore, keyId };
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

  /** Written whole under another name first, so that a file of the right name is never half. Returns the key's id that seals it. */
  async #writeSnapshot(snapshot: Snapshot): Promise<string | null> {
    const name = snapshotName(snapshot);
    const key = this.#options.cipher?.current ?? null;
    const bytes = await this.#inSlices(encodingSnapshot(snapshot, key));
    await this.#disk.create(`${name}.tmp`, bytes, bytes.length);
    await this.#disk.rename(`${name}.tmp`, name);
    await this.#disk.syncDirectory();
    return key?.id ?? null;
  }

  async #inSlices(work: Generator<undefined, Uint8Array>): Promise<Uint8Array> {
    for (;;) {
      const step = work.next();
      if (step.done === true) return step.value;
      await this.#options.nextTurn();
    }
  }

  async #writeOwnSnapshot(snapshot: Snapshot): Promise<string | null> {
    try {
      return await this.#writeSnapshot(snapshot);
    } catch (error) {
      if (!isFull(error)) throw this.#die("writing a snapshot of the raft log", error);
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

  /** How many of the first segments hold nothing that is needed: entries before the kept ones only. */
  #unneeded(): number {
    const keepFrom = this.#mark?.keepFrom ?? 1;
    const next = this.#segments.findIndex((segment) => segment.lastIndexBefore >= keepFrom);
    const unneeded = (next < 0 ? this.#segments.length : next) - 1;
    // A segment that was begun and has no record yet says nothing: term, vote and snapshot stand in the one before it.
    const begun = this.#nextRecord === last(this.#segments).firstRecord ? 1 : 0;
    return Math.max(0, Math.min(unneeded, this.#segments.length - 1 - begun));
  }

  /** Removes the first `count` segments and these snapshots, after what is being removed; then the old key, when nothing is sealed with it. */
  #remove(count: number, snapshots: readonly string[]): void {
    const names = this.#segments.splice(0, count).map((segment) => segment.name);
    this.#removals += 1;
    this.#removal = this.#removal
      .then(async () => {
        if (this.#dead !== null) return;
        for (const name of [...names, ...snapshots]) await this.#disk.remove(name);
        if (names.length + snapshots.length > 0) await this.#disk.syncDirectory();
      })
      .catch((error: unknown) => {
        this.#die("removing what was replaced in the raft log", error);
      })
      .then(async () => {
        this.#removals -= 1;
        if (this.#removals === 0) await this.#retireKey();
      });
  }

  /** Only when what it sealed is durably gone: else a power failure would bring back a file that nothing opens. */
  async #retireKey(): Promise<void> {
    const { cipher } = this.#options;
    if (this.#dead !== null || cipher === null || cipher.previous === null) return;
    if (this.#changingKeys || this.staleThrough() !== null) return;
    this.#changingKeys = true;
    try {
      await cipher.retire();
    } catch (error) {
      this.#log.warn(
        { file: cipher.source, error: messageOf(error) },
        "raft log: could not forget the old data key; it is tried again after the next snapshot",
      );
    } finally {
      this.#changingKeys = false;
    }
  }
}

function last(segments: readonly Segment[]): Segment {
  return present(segments.at(-1), "the segment that is written");
}

function isFull(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  return code === "ENOSPC" || code === "EDQUOT";
}
