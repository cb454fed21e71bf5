/** Why a task is where it is, or what it waits for, for `shoal service explain`. */
import type { InstantMs } from "../../lib/clock.ts";
import type { Task } from "../../model/task.ts";
import { isBefore, isTerminal } from "../../model/task-state.ts";
import { type NodeVerdict, verdictsOn } from "../../scheduler/explain.ts";
import type { View } from "../../store/types.ts";
import { nodeViewsWithout } from "./node-views.ts";

export interface TaskReasons {
  /** One sentence. */
  readonly reason: string;
  /** When the task came into the state that the reason tells of. */
  readonly since: InstantMs;
  /** What every node says to the task, as if it were to be placed now; empty once it is over. */
  readonly nodes: readonly NodeVerdict[];
}

export function explainTask(view: View, task: Task, now: InstantMs): TaskReasons {
  const nodes = isTerminal(task.status.state)
    ? []
    : verdictsOn(task, nodeViewsWithout(view, now, task.id));
  return { reason: reasonOf(view, task, now), since: task.status.at, nodes };
}

function reasonOf(view: View, task: Task, now: InstantMs): string {
  const { state, message, error } = task.status;
  if (isTerminal(state)) return `the task is over (${state})${error === null ? "" : `: ${error}`}`;
  if (isBefore(state, "assigned")) {
    if (error !== null) return `${message}: ${error}`;
    return state === "new" ? "waiting for the allocator to give it addresses" : message;
  }
  const place = `on node ${nodeName(view, task.nodeId)}`;
  const wait = waitOf(task, now);
  if (wait !== null && isBefore(state, "starting")) return `${place}: ${wait}`;
  if (!isBefore(task.desired, "complete"))
    return `${place}: ${state}, and is to stop (${task.desired})`;
  return `${place}: ${error === null ? message : `${message}: ${error}`}`;
}

/** What keeps a prepared task from starting. */
function waitOf(task: Task, now: InstantMs): string | null {
  if (task.desired !== "ready") return null;
  const { startNotBefore, waitsFor } = task;
  if (startNotBefore !== null && startNotBefore > now) {
    return `starts in ${((startNotBefore - now) / 1000).toFixed(1)} s (restart delay)`;
  }
  if (waitsFor !== null) return `starts when task ${waitsFor} has stopped`;
  return "prepared, and not to start yet";
}

function nodeName(view: View, nodeId: string | null): string {
  if (nodeId === null) return "nowhere";
  return view.table("nodes").get(nodeId)?.description?.hostname ?? nodeId;
}
