/** Goal: an archive that cannot be spooled is one error and nothing more. How: archives in many small chunks, and a directory that refuses files. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { packTar } from "modern-tar";
import { afterEach, beforeEach, expect, test } from "vitest";
import { spoolArchive } from "./archive-spool.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "shoal-spool-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

async function archive(bytes: number): Promise<Uint8Array> {
  const body = new Uint8Array(bytes).map((_, at) => at % 251);
  return await packTar([{ header: { name: "data", size: bytes, type: "file" }, body }]);
}

/** As a client sends it: chunk by chunk, each in a turn of its own. */
async function* chunks(bytes: Uint8Array, sent: { end: boolean }): AsyncGenerator<Uint8Array> {
  try {
    for (let at = 0; at < bytes.byteLength; at += 4096) {
      await new Promise((next) => setImmediate(next));
      yield bytes.subarray(at, at + 4096);
    }
  } finally {
    sent.end = true;
  }
}

test.each([
  ["plain", (bytes: Uint8Array) => bytes],
  ["gzip", (bytes: Uint8Array) => new Uint8Array(gzipSync(bytes, { level: 0 }))],
])("a file that cannot be written ends the reading, %s", async (_kind, pack) => {
  const sent = { end: false };
  // Its name is taken, so that opening it fails while chunks still come.
  await writeFile(join(directory, "1"), "");
  const source = chunks(pack(await archive(1_000_000)), sent);
  await expect(spoolArchive(source, directory)).rejects.toThrow("EEXIST");
  // What is on its way must not turn up as an exception later; the runner fails on one.
  for (let turn = 0; turn < 50; turn += 1) await new Promise((next) => setImmediate(next));
  await expect.poll(() => sent.end, { timeout: 10_000 }).toBe(true);
});

test("an archive in small chunks is spooled whole", async () => {
  const spooled = await spoolArchive(chunks(await archive(100_000), { end: false }), directory);
  expect(spooled.get("data")?.size).toBe(100_000);
});
