/** A task: one run of a service's container, on one node, never moved (swarmkit design/task_model.md). */
import type { InstantMs } from "../lib/clock.ts";
import type { Limits, Resources } from "./resources.ts";
import type { Labels, Stored } from "./stored.ts";
import type { TaskState } from "./task-state.ts";

export interface Mount {
  readonly kind: "bind" | "tmpfs";
  /** Host path of a bind; null for tmpfs. */
  readonly source: string | null;
  readonly target: string;
  readonly readOnly: boolean;
  /** Bind only; docker's default rprivate. */
  readonly propagation: string | null;
  /** tmpfs only; null is the kernel's default. */
  readonly sizeBytes: number | null;
  /** tmpfs only, as a number; null is 01777. */
  readonly mode: number | null;
}
export interface ContainerSpec {
  readonly image: string;
  readonly labels: Labels;
  /** Replaces the image's entrypoint when not empty (Docker's ContainerSpec.Command). */
  readonly command: readonly string[];
  /** Replaces the image's command when not empty. */
  readonly args: readonly string[];
  readonly hostname: string | null;
  readonly env: readonly string[];
  readonly dir: string | null;
  readonly user: string | null;
  readonly groups: readonly string[];
  readonly readOnly: boolean;
  readonly stopSignal: string | null;
  /** Null: 10 s. */
  readonly stopGraceNs: number | null;
  /** `ADDRESS NAME…` lines as in /etc/hosts (Docker's ContainerSpec.Hosts). */
  readonly hosts: readonly string[];
  readonly dns: {
    readonly nameservers: readonly string[];
    readonly search: readonly string[];
    readonly options: readonly string[];
  } | null;
  readonly capabilityAdd: readonly string[];
  readonly capabilityDrop: readonly string[];
  readonly sysctls: Readonly<Record<string, string>>;
  readonly ulimits: readonly {
    readonly name: string;
    readonly soft: number;
    readonly hard: number;
  }[];
  readonly mounts: readonly Mount[];
  readonly noNewPrivileges: boolean;
  readonly oomScoreAdj: number;
  /** Kept for the round trip of docker's command, which always sends it; true is refused. */
  readonly init: boolean | null;
  readonly isolation: string | null;
}
export interface RestartPolicy {
  readonly condition: "none" | "on-failure" | "any";
  readonly delayNs: number | null;
  readonly maxAttempts: number | null;
  readonly windowNs: number | null;
}
export interface Placement {
  readonly constraints: readonly string[];
  /** `node.labels.X` or `engine.labels.X`, outermost first. */
  readonly spreadOver: readonly string[];
  /** 0: no limit. */
  readonly maxReplicas: number;
  readonly platforms: readonly { readonly os: string; readonly architecture: string }[];
}
export interface NetworkAttachmentSpec {
  /** Network id. */
  readonly target: string;
  readonly aliases: readonly string[];
}
/** What a task runs; copied from its service when the task is made. */
export interface TaskSpec {
  readonly container: ContainerSpec;
  readonly limits: Limits | null;
  readonly reservations: Resources | null;
  readonly restart: RestartPolicy | null;
  readonly placement: Placement | null;
  readonly networks: readonly NetworkAttachmentSpec[];
  readonly logDriver: {
    readonly name: string;
    readonly options: Readonly<Record<string, string>>;
  } | null;
  readonly forceUpdate: number;
}
export interface TaskStatus {
  readonly state: TaskState;
  /** What is happening, e.g. "preparing"; shown to the user. */
  readonly message: string;
  /** Why it failed, or why it waits; null when all is well. */
  readonly error: string | null;
  readonly exitCode: number | null;
  readonly containerId: string | null;
  /** Init's pid on its node; 0 when unknown. */
  readonly pid: number;
  /** When the state was reached, by the clock of whoever saw it. */
  readonly at: InstantMs;
  /** When a manager stored this status, by its own clock; null in reports. */
  readonly appliedAt: InstantMs | null;
}
/** An address of a task on a network. */
export interface Attachment {
  readonly networkId: string;
  /** Dotted IPv4, without prefix length. */
  readonly address: string;
  readonly prefixLength: number;
  /** 02:42 and the address (as Docker's overlay). */
  readonly mac: string;
  readonly aliases: readonly string[];
}
export interface Task extends Stored {
  readonly serviceId: string;
  readonly serviceName: string;
  readonly serviceLabels: Labels;
  /** From 1 for replicated services; 0 for global ones, whose identity is the node. */
  readonly slot: number;
  readonly nodeId: string | null;
  readonly spec: TaskSpec;
  /** Version of the service's spec that this task was made from. */
  readonly specVersion: number;
  readonly desired: TaskState;
  /** With desired `ready`: not to run before this (restart delay). */
  readonly startNotBefore: InstantMs | null;
  /** With desired `ready`: the task whose end this one waits for. */
  readonly waitsFor: string | null;
  readonly status: TaskStatus;
  /** When a manager stored that it runs, by its own clock; null or absent before. Update monitoring counts from it. */
  readonly runningAt?: InstantMs | null;
  readonly attachments: readonly Attachment[];
}

/** `service.slot.taskID`, or `service.nodeID.taskID` for a global service (swarmkit api/naming). */
export function taskName(task: Pick<Task, "serviceName" | "slot" | "nodeId" | "id">): string {
  const middle = task.slot > 0 ? String(task.slot) : (task.nodeId ?? "");
  return `${task.serviceName}.${middle}.${task.id}`;
}
/** What is one at a time: the slot of a replicated service, the node of a global one. */
export function slotKey(task: Pick<Task, "slot" | "nodeId">): string {
  return task.slot > 0 ? String(task.slot) : (task.nodeId ?? "");
}
