/** What a worker needs of whatever makes its networks: network-apply.ts in the kernel, the simulator in memory. */
import type { Network } from "../model/network.ts";
import type { AssignedTask, NetworkPeer } from "../wire/session.ts";

export interface NetworkAssignment {
  readonly revision: number;
  readonly nodeId: string;
  /** VTEP of this node. */
  readonly localAddress: string;
  readonly dataPathPort: number;
  readonly networks: readonly Network[];
  readonly peers: readonly NetworkPeer[];
}

/** Rejections are ShoalErrors; "unavailable": not now, try again. */
export interface Networks {
  /** Takes over a task whose container was there before this process. Before `start`. */
  adopt(task: AssignedTask, containerId: string): void;
  /** From now on the kernel is made to be as assigned. */
  start(): void;
  stop(): void;
  /** The newest assignment; applied soon. */
  assign(assignment: NetworkAssignment): void;
  /** Resolves when every network of the task is up with all peers that are known now. */
  prepare(task: AssignedTask): Promise<void>;
  /** Resolves when the container has its interfaces, and names that are known now answer in it. */
  attach(task: AssignedTask, containerId: string): Promise<void>;
  /** The task needs its networks no more. */
  release(taskId: string): void;
  /** Told each revision once all of it is in force. */
  onApplied(listener: (revision: number) => void): void;
}
