/** Goal: a sync is answered in order, with the system's error when it fails, and never left waiting. */
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { newSyncCells, patienceMs, startSyncThread, syncCells } from "./sync-thread.ts";

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

test("who is patient hears the same, in the same order, and of errors too", async () => {
  const { thread, fd } = await threadAndFile();
  const order: string[] = [];
  const note = (name: string, fdOf: number, patient: boolean): Promise<void> =>
    thread.sync(fdOf, patient).then(
      () => void order.push(name),
      (error: NodeJS.ErrnoException) => void order.push(`${name} ${error.code}`),
    );
  for (let n = 0; n < 100; n += 1) {
    writeSync(fd, "bytes", 0);
    await note(`${n}`, fd, true);
    await note(`${n} bad`, 1_000_000, true);
    await Promise.all([note(`${n} first`, fd, n % 2 === 0), note(`${n} second`, fd, true)]);
  }
  const expected = Array.from({ length: 100 }, (_, n) => [
    `${n}`,
    `${n} bad EBADF`,
    `${n} first`,
    `${n} second`,
  ]);
  expect(order).toEqual(expected.flat());
});

test.each([false, true])("a late wake-up answers nothing, patient: %s", async (patient) => {
  const shared = newSyncCells();
  const { thread, fd } = await threadAndFile(shared);
  const chunk = new Uint8Array(32 * 1024 * 1024).fill(1);
  for (let n = 0; n < 3; n += 1) {
    for (let quick = 0; quick < 10; quick += 1) await thread.sync(fd, patient);
    writeSync(fd, chunk, 0, chunk.length, 0);
    const done = thread.sync(fd, patient);
    // As the thread does for the sync before, when it was held up between its answer and the waking.
    Atomics.notify(shared, syncCells.answered);
    await done;
    const [asked, answered] = [syncCells.asked, syncCells.answered].map((at) => shared[at]);
    expect(answered).toBe(asked);
  }
});

test("a device that is steadily quick is synced in place, and not while another sync is under way", async () => {
  const { thread, fd } = await threadAndFile();
  expect(thread.isQuick(), "of a device that nothing is known of").toBe(false);
  // As long as the machine is too busy for a run of quick ones, there is none.
  await vi.waitFor(
    async () => {
      await thread.sync(fd, true);
      expect(thread.isQuick()).toBe(true);
    },
    { timeout: 30_000, interval: 0 },
  );
  const done = thread.sync(fd);
  expect(thread.isQuick()).toBe(false);
  await done;
  thread.syncNow(fd);
  expect(() => thread.syncNow(1_000_000)).toThrow("EBADF");
  await thread.close();
  expect(thread.isQuick()).toBe(false);
});

test("patience ends soon when the device is slow, and is not had again while it is", async () => {
  const { thread, fd } = await threadAndFile();
  const chunk = new Uint8Array(16 * 1024 * 1024).fill(1);
  /** Most of them end in time on a device that is quick, one after the other: the next one is waited for. */
  for (let n = 0; n < 20; n += 1) await thread.sync(fd, true);
  for (let n = 0; n < 2; n += 1) {
    for (let at = 0; at < 8; at += 1) writeSync(fd, chunk, 0, chunk.length, at * chunk.length);
    const begin = performance.now();
    const done = thread.sync(fd, true);
    const heldMs = performance.now() - begin;
    await done;
    const wholeMs = performance.now() - begin;
    // What is left is for a machine that is busy: the thread that sleeps is not run the moment it wakes.
    if (wholeMs > 20 * patienceMs) expect(heldMs).toBeLessThan(wholeMs / 2);
  }
});

async function threadAndFile(shared?: Int32Array) {
  const directory = await mkdtemp(join(tmpdir(), "shoal-sync-"));
  const fd = openSync(join(directory, "file"), "w");
  const thread = startSyncThread(shared);
  onTestFinished(async () => {
    await thread.close();
    closeSync(fd);
    await rm(directory, { recursive: true });
  });
  return { thread, fd };
}
