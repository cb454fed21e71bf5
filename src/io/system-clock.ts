/** Time from the system: wall clock for what people read, monotonic timers for what we wait for. */
import type { Clock, InstantMs } from "../lib/clock.ts";

/** Longest delay that setTimeout takes, in milliseconds. */
const timeoutMsMax = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now() as InstantMs,
  wakeAt(at, callback) {
    const delayMs = Math.min(Math.max(at - Date.now(), 0), timeoutMsMax);
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};
