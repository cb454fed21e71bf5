/** Whether a node meets a placement's constraints, parsed once for each placement. */
import { ShoalError } from "../../lib/errors.ts";
import type { Node } from "../../model/node.ts";
import type { Placement } from "../../model/task.ts";
import { type Constraint, nodeMatches, parseConstraints } from "../../scheduler/constraint.ts";

/** True when `node` meets all constraints of `placement`; malformed ones, which control refuses, admit no node. */
export function meetsConstraints(placement: Placement | null, node: Node): boolean {
  if (placement === null || placement.constraints.length === 0) return true;
  const constraints = parsed(placement);
  return constraints !== null && nodeMatches(constraints, node);
}

/** Placements never change. */
const known = new WeakMap<Placement, readonly Constraint[] | null>();

function parsed(placement: Placement): readonly Constraint[] | null {
  const found = known.get(placement);
  if (found !== undefined) return found;
  const constraints = parse(placement.constraints);
  known.set(placement, constraints);
  return constraints;
}

function parse(expressions: readonly string[]): readonly Constraint[] | null {
  try {
    return parseConstraints(expressions);
  } catch (error) {
    if (error instanceof ShoalError && error.code === "invalid") return null;
    throw error;
  }
}
