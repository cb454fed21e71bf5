/** Group commit: what saves that waited for one sync add up to. Pure. */
import { assert } from "../lib/assert.ts";
import type { Entry, HardState, Ready } from "../raft/types.ts";

export type SaveChange = Pick<Ready, "hardState" | "entries" | "snapshot">;

/** Several saves as one: nobody was told of any of them yet, so that only their sum must be durable. */
export interface Group {
  readonly hardState: HardState;
  /** Without those that a later save of the group replaced. */
  readonly entries: readonly Entry[];
  /** Index of the last entry of the log afterwards. */
  readonly lastIndex: number;
  /** A term or a vote changed: others may be told of it, so that it must be written. */
  readonly promises: boolean;
}

/** What `changes` (without snapshots) add up to, over a log that ends at `lastIndex` with `hardState`. Asserts that they follow it. */
export function groupOf(
  changes: readonly SaveChange[],
  hardState: HardState,
  lastIndex: number,
): Group {
  let now = hardState;
  let last = lastIndex;
  let promises = false;
  let entries: readonly Entry[] = [];
  for (const change of changes) {
    const next = change.hardState ?? now;
    assert(next.term >= now.term, "a saved term never falls");
    promises ||= next.term !== now.term || next.vote !== now.vote;
    now = next;
    const first = change.entries[0];
    if (first === undefined) continue;
    assert(first.index <= last + 1, "saved entries join on to the log");
    entries = joined(entries, change.entries, first.index);
    last = first.index + change.entries.length - 1;
  }
  return { hardState: now, entries, lastIndex: last, promises };
}

/** About how many bytes a save takes in a record; what limits a group. */
export function bytesOf(change: SaveChange): number {
  let bytes = 64;
  for (const { data } of change.entries) bytes += data.length + 16;
  return bytes;
}

function joined(
  before: readonly Entry[],
  entries: readonly Entry[],
  firstIndex: number,
): readonly Entry[] {
  const start = before[0]?.index;
  if (start === undefined || firstIndex <= start) return entries;
  const kept = firstIndex - start === before.length ? before : before.slice(0, firstIndex - start);
  return [...kept, ...entries];
}
