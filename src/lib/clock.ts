/** The words for time. Only io/ and sim/ implement Clock; everybody else is handed one, or a value. */

/** Milliseconds since the epoch, read only from a Clock. Branded so that a duration cannot pass for it. */
export type InstantMs = number & { readonly __brand: "InstantMs" };

/** The only source of time. Implementations: io/system-clock.ts and sim/clock.ts. */
export interface Clock {
  /** Wall-clock time. */
  now(): InstantMs;
  /** Calls back once at or after `at` (monotonic inside). The returned function forgets it. */
  wakeAt(at: InstantMs, callback: () => void): () => void;
}

/** The instant `durationMs` after `at`. */
export function after(at: InstantMs, durationMs: number): InstantMs {
  return (at + durationMs) as InstantMs;
}
