/** What placement needs to know of a node: what is free on it, and how many tasks it has. */
import type { InstantMs } from "../lib/clock.ts";
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
}

/** Tasks with the same key are alike: they are planned together, and their failures count together. */
export function groupKey(task: Pick<Task, "serviceId" | "specVersion">): string {
  return `${task.serviceId}/${task.specVersion}`;
}

/** The view of a node with these tasks, which are all rows that name it. */
export function nodeViewOf(node: Node, tasks: Iterable<Task>, now: InstantMs): NodeView {
  const total = node.description?.resources ?? noResources;
  let { nanoCpus, memoryBytes } = total;
  let activeTasks = 0;
  const tasksOf = new Map<string, number>();
  const failuresOf = new Map<string, number>();
  for (const task of tasks) {
    if (occupies(task)) {
      nanoCpus -= task.spec.reservations?.nanoCpus ?? 0;
      memoryBytes -= task.spec.reservations?.memoryBytes ?? 0;
      if (isActive(task)) {
        activeTasks++;
        count(tasksOf, task.serviceId);
      }
    } else if (isRecentFailure(task, now)) {
      count(failuresOf, groupKey(task));
    }
  }
  return { node, free: { nanoCpus, memoryBytes }, activeTasks, tasksOf, failuresOf };
}

/** True while the task holds its reservations on its node: assigned, and not over. */
export function occupies(task: Task): boolean {
  const rank = rankOf(task.status.state);
  return task.nodeId !== null && rank >= rankOf("assigned") && rank <= rankOf("running");
}

/** True for a task that occupies its node and is meant to go on doing so: it counts when tasks are spread. */
export function isActive(task: Task): boolean {
  return occupies(task) && isBefore(task.desired, "shutdown");
}

function isRecentFailure(task: Task, now: InstantMs): boolean {
  const { state, at, appliedAt } = task.status;
  if (state !== "failed" && state !== "rejected") return false;
  return (appliedAt ?? at) > now - failureMemoryMs;
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
