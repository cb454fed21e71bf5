/** Controller of task history: keeps the last few tasks of each slot, and deletes what is to be removed and has ended. */
import type { Service } from "../../model/service.ts";
import { slotKey, type Task } from "../../model/task.ts";
import { isBefore, isTerminal } from "../../model/task-state.ts";
import type { Action, Change, View } from "../../store/types.ts";
import { type Controller, type Decision, quiet } from "../controller.ts";
import { defaultTaskHistoryLimit } from "./limits.ts";
import { desire } from "./rows.ts";
import { isLive, type Slot, slotOf } from "./slots.ts";

/** Keys are slots, `serviceId/slotKey`. */
export const reaperController: Controller = {
  name: "reaper",
  keysOf,
  *keysAtStart(view) {
    const keys = new Set<string>();
    for (const task of view.table("tasks").all()) keys.add(keyOf(task));
    yield* keys;
  },
  reconcile(key, view): Decision {
    const rows = [...view.table("tasks").by("slot", key)];
    const first = rows[0];
    if (first === undefined) return quiet;
    const service = view.table("services").get(first.serviceId);
    const slot = slotOf(slotKey(first), rows);
    const groups = (service === undefined ? bury(slot, view) : trim(slot, service, view)).map(
      (action) => [action],
    );
    return groups.length === 0 ? quiet : { groups, lookAgainAt: null };
  },
};

function* keysOf(change: Change, view: View): Iterable<string> {
  if (change.table === "tasks") {
    if (change.after !== null && matters(change.before, change.after)) yield keyOf(change.after);
  } else if (change.table === "services" && change.after === null && change.before !== null) {
    const keys = new Set<string>();
    for (const task of view.table("tasks").by("service", change.before.id)) keys.add(keyOf(task));
    yield* keys;
  } else if (change.table === "nodes" && change.after === null && change.before !== null) {
    for (const task of view.table("tasks").by("node", change.before.id)) yield keyOf(task);
  } else if (change.table === "clusters" || change.table === "services") {
    const limitBefore = limitIn(change);
    if (limitBefore) yield* concerned(change, view);
  }
}

/** Whether the change moves how much history is kept. */
function limitIn(change: Change): boolean {
  if (change.table === "clusters") {
    return change.before?.spec.taskHistoryLimit !== change.after?.spec.taskHistoryLimit;
  }
  if (change.table !== "services" || change.before === null || change.after === null) return false;
  return (
    attemptsOf(change.before) !== attemptsOf(change.after) ||
    change.before.updateStatus?.state !== change.after.updateStatus?.state
  );
}

function* concerned(change: Change, view: View): Iterable<string> {
  const rows =
    change.table === "services" && change.after !== null
      ? view.table("tasks").by("service", change.after.id)
      : view.table("tasks").all();
  const keys = new Set<string>();
  for (const task of rows) keys.add(keyOf(task));
  yield* keys;
}

function matters(before: Task | null, after: Task): boolean {
  if (before === null) return true;
  return before.desired !== after.desired || isEnded(before) !== isEnded(after);
}

/** Tasks of a service that is gone: told to go, and deleted once they did. */
function bury(slot: Slot, view: View): Action[] {
  return slot.tasks.flatMap((task) => {
    if (isRemovable(task, view)) return [removal(task)];
    return task.desired === "remove" ? [] : [desire(task, "remove")];
  });
}

/** Deletes what is to be removed and has ended, and the oldest tasks beyond the limit. */
function trim(slot: Slot, service: Service, view: View): Action[] {
  const doomed = slot.tasks.filter((task) => task.desired === "remove" && isRemovable(task, view));
  const limit = historyLimit(service, view);
  if (limit >= 0) {
    const kept = slot.tasks.filter((task) => task.desired !== "remove");
    const pinned = pinnedOf(slot, service);
    let surplus = kept.length - limit;
    for (const task of kept) {
      if (surplus <= 0) break;
      if (isLive(task) || task === pinned || !isEnded(task)) continue;
      doomed.push(task);
      surplus -= 1;
    }
  }
  return doomed.map(removal);
}

/** How many tasks a slot may have, live ones included; negative keeps all. Counting restarts needs one more than are allowed. */
function historyLimit(service: Service, view: View): number {
  const attempts = attemptsOf(service);
  if (attempts > 0) return attempts + 1;
  const [cluster] = view.table("clusters").by("name", "default");
  return cluster?.spec.taskHistoryLimit ?? defaultTaskHistoryLimit;
}

function attemptsOf(service: Service): number {
  return service.spec.task.restart?.maxAttempts ?? 0;
}

/** While an update is watched, the first task it made in the slot is what it is judged by. */
function pinnedOf(slot: Slot, service: Service): Task | null {
  const status = service.updateStatus;
  if (status?.state !== "updating" && status?.state !== "rollback_started") return null;
  const made = slot.tasks.find(
    (task) =>
      task.specVersion === service.specVersion &&
      task.startNotBefore !== null &&
      task.meta.createdAt >= status.startedAt,
  );
  return made ?? null;
}

/** It has ended, or will never run, or its node is gone and cannot say so any more. */
function isRemovable(task: Task, view: View): boolean {
  if (isTerminal(task.status.state) || isBefore(task.status.state, "assigned")) return true;
  return task.nodeId === null || view.table("nodes").get(task.nodeId) === undefined;
}

function isEnded({ status: { state } }: Task): boolean {
  return isTerminal(state) || isBefore(state, "assigned");
}

function removal(task: Task): Action {
  return { table: "tasks", kind: "remove", id: task.id, expect: task.meta.version };
}

function keyOf(task: Task): string {
  return `${task.serviceId}/${slotKey(task)}`;
}
