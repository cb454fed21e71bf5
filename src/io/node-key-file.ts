/**
 * The node key file: this node's private key, its certificate, and the data keys of its Raft log, in one PEM file, so
 * that whoever locks the file locks all three. Every change replaces the whole file, one after the other.
 */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { assert } from "../lib/assert.ts";
import { failure, messageOf } from "../lib/errors.ts";
import { writeFileAtomic } from "./files.ts";

/** Bytes of an AES-256 key. */
export const DATA_KEY_BYTES = 32;
const BLOCK = "SHOAL DATA KEYS";
const blockPattern = new RegExp(`-----BEGIN ${BLOCK}-----([^-]+)-----END ${BLOCK}-----\\n?`);

/** What Raft's log and snapshots are encrypted with. */
export interface DataKeys {
  readonly current: Uint8Array;
  /** Still needed for what was written before the last rotation; null when nothing is left of that. */
  readonly previous: Uint8Array | null;
}
export interface NodeKeyFile {
  readonly path: string;
  /** Key and certificate as PEM; the data keys stay as they are. */
  saveIdentity(keyPem: string, certificatePem: string): Promise<void>;
  /** Null when there is no file yet, or none in it. Throws ShoalError("internal") naming the file when they are damaged. */
  dataKeys(): Promise<DataKeys | null>;
  /** Null removes them: nobody reads what they sealed any more. */
  saveDataKeys(keys: DataKeys | null): Promise<void>;
}

/** A key's name, which can be told to anybody: it is made from the key, so that a damaged key is not taken for another. */
export function dataKeyId(key: Uint8Array): string {
  assert(key.length === DATA_KEY_BYTES, "a data key has 32 bytes");
  return createHash("sha256").update("shoal data key\0").update(key).digest("hex").slice(0, 16);
}

/** The key file at `path`; nothing is read yet. One object a file: it puts changes in order. */
export function nodeKeyFile(path: string): NodeKeyFile {
  let queue: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = queue.then(work);
    queue = turn.catch(() => {});
    return turn;
  };
  const textOrEmpty = async (): Promise<string> => {
    try {
      return await readFile(path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
      throw failure("internal", `reading ${path}: ${messageOf(error)}`, error);
    }
  };
  return {
    path,
    saveIdentity: (keyPem, certificatePem) =>
      inTurn(async () => {
        const block = blockPattern.exec(await textOrEmpty())?.[0] ?? "";
        await writeFileAtomic(path, `${keyPem.trim()}\n${certificatePem.trim()}\n${block}`);
      }),
    dataKeys: () => inTurn(async () => parseDataKeys(await textOrEmpty(), path)),
    saveDataKeys: (keys) =>
      inTurn(async () => {
        const text = await textOrEmpty();
        const rest = text.replace(blockPattern, "").replace(/[^\n]$/, "$&\n");
        const block = keys === null ? "" : blockOf(keys);
        if (text !== rest + block) await writeFileAtomic(path, rest + block);
      }),
  };
}

function blockOf(keys: DataKeys): string {
  const named = (key: Uint8Array): object => ({
    id: dataKeyId(key),
    key: Buffer.from(key).toString("base64"),
  });
  const value = {
    version: 1,
    current: named(keys.current),
    previous: keys.previous === null ? null : named(keys.previous),
  };
  const body = { sha256: sumOf(value), value };
  const lines = Buffer.from(JSON.stringify(body))
    .toString("base64")
    .replace(/.{64}/g, "$&\n")
    .trimEnd();
  return `-----BEGIN ${BLOCK}-----\n${lines}\n-----END ${BLOCK}-----\n`;
}

function parseDataKeys(text: string, path: string): DataKeys | null {
  const body = blockPattern.exec(text)?.[1];
  if (body === undefined) {
    if (text.includes(BLOCK)) throw damaged(path, "their block is cut");
    return null;
  }
  let outer: { readonly sha256?: unknown; readonly value?: unknown } | null;
  try {
    outer = JSON.parse(Buffer.from(body, "base64").toString("utf8"));
  } catch (error) {
    throw damaged(path, messageOf(error));
  }
  if (
    typeof outer?.value !== "object" ||
    outer.value === null ||
    outer.sha256 !== sumOf(outer.value)
  ) {
    throw damaged(path, "their checksum does not match");
  }
  const parsed = outer.value as {
    readonly version?: unknown;
    readonly current?: unknown;
    readonly previous?: unknown;
  };
  if (parsed.version !== 1) throw damaged(path, "they are of another version than 1");
  const previous = parsed.previous ?? null;
  return {
    current: keyFrom(parsed.current, path),
    previous: previous === null ? null : keyFrom(previous, path),
  };
}

function sumOf(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}

function keyFrom(value: unknown, path: string): Uint8Array {
  const { id, key } = (value ?? {}) as { id?: unknown; key?: unknown };
  const bytes = typeof key === "string" ? new Uint8Array(Buffer.from(key, "base64")) : null;
  if (bytes?.length !== DATA_KEY_BYTES || id !== dataKeyId(bytes)) {
    throw damaged(path, `data key ${typeof id === "string" ? id : "?"} is not what its id says`);
  }
  return bytes;
}

function damaged(path: string, why: string): Error {
  return failure(
    "internal",
    `reading the data keys in ${path}: ${why}; without them this node's raft log cannot be read. Restore the file from a backup of this node`,
  );
}
