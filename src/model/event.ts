/** One thing that happened, as `docker events` prints it. */
export interface EngineEvent {
  readonly type: "container" | "image" | "network" | "node" | "service" | "task" | "daemon";
  readonly action: string;
  readonly actorId: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly scope: "local" | "swarm";
  /** Unix time in nanoseconds. */
  readonly timeNs: bigint;
}
