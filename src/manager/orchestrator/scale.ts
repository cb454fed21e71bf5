/** Which slots a replicated service keeps, loses and gains (swarmkit manager/orchestrator/replicated/services.go). */
import type { Slot } from "./slots.ts";

/**
 * Slots in the order in which they are worth keeping: the tail goes first. Copies are counted on each node, so that
 * what stays is balanced: running ones before others, low numbers before high ones; what is on no node, or is more than
 * one task, is the last.
 */
export function keepOrder(slots: readonly Slot[]): readonly Slot[] {
  const copies = new Map<string, number>();
  const ranked = [...slots].sort(runningThenNumber).map((slot) => {
    const node = nodeOf(slot);
    if (node === null) return { slot, copy: Number.POSITIVE_INFINITY };
    const copy = (copies.get(node) ?? 0) + 1;
    copies.set(node, copy);
    return { slot, copy };
  });
  // Sorting is stable: within one copy number the order above holds.
  return ranked.sort((a, b) => compare(a.copy, b.copy)).map(({ slot }) => slot);
}

/** The first `count` slot numbers from 1 that are not in `taken`. */
export function freeNumbers(taken: ReadonlySet<number>, count: number): readonly number[] {
  const free: number[] = [];
  for (let number = 1; free.length < count; number += 1) {
    if (!taken.has(number)) free.push(number);
  }
  return free;
}

function runningThenNumber(a: Slot, b: Slot): number {
  return Number(isRunning(b)) - Number(isRunning(a)) || a.number - b.number;
}

function isRunning(slot: Slot): boolean {
  return slot.live.some((task) => task.status.state === "running");
}

/** The node of a slot's only task; null when there is none, or no single one. */
function nodeOf(slot: Slot): string | null {
  if (slot.live.length > 1) return null;
  const task = slot.live[0] ?? slot.newest;
  return task?.nodeId ?? null;
}

function compare(a: number, b: number): number {
  return a === b ? 0 : a < b ? -1 : 1;
}
