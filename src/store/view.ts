/** A live reader of the tables that notices when it is used after its time. */
import { assert } from "../lib/assert.ts";
import type { Stored } from "../model/stored.ts";
import type { Table } from "./table.ts";
import type { TableSet } from "./tables.ts";
import type { Indexes, TableName, Tables, TableView, View } from "./types.ts";

/** Reads `tables` as they are at `index`; `isCurrent` says whether they still are. */
export function createView(tables: TableSet, index: number, isCurrent: () => boolean): View {
  const fresh = (): void =>
    assert(isCurrent(), `the view of index ${index} is read before the next entry is applied`);
  const views: { readonly [T in TableName]: TableView<T> } = {
    clusters: createTableView<"clusters">(tables.clusters, fresh),
    nodes: createTableView<"nodes">(tables.nodes, fresh),
    services: createTableView<"services">(tables.services, fresh),
    tasks: createTableView<"tasks">(tables.tasks, fresh),
    networks: createTableView<"networks">(tables.networks, fresh),
  };
  return {
    index,
    table<T extends TableName>(name: T): TableView<T> {
      fresh();
      return views[name];
    },
  };
}

function createTableView<T extends TableName>(
  table: Table<Tables[T]>,
  fresh: () => void,
): TableView<T> {
  return {
    get size(): number {
      fresh();
      return table.size;
    },
    get(id: string): Tables[T] | undefined {
      fresh();
      return table.get(id);
    },
    all(): IterableIterator<Tables[T]> {
      fresh();
      return rowsOf(table, table.ids(), fresh);
    },
    by(index: Indexes[T], value: string): IterableIterator<Tables[T]> {
      fresh();
      return rowsOf(table, table.idsBy(index, value), fresh);
    },
    stamp(index: Indexes[T], value: string): object {
      fresh();
      return table.stampBy(index, value);
    },
  };
}

function* rowsOf<R extends Stored>(
  table: Table<R>,
  ids: readonly string[],
  fresh: () => void,
): Generator<R, void, undefined> {
  for (const id of ids) {
    fresh();
    const row = table.get(id);
    assert(row !== undefined, `row ${id} of an index is in its table`);
    yield row;
  }
}
