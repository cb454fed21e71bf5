/**
 * A simulated device under the production log: bytes are durable when a sync returned, names when their directory was
 * synced; a power failure keeps any part of the rest, page by page. It can be slow, full, fail and rot.
 */

import type { LogDisk, LogFile } from "../../src/io/log-disk.ts";
import { assert, present } from "../../src/lib/assert.ts";
import type { SimRandom } from "../random.ts";
import type { Agenda } from "./agenda.ts";
import type { Life } from "./life.ts";

/** What a disk does; drawn per seed and host. */
export interface DiskTraits {
  /** Longest time of an operation, in ms. */
  readonly latencyMsMax: number;
  /** What the device writes whole, in bytes: 512 or 4096. */
  readonly pageBytes: number;
  /** After a failed sync the kernel takes the lost pages for clean: they are read from its cache, and gone after a power failure. */
  readonly lostPagesLookClean: boolean;
}
export type Failing = "sync" | "write" | "create" | "rename" | "directory";

/** Bytes that a write replaced, for as long as it is not synced. */
interface Undo {
  readonly offset: number;
  readonly old: Uint8Array;
}
interface File {
  bytes: Uint8Array;
  /** Oldest first. */
  undo: Undo[];
  /** Pages that a failed sync lost while the cache still has them: what the device holds of each. */
  stuck: Map<number, Uint8Array>;
}
/** A change of names that no directory sync has followed yet. */
interface NameChange {
  readonly gone: string | null;
  readonly made: readonly [string, File] | null;
}
interface Operation {
  /** Takes effect as if it had come to its end. */
  readonly whole: () => void;
  /** Takes effect in part, when its process dies under it. */
  readonly part: () => void;
}

export class SimDisk {
  readonly traits: DiskTraits;
  /** The next operation of this kind fails with EIO. */
  failNext: Failing | null = null;
  /** Longest time of an operation while the device is slow, in ms; 0: it is not. */
  slowMsMax = 0;
  capacityBytes: number = Number.MAX_SAFE_INTEGER;
  /** What this device told the life that it is attached to: EIO, or that it is full. */
  failed = false;
  /** A sync of a file failed in this life: nothing may be promised any more. */
  syncFailed = false;
  full = false;
  syncs = 0;
  tornWrites = 0;
  lostNames = 0;
  readonly #agenda: Agenda;
  readonly #random: SimRandom;
  #names: Map<string, File> = new Map();
  #durableNames: Map<string, File> = new Map();
  #nameChanges: NameChange[] = [];
  readonly #underWay: Set<Operation> = new Set();

  constructor(agenda: Agenda, random: SimRandom, traits: DiskTraits) {
    this.#agenda = agenda;
    this.#random = random;
    this.traits = traits;
  }

  get isEmpty(): boolean {
    return this.#names.size === 0;
  }

  /** Something was asked of it and is not done: the best moment for a power failure. */
  get busy(): boolean {
    return this.#underWay.size > 0;
  }

  /** The device as `life` sees it. */
  attach(life: Life): LogDisk {
    assert(this.#underWay.size === 0, "one process at a time has a disk");
    this.failed = false;
    this.syncFailed = false;
    this.full = false;
    return {
      path: "/sim/raft",
      list: () => this.#operation(life, () => [...this.#names.keys()]),
      read: (name) => this.#operation(life, () => this.#file(name).bytes.slice()),
      open: (name) => this.#operation(life, () => this.#handle(life, this.#file(name))),
      create: (name, contents, bytes) => this.#create(life, name, contents, bytes),
      rename: (from, to) =>
        this.#operation(life, () => {
          this.#failIf("rename");
          const file = this.#file(from);
          this.#names.delete(from);
          this.#names.set(to, file);
          this.#nameChanges.push({ gone: from, made: [to, file] });
        }),
      remove: (name) =>
        this.#operation(life, () => {
          if (this.#names.delete(name)) this.#nameChanges.push({ gone: name, made: null });
        }),
      syncDirectory: () => {
        const before = this.#nameChanges.length;
        return this.#operation(life, () => {
          this.#failIf("directory");
          for (const change of this.#nameChanges.splice(0, before))
            apply(this.#durableNames, change);
        });
      },
      freeBytes: () => this.#operation(life, () => this.#free()),
    };
  }

  /** Does `work` as one operation that happens whole or not at all. */
  perform(life: Life, work: () => void): Promise<void> {
    return this.#operation(life, work);
  }

  /** The process is gone: what it had asked for happens, or not, or in part. */
  kill(): void {
    for (const { whole, part } of this.#underWay) {
      const how = this.#random.below(4);
      if (how < 2) part();
      else if (how === 2) attempt(whole);
    }
    this.#underWay.clear();
    if (this.traits.lostPagesLookClean) return;
    for (const file of this.#names.values()) forgetStuck(file, this.traits.pageBytes);
  }

  /** The machine lost power: of what was not synced any part is there. */
  powerOff(): void {
    this.kill();
    for (const change of this.#nameChanges) {
      if (this.#random.chance(500)) apply(this.#durableNames, change);
      else this.lostNames += 1;
    }
    this.#nameChanges = [];
    this.#names = new Map(this.#durableNames);
    for (const file of new Set(this.#names.values())) this.#losePages(file);
  }

  /** A new device in place of the old one. */
  replace(): void {
    this.#underWay.clear();
    this.#names.clear();
    this.#durableNames.clear();
    this.#nameChanges = [];
    this.failNext = null;
    this.capacityBytes = Number.MAX_SAFE_INTEGER;
  }

  /** Full from now on but for `bytes`. */
  fill(bytes: number): void {
    let used = 0;
    for (const file of this.#names.values()) used += file.bytes.length;
    this.capacityBytes = used + bytes;
  }

  /** Turns one bit of what lies on it; null when there is nothing. Returns how to turn it back, for a process that is not there. */
  rot(): { readonly name: string; readonly offset: number; readonly undo: () => void } | null {
    const names = [...this.#names.keys()].filter((name) => /^(segment|snapshot)-/.test(name));
    if (names.length === 0) return null;
    const name = this.#random.pick(names.sort());
    const { bytes } = this.#file(name);
    let used = bytes.length;
    while (used > 0 && bytes[used - 1] === 0) used -= 1;
    if (used === 0) return null;
    // Records end at multiples of 8: what is drawn must not hang on the last byte of a sealed one.
    used = Math.min(bytes.length, Math.ceil(used / 8) * 8);
    const offset = this.#random.below(used);
    const bit = 1 << this.#random.below(8);
    const turn = (): void => {
      bytes[offset] = (bytes[offset] ?? 0) ^ bit;
    };
    turn();
    return { name, offset, undo: turn };
  }

  /** What a reader finds, at once: for those who look from outside. */
  view(): LogDisk {
    const refuse = (): Promise<never> => Promise.reject(new Error("a view is only read"));
    return {
      path: "/sim/raft",
      list: async () => [...this.#names.keys()],
      read: async (name) => this.#file(name).bytes.slice(),
      open: refuse,
      create: refuse,
      rename: refuse,
      remove: refuse,
      syncDirectory: refuse,
      freeBytes: async () => this.#free(),
    };
  }

  #handle(life: Life, file: File): LogFile {
    return {
      write: (bytes, offset) => {
        if (!life.alive) return;
        this.#failIf("write");
        if (offset + bytes.length > file.bytes.length) this.#grow(file, offset + bytes.length);
        file.undo.push({ offset, old: file.bytes.slice(offset, offset + bytes.length) });
        file.bytes.set(bytes, offset);
      },
      sync: () => {
        const written = file.undo.length;
        return this.#operation(life, () => this.#sync(file, written));
      },
      isQuick: () => life.alive && this.slowMsMax === 0 && this.#random.chance(500),
      syncNow: () => this.#sync(file, file.undo.length),
      close: () => this.#operation(life, () => {}),
    };
  }

  /** Makes the first `written` writes durable. */
  #sync(file: File, written: number): void {
    this.syncs += 1;
    if (this.failNext === "sync") {
      this.syncFailed = true;
      this.#loseWrites(file);
    }
    this.#failIf("sync");
    if (file.stuck.size > 0) this.#unstick(file, written);
    if (written === file.undo.length) file.undo.length = 0;
    else file.undo.splice(0, written);
  }

  #create(life: Life, name: string, contents: Uint8Array, bytes: number): Promise<void> {
    const size = Math.max(bytes, contents.length);
    const file: File = { bytes: new Uint8Array(0), undo: [], stuck: new Map() };
    const old = this.#names.get(name)?.bytes.length ?? 0;
    const fits = size <= this.#free() + old;
    if (fits) {
      this.#names.set(name, file);
      this.#nameChanges.push({ gone: null, made: [name, file] });
    }
    const write = (length: number): void => {
      file.bytes = new Uint8Array(length);
      file.bytes.set(contents.subarray(0, length));
    };
    return this.#operation(
      life,
      () => {
        this.#failIf("create");
        if (!fits) {
          this.full = true;
          throw system("ENOSPC", "no space left on device");
        }
        write(size);
      },
      () => {
        if (!fits) return;
        write(this.#random.below(size + 1));
        file.undo.push({ offset: 0, old: new Uint8Array(file.bytes.length) });
      },
    );
  }

  #operation<T>(life: Life, whole: () => T, part: () => void = () => {}): Promise<T> {
    // What a dead process still asks for in its last moment is never asked.
    if (!life.alive) return new Promise(() => {});
    return new Promise((resolve, reject) => {
      const operation: Operation = { whole, part };
      this.#underWay.add(operation);
      const most = this.slowMsMax > 0 ? this.slowMsMax : this.traits.latencyMsMax;
      this.#agenda.after(this.#random.below(most + 1), () => {
        if (!this.#underWay.delete(operation)) return;
        try {
          const result = whole();
          life.hear(() => {
            this.#agenda.stir();
            resolve(result);
          });
        } catch (error) {
          life.hear(() => {
            this.#agenda.stir();
            reject(error);
          });
        }
      });
    });
  }

  #failIf(kind: Failing): void {
    if (this.failNext !== kind) return;
    this.failNext = null;
    this.failed = true;
    throw system("EIO", "input/output error");
  }

  #file(name: string): File {
    const file = this.#names.get(name);
    if (file === undefined) throw system("ENOENT", `no such file: ${name}`);
    return file;
  }

  #free(): number {
    if (this.capacityBytes === Number.MAX_SAFE_INTEGER) return this.capacityBytes;
    let used = 0;
    for (const file of this.#names.values()) used += file.bytes.length;
    return Math.max(0, this.capacityBytes - used);
  }

  #grow(file: File, length: number): void {
    if (length - file.bytes.length > this.#free()) {
      this.full = true;
      throw system("ENOSPC", "no space left on device");
    }
    const grown = new Uint8Array(length);
    grown.set(file.bytes);
    file.bytes = grown;
  }

  /** Each page keeps the first few of its unsynced writes. */
  #losePages(file: File): void {
    const { pageBytes } = this.traits;
    const pages = new Map<number, Undo[]>();
    for (const undo of file.undo) {
      for (const page of pagesOf(undo, pageBytes)) {
        const list = pages.get(page);
        if (list === undefined) pages.set(page, [undo]);
        else list.push(undo);
      }
    }
    for (const [page, undos] of pages) {
      const kept = this.#random.below(undos.length + 1);
      if (kept < undos.length) this.tornWrites += 1;
      for (let at = undos.length - 1; at >= kept; at -= 1) {
        takeBack(file, present(undos[at], "an undo"), page * pageBytes, (page + 1) * pageBytes);
      }
      // A page that is written again goes out whole.
      if (kept > 0) file.stuck.delete(page);
    }
    forgetStuck(file, pageBytes);
    file.undo = [];
  }

  /** A sync failed: of each page either it is on the device, or the device has what it had. */
  #loseWrites(file: File): void {
    const { pageBytes } = this.traits;
    const pages = new Set<number>();
    for (const undo of file.undo) for (const page of pagesOf(undo, pageBytes)) pages.add(page);
    for (const page of pages) {
      if (this.#random.chance(500)) {
        file.stuck.delete(page);
        continue;
      }
      if (file.stuck.has(page)) continue;
      const start = page * pageBytes;
      const before: File = { bytes: file.bytes.slice(), undo: [], stuck: new Map() };
      for (let at = file.undo.length - 1; at >= 0; at -= 1) {
        takeBack(before, present(file.undo[at], "an undo"), start, start + pageBytes);
      }
      file.stuck.set(page, before.bytes.slice(start, start + pageBytes));
    }
    file.undo = [];
  }

  #unstick(file: File, written: number): void {
    for (const undo of file.undo.slice(0, written)) {
      for (const page of pagesOf(undo, this.traits.pageBytes)) file.stuck.delete(page);
    }
  }
}

/** An error as the operating system makes them. */
function system(code: string, message: string): Error {
  return Object.assign(new Error(`${code}: ${message}`), { code });
}

function attempt(work: () => void): void {
  try {
    work();
  } catch (error) {
    // It failed for a process that is not there to hear of it.
    assert(error instanceof Error && "code" in error, "only the device fails here");
  }
}

function apply(names: Map<string, File>, { gone, made }: NameChange): void {
  if (gone !== null) names.delete(gone);
  if (made !== null) names.set(made[0], made[1]);
}

function pagesOf({ offset, old }: Undo, pageBytes: number): number[] {
  const pages: number[] = [];
  const last = Math.floor((offset + Math.max(1, old.length) - 1) / pageBytes);
  for (let page = Math.floor(offset / pageBytes); page <= last; page += 1) pages.push(page);
  return pages;
}

/** Puts back what was there before a write, between two offsets. */
function takeBack(file: File, { offset, old }: Undo, from: number, to: number): void {
  const start = Math.max(offset, from);
  const end = Math.min(offset + old.length, to, file.bytes.length);
  if (start < end) file.bytes.set(old.subarray(start - offset, end - offset), start);
}

/** The cache forgets: what is read is what the device has. */
function forgetStuck(file: File, pageBytes: number): void {
  for (const [page, bytes] of file.stuck) file.bytes.set(bytes, page * pageBytes);
  file.stuck.clear();
}
