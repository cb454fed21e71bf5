/** Events of this node's engine and, on a manager, of the swarm's objects, in one stream (docker events). */

import type { Manager } from "../../manager/manager.ts";
import type { EngineEvent } from "../../model/event.ts";
import type { Change } from "../../store/types.ts";

/** Events held for `--since`, as dockerd's ring (moby daemon/events). */
const eventsHeldMax = 256;
/** Events that may wait for one reader; a slower one loses the oldest. */
const eventsWaitingMax = 4_096;

export interface Events {
  emit(event: EngineEvent): void;
  /** Turns a manager's changes into events; undone when it stops. */
  follow(manager: Manager | null): void;
  read(query: {
    readonly sinceNs: bigint | null;
    readonly untilNs: bigint | null;
    readonly signal: AbortSignal;
  }): AsyncIterable<EngineEvent>;
}

/** An empty stream. `nowNs` is the wall clock in nanoseconds. */
export function createEvents(nowNs: () => bigint): Events {
  const held: EngineEvent[] = [];
  const readers = new Set<(event: EngineEvent) => void>();
  let unwatch: () => void = () => {};

  function emit(event: EngineEvent): void {
    held.push(event);
    if (held.length > eventsHeldMax) held.shift();
    for (const reader of readers) reader(event);
  }

  return {
    emit,
    follow(manager) {
      unwatch();
      unwatch =
        manager?.store.watch(({ changes }) => {
          for (const change of changes) {
            const event = eventOf(change, nowNs());
            if (event !== null) emit(event);
          }
        }) ?? (() => {});
    },
    async *read({ sinceNs, untilNs, signal }) {
      const waiting = sinceNs === null ? [] : held.filter((event) => event.timeNs >= sinceNs);
      let wake: () => void = () => {};
      const reader = (event: EngineEvent): void => {
        waiting.push(event);
        if (waiting.length > eventsWaitingMax) waiting.shift();
        wake();
      };
      readers.add(reader);
      const end = () => wake();
      signal.addEventListener("abort", end);
      const leftMs = untilNs === null ? null : Number((untilNs - nowNs()) / 1_000_000n);
      const timer =
        leftMs === null ? null : setTimeout(end, Math.min(Math.max(leftMs, 0), 2 ** 31 - 1));
      try {
        while (!signal.aborted) {
          const event = waiting.shift();
          if (event !== undefined) {
            if (untilNs !== null && event.timeNs > untilNs) return;
            yield event;
          } else if (untilNs !== null && nowNs() >= untilNs) return;
          else {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
          }
        }
      } finally {
        readers.delete(reader);
        signal.removeEventListener("abort", end);
        if (timer !== null) clearTimeout(timer);
      }
    },
  };
}

/** The event of one row change; null where docker has none (tasks). */
function eventOf(change: Change, timeNs: bigint): EngineEvent | null {
  const row = change.after ?? change.before;
  if (row === null) return null;
  const action = change.before === null ? "create" : change.after === null ? "remove" : "update";
  const base = { action, actorId: row.id, scope: "swarm", timeNs } as const;
  switch (change.table) {
    case "services":
      return {
        ...base,
        type: "service",
        attributes: { name: (change.after ?? change.before)?.spec.name ?? "" },
      };
    case "networks":
      return {
        ...base,
        type: "network",
        attributes: { name: (change.after ?? change.before)?.spec.name ?? "", type: "overlay" },
      };
    case "nodes": {
      const after = change.after;
      const before = change.before;
      const attributes: Record<string, string> = {
        name: (after ?? before)?.description?.hostname ?? "",
      };
      if (after !== null && before !== null && after.state !== before.state) {
        attributes["state.new"] = after.state;
        attributes["state.old"] = before.state;
      }
      return { ...base, type: "node", attributes };
    }
    case "tasks":
    case "clusters":
      return null;
    default:
      return change satisfies never;
  }
}
