/** Controller of what may stay on a node: constraints and reservations that no longer hold, nodes that are gone or long down. */
import { after, type InstantMs } from "../../lib/clock.ts";
import type { Node } from "../../model/node.ts";
import { noResources, type Resources } from "../../model/resources.ts";
import type { Task, TaskStatus } from "../../model/task.ts";
import { isBefore, isTerminal } from "../../model/task-state.ts";
import type { ActionGroup, View } from "../../store/types.ts";
import { type Controller, type Decision, quiet } from "../controller.ts";
import { meetsConstraints } from "./constraints.ts";
import { orphanAfterMs } from "./limits.ts";
import { putTask } from "./rows.ts";
import { changesFitness } from "./service-keys.ts";
import { byAge, isLive } from "./slots.ts";

/** Keys are ids of nodes, also of those that are gone. */
export const enforcerController: Controller = {
  name: "enforcer",
  *keysOf(change, view) {
    if (change.table === "nodes") {
      const node = change.after ?? change.before;
      if (node !== null && changesFitness(change.before, change.after)) yield node.id;
      return;
    }
    // A task that was assigned while its node was being removed.
    if (change.table !== "tasks" || change.after === null) return;
    const { nodeId } = change.after;
    if (nodeId !== null && view.table("nodes").get(nodeId) === undefined) yield nodeId;
  },
  *keysAtStart(view) {
    const ids = new Set<string>();
    for (const node of view.table("nodes").all()) ids.add(node.id);
    for (const task of view.table("tasks").all()) if (task.nodeId !== null) ids.add(task.nodeId);
    yield* ids;
  },
  reconcile(key, view, now): Decision {
    const node = view.table("nodes").get(key);
    if (node === undefined) return orphan(key, view, now);
    if (node.state === "down") {
      const at = after(node.meta.updatedAt, orphanAfterMs);
      return at <= now ? orphan(key, view, now) : { groups: [], lookAgainAt: at };
    }
    return node.spec.availability === "active" ? enforce(node, view, now) : quiet;
  },
};

/** The node will not report any more: what it had is lost, and what that held is free. */
function orphan(nodeId: string, view: View, now: InstantMs): Decision {
  const groups: ActionGroup[] = [];
  for (const task of view.table("tasks").by("node", nodeId)) {
    if (!isPresent(task)) continue;
    const status: TaskStatus = {
      ...task.status,
      state: "orphaned",
      message: "the task's node is gone",
      at: now,
      appliedAt: now,
    };
    groups.push([putTask(task, { status })]);
  }
  return groups.length === 0 ? quiet : { groups, lookAgainAt: null };
}

/** Rejects tasks that do not meet their service's constraints any more, or whose reservations no longer fit, oldest kept first. */
function enforce(node: Node, view: View, now: InstantMs): Decision {
  const groups: ActionGroup[] = [];
  let free = node.description?.resources ?? noResources;
  const tasks = [...view.table("tasks").by("node", node.id)].sort(byAge);
  for (const task of tasks) {
    if (!isPresent(task) || !isLive(task)) continue;
    const service = view.table("services").get(task.serviceId);
    const placement = (service?.spec.task ?? task.spec).placement;
    const wants = task.spec.reservations ?? noResources;
    const fits = node.description === null || isWithin(wants, free);
    if (meetsConstraints(placement, node) && fits) {
      free = minus(free, wants);
      continue;
    }
    const status: TaskStatus = {
      ...task.status,
      state: "rejected",
      message: "task rejected by constraint enforcer",
      error: "assigned node no longer meets constraints",
      at: now,
      appliedAt: now,
    };
    groups.push([putTask(task, { status })]);
  }
  return groups.length === 0 ? quiet : { groups, lookAgainAt: null };
}

/** Assigned, and not known to have ended. */
function isPresent({ status: { state } }: Task): boolean {
  return !isBefore(state, "assigned") && !isTerminal(state);
}

function isWithin(wants: Resources, free: Resources): boolean {
  return wants.nanoCpus <= free.nanoCpus && wants.memoryBytes <= free.memoryBytes;
}

function minus(free: Resources, taken: Resources): Resources {
  return {
    nanoCpus: free.nanoCpus - taken.nanoCpus,
    memoryBytes: free.memoryBytes - taken.memoryBytes,
  };
}
