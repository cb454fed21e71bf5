/** What a worker remembers on disk, so that it goes on without any manager; io/worker-db.ts keeps it in level. */
import type { Network } from "../model/network.ts";
import type { TaskStatus } from "../model/task.ts";
import type { AssignedTask, NetworkPeer } from "../wire/session.ts";

export interface WorkerState {
  readonly revision: number;
  readonly dataPathPort: number;
  readonly tasks: readonly AssignedTask[];
  readonly statuses: readonly { readonly taskId: string; readonly status: TaskStatus }[];
  readonly networks: readonly Network[];
  readonly peers: readonly NetworkPeer[];
}
/** A change of what is assigned; removed tasks stay until `forgetTask`, as their containers do. */
export interface AssignmentChange {
  readonly revision: number;
  readonly putTasks: readonly AssignedTask[];
  readonly putNetworks: readonly Network[];
  readonly removeNetworks: readonly string[];
  readonly putPeers: readonly NetworkPeer[];
  readonly removePeers: readonly string[];
}
/** Each call is atomic, and they take effect in the order they were made. */
export interface WorkerDb {
  load(): Promise<WorkerState>;
  saveAssignment(change: AssignmentChange): Promise<void>;
  saveDataPathPort(port: number): Promise<void>;
  /** Durable when the status is the task's last. */
  saveStatus(taskId: string, status: TaskStatus): Promise<void>;
  forgetTask(taskId: string): Promise<void>;
  close(): Promise<void>;
}
