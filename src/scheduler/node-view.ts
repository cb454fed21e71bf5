/** What placement needs to know of a node: what is free on it, and how many tasks it has. */
import { after, type InstantMs } from "../lib/clock.ts";
import type { Node } from "../model/node.ts";
import { noResources, type Resources } from "../model/resources.ts";
import type { Task } from "../model/task.ts";
import { isBefore, rankOf } from "../model/task-state.ts";

/** A failure on a node is held against it for so long (swarmkit scheduler/scheduler.go monitorFailures). */
export const failureMemoryMs: number = 5 * 60 * 1000;

export interface NodeView {
  readonly node: Node;
  /** What its description offers, less the reservations of the tasks that are assigned to it and not over; may be negative. */
  readonly free: Resources;
  /** Tasks on it that are meant to run and are not over. */
  readonly activeTasks: number;
  /** The same by service id. */
  readonly tasksOf: ReadonlyMap<string, number>;
  /** Tasks that failed or were rejected there within `failureMemoryMs`, by `groupKey`. */
  readonly failuresOf: ReadonlyMap<string, number>;
  /** When the first of those failures is forgotten, and this view with it; null: never. */
  readonly goodUntil: InstantMs | null;
}

/** Tasks with the same key are alike: they are planned together, and their failures count together. */
export function groupKey(task: Pick<Task, "serviceId" | "specVersion">): string {
  return `${task.serviceId}/${task.specVersion}`;
}

const firstOccupying = rankOf("assigned");
const lastOccupying = rankOf("running");

/** The view of a node with these tasks, which are all rows that name it. */
export function nodeViewOf(node: Node, tasks: Iterable<Task>, now: InstantMs): NodeView {
  const total = node.description?.resources ?? noResources;
  let { nanoCpus, memoryBytes } = total;
  let activeTasks = 0;
  const tasksOf = new Map<string, number>();
  const failuresOf = new Map<string, number>();
  let goodUntil: InstantMs | null = null;
  for (const task of tasks) {
    if (occupies(task)) {
      nanoCpus -= task.spec.reservations?.nanoCpus ?? 0;
      memoryBytes -= task.spec.reservations?.memoryBytes ?? 0;
      if (isMeantToRun(task)) {
        activeTasks++;
        count(tasksOf, task.serviceId);
      }
    } else if (isFailure(task)) {
      const forgottenAt = after(task.status.appliedAt ?? task.status.at, failureMemoryMs);
      if (forgottenAt <= now) continue;
      count(failuresOf, groupKey(task));
      if (goodUntil === null || forgottenAt < goodUntil) goodUntil = forgottenAt;
    }
  }
  return { node, free: { nanoCpus, memoryBytes }, activeTasks, tasksOf, failuresOf, goodUntil };
}

/** True while the task holds its reservations on its node: assigned, and not over. */
export function occupies(task: Task): boolean {
  if (task.nodeId === null) return false;
  const rank = rankOf(task.status.state);
  return rank >= firstOccupying && rank <= lastOccupying;
}

/** True for a task that occupies its node and is meant to go on doing so: it counts when tasks are spread. */
export function isActive(task: Task): boolean {
  return occupies(task) && isMeantToRun(task);
}

function isMeantToRun(task: Task): boolean {
  return isBefore(task.desired, "shutdown");
}

function isFailure(task: Task): boolean {
  return task.status.state === "failed" || task.status.state === "rejected";
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
