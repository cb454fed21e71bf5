/** A service: what its user wants to run, and how far its update has come. */
import type { InstantMs } from "../lib/clock.ts";
import type { Labels, Stored } from "./stored.ts";
import type { TaskSpec } from "./task.ts";

export type ServiceMode =
  | { readonly kind: "replicated"; readonly replicas: number }
  | { readonly kind: "global" };

export interface UpdateConfig {
  /** Slots at a time; 0 is all. */
  readonly parallelism: number;
  readonly delayNs: number;
  readonly failureAction: "pause" | "continue" | "rollback";
  readonly monitorNs: number;
  readonly maxFailureRatio: number;
  readonly order: "stop-first" | "start-first";
}
export interface ServiceSpec {
  readonly name: string;
  readonly labels: Labels;
  readonly mode: ServiceMode;
  readonly task: TaskSpec;
  /** Null: docker's defaults (model/defaults.ts). */
  readonly update: UpdateConfig | null;
  readonly rollback: UpdateConfig | null;
  readonly endpointMode: "vip" | "dnsrr" | null;
}
export type UpdateState =
  | "updating"
  | "paused"
  | "completed"
  | "rollback_started"
  | "rollback_paused"
  | "rollback_completed";
export interface UpdateStatus {
  readonly state: UpdateState;
  readonly startedAt: InstantMs;
  readonly completedAt: InstantMs | null;
  readonly message: string;
}
export interface Service extends Stored {
  readonly spec: ServiceSpec;
  /** Version of the write that last changed `spec`; tasks carry the one they were made from. A writer that changes `spec` says -1: apply puts the index of that entry in its place. */
  readonly specVersion: number;
  readonly previousSpec: ServiceSpec | null;
  readonly previousSpecVersion: number | null;
  readonly updateStatus: UpdateStatus | null;
}
