/** What keeps a task off a node, in the order in which it is asked, and how that is told (swarmkit manager/scheduler/filter.go). */
import type { Candidate } from "./candidate.ts";
import { firstUnmet, formatConstraint, nodeValue } from "./constraint.ts";
import type { Demand, Platform } from "./demand.ts";

export interface NodeFilter {
  readonly name: string;
  admits(demand: Demand, candidate: Candidate): boolean;
  /** Said of all nodes that it refuses: "insufficient resources on 2 nodes". */
  explain(nodeCount: number): string;
  /** Said of one node that it refuses: "needs 2 CPUs, 0.5 are free". */
  refusal(demand: Demand, candidate: Candidate): string;
}

const ready: NodeFilter = {
  name: "ready",
  admits: (_demand, { node }) => node.state === "ready" && node.spec.availability === "active",
  explain: (nodeCount) => `${nodes(nodeCount)} not available for new tasks`,
  refusal: (_demand, { node }) => {
    if (node.state === "ready") return `its availability is ${node.spec.availability}`;
    return `it is ${node.state}${node.stateMessage === "" ? "" : ` (${node.stateMessage})`}`;
  },
};

const resources: NodeFilter = {
  name: "resources",
  // Who reserves nothing fits anywhere, on an overcommitted node too.
  admits: ({ reservations }, { free }) =>
    fits(reservations.nanoCpus, free.nanoCpus) && fits(reservations.memoryBytes, free.memoryBytes),
  explain: (nodeCount) => `insufficient resources on ${nodes(nodeCount)}`,
  refusal: ({ reservations }, { free }) => {
    const lacking: string[] = [];
    if (!fits(reservations.nanoCpus, free.nanoCpus)) {
      lacking.push(
        `it reserves ${cpus(reservations.nanoCpus)} CPUs, ${cpus(free.nanoCpus)} are free`,
      );
    }
    if (!fits(reservations.memoryBytes, free.memoryBytes)) {
      lacking.push(
        `it reserves ${mebibytes(reservations.memoryBytes)} of memory, ${mebibytes(free.memoryBytes)} are free`,
      );
    }
    return lacking.join("; ");
  },
};

const constraints: NodeFilter = {
  name: "constraints",
  admits: (demand, { node }) =>
    demand.constraintError === null && firstUnmet(demand.constraints, node) === null,
  explain: (nodeCount) => `scheduling constraints not satisfied on ${nodes(nodeCount)}`,
  refusal: (demand, { node }) => {
    if (demand.constraintError !== null) return demand.constraintError;
    const unmet = firstUnmet(demand.constraints, node);
    if (unmet === null) return "";
    const value = nodeValue(unmet, node);
    if (value === null) return `${formatConstraint(unmet)} names no property of a node`;
    return `${formatConstraint(unmet)} does not hold: ${unmet.key} is "${value}"`;
  },
};

const platform: NodeFilter = {
  name: "platform",
  admits: ({ platforms }, { node }) => {
    if (platforms.length === 0) return true;
    const { description } = node;
    return description !== null && platforms.some((wanted) => runsOn(wanted, description));
  },
  explain: (nodeCount) => `unsupported platform on ${nodes(nodeCount)}`,
  refusal: ({ platforms }, { node }) => {
    const wanted = platforms.map((p) => `${p.os || "any"}/${p.architecture || "any"}`).join(", ");
    const has = node.description;
    return `the image is for ${wanted}, the node is ${has === null ? "unknown" : `${has.os}/${has.architecture}`}`;
  },
};

const maxReplicas: NodeFilter = {
  name: "max replicas",
  admits: (demand, { serviceTasks }) =>
    demand.maxReplicas === 0 || serviceTasks < demand.maxReplicas,
  explain: () => "max replicas per node limit exceed",
  refusal: (demand, { serviceTasks }) =>
    `it has ${serviceTasks} tasks of the service, at most ${demand.maxReplicas} are allowed`,
};

/** The first that refuses is the one that is told. */
export const filters: readonly NodeFilter[] = [
  ready,
  resources,
  constraints,
  platform,
  maxReplicas,
];

/** The first filter that keeps the group off the node; null when it may go there. */
export function refusingFilter(demand: Demand, candidate: Candidate): NodeFilter | null {
  for (const filter of filters) {
    if (!filter.admits(demand, candidate)) return filter;
  }
  return null;
}

/** Names that Go and `uname -m` have for one architecture. */
const architectureNames: ReadonlyMap<string, string> = new Map([
  ["x86_64", "amd64"],
  ["aarch64", "arm64"],
]);

function runsOn(wanted: Platform, has: Platform): boolean {
  const os = wanted.os === "" || wanted.os.toLowerCase() === has.os.toLowerCase();
  const architecture =
    wanted.architecture === "" || goName(wanted.architecture) === goName(has.architecture);
  return os && architecture;
}

function goName(architecture: string): string {
  const lower = architecture.toLowerCase();
  return architectureNames.get(lower) ?? lower;
}

function fits(reserved: number, free: number): boolean {
  return reserved === 0 || reserved <= free;
}

function nodes(count: number): string {
  return count === 1 ? "1 node" : `${count} nodes`;
}

function cpus(nanoCpus: number): string {
  return String(Number((nanoCpus / 1e9).toFixed(3)));
}

function mebibytes(bytes: number): string {
  return `${Number((bytes / 1024 ** 2).toFixed(1))} MiB`;
}
