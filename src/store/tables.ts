/** All tables of the cluster, empty. */
import type { Stored } from "../model/stored.ts";
import { tableIndexes } from "./indexes.ts";
import { Table } from "./table.ts";
import type { TableName, Tables } from "./types.ts";

export type TableSet = { readonly [T in TableName]: Table<Tables[T]> };

/** In the order in which snapshots and digests go through them. */
export const tableNames: readonly TableName[] = [
  "clusters",
  "nodes",
  "services",
  "tasks",
  "networks",
];

export function emptyTables(): TableSet {
  return {
    clusters: new Table<Tables["clusters"]>(tableIndexes.clusters),
    nodes: new Table<Tables["nodes"]>(tableIndexes.nodes),
    services: new Table<Tables["services"]>(tableIndexes.services),
    tasks: new Table<Tables["tasks"]>(tableIndexes.tasks),
    networks: new Table<Tables["networks"]>(tableIndexes.networks),
  };
}

/** A table seen as rows that have an id and a version, for code that is alike for every table. */
export function tableOf(tables: TableSet, name: TableName): Table<Stored> {
  return tables[name] as unknown as Table<Stored>;
}
