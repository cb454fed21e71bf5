/** Takes one task through its life, one step at a time: it survives a crash between any two, and says why it waits. */
import { AssertionError, assert } from "../lib/assert.ts";
import { after, type Clock } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import { defaultStopGraceNs, nsPerMs } from "../model/defaults.ts";
import type { Network } from "../model/network.ts";
import type { TaskStatus } from "../model/task.ts";
import { isBefore, isTerminal, type TaskState } from "../model/task-state.ts";
import type { AssignedTask } from "../wire/session.ts";
import { containerIdOf } from "./container-id.ts";
import type { Executor, TaskExit } from "./executor.ts";
import { retryMsMax, retryMsMin } from "./limits.ts";
import type { Networks } from "./networks.ts";
import { nextStep, type Step } from "./next-step.ts";
import type { Turns } from "./turns.ts";

export interface RunnerOptions {
  readonly executor: Executor;
  readonly networks: Networks;
  readonly clock: Clock;
  readonly log: Log;
  /** Shared by all tasks of the node: preparing and starting take turns. */
  readonly turns: Turns;
  /** Networks that are assigned now, by id. */
  readonly networkRows: () => ReadonlyMap<string, Network>;
  readonly report: (taskId: string, status: TaskStatus) => void;
  /** The task is no longer assigned, and nothing of it is left. */
  readonly gone: (taskId: string) => void;
}

export class TaskRunner {
  readonly #options: RunnerOptions;
  #task: AssignedTask;
  #status: TaskStatus;
  #assigned = true;
  #removed = false;
  #stopped = false;
  #retryMs = retryMsMin;
  /** Ends the step under way, which is wanted no more. */
  #step: AbortController | null = null;
  /** Ends the wait between two steps. */
  #wake: (() => void) | null = null;
  #changes = 0;

  /** `status`: as it was when the process ended; null for a new task. */
  constructor(options: RunnerOptions, task: AssignedTask, status: TaskStatus | null) {
    this.#options = options;
    this.#task = task;
    this.#status = status ?? {
      state: "assigned",
      message: "scheduler assigned task to node",
      error: null,
      exitCode: null,
      containerId: null,
      pid: 0,
      at: options.clock.now(),
      appliedAt: null,
    };
  }

  get status(): TaskStatus {
    return this.#status;
  }

  /** Begins; call once. */
  start(): void {
    this.#loop().catch((error: unknown) => {
      // Only a bug comes here: it stops the process instead of one task.
      queueMicrotask(() => {
        throw error;
      });
    });
  }

  /** The task as it is assigned now. */
  update(task: AssignedTask): void {
    assert(task.id === this.#task.id, `task ${task.id} is the runner's own`);
    this.#task = task;
    this.#changed();
  }

  /** What a step waited for may be there again: it is tried at once. */
  nudge(): void {
    this.#retryMs = retryMsMin;
    this.#wake?.();
  }

  /** No longer assigned: it is shut down and removed, then `gone` is called. */
  drop(): void {
    this.#assigned = false;
    this.#changed();
  }

  /** This process ends: nothing more is done, the container goes on. */
  stop(): void {
    this.#stopped = true;
    this.#changed();
  }

  async #loop(): Promise<void> {
    while (!this.#stopped) {
      const seen = this.#changes;
      const step = this.#next();
      if (step === "none" || step === "hold") {
        if (step === "none" && !this.#assigned) return this.#options.gone(this.#task.id);
        await this.#pause(seen, null);
        continue;
      }
      try {
        await this.#take(step);
        this.#retryMs = retryMsMin;
      } catch (error) {
        await this.#failed(step, error, seen);
      }
    }
  }

  #next(): Step {
    return nextStep({
      desired: this.#assigned ? this.#task.desired : null,
      state: this.#status.state,
      removed: this.#removed,
    });
  }

  async #take(step: Exclude<Step, "none" | "hold">): Promise<void> {
    const { executor, networks, turns } = this.#options;
    const { id } = this.#task;
    switch (step) {
      case "accept":
        return this.#report("accepted", "accepted", {});
      case "prepare":
        this.#report("preparing", "preparing", {});
        await turns.run(() =>
          this.#abortable(async (signal) => {
            await executor.prepare(this.#task, signal);
            signal.throwIfAborted();
            await networks.prepare(this.#task);
          }),
        );
        return this.#report("ready", "prepared", {});
      case "start":
        this.#report("starting", "starting", {});
        return await turns.run(() => this.#abortable((signal) => this.#startNow(signal)));
      case "wait":
        return this.#ended(await this.#abortable((signal) => executor.wait(id, signal)));
      case "shutdown": {
        const grace = (this.#task.spec.container.stopGraceNs ?? defaultStopGraceNs) / nsPerMs;
        const exit = await executor.shutdown(id, grace);
        networks.release(id);
        return this.#report("shutdown", "shutdown", {
          pid: 0,
          ...(exit === null ? {} : { exitCode: exit.exitCode }),
        });
      }
      case "remove":
        networks.release(id);
        await executor.remove(id);
        this.#removed = true;
        return;
      default:
        return step satisfies never;
    }
  }

  /** Container, interfaces and names, then the process: in this order, so that its first look-up is right. */
  async #startNow(signal: AbortSignal): Promise<void> {
    const { executor, networks, networkRows } = this.#options;
    const task = this.#task;
    const rows = networkRows();
    const { containerId } = await executor.create(
      task,
      task.attachments.flatMap((item) => rows.get(item.networkId) ?? []),
    );
    signal.throwIfAborted();
    await networks.attach(task, containerId);
    signal.throwIfAborted();
    const { pid } = await executor.start(task.id);
    this.#report("running", "started", { containerId, pid });
  }

  #ended(exit: TaskExit): void {
    this.#options.networks.release(this.#task.id);
    if (exit.exitCode === 0 && exit.known) {
      this.#report("complete", "finished", { exitCode: 0, pid: 0 });
      return;
    }
    const why = !exit.known
      ? ": its exit code is not known"
      : exit.oomKilled
        ? ": killed for want of memory"
        : "";
    this.#report("failed", "started", {
      error: exit.error || `task: non-zero exit (${exit.exitCode})${why}`,
      exitCode: exit.exitCode,
      pid: 0,
    });
  }

  async #failed(step: Step, error: unknown, seen: number): Promise<void> {
    if (error instanceof AssertionError) throw error;
    // Stopped in the middle because something else is wanted now.
    if (this.#stopped || (this.#changes !== seen && isAbort(error))) return;
    const text = messageOf(error);
    const transient = error instanceof ShoalError && error.code === "unavailable";
    if (transient || step === "shutdown" || step === "remove") {
      this.#options.log.warn({ task: this.#task.id, step, error: text }, "step put off");
      if (!isTerminal(this.#status.state)) {
        this.#report(this.#status.state, this.#status.message, { error: text });
      }
      await this.#pause(seen, this.#retryMs);
      this.#retryMs = Math.min(this.#retryMs * 2, retryMsMax);
      return;
    }
    this.#options.log.warn({ task: this.#task.id, step, error: text }, "task cannot run");
    this.#options.networks.release(this.#task.id);
    if (isBefore(this.#status.state, "starting")) {
      return this.#report("rejected", this.#status.message, { error: text });
    }
    const lost = step === "wait" && error instanceof ShoalError && error.code === "not-found";
    this.#report("failed", this.#status.message, {
      error: lost ? "its container is gone: the machine, or what kept it, was restarted" : text,
      pid: 0,
    });
  }

  #report(state: TaskState, message: string, more: Partial<TaskStatus>): void {
    const last = this.#status;
    assert(!isBefore(state, last.state), `task ${this.#task.id}: ${state} after ${last.state}`);
    const next: TaskStatus = {
      ...last,
      containerId: isBefore(state, "starting") ? null : containerIdOf(this.#task.id),
      error: null,
      ...more,
      state,
      message,
      at: last.state === state ? last.at : this.#options.clock.now(),
    };
    if (JSON.stringify(next) === JSON.stringify(last)) return;
    this.#status = next;
    this.#options.report(this.#task.id, next);
  }

  async #abortable<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    this.#step = controller;
    this.#abortIfUnwanted();
    try {
      controller.signal.throwIfAborted();
      return await work(controller.signal);
    } finally {
      this.#step = null;
    }
  }

  #changed(): void {
    this.#changes++;
    this.#abortIfUnwanted();
    this.#wake?.();
  }

  #abortIfUnwanted(): void {
    if (this.#stopped || this.#next() === "shutdown") this.#step?.abort();
  }

  /** Waits for a change since `seen`, at most `durationMs`. */
  async #pause(seen: number, durationMs: number | null): Promise<void> {
    if (this.#changes !== seen) return;
    await new Promise<void>((resolve) => {
      const { clock } = this.#options;
      const cancel =
        durationMs === null
          ? () => {}
          : clock.wakeAt(after(clock.now(), durationMs), () => this.#wake?.());
      this.#wake = () => {
        this.#wake = null;
        cancel();
        resolve();
      };
    });
  }
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
