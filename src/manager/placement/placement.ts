/** Placement: pending tasks go to the scheduler, and its answer into their rows. */
import type { InstantMs } from "../../lib/clock.ts";
import type { Node } from "../../model/node.ts";
import type { Task } from "../../model/task.ts";
import { isBefore } from "../../model/task-state.ts";
import { isActive, occupies } from "../../scheduler/node-view.ts";
import { schedule } from "../../scheduler/place.ts";
import type { Action, ActionGroup, Change, View } from "../../store/types.ts";
import type { Controller, Decision } from "../controller.ts";
import { nodeViews } from "./node-views.ts";

/** There is one key: tasks compete for the same nodes, so all that wait are placed together. */
const everything = "placement";

export const placementController: Controller = {
  name: "placement",
  keysOf: (change, view) => (matters(change, view) ? [everything] : []),
  keysAtStart: () => [everything],
  reconcile: (_key, view, now): Decision => ({ groups: decide(view, now), lookAgainAt: null }),
};

/** A task came to wait, or something changed that may let a waiting one go. */
function matters(change: Change, view: View): boolean {
  if (change.table === "tasks") {
    const { before, after } = change;
    if (after !== null && waits(after)) return !isOnlyTold(before, after);
    return before !== null && freesSomething(before, after) && someArePending(view);
  }
  return (
    change.table === "nodes" && nodeDiffers(change.before, change.after) && someArePending(view)
  );
}

function waits(task: Task): boolean {
  return task.status.state === "pending" && isBefore(task.desired, "complete");
}

/** True when a task that waited waits on, with another reason at most. */
function isOnlyTold(before: Task | null, after: Task): boolean {
  return before !== null && waits(before) && before.nodeId === after.nodeId;
}

function freesSomething(before: Task, after: Task | null): boolean {
  if (occupies(before) && (after === null || !occupies(after))) return true;
  return isActive(before) && (after === null || !isActive(after));
}

/** All that a filter looks at. */
function nodeDiffers(before: Node | null, after: Node | null): boolean {
  return (
    before?.state !== after?.state ||
    before?.spec !== after?.spec ||
    before?.description !== after?.description ||
    before?.role !== after?.role ||
    before?.address !== after?.address
  );
}

function someArePending(view: View): boolean {
  return view.table("tasks").by("state", "pending").next().done !== true;
}

function decide(view: View, now: InstantMs): readonly ActionGroup[] {
  const waiting = [...view.table("tasks").by("state", "pending")].filter(waits).sort(isOlder);
  if (waiting.length === 0) return [];
  const { placements, unplaced } = schedule(waiting, nodeViews(view, now));
  const tasks = new Map(waiting.map((task) => [task.id, task]));
  const groups: ActionGroup[] = [];
  for (const { taskId, nodeId } of placements) {
    const task = tasks.get(taskId);
    if (task !== undefined) groups.push([assigned(task, nodeId, now)]);
  }
  for (const { taskId, reason } of unplaced) {
    const task = tasks.get(taskId);
    if (task !== undefined && task.status.error !== reason) groups.push([told(task, reason, now)]);
  }
  return groups;
}

/** Who waits longest is served first. */
function isOlder(a: Task, b: Task): number {
  return a.meta.createdAt - b.meta.createdAt || (a.id < b.id ? -1 : 1);
}

function assigned(task: Task, nodeId: string, now: InstantMs): Action {
  const status = {
    ...task.status,
    state: "assigned",
    message:
      task.nodeId === null
        ? "scheduler assigned task to node"
        : "scheduler confirmed task can run on preassigned node",
    error: null,
    at: now,
    appliedAt: now,
  } as const;
  const row = { ...task, nodeId, status };
  return { table: "tasks", kind: "put", row, expect: task.meta.version };
}

/** The task waits on; `at` stays, and so tells since when. */
function told(task: Task, reason: string, now: InstantMs): Action {
  const message = "pending task scheduling";
  const status = { ...task.status, message, error: reason, appliedAt: now };
  return { table: "tasks", kind: "put", row: { ...task, status }, expect: task.meta.version };
}
