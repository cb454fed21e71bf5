/** Whether a task still is what its service wants (swarmkit manager/orchestrator/task.go). */
import type { Node } from "../../model/node.ts";
import type { Service } from "../../model/service.ts";
import type { Placement, Task, TaskSpec } from "../../model/task.ts";
import type { View } from "../../store/types.ts";
import { meetsConstraints } from "./constraints.ts";

/**
 * Whether `task` must be replaced to be what `service` wants. Made from the same version of the spec, or from one that
 * says the same: clean. A changed placement alone does not move a task whose node meets the new constraints. Replicas,
 * labels and update settings of the service are no part of a task.
 */
export function isDirty(task: Task, service: Service, view: View): boolean {
  if (task.specVersion === service.specVersion) return false;
  const wanted = service.spec.task;
  switch (differenceOf(task.spec, wanted)) {
    case "none":
      return false;
    case "placement": {
      const node = task.nodeId === null ? undefined : view.table("nodes").get(task.nodeId);
      return node === undefined || !staysOn(node, wanted);
    }
    case "more":
      return true;
  }
}

function staysOn(node: Node, wanted: TaskSpec): boolean {
  return meetsConstraints(wanted.placement, node);
}

type Difference = "none" | "placement" | "more";
/** Specs never change, so each pair is compared once. */
const compared = new WeakMap<TaskSpec, WeakMap<TaskSpec, Difference>>();

function differenceOf(have: TaskSpec, wanted: TaskSpec): Difference {
  const known = compared.get(wanted) ?? new WeakMap<TaskSpec, Difference>();
  compared.set(wanted, known);
  const found = known.get(have);
  if (found !== undefined) return found;
  const difference = compare(have, wanted);
  known.set(have, difference);
  return difference;
}

function compare(have: TaskSpec, wanted: TaskSpec): Difference {
  if (!isSame(withoutPlacement(have), withoutPlacement(wanted))) return "more";
  return isSame(placementOf(have), placementOf(wanted)) ? "none" : "placement";
}

function withoutPlacement({ placement: _placement, ...rest }: TaskSpec): object {
  return rest;
}

/** No placement and an empty one are the same wish. */
function placementOf({ placement }: TaskSpec): Placement {
  return placement ?? { constraints: [], spreadOver: [], maxReplicas: 0, platforms: [] };
}

/** Whether two plain values say the same; what is undefined is as good as absent. */
export function isSame(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
    return a.every((item, index) => isSame(item, b[index]));
  }
  const left = a as Record<string, unknown>;
  const right = b as Record<string, unknown>;
  for (const key of Object.keys(left)) if (!isSame(left[key], right[key])) return false;
  for (const key of Object.keys(right)) {
    if (right[key] !== undefined && left[key] === undefined) return false;
  }
  return true;
}
