/** When to look at which key again: the earliest time of each, and one alarm for the earliest of all. */
import type { Clock, InstantMs } from "../lib/clock.ts";

export interface TimerQueue<K> {
  /** Wakes `key` at `at`, instead of whatever was set for it; null forgets it. */
  set(key: K, at: InstantMs | null): void;
  /** Forgets everything. */
  clear(): void;
  has(key: K): boolean;
  readonly size: number;
}

interface Entry<K> {
  readonly at: InstantMs;
  readonly sequence: number;
  readonly key: K;
}

/** `due` is called with each key whose time has come, in the order of their times. */
export function createTimerQueue<K>(clock: Clock, due: (key: K) => void): TimerQueue<K> {
  const wanted = new Map<K, Entry<K>>();
  // A binary heap; an entry that is no longer the wanted one of its key is skipped when it comes up.
  const heap: Entry<K>[] = [];
  let sequence = 0;
  let alarm: { readonly at: InstantMs; readonly cancel: () => void } | null = null;

  function rearm(): void {
    for (let top = heap[0]; top !== undefined && wanted.get(top.key) !== top; top = heap[0]) {
      pop(heap);
    }
    const at = heap[0]?.at ?? null;
    if (alarm !== null && alarm.at === at) return;
    alarm?.cancel();
    alarm = at === null ? null : { at, cancel: clock.wakeAt(at, ring) };
  }

  function ring(): void {
    alarm = null;
    const now = clock.now();
    for (let top = heap[0]; top !== undefined && top.at <= now; top = heap[0]) {
      pop(heap);
      if (wanted.get(top.key) !== top) continue;
      wanted.delete(top.key);
      due(top.key);
    }
    rearm();
  }

  return {
    set(key, at) {
      if (at === null) {
        wanted.delete(key);
      } else {
        if (wanted.get(key)?.at === at) return;
        sequence += 1;
        const entry = { at, sequence, key };
        wanted.set(key, entry);
        push(heap, entry);
      }
      rearm();
    },
    clear() {
      wanted.clear();
      heap.length = 0;
      rearm();
    },
    has: (key) => wanted.has(key),
    get size() {
      return wanted.size;
    },
  };
}

function isBefore<K>(a: Entry<K>, b: Entry<K>): boolean {
  return a.at < b.at || (a.at === b.at && a.sequence < b.sequence);
}

function push<K>(heap: Entry<K>[], entry: Entry<K>): void {
  let index = heap.length;
  heap.push(entry);
  while (index > 0) {
    const parent = (index - 1) >>> 1;
    const above = heap[parent] as Entry<K>;
    if (!isBefore(entry, above)) break;
    heap[index] = above;
    heap[parent] = entry;
    index = parent;
  }
}

function pop<K>(heap: Entry<K>[]): void {
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return;
  let index = 0;
  for (;;) {
    let child = index * 2 + 1;
    if (child >= heap.length) break;
    const right = child + 1;
    if (right < heap.length && isBefore(heap[right] as Entry<K>, heap[child] as Entry<K>)) {
      child = right;
    }
    const below = heap[child] as Entry<K>;
    if (!isBefore(below, last)) break;
    heap[index] = below;
    index = child;
  }
  heap[index] = last;
}
