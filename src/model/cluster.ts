/** The cluster itself: one row, named "default". */
import type { Labels, Stored } from "./stored.ts";

export interface ClusterSpec {
  readonly name: string;
  readonly labels: Labels;
  readonly taskHistoryLimit: number;
  readonly snapshotInterval: number;
  readonly keepOldSnapshots: number;
  readonly logEntriesForSlowFollowers: number;
  readonly electionTick: number;
  readonly heartbeatTick: number;
  readonly heartbeatPeriodNs: number;
  readonly nodeCertExpiryNs: number;
  readonly autoLockManagers: boolean;
}
export interface Cluster extends Stored {
  readonly spec: ClusterSpec;
  readonly rootCa: {
    readonly certificatePem: string;
    readonly keyPem: string;
    /** Part of both tokens: SHA-256 of the certificate, base 36, 50 digits. */
    readonly digest: string;
  };
  readonly joinTokens: { readonly worker: string; readonly manager: string };
  readonly addressPools: readonly string[];
  /** Prefix length of the subnets cut from the pools. */
  readonly subnetSize: number;
  readonly dataPathPort: number;
  /** Ids of nodes that were removed: their certificates are refused. */
  readonly removedNodes: readonly string[];
}
