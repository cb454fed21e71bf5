/** Simulated time: one queue of events, each run to its last promise before the next; and a hash of all that happened. */
import { assert } from "../src/lib/assert.ts";
import { after, type Clock, type InstantMs } from "../src/lib/clock.ts";

/** A process of the simulated cluster: it may be held up, and when it is dead nothing of it runs any more. */
export interface Process {
  readonly name: string;
  alive: boolean;
  /** Nothing of it runs before this. */
  pausedUntil: number;
  /** By how much its wall clock is ahead, in ms. */
  readonly skewMs: number;
}

interface Event {
  at: number;
  sequence: number;
  readonly what: string;
  readonly run: () => void;
  readonly process: Process | null;
  cancelled: boolean;
}

/** What must not happen was seen to happen. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** When simulated time begins. */
export const epoch: InstantMs = Date.UTC(2026, 0, 1) as InstantMs;

export class World {
  #now: InstantMs = epoch;
  #sequence = 0;
  readonly #heap: Event[] = [];
  #hash = 0x811c9dc5;
  #violation: Violation | null = null;
  events = 0;
  /** Told of every event: milliseconds since the beginning, and what. For a person who looks into a seed. */
  trace: ((atMs: number, what: string) => void) | null = null;

  now(): InstantMs {
    return this.#now;
  }

  /** Runs `run` at `at`, as part of `process` if one is named; the returned function forgets it. */
  schedule(at: number, what: string, run: () => void, process: Process | null = null): () => void {
    const event: Event = {
      at: Math.max(at, this.#now),
      sequence: this.#sequence++,
      what,
      run,
      process,
      cancelled: false,
    };
    this.#push(event);
    return () => {
      event.cancelled = true;
    };
  }

  /** Records what must not happen; the run ends behind the event that is under way. The first one counts. */
  fail(reason: string): void {
    this.#violation ??= new Violation(reason);
  }

  /** Folds a fact into the trace hash. */
  note(fact: string): void {
    let hash = this.#hash;
    for (let at = 0; at < fact.length; at += 1) {
      hash = Math.imul(hash ^ fact.charCodeAt(at), 0x01000193);
    }
    this.#hash = hash;
  }

  /** Of everything that happened so far, in order. */
  traceHash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, "0");
  }

  /** Runs events until `until`. Promises settle between two events, as in one event loop. Throws the first Violation. */
  async run(until: InstantMs): Promise<void> {
    for (;;) {
      const event = this.#heap[0];
      if (event === undefined || event.at > until) break;
      this.#pop();
      if (event.cancelled || event.process?.alive === false) continue;
      if (event.process !== null && event.process.pausedUntil > event.at) {
        // Its turn comes when its process goes on, in the order in which it would have come.
        event.at = event.process.pausedUntil;
        event.sequence = this.#sequence++;
        this.#push(event);
        continue;
      }
      assert(event.at >= this.#now, "time does not go back");
      this.#now = event.at as InstantMs;
      this.events += 1;
      this.#hash = Math.imul(this.#hash ^ (event.at | 0), 0x01000193);
      this.note(event.what);
      this.trace?.(event.at - epoch, event.what);
      event.run();
      await settled();
      if (this.#violation !== null) throw this.#violation;
    }
    this.#now = until;
    if (this.#violation !== null) throw this.#violation;
  }

  /** A clock for one process: what it waits for dies with it. */
  clock(process: Process): Clock {
    const what = `${process.name}:timer`;
    return {
      now: () => (this.#now + process.skewMs) as InstantMs,
      wakeAt: (at, callback) => this.schedule(at - process.skewMs, what, callback, process),
    };
  }

  after(durationMs: number): InstantMs {
    return after(this.#now, durationMs);
  }

  #push(event: Event): void {
    const heap = this.#heap;
    heap.push(event);
    let at = heap.length - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(heap[at] as Event, heap[parent] as Event)) break;
      [heap[at], heap[parent]] = [heap[parent] as Event, heap[at] as Event];
      at = parent;
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    heap[0] = last;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      const right = left + 1;
      let least = at;
      if (left < heap.length && before(heap[left] as Event, heap[least] as Event)) least = left;
      if (right < heap.length && before(heap[right] as Event, heap[least] as Event)) least = right;
      if (least === at) return;
      [heap[at], heap[least]] = [heap[least] as Event, heap[at] as Event];
      at = least;
    }
  }
}

function before(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.sequence < b.sequence);
}

/** Resolves when every promise that could go on has gone on: microtasks run out before the next macrotask. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
