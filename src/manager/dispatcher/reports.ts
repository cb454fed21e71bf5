/** What agents report, checked and turned into row changes. */
import type { InstantMs } from "../../lib/clock.ts";
import type { NodeDescription } from "../../model/node.ts";
import type { Task, TaskStatus } from "../../model/task.ts";
import { isBefore, isTerminal, type TaskState } from "../../model/task-state.ts";
import type { Action } from "../../store/types.ts";
import type { StatusReport } from "../../wire/session.ts";
import { descriptionLengthMax, idLengthMax, statusTextLengthMax } from "./limits.ts";

/** States that an agent says; the others are the managers' own. */
const reportable: ReadonlySet<TaskState> = new Set<TaskState>([
  "accepted",
  "preparing",
  "ready",
  "starting",
  "running",
  "complete",
  "shutdown",
  "failed",
  "rejected",
]);

/**
 * The write that stores `status` for `task`, reported by node `nodeId`; null when there is nothing to store: the task is
 * gone or another node's, it is further already, or it says the same.
 */
export function storeStatus(
  task: Task | undefined,
  nodeId: string,
  status: TaskStatus,
  now: InstantMs,
): Action | null {
  if (task === undefined || task.nodeId !== nodeId) return null;
  // Not placed as far as this manager knows, or ended for good: an observed state never goes back.
  if (isBefore(task.status.state, "assigned") || isTerminal(task.status.state)) return null;
  if (isBefore(status.state, task.status.state) || isSameStatus(task.status, status)) return null;
  const { meta, ...row } = task;
  const runs = status.state === "running" && (task.runningAt ?? null) === null;
  return {
    table: "tasks",
    kind: "put",
    row: {
      ...row,
      status: { ...status, appliedAt: now },
      ...(runs ? { runningAt: now } : {}),
    },
    expect: meta.version,
  };
}

/** A report in the shape it must have, with its texts cut to size; null for anything else. */
export function checkedReport(report: unknown): StatusReport | null {
  if (!isRecord(report) || typeof report["taskId"] !== "string") return null;
  const status = report["status"];
  if (!isRecord(status) || !reportable.has(status["state"] as TaskState)) return null;
  const { state, message, error, exitCode, containerId, pid, at } = status;
  if (typeof message !== "string" || !isNumber(at) || !isNumber(pid)) return null;
  if (error !== null && typeof error !== "string") return null;
  if (exitCode !== null && !isNumber(exitCode)) return null;
  if (containerId !== null && !isShortText(containerId)) return null;
  return {
    taskId: report["taskId"],
    status: {
      state: state as TaskState,
      message: message.slice(0, statusTextLengthMax),
      error: error === null ? null : error.slice(0, statusTextLengthMax),
      exitCode,
      containerId,
      pid,
      at: at as InstantMs,
      appliedAt: null,
    },
  };
}

/** Whether a node described itself in the shape the rows need. */
export function isDescription(value: unknown): value is NodeDescription {
  if (!isRecord(value) || !isRecord(value["resources"]) || !isRecord(value["engineLabels"])) {
    return false;
  }
  const texts = ["hostname", "os", "architecture", "engineVersion", "dataPathAddress"];
  return (
    texts.every((name) => typeof value[name] === "string") &&
    isNumber(value["resources"]["nanoCpus"]) &&
    isNumber(value["resources"]["memoryBytes"]) &&
    isNumber(value["underlayMtu"]) &&
    Array.isArray(value["routes"]) &&
    value["routes"].every((route) => typeof route === "string") &&
    Object.values(value["engineLabels"]).every((label) => typeof label === "string") &&
    JSON.stringify(value).length <= descriptionLengthMax
  );
}

function isSameStatus(a: TaskStatus, b: TaskStatus): boolean {
  return (
    a.state === b.state &&
    a.message === b.message &&
    a.error === b.error &&
    a.exitCode === b.exitCode &&
    a.containerId === b.containerId &&
    a.pid === b.pid
  );
}

/** An id, or something as short. */
function isShortText(value: unknown): value is string {
  return typeof value === "string" && value.length <= idLengthMax;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}
