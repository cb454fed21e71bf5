/** What a group of like tasks asks of a node, read once for the group. */
import { messageOf } from "../lib/errors.ts";
import { noResources, type Resources } from "../model/resources.ts";
import type { Task } from "../model/task.ts";
import { type Constraint, parseConstraints } from "./constraint.ts";
import { groupKey } from "./node-view.ts";

export interface Demand {
  readonly serviceId: string;
  readonly groupKey: string;
  readonly reservations: Resources;
  readonly constraints: readonly Constraint[];
  /** Why the constraints cannot be read; then no node meets them. */
  readonly constraintError: string | null;
  readonly platforms: readonly Platform[];
  /** 0: no limit. */
  readonly maxReplicas: number;
  /** Labels to spread over, outermost first. */
  readonly spreadOver: readonly string[];
}
export interface Platform {
  readonly os: string;
  readonly architecture: string;
}

export function demandOf(task: Pick<Task, "serviceId" | "specVersion" | "spec">): Demand {
  const placement = task.spec.placement;
  return {
    serviceId: task.serviceId,
    groupKey: groupKey(task),
    reservations: task.spec.reservations ?? noResources,
    ...constraintsOf(placement?.constraints ?? []),
    platforms: placement?.platforms ?? [],
    maxReplicas: placement?.maxReplicas ?? 0,
    spreadOver: placement?.spreadOver ?? [],
  };
}

/** Specs are checked before they are stored; one that slipped through must wait with a reason, not stop the leader. */
function constraintsOf(
  expressions: readonly string[],
): Pick<Demand, "constraints" | "constraintError"> {
  try {
    return { constraints: parseConstraints(expressions), constraintError: null };
  } catch (error) {
    return { constraints: [], constraintError: messageOf(error) };
  }
}
