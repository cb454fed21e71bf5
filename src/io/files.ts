/** Files that are either the old or the new one, never half: temp file, fsync, rename, fsync of the directory. */
import { mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { failure } from "../lib/errors.ts";

/** Makes `path` hold `content`, durably, with `mode`; parent directories are made. */
export async function writeFileAtomic(
  path: string,
  content: string | Uint8Array,
  mode = 0o600,
): Promise<void> {
  const directory = dirname(path);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const temporary = `${path}.tmp-${process.pid}`;
  const file = await open(temporary, "w", mode);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  await syncDirectory(directory);
}

/** Makes renames and removals in `directory` durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** The JSON of `path`; null when there is no such file. Throws naming the file when it is no JSON. */
export async function readJson(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw failure("internal", `reading ${path}: ${String(error)}`, error);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw failure(
      "internal",
      `reading ${path}: it is damaged (${String(error)}); restore it from a backup, or remove it to start anew`,
      error,
    );
  }
}

/** Removes a file or a tree, durably; nothing there is fine. */
export async function removeDurably(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true });
  await syncDirectory(dirname(path)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
  });
}
