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
    return this.#bucket(index, value)?.ids.read() ?? [];
  }

  /** The same object for as long as no row with this value came, went or changed. */
  stampBy(index: string, value: string): object {
    const bucket = this.#bucket(index, value);
    if (bucket === undefined) return stampOfNothing;
    bucket.stamp ??= {};
    return bucket.stamp;
  }

  /** Why `row` may not be put: another row holds a value that must be unique. Null when it may. */
  clashOf(row: R): "name-taken" | "stale" | null {
    for (const { definition, buckets } of this.#indexes.values()) {
      if (definition.unique === null) continue;
      for (const value of definition.valuesOf(row)) {
        const holders = buckets.get(value)?.ids.read() ?? [];
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

  #bucket(index: string, value: string): Bucket | undefined {
    const found = this.#indexes.get(index);
    assert(found !== undefined, `index ${index} is one of the table's`);
    return found.buckets.get(value);
  }
}

/** No rows are the same no rows everywhere. */
const stampOfNothing: object = {};

interface Index<R> {
  readonly definition: IndexDefinition<R>;
  readonly buckets: Map<string, Bucket>;
}
/** The rows with one value. */
interface Bucket {
  readonly ids: SortedIds;
  /** Made when somebody asks for it, forgotten when a row changes. */
  stamp: object | null;
}

function reindex<R extends Stored>(
  { definition, buckets }: Index<R>,
  before: R | undefined,
  after: R | undefined,
): void {
  const old = before === undefined ? [] : definition.valuesOf(before);
  const wanted = after === undefined ? [] : definition.valuesOf(after);
  const id = before?.id ?? after?.id;
  assert(id !== undefined, "a replacement names a row");
  for (const value of new Set([...old, ...wanted])) {
    const bucket = buckets.get(value) ?? { ids: new SortedIds(), stamp: null };
    bucket.stamp = null;
    const wasThere = old.includes(value);
    const staysThere = wanted.includes(value);
    if (wasThere && !staysThere) bucket.ids.delete(id);
    if (!wasThere && staysThere) bucket.ids.add(id);
    if (bucket.ids.size === 0) buckets.delete(value);
    else buckets.set(value, bucket);
  }
}
