/**
 * Raft's Storage on level: the twin that the own log is measured and tested against (docs/decisions/0006, 0007).
 * One synced batch a group of saves. What level drops without a word is noticed by counting: the head names the last entry.
 */
import { Level } from "level";
import { assert } from "../lib/assert.ts";
import { crc32c } from "../lib/crc32c.ts";
import { failure, messageOf, type ShoalError } from "../lib/errors.ts";
import type { Entry, HardState, SavedState, Snapshot, Storage } from "../raft/types.ts";
import { getNumber, putNumber, viewOf } from "./raft-log-bytes.ts";
import { bytesOf, groupOf, type SaveChange } from "./raft-log-group.ts";
import { encodeSnapshot, openSnapshot, snapshotFrame } from "./raft-log-snapshot.ts";
import { GROUP_BYTES_MAX, WAITING_MAX } from "./raft-log-writer.ts";

const HEAD = "head";
const SNAPSHOT = "snapshot";
const KINDS: readonly Entry["kind"][] = ["normal", "membership", "empty"];
/** Of an entry's record, before its data: sum, term, kind. */
const HEADER_BYTES = 13;

/** Opens the database in `directory`, made if it is not there. Throws ShoalError("internal") naming it when it is damaged. */
export async function openLevelRaftLog(directory: string): Promise<Storage> {
  const level = new Level<string, Uint8Array>(directory, { valueEncoding: "view" });
  try {
    await level.open();
    return new LevelRaftLog(level, directory, await read(level, directory));
  } catch (error) {
    await level.close();
    throw error;
  }
}

/** What is kept beside entries and snapshot; JSON, in the order of these fields. */
interface Head {
  readonly hardState: HardState;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly snapshotIndex: number;
}
type Operation =
  | { readonly type: "put"; readonly key: string; readonly value: Uint8Array }
  | { readonly type: "del"; readonly key: string };
interface Waiting {
  /** Null: a job that is none of the saves. */
  readonly change: SaveChange | null;
  readonly run: () => Operation[];
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

class LevelRaftLog implements Storage {
  readonly #level: Level<string, Uint8Array>;
  readonly #directory: string;
  readonly #loaded: SavedState;
  #head: Head;
  #waiting: Waiting[] = [];
  /** Resolves when nothing waits any more. */
  #work: Promise<void> = Promise.resolve();
  #working = false;
  #dead: ShoalError | null = null;

  constructor(level: Level<string, Uint8Array>, directory: string, found: SavedState) {
    this.#level = level;
    this.#directory = directory;
    this.#loaded = found;
    const { hardState, snapshot, entries } = found;
    const firstIndex = entries[0]?.index ?? (snapshot?.index ?? 0) + 1;
    const lastIndex = firstIndex + entries.length - 1;
    this.#head = { hardState, firstIndex, lastIndex, snapshotIndex: snapshot?.index ?? 0 };
  }

  async load(): Promise<SavedState> {
    return this.#loaded;
  }

  save(change: SaveChange): Promise<void> {
    return this.#wait(change, () => []);
  }

  compact(snapshot: Snapshot, keepFrom: number): Promise<void> {
    return this.#wait(null, () => {
      const head = this.#head;
      if (snapshot.index <= head.snapshotIndex) return [];
      const firstIndex = Math.max(keepFrom, head.firstIndex);
      const gone = removals(head.firstIndex, firstIndex - 1);
      this.#head = { ...head, firstIndex, snapshotIndex: snapshot.index };
      return [{ type: "put", key: SNAPSHOT, value: encodeSnapshot(snapshot, null) }, ...gone];
    });
  }

  async close(): Promise<void> {
    await this.#work;
    await this.#level.close();
  }

  #wait(change: SaveChange | null, run: () => Operation[]): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#dead !== null) return reject(this.#dead);
      assert(this.#waiting.length < WAITING_MAX, "the driver waits for its saves");
      this.#waiting.push({ change, run, resolve, reject });
      if (!this.#working) this.#work = this.#drain();
    });
  }

  async #drain(): Promise<void> {
    this.#working = true;
    for (let group = this.#takeGroup(); group.length > 0; group = this.#takeGroup()) {
      try {
        if (this.#dead !== null) throw this.#dead;
        const operations = this.#operations(group);
        const head = new TextEncoder().encode(JSON.stringify(this.#head));
        operations.push({ type: "put", key: HEAD, value: summed(head) });
        await this.#level.batch(operations, { sync: true });
      } catch (error) {
        this.#dead ??= failure(
          "internal",
          `saving the raft log in ${this.#directory}: ${messageOf(error)}. This manager stops.`,
          error,
        );
        for (const { reject } of group) reject(this.#dead);
        continue;
      }
      for (const { resolve } of group) resolve();
    }
    this.#working = false;
  }

  #takeGroup(): Waiting[] {
    let count = 0;
    let bytes = 0;
    for (const { change } of this.#waiting) {
      const alone = change === null || change.snapshot !== null;
      bytes += change === null ? 0 : bytesOf(change);
      if (count > 0 && (alone || bytes > GROUP_BYTES_MAX)) break;
      count += 1;
      if (alone) break;
    }
    return this.#waiting.splice(0, count);
  }

  #operations(group: readonly Waiting[]): Operation[] {
    const changes = group.flatMap(({ change }) => (change === null ? [] : [change]));
    if (changes.length === 0) return group.flatMap(({ run }) => run());
    const operations: Operation[] = [];
    const snapshot = changes[0]?.snapshot ?? null;
    if (snapshot !== null) {
      const { index } = snapshot;
      operations.push({ type: "put", key: SNAPSHOT, value: encodeSnapshot(snapshot, null) });
      operations.push(...removals(this.#head.firstIndex, this.#head.lastIndex));
      this.#head = { ...this.#head, firstIndex: index + 1, lastIndex: index, snapshotIndex: index };
    }
    const { hardState, entries, lastIndex } = groupOf(
      changes,
      this.#head.hardState,
      this.#head.lastIndex,
    );
    operations.push(...removals(lastIndex + 1, this.#head.lastIndex));
    for (const entry of entries) {
      operations.push({ type: "put", key: keyOf(entry.index), value: encodeEntry(entry) });
    }
    const firstIndex = Math.min(this.#head.firstIndex, entries[0]?.index ?? lastIndex + 1);
    this.#head = { ...this.#head, hardState, firstIndex, lastIndex };
    return operations;
  }
}

async function read(level: Level<string, Uint8Array>, directory: string): Promise<SavedState> {
  const damaged = (what: string): Error =>
    failure("internal", `opening the raft log in ${directory}: ${what}; restore it from a backup`);
  const entries: Entry[] = [];
  let head: Head | null = null;
  let snapshot: Snapshot | null = null;
  for await (const [key, found] of level.iterator()) {
    // A copy, and no Buffer: level's may be a part of a larger one.
    const value = new Uint8Array(found);
    if (key === SNAPSHOT) {
      const frame = snapshotFrame(value);
      snapshot = frame === null ? null : openSnapshot(frame, null);
      if (snapshot === null) throw damaged("its snapshot's checksum does not hold");
      continue;
    }
    const sum = value.length < 4 ? null : viewOf(value).getUint32(0, true);
    if (sum !== crc32c(value.subarray(4))) throw damaged(`the checksum of ${key} does not hold`);
    if (key === HEAD) head = JSON.parse(new TextDecoder().decode(value.subarray(4))) as Head;
    else entries.push(decodeEntry(Number(key.slice(1)), value));
  }
  if (head === null) {
    if (entries.length > 0 || snapshot !== null) throw damaged("its head is missing");
    return { hardState: { term: 0, vote: null, commit: 0 }, snapshot, entries };
  }
  const { firstIndex, lastIndex, snapshotIndex } = head;
  const whole = entries.every(({ index }, at) => index === firstIndex + at);
  if (!whole || entries.length !== lastIndex - firstIndex + 1) {
    throw damaged(`of the entries ${firstIndex} to ${lastIndex} some are missing`);
  }
  if (snapshotIndex !== (snapshot?.index ?? 0)) throw damaged("its snapshot is an old one");
  return { hardState: head.hardState, snapshot, entries };
}

/** In the order of numbers. */
function keyOf(index: number): string {
  return `e${String(index).padStart(16, "0")}`;
}

function removals(from: number, to: number): Operation[] {
  const length = Math.max(0, to - from + 1);
  return Array.from({ length }, (_, at) => ({ type: "del", key: keyOf(from + at) }));
}

function encodeEntry({ term, kind, data }: Entry): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + data.length);
  const view = viewOf(bytes);
  putNumber(view, 4, term);
  view.setUint8(12, KINDS.indexOf(kind));
  bytes.set(data, HEADER_BYTES);
  view.setUint32(0, crc32c(bytes.subarray(4)), true);
  return bytes;
}

function decodeEntry(index: number, bytes: Uint8Array): Entry {
  const view = viewOf(bytes);
  const kind = KINDS[view.getUint8(12)];
  assert(kind !== undefined, "an entry with a good checksum has a known kind");
  return { index, term: getNumber(view, 4), kind, data: bytes.slice(HEADER_BYTES) };
}

function summed(body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + body.length);
  bytes.set(body, 4);
  viewOf(bytes).setUint32(0, crc32c(body), true);
  return bytes;
}
