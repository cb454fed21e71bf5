/** Which step a task takes next: a pure function of what is wanted and what was reached (swarmkit agent/exec Do). */
import { isTerminal, rankOf, type TaskState } from "../model/task-state.ts";

export type Step =
  | "accept"
  | "prepare"
  /** Prepared; waits until it is wanted to run. */
  | "hold"
  | "start"
  | "wait"
  | "shutdown"
  /** Over, and nobody asks for it any more: its container goes. */
  | "remove"
  | "none";

export interface TaskView {
  /** Null: no longer assigned to this node. */
  readonly desired: TaskState | null;
  readonly state: TaskState;
  readonly removed: boolean;
}

/** One step; asked again after each. */
export function nextStep({ desired, state, removed }: TaskView): Step {
  const unwanted = desired === null || desired === "remove";
  if (isTerminal(state)) return unwanted && !removed ? "remove" : "none";
  if (unwanted || rankOf(desired) >= rankOf("shutdown")) return "shutdown";
  switch (state) {
    case "accepted":
    case "preparing":
      return "prepare";
    case "ready":
      return rankOf(desired) <= rankOf("ready") ? "hold" : "start";
    case "starting":
      return "start";
    case "running":
      return "wait";
    default:
      return "accept";
  }
}
