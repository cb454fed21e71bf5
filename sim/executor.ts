/** A simulated Executor: containers that live on a machine whatever happens to its daemon, and end when it loses power. */

import type { InstantMs } from "../src/lib/clock.ts";
import { failure } from "../src/lib/errors.ts";
import type { ExecutedTask, Executor, TaskExit } from "../src/worker/executor.ts";
import type { SimRandom } from "./random.ts";
import type { Process, World } from "./world.ts";

/** How tasks and images behave while there are faults. */
export interface TaskChaos {
  /** Of a thousand prepares, those that find no image. */
  missingPerMille: number;
  /** Of a thousand starts, those that fail. */
  failPerMille: number;
  /** Of a thousand starts, those whose process ends by itself within a minute. */
  exitPerMille: number;
  /** Of a thousand steps, those that are put off. */
  unavailablePerMille: number;
}
export const calmTasks: TaskChaos = {
  missingPerMille: 0,
  failPerMille: 0,
  exitPerMille: 0,
  unavailablePerMille: 0,
};

interface Container {
  state: "created" | "running" | "exited";
  exit: TaskExit | null;
  pid: number;
  waiters: (() => void)[];
}

/** Longest time that a step takes, in ms. */
const stepMsMax = 40;
/** Longest time that a process takes to end when it is asked, in ms. */
const stopMsMax = 1_500;
const lifeMsMax = 60_000;

export class SimMachineExecutor {
  readonly #world: World;
  readonly #random: SimRandom;
  readonly #host: string;
  readonly #containers = new Map<string, Container>();
  /** Tasks whose process was started once: it is never started again. */
  readonly #started = new Set<string>();
  #nextPid = 100;
  chaos: TaskChaos = calmTasks;

  constructor(world: World, random: SimRandom, host: string) {
    this.#world = world;
    this.#random = random;
    this.#host = host;
  }

  /** Ids of the tasks whose process runs. */
  running(): readonly string[] {
    return [...this.#containers].flatMap(([id, one]) => (one.state === "running" ? [id] : []));
  }
  isRunning(taskId: string): boolean {
    return this.#containers.get(taskId)?.state === "running";
  }
  /** All containers, ended ones too. */
  get size(): number {
    return this.#containers.size;
  }

  /** The machine lost power: every process is gone, and nobody knows with what code. */
  powerOff(): void {
    for (const container of this.#containers.values()) {
      container.waiters = [];
      if (container.state === "running") this.#end(container, 137, false);
    }
  }

  /** The Executor of one life of the daemon. */
  open(process: Process): Executor {
    const step = <T>(what: string, work: () => T): Promise<T> => this.#step(process, what, work);
    const find = (taskId: string): Container => {
      const found = this.#containers.get(taskId);
      if (found === undefined) {
        throw failure("not-found", `task ${taskId} has no container on ${this.#host}`);
      }
      return found;
    };
    return {
      // Here "not now" is a matter of chance: nobody knows when it ends.
      onAvailable: () => () => {},
      prepare: (task) =>
        step("prepare", () => {
          if (this.#random.chance(this.chaos.missingPerMille)) {
            throw failure("not-found", `No such image: ${task.spec.container.image}`);
          }
        }),
      create: (task) =>
        step("create", () => {
          if (!this.#containers.has(task.id)) {
            this.#containers.set(task.id, { state: "created", exit: null, pid: 0, waiters: [] });
          }
          return { containerId: `container-${task.id}` };
        }),
      start: (taskId) =>
        step("start", () => {
          const container = find(taskId);
          // One that ran and ended already is taken as started, as the engine does: how it ended shows next.
          if (container.state === "created") this.#start(taskId, container);
          return { containerId: `container-${taskId}`, pid: container.pid };
        }),
      wait: (taskId, signal) => this.#wait(process, () => find(taskId), signal),
      shutdown: (taskId, graceMs) => this.#shutdown(process, taskId, graceMs),
      remove: (taskId) =>
        step("remove", () => {
          const container = this.#containers.get(taskId);
          if (container?.state === "running") this.#end(container, 137, true);
          this.#containers.delete(taskId);
        }),
      list: () =>
        step("list", () =>
          [...this.#containers].map(
            ([taskId, { state }]): ExecutedTask => ({
              taskId,
              containerId: `container-${taskId}`,
              state,
            }),
          ),
        ),
    };
  }

  #start(taskId: string, container: Container): void {
    if (this.#started.has(taskId)) {
      this.#world.fail(`the process of task ${taskId} is started a second time on ${this.#host}`);
    }
    this.#started.add(taskId);
    if (this.#random.chance(this.chaos.failPerMille)) {
      this.#end(container, 127, true);
      throw failure("invalid", "starting: exec format error");
    }
    container.state = "running";
    container.pid = this.#nextPid++;
    if (!this.#random.chance(this.chaos.exitPerMille)) return;
    const code = this.#random.chance(300) ? 0 : this.#random.between(1, 137);
    const at = this.#world.after(this.#random.between(1, lifeMsMax));
    this.#world.schedule(at, `${this.#host}:exit`, () => {
      if (container.state === "running") this.#end(container, code, true);
    });
  }

  #end(container: Container, exitCode: number, known: boolean): void {
    const finishedAt: InstantMs = this.#world.now();
    container.state = "exited";
    container.exit = { exitCode, known, oomKilled: false, finishedAt, error: "" };
    const { waiters } = container;
    container.waiters = [];
    for (const wake of waiters) wake();
  }

  /** Does `work` on the machine after a while; its daemon hears of it if it still lives. */
  #step<T>(process: Process, what: string, work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const due = this.#world.after(this.#random.between(0, stepMsMax));
      const name = `${this.#host}:${what}`;
      // What a dead daemon asked for may have been on its way, or not.
      this.#world.schedule(due, name, () => {
        if (!process.alive && this.#random.chance(500)) return;
        if (what !== "list" && this.#random.chance(this.chaos.unavailablePerMille)) {
          this.#tell(process, name, () => reject(failure("unavailable", `${what}: not now`)));
          return;
        }
        try {
          const value = work();
          this.#tell(process, name, () => resolve(value));
        } catch (error) {
          this.#tell(process, name, () => reject(error));
        }
      });
    });
  }

  #tell(process: Process, what: string, tell: () => void): void {
    if (process.pausedUntil > this.#world.now()) {
      this.#world.schedule(this.#world.now(), `${what}:heard`, tell, process);
    } else if (process.alive) tell();
  }

  #wait(process: Process, find: () => Container, signal: AbortSignal): Promise<TaskExit> {
    return new Promise((resolve, reject) => {
      const name = `${this.#host}:wait`;
      this.#world.schedule(
        this.#world.now(),
        name,
        () => {
          try {
            signal.throwIfAborted();
            const container = find();
            const told = (): void => {
              const { exit } = container;
              if (exit !== null)
                this.#world.schedule(this.#world.now(), name, () => resolve(exit), process);
            };
            if (container.state === "exited") told();
            else container.waiters.push(told);
            signal.addEventListener("abort", () => reject(signal.reason as Error));
          } catch (error) {
            reject(error as Error);
          }
        },
        process,
      );
    });
  }

  /** Asks the process to end, and ends it when its grace is over. */
  #shutdown(process: Process, taskId: string, graceMs: number): Promise<TaskExit | null> {
    return new Promise((resolve, reject) => {
      const answer = (): void => {
        const container = this.#containers.get(taskId);
        if (container?.state === "created") this.#containers.delete(taskId);
        const exit = container?.exit ?? null;
        this.#tell(process, `${this.#host}:stopped`, () => resolve(exit));
      };
      this.#step(process, "stop", () => {
        const container = this.#containers.get(taskId);
        if (container?.state !== "running") {
          answer();
          return;
        }
        const takes = Math.min(graceMs, this.#random.between(1, stopMsMax));
        this.#world.schedule(this.#world.after(takes), `${this.#host}:stop`, () => {
          if (container.state === "running") this.#end(container, 143, true);
          answer();
        });
      }).catch((error: unknown) => reject(error as Error));
    });
  }
}
