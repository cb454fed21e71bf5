/** What a worker needs of whatever runs its tasks: engine-executor.ts over real containers, the simulator over nothing. */
import type { InstantMs } from "../lib/clock.ts";
import type { Network } from "../model/network.ts";
import type { AssignedTask } from "../wire/session.ts";

export interface TaskExit {
  readonly exitCode: number;
  /** False when nobody could know the code. */
  readonly known: boolean;
  readonly oomKilled: boolean;
  readonly finishedAt: InstantMs;
  /** Why it never started; empty otherwise. */
  readonly error: string;
}
export interface ExecutedTask {
  readonly taskId: string;
  readonly containerId: string;
  readonly state: "created" | "running" | "exited";
}

/**
 * Steps of a task's life. Every one may be asked again after a crash at any point, and finds what it did before.
 * They reject with ShoalError: "unavailable" means not now (it is tried again), anything else that the task cannot be run.
 */
export interface Executor {
  /** Refuses what can never run here (no such image, another architecture, full disk) before anything is made. */
  prepare(task: AssignedTask, signal: AbortSignal): Promise<void>;
  /** Makes the container, parked: its networks can be attached. `networks` are those of its attachments. */
  create(
    task: AssignedTask,
    networks: readonly Network[],
  ): Promise<{ readonly containerId: string }>;
  start(taskId: string): Promise<{ readonly containerId: string; readonly pid: number }>;
  /** Resolves when it ended, at once when it has. Rejects not-found when there is no container. */
  wait(taskId: string, signal: AbortSignal): Promise<TaskExit>;
  /** Ends it, asking first and killing after the grace. Null: it never ran. */
  shutdown(taskId: string, graceMs: number): Promise<TaskExit | null>;
  remove(taskId: string): Promise<void>;
  /** Told when what was "unavailable" may be there again: who waits tries at once. The returned function ends it. */
  onAvailable(listener: () => void): () => void;
  /** What is there, from before a restart too. */
  list(): Promise<readonly ExecutedTask[]>;
}
