/** Which services a change makes worth another look. */
import type { Node } from "../../model/node.ts";
import type { ServiceMode } from "../../model/service.ts";
import type { Task } from "../../model/task.ts";
import { isBefore, isTerminal } from "../../model/task-state.ts";
import type { Change, View } from "../../store/types.ts";
import { isSame } from "./dirty.ts";

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
    if (task === null || !matters(change.before, change.after)) return;
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

/** States between which nothing is decided make no work: most of a start is of that kind. */
function matters(before: Task | null, after: Task | null): boolean {
  if (before === null || after === null) return true;
  return (
    before.desired !== after.desired ||
    before.nodeId !== after.nodeId ||
    phaseOf(before) !== phaseOf(after)
  );
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
