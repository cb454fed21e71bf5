/** What happened on this node: the last events, and live ones to whoever listens. */
import type { Clock, InstantMs } from "../lib/clock.ts";
import type { EngineEvent } from "../model/event.ts";

/** Events that are remembered, as docker. */
const eventsMax = 256;
/** Events that may wait for one listener; a listener that falls behind is ended. */
const waitingMax = 4_096;
const nsPerMs = 1_000_000n;

export interface EventQuery {
  readonly sinceNs: bigint | null;
  readonly untilNs: bigint | null;
  readonly signal: AbortSignal;
}
export interface EventLog {
  publish(event: Omit<EngineEvent, "timeNs">): void;
  /** Remembered events from `sinceNs`, then live ones until `untilNs` or `signal`. */
  read(query: EventQuery): AsyncIterable<EngineEvent>;
}

/** An empty log. */
export function createEventLog(clock: Clock): EventLog {
  const held: EngineEvent[] = [];
  const listeners = new Set<(event: EngineEvent) => void>();
  let lastNs = 0n;
  return {
    publish(event) {
      const nowNs = BigInt(clock.now()) * nsPerMs;
      // Two events of one millisecond keep their order.
      lastNs = nowNs > lastNs ? nowNs : lastNs + 1n;
      const full: EngineEvent = { ...event, timeNs: lastNs };
      held.push(full);
      if (held.length > eventsMax) held.shift();
      for (const listener of [...listeners]) listener(full);
    },
    async *read({ sinceNs, untilNs, signal }) {
      const waiting = sinceNs === null ? [] : held.filter((event) => event.timeNs >= sinceNs);
      let wake: () => void = () => {};
      let over = signal.aborted;
      const end = () => {
        over = true;
        wake();
      };
      const take = (event: EngineEvent) => {
        if (waiting.length >= waitingMax) return end();
        waiting.push(event);
        wake();
      };
      listeners.add(take);
      signal.addEventListener("abort", end);
      const cancel =
        untilNs === null
          ? () => {}
          : clock.wakeAt(Number((untilNs + nsPerMs - 1n) / nsPerMs) as InstantMs, end);
      try {
        for (;;) {
          const event = waiting.shift();
          if (event !== undefined) {
            if (untilNs === null || event.timeNs <= untilNs) yield event;
            continue;
          }
          if (over) return;
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      } finally {
        cancel();
        listeners.delete(take);
        signal.removeEventListener("abort", end);
      }
    },
  };
}
