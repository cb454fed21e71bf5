/** Reading json-file logs as docker writes them, one {"log","stream","time"} a line: tail, since, until, follow, rotation. */
import { watch } from "node:fs";
import { access, type FileHandle, open, stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type {
  ContainerLogLine,
  ContainerLogQuery,
  ContainerLogs,
} from "../engine/container-logs.ts";
import { instantNs } from "../engine/rfc3339.ts";
import { failure } from "../lib/errors.ts";

/** Bytes read from a file at once. */
const chunkBytes: number = 64 * 1024;
/** Longest line: a message of 16 KiB, every byte escaped, and the rest of the record. */
const lineBytesMax: number = 256 * 1024;
/** Most rotated files that are looked for. */
const rotatedFilesMax = 1_000;
const newline = 0x0a;

/** Logs read from disk. */
export const jsonFileLogs: ContainerLogs = { read: readJsonFileLog };

/** The lines of the log at `path` (and `path.1`, `path.2`, … before it, the highest number oldest). A log that does not exist yet is empty. */
export async function* readJsonFileLog(
  path: string,
  query: ContainerLogQuery,
): AsyncIterable<ContainerLogLine> {
  const changes = query.follow === null ? null : watchChanges(path, query.signal);
  const decode = (bytes: Uint8Array) => wanted(decodeLine(bytes, path), query);
  let position: Position | null = null;
  try {
    const files = await existingFiles(path);
    const start = await startOf(files, query.tail);
    for (const [at, file] of files.entries()) {
      if (at < start.file) continue;
      await position?.handle.close();
      position = await openAt(file, at === start.file ? start.offset : 0);
      if (position !== null) yield* readToEnd(position, decode, query.signal);
    }
    if (changes === null || query.follow === null) return;
    let ended = false;
    query.follow.then(() => {
      ended = true;
      changes.poke();
    }, changes.poke);
    while (!query.signal.aborted) {
      const last = ended;
      const mark = changes.mark();
      if (position !== null) yield* readToEnd(position, decode, query.signal);
      const next = await openNext(path, position);
      if (next !== null) {
        // Rotated, or there at last. What was written to the old file before the rename is read first.
        if (position !== null) yield* readToEnd(position, decode, query.signal);
        await position?.handle.close();
        position = next;
      } else if (last) {
        return;
      } else {
        await changes.after(mark);
      }
    }
  } finally {
    changes?.close();
    await position?.handle.close();
  }
}

interface Position {
  readonly handle: FileHandle;
  readonly inode: number;
  offset: number;
  /** The beginning of a line whose end is not there yet. */
  rest: Buffer;
}

async function openAt(path: string, offset: number): Promise<Position | null> {
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw failure("internal", `reading the log ${path}: ${String(error)}`, error);
  }
  const { ino } = await handle.stat();
  return { handle, inode: ino, offset, rest: Buffer.alloc(0) };
}

/** The file written after the one at `position`; null when that one is still written to. */
async function openNext(path: string, position: Position | null): Promise<Position | null> {
  if (position === null) return await openAt(path, 0);
  let newer = path;
  for (let number = 0; number <= rotatedFilesMax; number++) {
    const file = number === 0 ? path : `${path}.${number}`;
    const inode = await inodeOf(file);
    if (inode === position.inode) return number === 0 ? null : await openAt(newer, 0);
    // Between two renames the current file may be missing for a moment.
    if (inode === null && number > 0) break;
    if (inode !== null) newer = file;
  }
  // It was rotated out of existence: the oldest that is left is next. Nothing there: it comes.
  const oldest = (await existingFiles(path))[0] ?? path;
  return (await inodeOf(oldest)) === null ? null : await openAt(oldest, 0);
}

async function inodeOf(path: string): Promise<number | null> {
  return await stat(path).then(
    (info) => info.ino,
    () => null,
  );
}

async function* readToEnd(
  position: Position,
  decode: (line: Uint8Array) => ContainerLogLine | null,
  signal: AbortSignal,
): AsyncGenerator<ContainerLogLine> {
  const buffer = Buffer.allocUnsafe(chunkBytes);
  while (!signal.aborted) {
    const { bytesRead } = await position.handle.read(buffer, 0, chunkBytes, position.offset);
    if (bytesRead === 0) return;
    position.offset += bytesRead;
    let data = Buffer.concat([position.rest, buffer.subarray(0, bytesRead)]);
    for (let end = data.indexOf(newline); end >= 0; end = data.indexOf(newline)) {
      const line = decode(data.subarray(0, end));
      data = data.subarray(end + 1);
      if (line !== null) yield line;
    }
    // A line without end this long is no line of ours; what follows its end is read again.
    position.rest = data.byteLength > lineBytesMax ? Buffer.alloc(0) : Buffer.from(data);
  }
}

function decodeLine(bytes: Uint8Array, path: string): ContainerLogLine | null {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
  if (text.trim() === "") return null;
  let record: { log?: unknown; stream?: unknown; time?: unknown };
  try {
    record = JSON.parse(text);
  } catch (error) {
    // A power loss leaves zeros or half a line; the lines after it are still good.
    if (error instanceof SyntaxError) return null;
    throw failure("internal", `reading the log ${path}: ${String(error)}`, error);
  }
  if (typeof record.log !== "string" || typeof record.time !== "string") return null;
  return {
    stream: record.stream === "stderr" ? "stderr" : "stdout",
    time: record.time,
    line: Buffer.from(record.log, "utf8"),
  };
}

function wanted(line: ContainerLogLine | null, query: ContainerLogQuery): ContainerLogLine | null {
  if (line === null) return null;
  if (!(line.stream === "stdout" ? query.stdout : query.stderr)) return null;
  if (query.sinceNs === null && query.untilNs === null) return line;
  const at = instantNs(line.time);
  if (at === null) return line;
  if (query.sinceNs !== null && at < query.sinceNs) return null;
  if (query.untilNs !== null && at > query.untilNs) return null;
  return line;
}

/** The log's files that exist, oldest first. */
async function existingFiles(path: string): Promise<readonly string[]> {
  const files = [path];
  for (let number = 1; number <= rotatedFilesMax; number++) {
    const rotated = `${path}.${number}`;
    const there = await access(rotated).then(
      () => true,
      () => false,
    );
    if (!there) break;
    files.unshift(rotated);
  }
  return files;
}

/** Where the last `tail` lines begin; -1 is all. */
async function startOf(
  files: readonly string[],
  tail: number,
): Promise<{ readonly file: number; readonly offset: number }> {
  if (tail < 0) return { file: 0, offset: 0 };
  let left = tail;
  for (let at = files.length - 1; at >= 0; at--) {
    const position = await openAt(files[at] ?? "", 0);
    if (position === null) continue;
    try {
      const found = await backwards(position.handle, left);
      if (found.offset !== null) return { file: at, offset: found.offset };
      left -= found.lines;
    } finally {
      await position.handle.close();
    }
  }
  return { file: 0, offset: 0 };
}

/** Looks for the start of the `count`th line from the end; when there are fewer, how many there are. */
async function backwards(
  handle: FileHandle,
  count: number,
): Promise<{ readonly offset: number | null; readonly lines: number }> {
  const { size } = await handle.stat();
  if (count === 0) return { offset: size, lines: 0 };
  const buffer = Buffer.allocUnsafe(chunkBytes);
  let lines = 0;
  for (let end = size; end > 0; ) {
    const start = Math.max(0, end - chunkBytes);
    const { bytesRead } = await handle.read(buffer, 0, end - start, start);
    for (let at = bytesRead - 1; at >= 0; at--) {
      // The newline at the very end closes the last line; each other one closes the line before.
      if (buffer[at] !== newline || start + at === size - 1) continue;
      lines++;
      if (lines === count) return { offset: start + at + 1, lines };
    }
    end = start;
  }
  return { offset: null, lines: size > 0 ? lines + 1 : 0 };
}

/** Notices changes of `path` by its directory (a rotated file is another one); a change between a mark and the wait is not lost. */
function watchChanges(
  path: string,
  signal: AbortSignal,
): { mark(): number; poke(): void; after(mark: number): Promise<void>; close(): void } {
  let count = 0;
  let wake: (() => void) | null = null;
  const changed = () => {
    count++;
    wake?.();
    wake = null;
  };
  const name = basename(path);
  const watcher = watch(dirname(path), (_kind, file) => {
    if (file === null || file === name) changed();
  });
  watcher.on("error", changed);
  signal.addEventListener("abort", changed);
  return {
    mark: () => count,
    poke: changed,
    after: (mark) =>
      new Promise((resolve) => {
        if (count !== mark || signal.aborted) resolve();
        else wake = resolve;
      }),
    close: () => {
      signal.removeEventListener("abort", changed);
      watcher.close();
    },
  };
}
