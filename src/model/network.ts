/** A cluster network and its numbers: everything in the log, nothing guessed by a node. */
import type { Labels, Stored } from "./stored.ts";

export interface NetworkSpec {
  readonly name: string;
  readonly labels: Labels;
  readonly driver: "overlay";
  readonly driverOptions: Readonly<Record<string, string>>;
  readonly internal: boolean;
  readonly attachable: boolean;
  readonly ingress: boolean;
  /** As asked for, CIDR; null: from the pools. */
  readonly subnet: string | null;
  readonly gateway: string | null;
}
export interface Network extends Stored {
  readonly spec: NetworkSpec;
  /** 4096 to 2^24-1; one for each network of the cluster. */
  readonly vni: number;
  readonly subnet: string;
  readonly gateway: string;
  readonly mtu: number;
  /** Last address given out; the next search starts behind it, so that a freed address rests. */
  readonly cursor: string;
}
