/** A clock for tests: stands still until it is told to go on. */
import { assert } from "../../lib/assert.ts";
import { after, type Clock, type InstantMs } from "../../lib/clock.ts";

export interface TestClock extends Clock {
  /** Goes to `at`, firing timers in their order and letting promises run after each. */
  advance(durationMs: number): Promise<void>;
  /** Goes from timer to timer until none is left before `at`, or `until` holds. Returns whether it held. */
  runUntil(until: () => boolean, limitMs: number): Promise<boolean>;
  /** Timers that are set. */
  readonly pending: number;
}

export function createTestClock(start = 1_700_000_000_000): TestClock {
  let now = start as InstantMs;
  let sequence = 0;
  const timers = new Map<number, { readonly at: InstantMs; readonly callback: () => void }>();

  function next(limit: InstantMs): number | null {
    let found: number | null = null;
    let foundAt = limit;
    for (const [id, { at }] of timers) {
      if (at <= limit && (found === null || at < foundAt)) {
        found = id;
        foundAt = at;
      }
    }
    return found;
  }

  async function fire(id: number): Promise<void> {
    const timer = timers.get(id);
    assert(timer !== undefined, `timer ${id} is set`);
    timers.delete(id);
    if (timer.at > now) now = timer.at;
    timer.callback();
    await settle();
  }

  return {
    now: () => now,
    wakeAt(at, callback) {
      sequence += 1;
      const id = sequence;
      timers.set(id, { at, callback });
      return () => {
        timers.delete(id);
      };
    },
    async advance(durationMs) {
      const end = after(now, durationMs);
      await settle();
      for (let id = next(end); id !== null; id = next(end)) await fire(id);
      now = end;
    },
    async runUntil(until, limitMs) {
      const end = after(now, limitMs);
      await settle();
      while (!until()) {
        const id = next(end);
        if (id === null) return false;
        await fire(id);
      }
      return true;
    },
    get pending() {
      return timers.size;
    },
  };
}

/** Lets everything run that waits for promises alone. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}
