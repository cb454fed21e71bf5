/** A set of ids that is read in order: writes are cheap, and the sorting waits until somebody reads. */
import { assert } from "../lib/assert.ts";

/** From so many waiting ids on, one merge is cheaper than one insertion each. */
const insertEachMax = 16;

export class SortedIds {
  /** In order, without what waits in `#added`. */
  #sorted: string[] = [];
  /** Not in `#sorted` yet, in the order they came. */
  readonly #added = new Set<string>();

  get size(): number {
    return this.#sorted.length + this.#added.size;
  }

  /** Adds an id that is not in the set. */
  add(id: string): void {
    this.#added.add(id);
  }

  /** Takes out an id that is in the set. */
  delete(id: string): void {
    if (this.#added.delete(id)) return;
    const position = lowerBound(this.#sorted, id);
    assert(this.#sorted[position] === id, `id ${id} is in the set it leaves`);
    this.#sorted.splice(position, 1);
  }

  /** All ids in order. The array is the set's own: it changes with the next write. */
  read(): readonly string[] {
    if (this.#added.size === 0) return this.#sorted;
    if (this.#added.size <= insertEachMax) {
      for (const id of this.#added) this.#sorted.splice(lowerBound(this.#sorted, id), 0, id);
    } else {
      this.#sorted = merge(this.#sorted, [...this.#added].sort());
    }
    this.#added.clear();
    return this.#sorted;
  }
}

/** Position of the first id that is not before `id`. */
function lowerBound(ids: readonly string[], id: string): number {
  let low = 0;
  let high = ids.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ids[middle] as string) < id) low = middle + 1;
    else high = middle;
  }
  return low;
}

function merge(left: readonly string[], right: readonly string[]): string[] {
  const merged: string[] = [];
  let l = 0;
  let r = 0;
  while (l < left.length && r < right.length) {
    const fromLeft = left[l] as string;
    const fromRight = right[r] as string;
    if (fromLeft < fromRight) {
      merged.push(fromLeft);
      l++;
    } else {
      merged.push(fromRight);
      r++;
    }
  }
  while (l < left.length) merged.push(left[l++] as string);
  while (r < right.length) merged.push(right[r++] as string);
  return merged;
}
