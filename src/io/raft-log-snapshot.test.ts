/** Goal: a snapshot of many megabytes holds up nobody for long, and is whole. */
import { expect, test } from "vitest";
import { silentLog } from "../lib/log.ts";
import type { Snapshot } from "../raft/types.ts";
import { openLogOn } from "./raft-log.ts";
import { MemoryLogDisk } from "./testing/memory-log-disk.ts";

test("a large snapshot is summed up in slices, and others have their turn between them", async () => {
  const disk = new MemoryLogDisk();
  let turns = 0;
  const nextTurn = async (): Promise<void> => {
    turns += 1;
  };
  const log = await openLogOn(disk, silentLog, { freeMarginBytes: 0, nextTurn });
  await log.load();
  const entries = [{ index: 1, term: 1, kind: "normal" as const, data: new Uint8Array(3) }];
  await log.save({ hardState: { term: 1, vote: null, commit: 1 }, entries, snapshot: null });
  const snapshot: Snapshot = {
    index: 1,
    term: 1,
    membership: { voters: ["a"], outgoing: [], learners: [], learnersNext: [], autoLeave: false },
    data: new Uint8Array(4 * 1024 * 1024).fill(7),
  };
  await log.compact(snapshot, 2);
  expect(turns).toBeGreaterThanOrEqual(8);
  await log.close();
  const again = await openLogOn(disk, silentLog, {});
  const { snapshot: read } = await again.load();
  expect(read?.index).toBe(1);
  expect(Buffer.compare(read?.data ?? new Uint8Array(0), snapshot.data)).toBe(0);
  await again.close();
});
