/** A LogDisk in memory that can lose what was not synced, fail when told to, and run full. */
import type { LogDisk } from "../log-disk.ts";

interface MemoryFile {
  bytes: Uint8Array;
  /** As of the last sync. */
  synced: Uint8Array;
}

export class MemoryLogDisk implements LogDisk {
  readonly path = "/memory/raft";
  readonly files: Map<string, MemoryFile> = new Map();
  capacityBytes: number = Number.MAX_SAFE_INTEGER;
  /** Thrown by the next sync of a file. */
  failNextSync: Error | null = null;
  syncs = 0;

  /** The directory as it would be after a power failure that lost everything unsynced. */
  afterPowerLoss(): MemoryLogDisk {
    return this.#copy((file) => file.synced);
  }

  copy(): MemoryLogDisk {
    return this.#copy((file) => file.bytes);
  }

  #copy(contents: (file: MemoryFile) => Uint8Array): MemoryLogDisk {
    const disk = new MemoryLogDisk();
    for (const [name, file] of this.files) disk.put(name, contents(file).slice());
    return disk;
  }

  put(name: string, bytes: Uint8Array): void {
    this.files.set(name, { bytes, synced: bytes.slice() });
  }

  get(name: string): Uint8Array {
    return this.#file(name).bytes;
  }

  #file(name: string): MemoryFile {
    const file = this.files.get(name);
    if (file === undefined) throw system("ENOENT", `no such file: ${name}`);
    return file;
  }

  #sync(file: MemoryFile): void {
    this.syncs += 1;
    const error = this.failNextSync;
    this.failNextSync = null;
    if (error !== null) throw error;
    file.synced = file.bytes.slice();
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
        if (offset + bytes.length > file.bytes.length) {
          const grown = new Uint8Array(offset + bytes.length);
          grown.set(file.bytes);
          file.bytes = grown;
        }
        file.bytes.set(bytes, offset);
      },
      sync: async () => this.#sync(file),
      close: async () => {},
    };
  }
  async create(name: string, contents: Uint8Array, bytes: number): Promise<void> {
    const old = this.files.get(name)?.bytes.length ?? 0;
    if (bytes > old + (await this.freeBytes())) throw system("ENOSPC", "no space left on device");
    const whole = new Uint8Array(Math.max(bytes, contents.length));
    whole.set(contents);
    this.put(name, whole);
  }
  async rename(from: string, to: string): Promise<void> {
    this.files.set(to, this.#file(from));
    this.files.delete(from);
  }
  async remove(name: string): Promise<void> {
    this.files.delete(name);
  }
  async syncDirectory(): Promise<void> {}
  async freeBytes(): Promise<number> {
    let used = 0;
    for (const file of this.files.values()) used += file.bytes.length;
    return Math.max(0, this.capacityBytes - used);
  }
}

/** An error as the operating system makes them. */
export function system(code: string, message: string): Error {
  return Object.assign(new Error(`${code}: ${message}`), { code });
}
