/** A node while one group is placed: its counts grow with every task it is given. */
import type { Node } from "../model/node.ts";
import type { Resources } from "../model/resources.ts";
import type { Demand } from "./demand.ts";
import type { NodeView } from "./node-view.ts";

/** From so many failures of the group on a node, nodes with fewer come first (swarmkit scheduler.go maxFailures). */
export const failuresMax = 5;

/** What the filters look at. */
export interface Candidate {
  readonly node: Node;
  readonly free: Resources;
  /** Active tasks of the group's service. */
  readonly serviceTasks: number;
  readonly activeTasks: number;
  /** Recent failures of the group. */
  readonly failures: number;
}

/** The node as the group finds it. */
export function candidateOf(view: NodeView, demand: Demand): Candidate {
  return {
    node: view.node,
    free: view.free,
    serviceTasks: view.tasksOf.get(demand.serviceId) ?? 0,
    activeTasks: view.activeTasks,
    failures: view.failuresOf.get(demand.groupKey) ?? 0,
  };
}

/** The node with one more task of the group. */
export function withTask(candidate: Candidate, demand: Demand): Candidate {
  return {
    ...candidate,
    free: {
      nanoCpus: candidate.free.nanoCpus - demand.reservations.nanoCpus,
      memoryBytes: candidate.free.memoryBytes - demand.reservations.memoryBytes,
    },
    serviceTasks: candidate.serviceTasks + 1,
    activeTasks: candidate.activeTasks + 1,
  };
}

/**
 * True when a task goes to `a` rather than to `b`: one of them failed often and `a` less, then fewer tasks of the
 * service, then fewer tasks in all, then the lower id, so that every manager decides alike.
 */
export function ranksBefore(a: Candidate, b: Candidate): boolean {
  const difference =
    failureRank(a) - failureRank(b) ||
    a.serviceTasks - b.serviceTasks ||
    a.activeTasks - b.activeTasks;
  return difference === 0 ? a.node.id < b.node.id : difference < 0;
}

/** A few failures say nothing. */
function failureRank(candidate: Candidate): number {
  return candidate.failures >= failuresMax ? candidate.failures : 0;
}
