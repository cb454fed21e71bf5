/** An image archive (tar, maybe gzip) spooled entry by entry into a directory: bounded, hashed, every path checked. */
import { createHash } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { join, posix } from "node:path";
import { Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { createTarDecoder } from "modern-tar";
import { archivePath, documentBytesMax } from "../image/manifest.ts";
import { failure, messageOf, ShoalError } from "../lib/errors.ts";

/** Largest archive that is taken, unpacked, in bytes. */
export const archiveBytesMax: number = 64 * 1024 ** 3;
/** Most entries in one archive. */
const entriesMax = 20_000;

export interface SpooledFile {
  readonly path: string;
  readonly size: number;
  /** sha256:… of the bytes. */
  readonly digest: string;
}
/** The regular files of an archive, by their path in it; links are followed. */
export interface SpooledArchive {
  get(path: string): SpooledFile | null;
  /** The bytes of a JSON document. Throws invalid when it is missing or too large. */
  read(path: string): Promise<Uint8Array>;
}

/** Spools `archive` into `directory`, which must exist. Throws ShoalError("invalid") for what is no such archive. */
export async function spoolArchive(
  archive: AsyncIterable<Uint8Array>,
  directory: string,
): Promise<SpooledArchive> {
  const files = new Map<string, SpooledFile>();
  const links = new Map<string, string>();
  let bytes = 0;
  let entries = 0;
  try {
    const source = webStream(await decompressed(archive));
    for await (const entry of source.pipeThrough(createTarDecoder({ strict: true }))) {
      const { header } = entry;
      if (++entries > entriesMax) throw failure("invalid", `more than ${entriesMax} entries`);
      const kind = header.type ?? "file";
      if (kind === "file") {
        bytes += header.size;
        if (bytes > archiveBytesMax) {
          throw failure("invalid", `more than ${archiveBytesMax} bytes unpacked`);
        }
        const name = archivePath(header.name);
        const path = join(directory, String(entries));
        files.set(name, await spoolFile(path, entry.body));
      } else {
        await entry.body.cancel();
        if (kind === "directory") continue;
        const name = archivePath(header.name);
        const target = header.linkname ?? "";
        if (kind === "symlink") links.set(name, within(posix.dirname(name), target));
        else if (kind === "link") links.set(name, archivePath(target));
      }
    }
  } catch (error) {
    throw describe(error);
  }
  if (entries === 0) throw failure("invalid", "reading the archive: it holds nothing");
  const get = (path: string) => {
    const target = links.get(path);
    return files.get(path) ?? (target === undefined ? null : (files.get(target) ?? null));
  };
  return {
    get,
    async read(path) {
      const file = get(path);
      if (file === null) throw failure("invalid", `reading the archive: it has no ${path}`);
      if (file.size > documentBytesMax) {
        throw failure("invalid", `${path} has ${file.size} bytes, more than ${documentBytesMax}`);
      }
      return await readFile(file.path);
    },
  };
}

/** Writes bytes to `path`, as they come; answers their size and digest. The file is not synced: it lives as long as one load. */
export async function spoolFile(
  path: string,
  source: AsyncIterable<Uint8Array>,
): Promise<SpooledFile> {
  const hash = createHash("sha256");
  let size = 0;
  const file = await open(path, "wx", 0o600);
  try {
    for await (const chunk of source) {
      hash.update(chunk);
      size += chunk.byteLength;
      if (size > archiveBytesMax) {
        throw failure("invalid", `reading the archive: more than ${archiveBytesMax} bytes`);
      }
      // A full disk makes a write short before it makes one fail.
      for (let done = 0; done < chunk.byteLength; ) {
        done += (await file.write(chunk, done)).bytesWritten;
      }
    }
  } finally {
    await file.close();
  }
  return { path, size, digest: `sha256:${hash.digest("hex")}` };
}

/**
 * A web stream that reads one chunk at a time. Not Readable.toWeb: when its reader gives up between two chunks, the next
 * one is thrown as an exception that nobody can catch ("Controller is already closed").
 */
function webStream(source: Readable): ReadableStream<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  return new ReadableStream({
    async pull(controller) {
      const next = await iterator.next();
      if (next.done === true) controller.close();
      else controller.enqueue(next.value);
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

async function decompressed(archive: AsyncIterable<Uint8Array>): Promise<Readable> {
  const iterator = archive[Symbol.asyncIterator]();
  const first = await iterator.next();
  const head: Uint8Array = first.done === true ? new Uint8Array() : first.value;
  if (head.byteLength === 0) throw failure("invalid", "it holds nothing");
  if (head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd) {
    throw failure("invalid", "the archive is zstd; give it as plain tar or gzip");
  }
  async function* all(): AsyncGenerator<Uint8Array> {
    try {
      if (head.byteLength > 0) yield head;
      for (;;) {
        const next = await iterator.next();
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      await iterator.return?.();
    }
  }
  const plain = Readable.from(all(), { objectMode: false });
  if (head[0] !== 0x1f || head[1] !== 0x8b) return plain;
  const gunzip = createGunzip();
  plain.once("error", (error) => gunzip.destroy(error));
  gunzip.once("close", () => plain.destroy());
  return plain.pipe(gunzip);
}

function within(directory: string, target: string): string {
  return archivePath(posix.join(directory, target));
}

/** What went wrong, as the user's mistake or the disk's. */
function describe(error: unknown): Error {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return failure("unavailable", "reading the archive: no space left on device", error);
  }
  if (error instanceof ShoalError) {
    return failure(error.code, `reading the archive: ${error.message}`, error);
  }
  return failure(
    "invalid",
    `reading the archive: it is broken, or no tar archive: ${messageOf(error)}`,
    error,
  );
}
