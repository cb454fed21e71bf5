/** Which services a change makes worth another look. */
import type { Node } from "../../model/node.ts";
import type { ServiceMode } from "../../model/service.ts";
import { slotKey, type Task } from "../../model/task.ts";
import { isBefore, isTerminal } from "../../model/task-state.ts";
import type { Change, View } from "../../store/types.ts";
import { isSame } from "./dirty.ts";
import { lossOf } from "./slots.ts";

/** Ids of the services of `mode` that `change` may concern. */
export function* serviceKeysOf(
  change: Change,
  view: View,
  mode: ServiceMode["kind"],
): Iterable<string> {
  if (change.table === "services") {
    if (change.after?.spec.mode.kind === mode) yield change.after.id;
  } else if (change.table === "tasks") {
    const task = change.after ?? change.before;
    if (task === null || !matters(change.before, change.after, view)) return;
    if (view.table("services").get(task.serviceId)?.spec.mode.kind === mode) yield task.serviceId;
  } else if (change.table === "nodes") {
    yield* servicesOfNode(change.before, change.after, view, mode);
  }
}

/** Ids of all services of `mode`. */
export function* servicesOf(view: View, mode: ServiceMode["kind"]): Iterable<string> {
  for (const service of view.table("services").all()) {
    if (service.spec.mode.kind === mode) yield service.id;
  }
}

/** Most of a task's start decides nothing, and makes no work: a look at a service costs as much as it has tasks. */
function matters(before: Task | null, after: Task | null, view: View): boolean {
  if (before === null || after === null || before.desired !== after.desired) return true;
  const phase = phaseOf(after);
  if (phase === phaseOf(before)) return false;
  // Placed: on a node that was lost in that moment.
  if (phase === 1) return lossOf(after, view) !== null;
  // Running: of use to an update, and to whatever else is in the slot.
  if (phase === 2) return isUpdating(after, view) || sharesSlot(after, view);
  return true;
}

function isUpdating(task: Task, view: View): boolean {
  const state = view.table("services").get(task.serviceId)?.updateStatus?.state;
  return state === "updating" || state === "rollback_started";
}

function sharesSlot(task: Task, view: View): boolean {
  let rows = 0;
  for (const _row of view.table("tasks").by("slot", `${task.serviceId}/${slotKey(task)}`)) {
    rows += 1;
    if (rows > 1) return true;
  }
  return false;
}

function phaseOf({ status: { state } }: Task): number {
  if (isBefore(state, "assigned")) return 0;
  if (isBefore(state, "running")) return 1;
  return isTerminal(state) ? 3 : 2;
}

function* servicesOfNode(
  before: Node | null,
  after: Node | null,
  view: View,
  mode: ServiceMode["kind"],
): Iterable<string> {
  const node = after ?? before;
  if (node === null || !changesFitness(before, after)) return;
  if (mode === "global") {
    yield* servicesOf(view, mode);
    return;
  }
  for (const task of view.table("tasks").by("node", node.id)) {
    if (view.table("services").get(task.serviceId)?.spec.mode.kind === mode) yield task.serviceId;
  }
}

/** Whether what tasks may be on the node can have changed. */
export function changesFitness(before: Node | null, after: Node | null): boolean {
  if (before === null || after === null) return true;
  return (
    (before.state === "down") !== (after.state === "down") ||
    !isSame(before.spec, after.spec) ||
    !isSame(before.description, after.description) ||
    before.address !== after.address ||
    before.role !== after.role
  );
}
