/** The states of a task, in their order, and what may follow what (swarmkit api/types.proto, design/task_model.md). */
import { assert } from "../lib/assert.ts";

export const taskStates = [
  "new",
  "pending",
  "assigned",
  "accepted",
  "preparing",
  "ready",
  "starting",
  "running",
  "complete",
  "shutdown",
  "failed",
  "rejected",
  "remove",
  "orphaned",
] as const;
export type TaskState = (typeof taskStates)[number];

const rank: ReadonlyMap<TaskState, number> = new Map(
  taskStates.map((state, index) => [state, index]),
);

/** Position in the order of states; a task's observed state never goes back in it. */
export function rankOf(state: TaskState): number {
  const found = rank.get(state);
  assert(found !== undefined, `task state ${state} is known`);
  return found;
}
/** True once the task's process is over, or never will be: complete, shutdown, failed, rejected, orphaned. */
export function isTerminal(state: TaskState): boolean {
  return rankOf(state) > rankOf("running");
}
/** True when `a` comes before `b`. */
export function isBefore(a: TaskState, b: TaskState): boolean {
  return rankOf(a) < rankOf(b);
}
