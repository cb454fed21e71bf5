/** JSON records on disk that notice a flipped bit: the value with the SHA-256 of its text, written atomically. */
import { createHash } from "node:crypto";
import { rename, writeFile } from "node:fs/promises";
import { failure } from "../lib/errors.ts";
import { readJson, writeFileAtomic } from "./files.ts";

/** Writes `value` to `path`, durably and atomically. */
export async function writeChecked(path: string, value: unknown): Promise<void> {
  await writeFileAtomic(path, textOf(value));
}

/** As writeChecked, but unsynced: it survives this process, not the machine. Its directory must exist. */
export async function writeCheckedQuickly(path: string, value: unknown): Promise<void> {
  const temporary = `${path}.tmp-${process.pid}`;
  await writeFile(temporary, textOf(value), { mode: 0o600 });
  await rename(temporary, path);
}

/** The value of `path`; null when there is no such file. Throws naming the file when it is damaged. */
export async function readChecked(path: string): Promise<unknown> {
  const outer = await readJson(path);
  if (outer === null) return null;
  const record = typeof outer === "object" ? (outer as { sha256?: unknown; value?: unknown }) : {};
  if (record.value === undefined || record.sha256 !== sumOf(JSON.stringify(record.value))) {
    throw failure(
      "internal",
      `reading ${path}: it is damaged (its checksum does not match); restore it from a backup, or remove it to start anew`,
    );
  }
  return record.value;
}

function textOf(value: unknown): string {
  const text = JSON.stringify(value);
  return `{"sha256":"${sumOf(text)}","value":${text}}\n`;
}

function sumOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
