/** Makes the rows and actions that the orchestrator writes. */
import type { InstantMs } from "../../lib/clock.ts";
import type { Random } from "../../lib/random.ts";
import type { Service } from "../../model/service.ts";
import type { Task } from "../../model/task.ts";
import type { TaskState } from "../../model/task-state.ts";
import type { Action, ActionGroup } from "../../store/types.ts";
import type { Decision } from "../controller.ts";

/** Collects the groups of one decision and the earliest time to look again. */
export class DecisionBuilder {
  readonly groups: ActionGroup[] = [];
  #lookAgainAt: InstantMs | null = null;

  /** Adds a group; an empty one says nothing and is left out. */
  add(group: ActionGroup): void {
    if (group.length > 0) this.groups.push(group);
  }

  /** Asks for another look at `at`, or before. */
  lookAt(at: InstantMs): void {
    if (this.#lookAgainAt === null || at < this.#lookAgainAt) this.#lookAgainAt = at;
  }

  decision(): Decision {
    return { groups: this.groups, lookAgainAt: this.#lookAgainAt };
  }
}

export interface NewTask {
  readonly slot: number;
  /** Set for a global service: the node is the task's identity. */
  readonly nodeId: string | null;
  readonly desired: "ready" | "running";
  readonly startNotBefore: InstantMs | null;
  readonly waitsFor: string | null;
}

/** Creates a task from the service's spec as it is now. */
export function createTask(
  service: Service,
  { slot, nodeId, desired, startNotBefore, waitsFor }: NewTask,
  now: InstantMs,
  random: Random,
): Action {
  return {
    table: "tasks",
    kind: "put",
    expect: null,
    row: {
      id: random.id(),
      serviceId: service.id,
      serviceName: service.spec.name,
      serviceLabels: service.spec.labels,
      slot,
      nodeId,
      spec: service.spec.task,
      specVersion: service.specVersion,
      desired,
      startNotBefore,
      waitsFor,
      status: {
        state: "new",
        message: "created",
        error: null,
        exitCode: null,
        containerId: null,
        pid: 0,
        at: now,
        appliedAt: now,
      },
      attachments: [],
    },
  };
}

/** Writes `task` with some fields changed, if it is still as it was read. */
export function putTask(task: Task, changed: Partial<Omit<Task, "id" | "meta">>): Action {
  const { meta, ...row } = task;
  return { table: "tasks", kind: "put", row: { ...row, ...changed }, expect: meta.version };
}

/** Moves a task's desired state. */
export function desire(task: Task, desired: TaskState): Action {
  return putTask(task, { desired });
}

/** Writes `service` with some fields changed, if it is still as it was read. */
export function putService(
  service: Service,
  changed: Partial<Omit<Service, "id" | "meta">>,
): Action {
  const { meta, ...row } = service;
  return { table: "services", kind: "put", row: { ...row, ...changed }, expect: meta.version };
}

/** Holds a group to the service as it was read: nothing is created for one that was changed or removed meanwhile. */
export function checkService(service: Service): Action {
  return { table: "services", kind: "check", id: service.id, expect: service.meta.version };
}
