/** A LogDisk in memory that can lose what was not synced (bytes and names), fail when told to, and run full. */
import type { LogDisk } from "../log-disk.ts";

/** What a torn write has all or nothing of: small, so that a small record can be torn. */
const SECTOR_BYTES = 16;

interface MemoryFile {
  bytes: Uint8Array;
  /** What the device holds. */
  synced: Uint8Array;
  /** Sectors that were written since the last sync. After a sync that failed the kernel takes them for clean, as Linux does. */
  readonly dirty: Set<number>;
}
/** A change of names that no syncDirectory() has followed yet. */
interface NameChange {
  readonly gone: string | null;
  readonly made: readonly [string, MemoryFile] | null;
}

export class MemoryLogDisk implements LogDisk {
  readonly path = "/memory/raft";
  readonly files: Map<string, MemoryFile> = new Map();
  capacityBytes: number = Number.MAX_SAFE_INTEGER;
  /** Thrown by the next sync of a file. */
  failNextSync: Error | null = null;
  /** Told after every change of the disk. */
  onChange: (() => void) | null = null;
  /** Resolves before a file's sync takes effect, so that saves can pile up behind it. */
  beforeSync: (() => Promise<void>) | null = null;
  /** Its files say that the event loop may do their syncs. */
  isQuick = false;
  syncs = 0;
  writes = 0;
  #durableNames: Map<string, MemoryFile> = new Map();
  #nameChanges: NameChange[] = [];

  /**
   * The directory as it would be after a power failure that lost of the unsynced changes of names all but those that
   * `survives` says (by their number, from 0), and of the unsynced bytes all but the sectors that `reached` says.
   */
  afterPowerLoss(
    survives: (change: number) => boolean = () => false,
    reached: (sector: number) => boolean = () => false,
  ): MemoryLogDisk {
    const names = new Map(this.#durableNames);
    for (const [at, { gone, made }] of this.#nameChanges.entries()) {
      if (!survives(at)) continue;
      if (gone !== null) names.delete(gone);
      if (made !== null) names.set(...made);
    }
    const disk = new MemoryLogDisk();
    for (const [name, { bytes, synced }] of names) {
      const left = synced.slice();
      for (let at = 0; at < left.length; at += SECTOR_BYTES) {
        if (reached(at / SECTOR_BYTES)) left.set(bytes.subarray(at, at + SECTOR_BYTES), at);
      }
      disk.put(name, left);
    }
    return disk;
  }

  copy(): MemoryLogDisk {
    const disk = new MemoryLogDisk();
    for (const [name, file] of this.files) disk.put(name, file.bytes.slice());
    return disk;
  }

  put(name: string, bytes: Uint8Array): void {
    const file = { bytes, synced: bytes.slice(), dirty: new Set<number>() };
    this.files.set(name, file);
    this.#durableNames.set(name, file);
  }

  get(name: string): Uint8Array {
    return this.#file(name).bytes;
  }

  #file(name: string): MemoryFile {
    const file = this.files.get(name);
    if (file === undefined) throw system("ENOENT", `no such file: ${name}`);
    return file;
  }

  async #sync(file: MemoryFile): Promise<void> {
    await this.beforeSync?.();
    this.#syncNow(file);
  }

  #syncNow(file: MemoryFile): void {
    this.syncs += 1;
    const error = this.failNextSync;
    this.failNextSync = null;
    const dirty = [...file.dirty];
    file.dirty.clear();
    if (error !== null) throw error;
    if (file.synced.length < file.bytes.length) {
      const grown = new Uint8Array(file.bytes.length);
      grown.set(file.synced);
      file.synced = grown;
    }
    for (const sector of dirty) {
      const at = sector * SECTOR_BYTES;
      file.synced.set(file.bytes.subarray(at, at + SECTOR_BYTES), at);
    }
    this.onChange?.();
  }

  async list(): Promise<string[]> {
    return [...this.files.keys()];
  }
  async read(name: string): Promise<Uint8Array> {
    return this.#file(name).bytes.slice();
  }
  async open(name: string): ReturnType<LogDisk["open"]> {
    const file = this.#file(name);
    return {
      write: (bytes, offset) => {
        this.writes += 1;
        if (offset + bytes.length > file.bytes.length) {
          const grown = new Uint8Array(offset + bytes.length);
          grown.set(file.bytes);
          file.bytes = grown;
        }
        file.bytes.set(bytes, offset);
        const end = offset + bytes.length;
        for (let at = Math.floor(offset / SECTOR_BYTES); at * SECTOR_BYTES < end; at += 1) {
          file.dirty.add(at);
        }
        this.onChange?.();
      },
      sync: () => this.#sync(file),
      isQuick: () => this.isQuick,
      syncNow: () => this.#syncNow(file),
      close: async () => {},
    };
  }
  async create(name: string, contents: Uint8Array, bytes: number): Promise<void> {
    const old = this.files.get(name)?.bytes.length ?? 0;
    if (bytes > old + (await this.freeBytes())) throw system("ENOSPC", "no space left on device");
    const whole = new Uint8Array(Math.max(bytes, contents.length));
    whole.set(contents);
    const file = { bytes: whole, synced: whole.slice(), dirty: new Set<number>() };
    this.files.set(name, file);
    this.#changed({ gone: null, made: [name, file] });
  }
  async rename(from: string, to: string): Promise<void> {
    const file = this.#file(from);
    this.files.set(to, file);
    this.files.delete(from);
    this.#changed({ gone: from, made: [to, file] });
  }
  async remove(name: string): Promise<void> {
    this.files.delete(name);
    this.#changed({ gone: name, made: null });
  }
  async syncDirectory(): Promise<void> {
    this.#durableNames = new Map(this.files);
    this.#nameChanges = [];
    this.onChange?.();
  }
  async freeBytes(): Promise<number> {
    let used = 0;
    for (const file of this.files.values()) used += file.bytes.length;
    return Math.max(0, this.capacityBytes - used);
  }
  #changed(change: NameChange): void {
    this.#nameChanges.push(change);
    this.onChange?.();
  }
}

/** An error as the operating system makes them. */
export function system(code: string, message: string): Error {
  return Object.assign(new Error(`${code}: ${message}`), { code });
}
