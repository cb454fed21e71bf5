/** What each table is indexed by, and which index allows a value only once. */
import type { Cluster } from "../model/cluster.ts";
import type { Network } from "../model/network.ts";
import type { Node } from "../model/node.ts";
import type { Service } from "../model/service.ts";
import { slotKey, type Task } from "../model/task.ts";
import type { Indexes, TableName, Tables } from "./types.ts";

export interface IndexDefinition<R> {
  /** Not null: at most one row may hold a value of it, and this is what a second one is told. */
  readonly unique: "name-taken" | "stale" | null;
  /** The values under which `row` is found; none: it is not in this index. */
  valuesOf(row: R): readonly string[];
}

export type TableIndexes = {
  readonly [T in TableName]: { readonly [I in Indexes[T]]: IndexDefinition<Tables[T]> };
};

/** Names are unique whatever their case (swarmkit manager/state/store/services.go); hostnames are not unique at all. */
export const tableIndexes: TableIndexes = {
  clusters: {
    name: { unique: "name-taken", valuesOf: (row: Cluster) => [row.spec.name.toLowerCase()] },
  },
  nodes: {
    hostname: {
      unique: null,
      valuesOf: (row: Node) =>
        row.description === null ? [] : [row.description.hostname.toLowerCase()],
    },
  },
  services: {
    name: { unique: "name-taken", valuesOf: (row: Service) => [row.spec.name.toLowerCase()] },
    network: { unique: null, valuesOf: (row: Service) => row.spec.task.networks.map(targetOf) },
  },
  tasks: {
    service: { unique: null, valuesOf: (row: Task) => [row.serviceId] },
    node: { unique: null, valuesOf: (row: Task) => (row.nodeId === null ? [] : [row.nodeId]) },
    network: { unique: null, valuesOf: networksOf },
    slot: { unique: null, valuesOf: (row: Task) => [`${row.serviceId}/${slotKey(row)}`] },
    "waits-for": {
      unique: null,
      valuesOf: (row: Task) => (row.waitsFor === null ? [] : [row.waitsFor]),
    },
    // The observed state: who looks for what waits (new, pending) must not scan what runs.
    state: { unique: null, valuesOf: (row: Task) => [row.status.state] },
  },
  networks: {
    name: { unique: "name-taken", valuesOf: (row: Network) => [row.spec.name.toLowerCase()] },
    // Two networks that were planned from one view chose the same numbers: the later one is to be planned again.
    vni: { unique: "stale", valuesOf: (row: Network) => [String(row.vni)] },
    subnet: { unique: "stale", valuesOf: (row: Network) => [row.subnet] },
  },
};

/** Networks that a task holds an address on or wants one of. */
function networksOf(task: Task): readonly string[] {
  return [
    ...task.spec.networks.map(targetOf),
    ...task.attachments.map((attachment) => attachment.networkId),
  ];
}

function targetOf(attachment: { readonly target: string }): string {
  return attachment.target;
}
