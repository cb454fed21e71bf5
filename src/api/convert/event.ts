/** Events as `docker events` reads them, one JSON line each. */
import type { EngineEvent } from "../../model/event.ts";

/** The line of an event, with its line end. Nanoseconds are more than a JSON number of ours can hold, so they are written as digits. */
export function eventLine(event: EngineEvent): string {
  const seconds = event.timeNs / 1_000_000_000n;
  const legacy =
    event.type === "container" || event.type === "image"
      ? {
          status: event.action,
          id: event.actorId,
          ...(event.attributes["image"] !== undefined && { from: event.attributes["image"] }),
        }
      : {};
  const text = JSON.stringify({
    ...legacy,
    Type: event.type,
    Action: event.action,
    Actor: { ID: event.actorId, Attributes: event.attributes },
    scope: event.scope,
  });
  return `${text.slice(0, -1)},"time":${seconds},"timeNano":${event.timeNs}}\n`;
}
