/** A node: a machine that joined, what it says of itself, and what its managers decided of it. */
import type { Resources } from "./resources.ts";
import type { Labels, Stored } from "./stored.ts";

export type NodeRole = "worker" | "manager";
export type Availability = "active" | "pause" | "drain";
/** What a node says of itself in its session. */
export interface NodeDescription {
  readonly hostname: string;
  readonly os: string;
  /** As `uname -m`: x86_64. */
  readonly architecture: string;
  readonly resources: Resources;
  readonly engineVersion: string;
  readonly engineLabels: Labels;
  /** Where VXLAN frames reach it: IPv4. */
  readonly dataPathAddress: string;
  /** Longest packet of the path to other nodes, in bytes. */
  readonly underlayMtu: number;
  /** Destinations of its own routes, CIDR: a new subnet must not overlap one. */
  readonly routes: readonly string[];
}
export interface NodeSpec {
  readonly name: string;
  readonly labels: Labels;
  readonly role: NodeRole;
  readonly availability: Availability;
}
export interface ManagerRecord {
  /** Raft peer id; a new one each time the node becomes a manager. */
  readonly raftId: string;
  /** `host:port` of its cluster listener. */
  readonly address: string;
}
export interface Node extends Stored {
  readonly spec: NodeSpec;
  readonly description: NodeDescription | null;
  readonly state: "unknown" | "ready" | "down" | "disconnected";
  readonly stateMessage: string;
  /** Address the managers see it under: IPv4. */
  readonly address: string;
  /** `host:port` where this node listens for managers. */
  readonly clusterAddress: string;
  /** Role in its certificate; follows spec.role. */
  readonly role: NodeRole;
  /** While it is, or becomes, or stops being, a manager. */
  readonly manager: ManagerRecord | null;
}
