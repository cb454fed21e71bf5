/** Turns what a manager writes into events of this node's stream (docker events, scope swarm). */
import type { EventLog } from "../../engine/event-log.ts";
import type { Manager } from "../../manager/manager.ts";
import type { EngineEvent } from "../../model/event.ts";
import type { Network } from "../../model/network.ts";
import type { Node } from "../../model/node.ts";
import type { Service } from "../../model/service.ts";
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

/** The event of one row change, with what it changed (moby daemon/events.go); null where docker has none: tasks, the cluster, our own book-keeping. */
export function eventOf(change: Change): Omit<EngineEvent, "timeNs"> | null {
  const row = change.after ?? change.before;
  if (row === null) return null;
  const action = change.before === null ? "create" : change.after === null ? "remove" : "update";
  const base = { action, actorId: row.id, scope: "swarm" } as const;
  switch (change.table) {
    case "services": {
      const { before, after } = change;
      const attributes: Record<string, string> = { name: (after ?? before)?.spec.name ?? "" };
      if (before !== null && after !== null) serviceChanges(attributes, before, after);
      return { ...base, type: "service", attributes };
    }
    case "networks": {
      const { before, after } = change;
      if (before !== null && after !== null && isSameToUsers(before, after)) return null;
      const name = (after ?? before)?.spec.name ?? "";
      return { ...base, type: "network", attributes: { name, type: "overlay" } };
    }
    case "nodes": {
      const { before, after } = change;
      const attributes: Record<string, string> = {
        name: (after ?? before)?.description?.hostname ?? "",
      };
      if (before !== null && after !== null) nodeChanges(attributes, before, after);
      return { ...base, type: "node", attributes };
    }
    case "tasks":
    case "clusters":
      return null;
    default:
      return change satisfies never;
  }
}

function serviceChanges(attributes: Record<string, string>, before: Service, after: Service): void {
  note(attributes, "image", before.spec.task.container.image, after.spec.task.container.image);
  const [was, is] = [before.spec.mode, after.spec.mode];
  if (was.kind === "replicated" && is.kind === "replicated") {
    note(attributes, "replicas", String(was.replicas), String(is.replicas));
  }
  if (after.updateStatus !== null) {
    note(attributes, "updatestate", before.updateStatus?.state ?? "", after.updateStatus.state);
  }
}

function nodeChanges(attributes: Record<string, string>, before: Node, after: Node): void {
  note(attributes, "availability", before.spec.availability, after.spec.availability);
  note(attributes, "role", before.spec.role, after.spec.role);
  note(attributes, "state", before.state, after.state);
}

/** `what.old` and `what.new`, where they differ; an old value that was not there is left out. */
function note(
  attributes: Record<string, string>,
  what: string,
  before: string,
  after: string,
): void {
  if (before === after) return;
  if (before !== "") attributes[`${what}.old`] = before;
  attributes[`${what}.new`] = after;
}

/** Each address given out moves the cursor, and a service that joins writes the row as it is: nothing of it is docker's to tell. */
function isSameToUsers(before: Network, after: Network): boolean {
  return JSON.stringify(shown(before)) === JSON.stringify(shown(after));
}

function shown({ meta: _meta, cursor: _cursor, ...rest }: Network): object {
  return rest;
}
