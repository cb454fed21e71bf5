/** Turns what a manager writes into events of this node's stream (docker events, scope swarm). */
import type { EventLog } from "../../engine/event-log.ts";
import type { Manager } from "../../manager/manager.ts";
import type { EngineEvent } from "../../model/event.ts";
import type { Change } from "../../store/types.ts";

/** Follows one manager at a time; null stops. */
export function createSwarmEvents(events: EventLog): { follow(manager: Manager | null): void } {
  let unwatch: () => void = () => {};
  return {
    follow(manager) {
      unwatch();
      unwatch =
        manager?.store.watch(({ changes }) => {
          for (const change of changes) {
            const event = eventOf(change);
            if (event !== null) events.publish(event);
          }
        }) ?? (() => {});
    },
  };
}

/** The event of one row change; null where docker has none (tasks). */
export function eventOf(change: Change): Omit<EngineEvent, "timeNs"> | null {
  const row = change.after ?? change.before;
  if (row === null) return null;
  const action = change.before === null ? "create" : change.after === null ? "remove" : "update";
  const base = { action, actorId: row.id, scope: "swarm" } as const;
  switch (change.table) {
    case "services": {
      const name = (change.after ?? change.before)?.spec.name ?? "";
      return { ...base, type: "service", attributes: { name } };
    }
    case "networks": {
      const name = (change.after ?? change.before)?.spec.name ?? "";
      return { ...base, type: "network", attributes: { name, type: "overlay" } };
    }
    case "nodes": {
      const { after, before } = change;
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
