/** A binary heap: the least of many is at hand, and adding or taking one costs the logarithm of their number. */
export class Heap<T> {
  readonly #items: T[];
  readonly #before: (a: T, b: T) => boolean;

  /** `before` says whether `a` comes out earlier than `b`; an item's rank may change only while it is out of the heap. */
  constructor(items: Iterable<T>, before: (a: T, b: T) => boolean) {
    this.#items = [...items];
    this.#before = before;
    for (let at = (this.#items.length >>> 1) - 1; at >= 0; at--) this.#sink(at);
  }

  /** The first item, which stays; null when there is none. */
  peek(): T | null {
    return this.#items[0] ?? null;
  }

  /** Takes the first item out; null when there is none. */
  pop(): T | null {
    const first = this.#items[0];
    const last = this.#items.pop();
    if (first === undefined || last === undefined) return null;
    if (this.#items.length > 0) {
      this.#items[0] = last;
      this.#sink(0);
    }
    return first;
  }

  push(item: T): void {
    this.#items.push(item);
    let at = this.#items.length - 1;
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (!this.#swapIfBefore(at, parent)) return;
      at = parent;
    }
  }

  #sink(from: number): void {
    let at = from;
    for (;;) {
      const left = 2 * at + 1;
      const right = left + 1;
      let least = left;
      if (right < this.#items.length && this.#before(this.#at(right), this.#at(left))) {
        least = right;
      }
      if (least >= this.#items.length || !this.#swapIfBefore(least, at)) return;
      at = least;
    }
  }

  #swapIfBefore(child: number, parent: number): boolean {
    const lower = this.#at(child);
    const upper = this.#at(parent);
    if (!this.#before(lower, upper)) return false;
    this.#items[child] = upper;
    this.#items[parent] = lower;
    return true;
  }

  #at(index: number): T {
    return this.#items[index] as T;
  }
}
