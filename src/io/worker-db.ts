/** The worker's database in level, under DATA_ROOT/worker: atomic batches, every record summed, the whole of them too. */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { access, mkdir, open, readFile, statfs } from "node:fs/promises";
import { join } from "node:path";
import { Level } from "level";
import { present } from "../lib/assert.ts";
import { failure, messageOf, ShoalError } from "../lib/errors.ts";
import { defaultDataPathPort } from "../model/defaults.ts";
import type { Network } from "../model/network.ts";
import type { TaskStatus } from "../model/task.ts";
import { isTerminal } from "../model/task-state.ts";
import type { AssignedTask, NetworkPeer } from "../wire/session.ts";
import type { WorkerDb, WorkerState } from "../worker/worker-db.ts";

/**
 * Bytes that must be free for a write: room for level's next table. Level must never meet a full disk: after a write that
 * failed by half it loses those that follow when it is opened again.
 */
export const workerDbReserveBytes: number = 8 * 1024 * 1024;
/** For how long a look at the disk's room holds, in milliseconds; the reserve is far more than is written meanwhile. */
const roomLookMs = 100;
/** Bytes of the sum over all records. */
const sumBytes = 16;
/** Key of the last batch's number and of the sum over all other records. */
const headKey = "head";
const kinds = ["task", "status", "network", "peer", "setting"] as const;
type Kind = (typeof kinds)[number];

/** Opens the database in `directory`. Throws ShoalError("internal") naming it and what to do when it is damaged: never starts from half of it. */
export async function openWorkerDb(directory: string): Promise<WorkerDb> {
  const db = new LevelWorkerDb(directory);
  await db.open();
  return db;
}

interface Change {
  readonly key: string;
  /** Null removes. */
  readonly value: unknown;
}

class LevelWorkerDb implements WorkerDb {
  readonly #directory: string;
  #opened: Level<string, string> | null = null;
  /** Every record's text, so that the sum can follow a change without reading. */
  readonly #records = new Map<string, string>();
  #sum: Buffer = Buffer.alloc(sumBytes);
  #sequence = 0;
  #last: Promise<void> = Promise.resolve();
  /** There was room when it was last looked, and that still counts until then (performance.now()). */
  #roomUntil = 0;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async open(): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const mark = await this.#readMark();
    const there = await access(join(this.#directory, "db", "CURRENT")).then(
      () => true,
      () => false,
    );
    await this.#requireRoom("opening");
    if (mark !== null && mark.sequence > 0 && !there) throw this.#damaged("its files are missing");
    // Only now: level opens, and makes, its files as soon as it is constructed.
    this.#opened = new Level(join(this.#directory, "db"), { valueEncoding: "utf8" });
    try {
      await this.#level.open();
      await this.#readAll();
    } catch (error) {
      if (this.#level.status === "open") await this.#level.close();
      const cause = error instanceof Error ? error.cause : undefined;
      if ((cause as { code?: unknown } | undefined)?.code === "LEVEL_LOCKED") {
        throw failure(
          "conflict",
          `opening ${this.#directory}: another shoald uses it; stop that one first`,
          error,
        );
      }
      if (error instanceof ShoalError) throw error;
      throw this.#damaged(cause === undefined ? messageOf(error) : messageOf(cause), error);
    }
    if (mark !== null && mark.sequence > this.#sequence) {
      const missing = mark.sequence - this.#sequence;
      // A power loss takes the newest unsynced writes; within one boot, or after a clean end, nothing may be missing.
      if (mark.clean || mark.boot === (await bootId())) {
        await this.#level.close();
        throw this.#damaged(`its last ${missing} writes are missing`);
      }
    }
    await this.#writeMark(false);
  }

  async load(): Promise<WorkerState> {
    // What was asked to be written before is part of it.
    await this.#last;
    const of = <T>(kind: Kind): readonly T[] =>
      [...this.#records]
        .filter(([key]) => key.startsWith(`${kind}/`))
        .map(([, text]) => JSON.parse(text) as T);
    const setting = (name: string, otherwise: number) => {
      const text = this.#records.get(`setting/${name}`);
      return text === undefined ? otherwise : (JSON.parse(text) as number);
    };
    return {
      revision: setting("revision", 0),
      dataPathPort: setting("dataPathPort", defaultDataPathPort),
      tasks: of<AssignedTask>("task"),
      statuses: of<{ readonly taskId: string; readonly status: TaskStatus }>("status"),
      networks: of<Network>("network"),
      peers: of<NetworkPeer>("peer"),
    };
  }

  saveAssignment(change: Parameters<WorkerDb["saveAssignment"]>[0]): Promise<void> {
    return this.#write(
      [
        ...change.putTasks.map((item) => put("task", item.id, item)),
        ...change.putNetworks.map((item) => put("network", item.id, item)),
        ...change.removeNetworks.map((id) => put("network", id, null)),
        ...change.putPeers.map((item) => put("peer", item.key, item)),
        ...change.removePeers.map((key) => put("peer", key, null)),
        put("setting", "revision", change.revision),
      ],
      false,
    );
  }

  saveDataPathPort(port: number): Promise<void> {
    return this.#write([put("setting", "dataPathPort", port)], false);
  }

  saveStatus(taskId: string, status: TaskStatus): Promise<void> {
    return this.#write([put("status", taskId, { taskId, status })], isTerminal(status.state));
  }

  forgetTask(taskId: string): Promise<void> {
    return this.#write([put("task", taskId, null), put("status", taskId, null)], false);
  }

  async close(): Promise<void> {
    await this.#last;
    await this.#level.close();
    await this.#writeMark(true);
    await this.#mark?.sync();
    await this.#mark?.close();
    this.#mark = null;
  }

  #mark: Awaited<ReturnType<typeof open>> | null = null;

  #write(changes: readonly Change[], sync: boolean): Promise<void> {
    const done = this.#last.then(async () => {
      await this.#requireRoom("writing to");
      const before = new Map(changes.map(({ key }) => [key, this.#records.get(key)]));
      const sum = this.#sum;
      const operations = changes.map(({ key, value }) => {
        const text = value === null ? undefined : JSON.stringify(value);
        this.#setRecord(key, text);
        return text === undefined
          ? ({ type: "del", key } as const)
          : ({ type: "put", key, value: `${shortSum(key, text)}${text}` } as const);
      });
      const head = `${this.#sequence + 1} ${this.#sum.toString("hex")}`;
      try {
        await this.#level.batch([...operations, { type: "put", key: headKey, value: head }], {
          sync,
        });
      } catch (error) {
        for (const [key, text] of [...before].reverse()) this.#setRecord(key, text);
        this.#sum = sum;
        throw failure(
          "internal",
          `writing to ${this.#directory}: ${messageOf(error)}; is its disk full?`,
          error,
        );
      }
      this.#sequence++;
      await this.#writeMark(false);
    });
    this.#last = done.catch(() => {});
    return done;
  }

  /** Sets or removes a record, and the sum with it: the sum is the XOR of every record's own. */
  #setRecord(key: string, text: string | undefined): void {
    const old = this.#records.get(key);
    if (old !== undefined) this.#sum = xor(this.#sum, recordSum(key, old));
    if (text === undefined) {
      this.#records.delete(key);
      return;
    }
    this.#records.set(key, text);
    this.#sum = xor(this.#sum, recordSum(key, text));
  }

  async #readAll(): Promise<void> {
    let head = "";
    for await (const [key, value] of this.#level.iterator()) {
      if (key === headKey) {
        head = value;
        continue;
      }
      const text = value.slice(shortSumDigits);
      const kind = key.slice(0, key.indexOf("/"));
      if (!kinds.some((known) => known === kind) || value !== `${shortSum(key, text)}${text}`) {
        throw this.#damaged(`record ${JSON.stringify(key)} does not match its checksum`);
      }
      this.#setRecord(key, text);
    }
    if (head === "" && this.#records.size === 0) return;
    const [sequence = "", sum = ""] = head.split(" ");
    if (!/^\d+$/.test(sequence) || sum !== this.#sum.toString("hex")) {
      throw this.#damaged("some of its records are missing or old");
    }
    this.#sequence = Number(sequence);
  }

  async #requireRoom(doing: string): Promise<void> {
    if (performance.now() < this.#roomUntil) return;
    const { bavail, bsize } = await statfs(this.#directory);
    if (bavail * bsize >= workerDbReserveBytes) {
      this.#roomUntil = performance.now() + roomLookMs;
      return;
    }
    throw failure(
      "unavailable",
      `${doing} ${this.#directory}: no space left on device: ${bavail * bsize} bytes are free, and ${workerDbReserveBytes} are needed; free some space`,
    );
  }

  get #level(): Level<string, string> {
    return present(this.#opened, "an open database");
  }

  get #markPath(): string {
    return join(this.#directory, "sequence");
  }

  /** How far the database had come when it was last written, told beside it. */
  async #readMark(): Promise<{
    readonly sequence: number;
    readonly boot: string;
    readonly clean: boolean;
  } | null> {
    let text: string;
    try {
      text = await readFile(this.#markPath, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
      throw this.#damaged(messageOf(error), error);
    }
    const match = /^(\d{16}) (\S+) (open |clean)\n/.exec(text);
    // Torn by a power loss: it says nothing.
    if (match === null) return null;
    return { sequence: Number(match[1]), boot: match[2] ?? "", clean: match[3] === "clean" };
  }

  async #writeMark(clean: boolean): Promise<void> {
    const text = `${String(this.#sequence).padStart(16, "0")} ${await bootId()} ${clean ? "clean" : "open "}\n`;
    // In place and always of one length, so that it needs no room: a full disk must not keep a node from stopping.
    this.#mark ??= await open(this.#markPath, constants.O_RDWR | constants.O_CREAT, 0o600);
    await this.#mark.write(text, 0);
  }

  #damaged(why: string, cause?: unknown): Error {
    return failure(
      "internal",
      `opening the worker's database ${this.#directory}: it is damaged (${why}); restore the directory from a backup, or move it away: the managers then assign this node's tasks anew, and containers that run are taken up again`,
      cause,
    );
  }
}

function put(kind: Kind, id: string, value: unknown): Change {
  return { key: `${kind}/${id}`, value };
}

const shortSumDigits = 16;

function shortSum(key: string, text: string): string {
  return recordSum(key, text).toString("hex").slice(0, shortSumDigits);
}

function recordSum(key: string, text: string): Buffer {
  return createHash("sha256").update(`${key}\n${text}`).digest().subarray(0, sumBytes);
}

function xor(a: Buffer, b: Buffer): Buffer {
  return Buffer.from(a.map((byte, at) => byte ^ (b[at] ?? 0)));
}

let boot: string | null = null;

/** The kernel's id of this boot. */
async function bootId(): Promise<string> {
  boot ??= (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  return boot;
}
