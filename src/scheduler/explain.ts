/** Why a task is not on a node: in one line for all nodes, and node by node. */
import { type Candidate, candidateOf, ranksBefore } from "./candidate.ts";
import { type Demand, demandOf } from "./demand.ts";
import { filters, refusingFilter } from "./filters.ts";
import type { NodeView } from "./node-view.ts";

/** What one node has to say to a task, for `shoal service explain`. */
export interface NodeVerdict {
  readonly nodeId: string;
  readonly nodeName: string;
  readonly fits: boolean;
  /** The filter that refuses; null when it fits. */
  readonly filter: string | null;
  /** Why it refuses, or its place among those that fit. */
  readonly reason: string;
}

/** "no suitable node (scheduling constraints not satisfied on 2 nodes; insufficient resources on 1 node)". */
export function noSuitableNode(demand: Demand, candidates: readonly Candidate[]): string {
  const refusals = explainRefusals(demand, candidates);
  return refusals === "" ? "no suitable node" : `no suitable node (${refusals})`;
}

/** Each filter that refuses first somewhere, and on how many nodes; the one that refuses most comes first. */
export function explainRefusals(demand: Demand, candidates: readonly Candidate[]): string {
  const counts = new Map<string, number>();
  for (const candidate of candidates) {
    const refusing = refusingFilter(demand, candidate);
    if (refusing !== null) counts.set(refusing.name, (counts.get(refusing.name) ?? 0) + 1);
  }
  return filters
    .map((filter) => ({ filter, nodes: counts.get(filter.name) ?? 0 }))
    .filter(({ nodes }) => nodes > 0)
    .sort((a, b) => b.nodes - a.nodes)
    .map(({ filter, nodes }) => filter.explain(nodes))
    .join("; ");
}

/** What every node says to the task. The best comes first, then those that refuse, by id. The views must leave out the task itself. */
export function verdictsOn(
  task: Parameters<typeof demandOf>[0],
  views: readonly NodeView[],
): readonly NodeVerdict[] {
  const demand = demandOf(task);
  const candidates = views.map((view) => candidateOf(view, demand));
  const fitting = candidates
    .filter((candidate) => refusingFilter(demand, candidate) === null)
    .sort((a, b) => (ranksBefore(a, b) ? -1 : 1));
  const refusing = candidates
    .filter((candidate) => refusingFilter(demand, candidate) !== null)
    .sort((a, b) => (a.node.id < b.node.id ? -1 : 1));
  return [
    ...fitting.map((candidate, position) => welcome(candidate, position, fitting.length)),
    ...refusing.map((candidate) => refusal(demand, candidate)),
  ];
}

function welcome(candidate: Candidate, position: number, of: number): NodeVerdict {
  const failures = candidate.failures === 0 ? "" : `, ${candidate.failures} recent failures`;
  return {
    ...named(candidate),
    fits: true,
    filter: null,
    reason: `fits, rank ${position + 1} of ${of}: ${candidate.serviceTasks} other tasks of this service, ${candidate.activeTasks} other tasks in all${failures}`,
  };
}

function refusal(demand: Demand, candidate: Candidate): NodeVerdict {
  const filter = refusingFilter(demand, candidate);
  return {
    ...named(candidate),
    fits: false,
    filter: filter?.name ?? null,
    reason: filter?.refusal(demand, candidate) ?? "",
  };
}

function named({ node }: Candidate): { readonly nodeId: string; readonly nodeName: string } {
  return { nodeId: node.id, nodeName: node.description?.hostname ?? node.id };
}
