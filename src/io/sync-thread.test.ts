/** Goal: a sync is answered in order, with the system's error when it fails, and never left waiting. */
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { startSyncThread } from "./sync-thread.ts";

test("syncs are answered in the order they were asked for, a failed one with its code", async () => {
  const directory = await mkdtemp(join(tmpdir(), "shoal-sync-"));
  const fd = openSync(join(directory, "file"), "w");
  const thread = startSyncThread();
  onTestFinished(async () => {
    await thread.close();
    closeSync(fd);
    await rm(directory, { recursive: true });
  });
  writeSync(fd, "bytes");
  const order: string[] = [];
  const note = (name: string, fdOf: number): Promise<void> =>
    thread.sync(fdOf).then(
      () => void order.push(name),
      (error: NodeJS.ErrnoException) => void order.push(`${name} ${error.code}`),
    );
  await Promise.all([note("first", fd), note("second", 1_000_000), note("third", fd)]);
  expect(order).toEqual(["first", "second EBADF", "third"]);
});

test("who waits when the thread ends is told", async () => {
  const directory = await mkdtemp(join(tmpdir(), "shoal-sync-"));
  const path = join(directory, "file");
  const fd = openSync(path, "w");
  onTestFinished(async () => {
    closeSync(fd);
    rmSync(path);
    await rm(directory, { recursive: true });
  });
  const thread = startSyncThread();
  const waiting = Array.from({ length: 50 }, () =>
    thread.sync(fd).catch((error: Error) => error.message),
  );
  await thread.close();
  const outcomes = await Promise.all(waiting);
  expect(outcomes.every((it) => it === undefined || String(it).includes("has ended"))).toBe(true);
  await expect(thread.sync(fd)).rejects.toThrow("has ended");
});
