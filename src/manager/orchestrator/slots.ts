/** The tasks of a service by slot: the slot's number of a replicated service, the node of a global one. */
import { after, type InstantMs } from "../../lib/clock.ts";
import { defaultStopGraceNs, nsPerMs } from "../../model/defaults.ts";
import { slotKey, type Task } from "../../model/task.ts";
import { isBefore, isTerminal } from "../../model/task-state.ts";
import type { View } from "../../store/types.ts";
import { stopMarginMs } from "./limits.ts";

/** All task rows of one slot. */
export interface Slot {
  readonly key: string;
  /** From 1; 0 for a global service. */
  readonly number: number;
  /** All rows, oldest first. */
  readonly tasks: readonly Task[];
  /** Those that are meant to run, now or later. */
  readonly live: readonly Task[];
  /** The youngest that is not being removed; null when all are. */
  readonly newest: Task | null;
}

/** The slots of a service that have a row, by key. */
export function slotsOf(view: View, serviceId: string): Map<string, Slot> {
  const rows = new Map<string, Task[]>();
  for (const task of view.table("tasks").by("service", serviceId)) {
    const key = slotKey(task);
    const found = rows.get(key);
    if (found === undefined) rows.set(key, [task]);
    else found.push(task);
  }
  const slots = new Map<string, Slot>();
  for (const [key, tasks] of rows) slots.set(key, slotOf(key, tasks));
  return slots;
}

/** The slot `key` with these rows, in any order. */
export function slotOf(key: string, rows: readonly Task[]): Slot {
  const tasks = rows.length < 2 ? rows : [...rows].sort(byAge);
  const kept = tasks.filter((task) => task.desired !== "remove");
  return {
    key,
    number: tasks[0]?.slot ?? 0,
    tasks,
    live: kept.filter(isLive),
    newest: kept.at(-1) ?? null,
  };
}

/** Oldest first; rows of one entry in an order that is the same everywhere. */
export function byAge(a: Task, b: Task): number {
  return a.meta.createdAt - b.meta.createdAt || (a.id < b.id ? -1 : 1);
}

/** Whether the task is meant to run, now or later. */
export function isLive(task: Task): boolean {
  return !isTerminal(task.desired);
}

/** Whether nothing of the task runs any more, as far as anybody can know: it ended, never got a node, or its node is down or gone. */
export function isOver(task: Task, view: View): boolean {
  if (isTerminal(task.status.state) || isBefore(task.status.state, "assigned")) return true;
  return task.nodeId === null || !isNodeUp(task.nodeId, view);
}

/** Tasks of the slot that were told to stop and may still run; oldest first. */
export function stoppingOf(slot: Slot, view: View): readonly Task[] {
  return slot.tasks.filter((task) => !isLive(task) && !isOver(task, view));
}

/** Why a task's node can keep it no longer; null when it can, and for a task without node. */
export function lossOf(task: Task, view: View): "gone" | "down" | "drain" | null {
  if (task.nodeId === null) return null;
  const node = view.table("nodes").get(task.nodeId);
  if (node === undefined) return "gone";
  if (node.state === "down") return "down";
  return node.spec.availability === "drain" ? "drain" : null;
}

/** A task's own stop grace, in milliseconds. */
export function stopGraceMs(task: Task): number {
  return (task.spec.container.stopGraceNs ?? defaultStopGraceNs) / nsPerMs;
}

/**
 * When a task in desired `ready` may run: `now` or before when it may already, a later time when time alone will do,
 * at the latest; what it waits for may end sooner.
 */
export function startTime(task: Task, slot: Slot, view: View, now: InstantMs): InstantMs {
  let at = task.startNotBefore ?? now;
  if (task.waitsFor === null) return at;
  // All that the slot still has stopping counts, not only the one named: a chain of quick replacements must not overlap.
  for (const old of stoppingOf(slot, view)) {
    if (old.id === task.id) continue;
    const deadline = after(old.meta.updatedAt, stopGraceMs(old) + stopMarginMs);
    if (deadline > at) at = deadline;
  }
  return at;
}

function isNodeUp(nodeId: string, view: View): boolean {
  const node = view.table("nodes").get(nodeId);
  return node !== undefined && node.state !== "down";
}
