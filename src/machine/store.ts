/** Machines on disk: `STORAGE/machines/NAME/machine.json`, saved atomically, and the lock of each. */
import { createHash } from "node:crypto";
import { mkdirSync, realpathSync } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { failure, messageOf } from "../lib/errors.ts";
import { socketPathBytesMax } from "./limits.ts";
import { withLock } from "./lock.ts";
import { checkMachineName, type MachineRecord, parseRecord } from "./record.ts";

/** Where machines are kept: `option` (--storage-path), else MACHINE_STORAGE_PATH, else ~/.shoal/machine. */
export function storagePath(
  option: string | null,
  env: Readonly<Record<string, string | undefined>>,
): string {
  return resolve(option ?? (env["MACHINE_STORAGE_PATH"] || join(homedir(), ".shoal", "machine")));
}

/** What all machines of one storage path share. */
export interface NetworkRecord {
  readonly version: 1;
  readonly subnet: string;
}

export class MachineStore {
  /** Absolute, without symbolic links. */
  readonly path: string;
  /** Eight hex digits that stand for the path in names of namespaces and cgroups. */
  readonly hash: string;

  /** Makes the directory when it is not there. */
  constructor(path: string) {
    mkdirSync(path, { recursive: true, mode: 0o711 });
    this.path = realpathSync(path);
    this.hash = createHash("sha256").update(this.path).digest("hex").slice(0, 8);
  }

  /** Everything of a machine is below this. */
  directory(name: string): string {
    return join(this.path, "machines", name);
  }
  /** The machine's API on this box. */
  socket(name: string): string {
    return join(this.directory(name), "docker.sock");
  }
  /** Throws `invalid` when the machine's socket could not be bound. */
  checkSocketPath(name: string): void {
    const bytes = Buffer.byteLength(this.socket(name));
    if (bytes > socketPathBytesMax) {
      throw failure(
        "invalid",
        `machine ${name}: the path of its socket, ${this.socket(name)}, has ${bytes} bytes and Linux allows ${socketPathBytesMax}; choose a shorter --storage-path or name`,
      );
    }
  }

  /** Names of all machines that have a directory, in order. */
  async names(): Promise<string[]> {
    try {
      const entries = await readdir(join(this.path, "machines"), { withFileTypes: true });
      const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
      return names.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  }
  /** The record; null when there is none. Throws `internal` when the file is damaged. */
  async find(name: string): Promise<MachineRecord | null> {
    const file = join(this.directory(name), "machine.json");
    let text: string;
    try {
      text = await readFile(file, "utf8");
    } catch (error) {
      if (isMissing(error)) return null;
      throw error;
    }
    return parseRecord(text, file);
  }
  /** The record. Throws `not-found` in docker-machine's words. */
  async get(name: string): Promise<MachineRecord> {
    checkMachineName(name);
    const record = await this.find(name);
    if (record === null) throw failure("not-found", `Docker machine "${name}" does not exist`);
    return record;
  }
  /** All records that can be read; `broken` gets the name and error of every other. */
  async list(broken?: (name: string, error: Error) => void): Promise<MachineRecord[]> {
    const records: MachineRecord[] = [];
    for (const name of await this.names()) {
      try {
        const record = await this.find(name);
        if (record !== null) records.push(record);
      } catch (error) {
        if (broken === undefined) throw error;
        broken(name, error instanceof Error ? error : new Error(messageOf(error)));
      }
    }
    return records;
  }
  /** Durable when it returns: written beside, synced, renamed over, directory synced. */
  async save(record: MachineRecord): Promise<void> {
    const directory = this.directory(record.name);
    await mkdir(directory, { recursive: true, mode: 0o711 });
    await saveAtomically(join(directory, "machine.json"), `${JSON.stringify(record, null, 2)}\n`);
  }
  /** Forgets the machine and everything below its directory. Fine when it is not there. */
  async forget(name: string): Promise<void> {
    await rm(this.directory(name), { recursive: true, force: true });
  }

  /** The shared network; null before the first machine. */
  async network(): Promise<NetworkRecord | null> {
    const file = join(this.path, "network.json");
    let text: string;
    try {
      text = await readFile(file, "utf8");
    } catch (error) {
      if (isMissing(error)) return null;
      throw error;
    }
    const value = JSON.parse(text) as Partial<NetworkRecord>;
    if (value.version !== 1 || typeof value.subnet !== "string") {
      throw failure("internal", `reading ${file}: it is not a network of version 1; remove it`);
    }
    return { version: 1, subnet: value.subnet };
  }
  async saveNetwork(network: NetworkRecord): Promise<void> {
    await saveAtomically(join(this.path, "network.json"), `${JSON.stringify(network)}\n`);
  }
  async forgetNetwork(): Promise<void> {
    await rm(join(this.path, "network.json"), { force: true });
  }

  /** Runs `work` while no other command works on this machine. */
  async locked<T>(name: string, work: () => Promise<T>): Promise<T> {
    return await withLock(`machine ${name} in ${this.path}`, work);
  }
  /** Runs `work` while no other command hands out addresses or touches the switch of this storage path. */
  async networkLocked<T>(work: () => Promise<T>): Promise<T> {
    return await withLock(`the machine network of ${this.path}`, work);
  }
}

/** Replaces `file` so that after a crash it holds either all of the old text or all of the new. */
export async function saveAtomically(file: string, text: string): Promise<void> {
  const temporary = `${file}.tmp-${process.pid}`;
  const handle = await open(temporary, "w", 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, file);
  const directory = await open(dirname(file), "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** Whether an error says that a file is not there. */
export function isMissing(error: unknown): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === "ENOENT";
}
