/** The defaults that docker's users know, each in one place (spec/swarm.md sections 1.5, 1.6). */

import type { ClusterSpec } from "./cluster.ts";
import type { UpdateConfig } from "./service.ts";
import type { RestartPolicy } from "./task.ts";

export const nsPerMs = 1_000_000;
export const nsPerSecond = 1_000_000_000;
export const defaultStopGraceNs: number = 10 * nsPerSecond;
export const defaultRestart: {
  readonly [K in keyof RestartPolicy]: NonNullable<RestartPolicy[K]>;
} = { condition: "any", delayNs: 5 * nsPerSecond, maxAttempts: 0, windowNs: 0 };
export const defaultUpdate: UpdateConfig = {
  parallelism: 1,
  delayNs: 0,
  failureAction: "pause",
  monitorNs: 5 * nsPerSecond,
  maxFailureRatio: 0,
  order: "stop-first",
};
export const defaultClusterSpec: ClusterSpec = {
  name: "default",
  labels: {},
  taskHistoryLimit: 5,
  snapshotInterval: 10_000,
  keepOldSnapshots: 0,
  logEntriesForSlowFollowers: 500,
  electionTick: 10,
  heartbeatTick: 1,
  heartbeatPeriodNs: 5 * nsPerSecond,
  nodeCertExpiryNs: 90 * 24 * 3600 * nsPerSecond,
  autoLockManagers: false,
};
export const defaultAddressPool = "10.0.0.0/8";
export const defaultSubnetSize = 24;
export const defaultDataPathPort = 4789;
