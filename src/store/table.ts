/** One table: its rows by id, its indexes, and the order in which both are read. */
import { assert } from "../lib/assert.ts";
import type { Stored } from "../model/stored.ts";
import type { IndexDefinition } from "./indexes.ts";
import { SortedIds } from "./sorted-ids.ts";

export class Table<R extends Stored> {
  readonly #rows = new Map<string, R>();
  readonly #ids = new SortedIds();
  readonly #indexes: ReadonlyMap<string, Index<R>>;

  constructor(definitions: Readonly<Record<string, IndexDefinition<R>>>) {
    this.#indexes = new Map(
      Object.entries(definitions).map(([name, definition]) => [
        name,
        { definition, buckets: new Map() },
      ]),
    );
  }

  get size(): number {
    return this.#rows.size;
  }

  get(id: string): R | undefined {
    return this.#rows.get(id);
  }

  /** Ids in order; the array is the table's own and good until the next write. */
  ids(): readonly string[] {
    return this.#ids.read();
  }

  /** Ids of the rows with this value, in order; good until the next write. */
  idsBy(index: string, value: string): readonly string[] {
    const found = this.#indexes.get(index);
    assert(found !== undefined, `index ${index} is one of the table's`);
    return found.buckets.get(value)?.read() ?? [];
  }

  /** Why `row` may not be put: another row holds a value that must be unique. Null when it may. */
  clashOf(row: R): "name-taken" | "stale" | null {
    for (const { definition, buckets } of this.#indexes.values()) {
      if (definition.unique === null) continue;
      for (const value of definition.valuesOf(row)) {
        const holders = buckets.get(value)?.read() ?? [];
        if (holders.some((id) => id !== row.id)) return definition.unique;
      }
    }
    return null;
  }

  /** Puts `after` where `before` was; either may be absent. */
  replace(before: R | undefined, after: R | undefined): void {
    for (const index of this.#indexes.values()) reindex(index, before, after);
    if (after === undefined) {
      assert(before !== undefined, "a replacement names a row");
      this.#rows.delete(before.id);
      this.#ids.delete(before.id);
      return;
    }
    this.#rows.set(after.id, after);
    if (before === undefined) this.#ids.add(after.id);
  }
}

interface Index<R> {
  readonly definition: IndexDefinition<R>;
  readonly buckets: Map<string, SortedIds>;
}

function reindex<R extends Stored>(
  { definition, buckets }: Index<R>,
  before: R | undefined,
  after: R | undefined,
): void {
  const old = new Set(before === undefined ? [] : definition.valuesOf(before));
  const wanted = new Set(after === undefined ? [] : definition.valuesOf(after));
  if (before !== undefined) {
    for (const value of old) {
      if (!wanted.has(value)) dropFrom(buckets, value, before.id);
    }
  }
  if (after !== undefined) {
    for (const value of wanted) {
      if (!old.has(value)) addTo(buckets, value, after.id);
    }
  }
}

function addTo(buckets: Map<string, SortedIds>, value: string, id: string): void {
  const bucket = buckets.get(value) ?? new SortedIds();
  bucket.add(id);
  buckets.set(value, bucket);
}

function dropFrom(buckets: Map<string, SortedIds>, value: string, id: string): void {
  const bucket = buckets.get(value);
  assert(bucket !== undefined, `value ${value} of row ${id} is indexed`);
  bucket.delete(id);
  if (bucket.size === 0) buckets.delete(value);
}
