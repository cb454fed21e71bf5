/** When a manager takes a snapshot: each so many entries, and no two managers of a cluster at the same entry. */
import { assert } from "../lib/assert.ts";
import type { PeerId } from "../raft/types.ts";

/**
 * Whether a snapshot of `applied` is due, at most `interval` entries after the last one. Making one takes the event loop
 * and the disk for some milliseconds. Were all to do that at the same entry, every write of that moment would wait for
 * it; so each voter has its own places, spread evenly over the interval, and the others commit meanwhile.
 */
export function snapshotDue(
  applied: number,
  last: number,
  interval: number,
  self: PeerId,
  voters: readonly PeerId[],
): boolean {
  assert(interval >= 1, "a snapshot covers something new");
  assert(applied >= last, "a snapshot is of what was applied");
  // Asked in each turn: counted, not sorted.
  let rank = 0;
  for (const voter of voters) if (voter < self) rank += 1;
  const offset = Math.floor((rank * interval) / (voters.length + 1));
  const place = (index: number): number => Math.floor((index + offset) / interval);
  return place(applied) > place(last);
}
