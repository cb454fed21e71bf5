/** What every route is handed. */
import type { Clock } from "../lib/clock.ts";
import { failure } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Backend } from "./backend.ts";

export interface ApiContext {
  readonly backend: Backend;
  readonly log: Log;
  readonly clock: Pick<Clock, "now">;
  /** Aborted when the server closes: streams end. */
  readonly closing: AbortSignal;
}

/** Refuses what only a manager can answer, in docker's words. */
export function requireManager(backend: Backend): void {
  const swarm = backend.system.swarm();
  if (swarm.controlAvailable) return;
  throw failure(
    "unavailable",
    swarm.state === "active"
      ? "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."
      : 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
  );
}
