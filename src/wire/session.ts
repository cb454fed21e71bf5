/** What a node's agent and a manager say to each other, over one mutual-TLS websocket at /session. */
import type { InstantMs } from "../lib/clock.ts";
import type { Network } from "../model/network.ts";
import type { NodeDescription, NodeRole } from "../model/node.ts";
import type { Attachment, Task, TaskStatus } from "../model/task.ts";

export const sessionVersion = 1;

export type ToManager =
  | {
      readonly kind: "hello";
      readonly version: number;
      readonly nodeId: string;
      readonly description: NodeDescription;
      /** `host:port` where this node listens for managers. */
      readonly clusterAddress: string;
      /** Every status the agent holds; the manager may have missed some. */
      readonly statuses: readonly StatusReport[];
    }
  | { readonly kind: "heartbeat"; readonly sequence: number }
  | { readonly kind: "describe"; readonly description: NodeDescription }
  | { readonly kind: "status"; readonly updates: readonly StatusReport[] }
  /** The assignments of this revision are in force here (networks, names and peers included). */
  | { readonly kind: "applied"; readonly revision: number };
export interface StatusReport {
  readonly taskId: string;
  readonly status: TaskStatus;
}
export type ToAgent =
  | {
      readonly kind: "welcome";
      readonly session: string;
      readonly heartbeatMs: number;
    }
  /** Once a session: the cluster has on record that this node is here, ready, and what it says of itself. */
  | { readonly kind: "registered" }
  /** Where managers are now (`host:port`), and what this node is meant to be. Sent on welcome and on change. */
  | {
      readonly kind: "membership";
      readonly managers: readonly string[];
      readonly role: NodeRole;
      readonly raftId: string | null;
      readonly dataPathPort: number;
    }
  | { readonly kind: "assign-all"; readonly revision: number; readonly set: AssignmentSet }
  | {
      readonly kind: "assign-diff";
      /** The revision this builds on; another one means a gap: say hello again. */
      readonly from: number;
      readonly revision: number;
      readonly put: AssignmentSet;
      readonly remove: {
        readonly tasks: readonly string[];
        readonly networks: readonly string[];
        readonly peers: readonly string[];
      };
    }
  | { readonly kind: "heartbeat-reply"; readonly sequence: number }
  /** The statuses of these tasks are committed. */
  | { readonly kind: "status-stored"; readonly taskIds: readonly string[] }
  | {
      readonly kind: "goodbye";
      readonly reason: "not-leader" | "superseded" | "removed" | "unknown-node" | "version";
      /** `host:port` of the leader, when known. */
      readonly leader: string | null;
    };
/** All that one node needs to know. */
export interface AssignmentSet {
  /** Tasks assigned to this node. */
  readonly tasks: readonly AssignedTask[];
  /** Networks of those tasks. */
  readonly networks: readonly Network[];
  /** Every running endpoint of those networks on any node, this one included, and its names. */
  readonly peers: readonly NetworkPeer[];
}
/** The part of a task its node acts on: what changes only in the managers' books is left out. */
export interface AssignedTask {
  readonly id: string;
  readonly serviceId: string;
  readonly serviceName: string;
  readonly slot: number;
  readonly nodeId: string;
  readonly spec: Task["spec"];
  readonly desired: Task["desired"];
  readonly attachments: readonly Attachment[];
  readonly serviceLabels: Task["serviceLabels"];
}
/** One endpoint: a task's address on a network. */
export interface NetworkPeer {
  /** `networkId/taskId`. */
  readonly key: string;
  readonly networkId: string;
  readonly taskId: string;
  readonly nodeId: string;
  /** VTEP: where VXLAN frames for it go. */
  readonly nodeAddress: string;
  readonly address: string;
  readonly mac: string;
  readonly serviceName: string;
  /** `service.slot.taskid`. */
  readonly containerName: string;
  readonly aliases: readonly string[];
  /** Running, so its names answer; before that only its path is programmed. */
  readonly named: boolean;
}

/** Manager to node, and joiner to manager: plain HTTPS on the same port, JSON bodies. Paths and bodies. */
export const clusterPaths = {
  /** GET, no certificate needed: {certificatePem}. The joiner pins it by the token's digest. */
  ca: "/shoal/v1/ca",
  /** POST JoinRequest, no certificate needed: JoinReply. */
  join: "/shoal/v1/join",
  /** POST RenewRequest with the node's certificate: RenewReply. */
  renew: "/shoal/v1/renew",
  /** Websocket, any node's certificate. */
  session: "/shoal/v1/session",
  /** Websocket, managers' certificates only. */
  raft: "/shoal/v1/raft",
  /** GET with a manager's certificate, on any node: ?task=ID&…; streams LogRecord frames. */
  logs: "/shoal/v1/logs",
} as const;
export interface JoinRequest {
  readonly token: string;
  readonly csrPem: string;
  readonly availability: "active" | "pause" | "drain";
  /** `host:port` where the joiner listens; an unspecified host is replaced by the address seen. */
  readonly clusterAddress: string;
  readonly hostname: string;
}
export interface JoinReply {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly role: NodeRole;
  readonly certificatePem: string;
  readonly caPem: string;
  /** `host:port` of every manager. */
  readonly managers: readonly string[];
  /** The joiner's address as the manager saw it. */
  readonly seenAddress: string;
  /** For managers. */
  readonly raftId: string | null;
}
export interface RenewRequest {
  readonly csrPem: string;
}
export interface RenewReply {
  readonly certificatePem: string;
  readonly role: NodeRole;
  readonly raftId: string | null;
}
/** One line of a task's log. */
export interface LogRecord {
  readonly taskId: string;
  readonly stream: "stdout" | "stderr";
  readonly at: InstantMs;
  /** RFC 3339 with nanoseconds, as written by the node. */
  readonly time: string;
  readonly line: Uint8Array;
}
export interface LogQuery {
  readonly follow: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** -1: all. */
  readonly tail: number;
  /** Unix nanoseconds as decimal text, or null. */
  readonly since: string | null;
  readonly until: string | null;
}
