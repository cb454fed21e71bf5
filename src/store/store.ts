/** The replicated store: tables that change by log entries alone, and tell whoever watches. */
import { assert } from "../lib/assert.ts";
import type { Stored } from "../model/stored.ts";
import { applyEntry } from "./apply.ts";
import { RowDigest } from "./digest.ts";
import { emptyTables, type TableSet, tableNames, tableOf } from "./tables.ts";
import type {
  Change,
  Committed,
  EntryBody,
  Store,
  StoreSnapshot,
  TableName,
  Tables,
  View,
} from "./types.ts";
import { createView } from "./view.ts";

/** An empty store at index 0. Rows that go in are its own from then on: nobody may change them. */
export function createStore(): Store {
  return new ReplicatedStore();
}

class ReplicatedStore implements Store {
  #tables: TableSet = emptyTables();
  #index = 0;
  #view: View | null = null;
  #applying = false;
  readonly #observers = new Set<(committed: Committed) => void>();

  view(): View {
    this.#view ??= this.#createView();
    return this.#view;
  }

  apply(index: number, body: EntryBody): Committed {
    assert(index > this.#index, `index ${index} comes after ${this.#index}`);
    return this.#change(index, () => {
      const { results, changes } = applyEntry(this.#tables, index, body);
      return { index, proposalId: body.proposalId, results, changes };
    });
  }

  skip(index: number): void {
    assert(!this.#applying, `index ${index} is skipped when the one before it is through`);
    assert(index > this.#index, `index ${index} comes after ${this.#index}`);
    this.#advance(index);
  }

  watch(observe: (committed: Committed) => void): () => void {
    // A function of its own, so that one observer may watch twice.
    const observer = (committed: Committed): void => observe(committed);
    this.#observers.add(observer);
    return () => {
      this.#observers.delete(observer);
    };
  }

  save(): StoreSnapshot {
    return {
      index: this.#index,
      tables: {
        clusters: this.#rows("clusters"),
        nodes: this.#rows("nodes"),
        services: this.#rows("services"),
        tasks: this.#rows("tasks"),
        networks: this.#rows("networks"),
      },
    };
  }

  load(snapshot: StoreSnapshot): void {
    assert(
      snapshot.index >= this.#index,
      `snapshot ${snapshot.index} is not older than ${this.#index}`,
    );
    this.#change(snapshot.index, () => {
      const before = this.#tables;
      this.#tables = tablesOf(snapshot);
      const changes = difference(before, this.#tables);
      return { index: snapshot.index, proposalId: "", results: [], changes };
    });
  }

  digest(): string {
    const digest = new RowDigest();
    for (const name of tableNames) {
      const table = tableOf(this.#tables, name);
      for (const id of table.ids()) digest.add(name, rowOf(table.get(id), id));
    }
    return digest.text();
  }

  /** Makes a change and tells it, before any other may follow. */
  #change(index: number, make: () => Committed): Committed {
    assert(!this.#applying, `index ${index} is applied when the one before it is through`);
    this.#applying = true;
    try {
      this.#advance(index);
      const committed = make();
      for (const observe of [...this.#observers]) {
        if (this.#observers.has(observe)) observe(committed);
      }
      return committed;
    } finally {
      this.#applying = false;
    }
  }

  #advance(index: number): void {
    this.#index = index;
    this.#view = null;
  }

  #createView(): View {
    const view = createView(this.#tables, this.#index, () => this.#view === view);
    return view;
  }

  #rows<T extends TableName>(name: T): readonly Tables[T][] {
    const table = this.#tables[name];
    return table.ids().map((id) => rowOf<Tables[T]>(table.get(id), id));
  }
}

function rowOf<R extends Stored>(row: R | undefined, id: string): R {
  assert(row !== undefined, `row ${id} is in its table`);
  return row;
}

function tablesOf(snapshot: StoreSnapshot): TableSet {
  const tables = emptyTables();
  for (const name of tableNames) {
    const table = tableOf(tables, name);
    for (const row of snapshot.tables[name]) {
      assert(table.get(row.id) === undefined, `a snapshot holds ${name} row ${row.id} once`);
      table.replace(undefined, row);
    }
  }
  return tables;
}

/** What differs between two sets of tables of one cluster: there, a row's version says all about its content. */
function difference(before: TableSet, after: TableSet): readonly Change[] {
  const changes: { table: TableName; before: Stored | null; after: Stored | null }[] = [];
  for (const name of tableNames) {
    const old = tableOf(before, name);
    const now = tableOf(after, name);
    for (const id of old.ids()) {
      if (now.get(id) === undefined) {
        changes.push({ table: name, before: rowOf(old.get(id), id), after: null });
      }
    }
    for (const id of now.ids()) {
      const row = rowOf(now.get(id), id);
      const earlier = old.get(id);
      if (earlier?.meta.version === row.meta.version) continue;
      changes.push({ table: name, before: earlier ?? null, after: row });
    }
  }
  // Each pair came out of the two tables that it names.
  return changes as unknown as readonly Change[];
}
