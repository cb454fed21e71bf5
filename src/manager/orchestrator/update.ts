/** Rolling update and rollback, planned from the rows alone: which slots to move on, and what becomes of the update (spec/swarm.md 1.6). */
import { after, type InstantMs } from "../../lib/clock.ts";
import { defaultUpdate, nsPerMs } from "../../model/defaults.ts";
import type { Service, UpdateConfig, UpdateState, UpdateStatus } from "../../model/service.ts";
import type { Task } from "../../model/task.ts";
import { isTerminal } from "../../model/task-state.ts";
import type { Action, View } from "../../store/types.ts";
import { monitorBeyondDelayMs, progressDeadlineMs } from "./limits.ts";
import { endedAt, type Pass, successor } from "./restart.ts";
import { checkService, desire, putService } from "./rows.ts";
import { isLive, lossOf, type Slot, stopGraceMs } from "./slots.ts";

export interface UpdatePlan {
  /** Slots whose tasks are to be replaced now. */
  readonly start: ReadonlySet<Slot>;
  /** What to write of the service, last of all groups; null: nothing. */
  readonly service: Action | null;
  /** The spec itself changes with it: whatever else was planned is out of date. */
  readonly rollsBack: boolean;
}
const nothing: UpdatePlan = { start: new Set(), service: null, rollsBack: false };

/** How one slot stands in the update that is under way. */
interface Progress {
  readonly slot: Slot;
  /** Its tasks were replaced by this update. */
  readonly tried: boolean;
  /** When its new task ran, failed or was given up; null while that is open. */
  readonly settledAt: InstantMs | null;
  /** The task that counts as this slot's failure. */
  readonly failed: Task | null;
  /** When it will be given up. */
  readonly deadline: InstantMs | null;
}

/**
 * Plans the next step of the update of a service whose kept slots are `slots`. The state of an update is in the rows:
 * the tasks it made carry the service's spec version and were created after it began.
 */
export function planUpdate(pass: Pass, slots: readonly Slot[]): UpdatePlan {
  const { service, now, out } = pass;
  const status = service.updateStatus;
  if (status?.state === "paused" || status?.state === "rollback_paused") return nothing;
  const config = configOf(service);
  const delayMs = config.delayNs / nsPerMs;
  const progress = slots.map((slot) => progressOf(pass, slot, config));
  const waiting = progress.filter(({ slot, tried }) => !tried && isSlotDirty(pass, slot));
  if (!isUnderWay(status)) {
    if (waiting.length === 0) return nothing;
    const start = firstOf(waiting, config.parallelism, 0);
    return { start, service: begin(pass), rollsBack: false };
  }

  const tried = progress.filter((one) => one.tried);
  const verdict = verdictOf(pass, config, tried, waiting.length + tried.length);
  if (verdict !== null) return verdict;

  let busy = 0;
  let quietAt = now;
  for (const { settledAt, deadline } of tried) {
    const freeAt = settledAt === null ? null : after(settledAt, delayMs);
    if (freeAt === null || freeAt > now) busy += 1;
    const next = freeAt ?? deadline;
    if (next !== null && next > now) out.lookAt(next);
    if (freeAt !== null) quietAt = latest(quietAt, after(freeAt, monitorMs(config)));
  }
  if (waiting.length > 0) {
    return { ...nothing, start: firstOf(waiting, config.parallelism, busy) };
  }
  if (busy > 0) return nothing;
  if (quietAt > now) {
    out.lookAt(quietAt);
    return nothing;
  }
  const rolled = status.state === "rollback_started";
  const state = rolled ? "rollback_completed" : "completed";
  const message = rolled ? "rollback completed" : "update completed";
  return { ...nothing, service: conclude(service, status, state, message, now) };
}

/** Replaces the tasks of a slot: the old stop before the new one runs, or after, as the order says. */
export function startSlot(pass: Pass, slot: Slot): void {
  const { service, view, now } = pass;
  const serving = slot.live.filter((task) => serves(task, view));
  const startsFirst = configOf(service).order === "start-first";
  const kept = startsFirst ? servingBest(serving) : null;
  const stopped = slot.live.filter((task) => task !== kept);
  const any = slot.live[0] ?? slot.newest;
  const nodeId = slot.number > 0 ? null : (any?.nodeId ?? null);
  pass.out.add([
    checkService(service),
    ...stopped.map((task) => desire(task, "shutdown")),
    successor(pass, slot, { slot: slot.number, nodeId }, stopped, now),
  ]);
}

/** Of several tasks that could go on serving, the one that does: the oldest that runs. */
function servingBest(serving: readonly Task[]): Task | null {
  return serving.find((task) => task.status.state === "running") ?? serving[0] ?? null;
}

function configOf({ spec, updateStatus }: Service): UpdateConfig {
  const rollback = updateStatus?.state === "rollback_started";
  return (rollback ? spec.rollback : spec.update) ?? defaultUpdate;
}

/** How long a new task is watched; longer than the delay, so that one slot's failure is seen before the next one is through. */
function monitorMs(config: UpdateConfig): number {
  const delayMs = config.delayNs / nsPerMs;
  const wanted = config.monitorNs / nsPerMs;
  return delayMs >= wanted ? delayMs + monitorBeyondDelayMs : wanted;
}

function isUnderWay(status: UpdateStatus | null): status is UpdateStatus {
  return status?.state === "updating" || status?.state === "rollback_started";
}

/** Whether the slot needs a new task. One that is what is wanted and serves is kept, whatever stands beside it (a rollback of start-first). */
function isSlotDirty(pass: Pass, slot: Slot): boolean {
  if (slot.live.length === 0) return slot.newest !== null && pass.isDirty(slot.newest);
  const isKept = (task: Task): boolean => !pass.isDirty(task) && serves(task, pass.view);
  return slot.live.some((task) => pass.isDirty(task)) && !slot.live.some(isKept);
}

/** A task that ended or whose node is lost does not serve: there is nothing to keep while the new one starts. */
function serves(task: Task, view: View): boolean {
  return !isTerminal(task.status.state) && lossOf(task, view) === null;
}

function firstOf(
  waiting: readonly Progress[],
  parallelism: number,
  busy: number,
): ReadonlySet<Slot> {
  const room = parallelism === 0 ? waiting.length : Math.max(0, parallelism - busy);
  return new Set(waiting.slice(0, room).map(({ slot }) => slot));
}

/** Tasks that this update, or the restarts behind it, made in the slot; oldest first. A task that scaling made has no start time. */
function attemptsOf(slot: Slot, service: Service): readonly Task[] {
  const since = service.updateStatus?.startedAt ?? null;
  if (since === null) return [];
  return slot.tasks.filter(
    (task) =>
      task.specVersion === service.specVersion &&
      task.startNotBefore !== null &&
      task.meta.createdAt >= since,
  );
}

function progressOf({ service, now }: Pass, slot: Slot, config: UpdateConfig): Progress {
  const attempts = attemptsOf(slot, service);
  const first = attempts[0];
  const untried = { slot, tried: false, settledAt: null, failed: null, deadline: null };
  if (first === undefined) return untried;
  const judged = attempts.find((task) => runningAt(task) !== null || endedByItself(task));
  if (judged !== undefined) {
    const ranAt = runningAt(judged);
    const early = ranAt === null || endedAt(judged) <= after(ranAt, monitorMs(config));
    const failed = endedByItself(judged) && early ? judged : null;
    return { slot, tried: true, settledAt: ranAt ?? endedAt(judged), failed, deadline: null };
  }
  // All that the update made here was stopped by a manager (a drained node, say): the slot is as if it had not been tried.
  if (!attempts.some(isLive)) return untried;
  const last = attempts.at(-1) ?? first;
  if (last.desired === "ready") {
    // It waits for its predecessor, which has a limit of its own.
    return { slot, tried: true, settledAt: null, failed: null, deadline: null };
  }
  const deadline = after(startOf(first, slot), progressDeadlineMs);
  const over = deadline <= now;
  return {
    slot,
    tried: true,
    settledAt: over ? deadline : null,
    failed: over ? first : null,
    deadline,
  };
}

/** When the slot was free for `task`: when it was made, or when the task it waited for ended. */
function startOf(task: Task, slot: Slot): InstantMs {
  const old = slot.tasks.find((other) => other.id === task.waitsFor);
  if (old === undefined) return task.meta.createdAt;
  const ended = isTerminal(old.status.state)
    ? endedAt(old)
    : after(old.meta.updatedAt, stopGraceMs(old));
  return latest(task.meta.createdAt, ended);
}

/** Not because a manager told it to, nor because its node was lost. */
function endedByItself({ status }: Task): boolean {
  return status.state === "failed" || status.state === "rejected" || status.state === "complete";
}

function runningAt(task: Task): InstantMs | null {
  if (task.runningAt !== undefined && task.runningAt !== null) return task.runningAt;
  return task.status.state === "running" ? endedAt(task) : null;
}

/** What too many failures lead to; null while they are not too many. */
function verdictOf(
  pass: Pass,
  config: UpdateConfig,
  tried: readonly Progress[],
  total: number,
): UpdatePlan | null {
  const { service, now } = pass;
  const status = service.updateStatus;
  const failures = tried.filter((one) => one.failed !== null);
  const last = failures.reduce<Progress | null>(
    (found, one) => (found === null || (one.settledAt ?? 0) > (found.settledAt ?? 0) ? one : found),
    null,
  );
  if (status === null || last === null || last.failed === null) return null;
  if (config.failureAction === "continue") return null;
  if (failures.length / total <= config.maxFailureRatio) return null;
  const why = `due to failure or early termination of task ${last.failed.id}`;
  // A rollback is never rolled back: it would go round in circles.
  if (status.state === "rollback_started") {
    const message = `rollback paused ${why}`;
    return { ...nothing, service: conclude(service, status, "rollback_paused", message, now) };
  }
  if (config.failureAction === "pause") {
    const message = `update paused ${why}`;
    return { ...nothing, service: conclude(service, status, "paused", message, now) };
  }
  if (service.previousSpec === null) {
    const message = `update paused ${why}: there is no previous spec to roll back to`;
    return { ...nothing, service: conclude(service, status, "paused", message, now) };
  }
  const action = putService(service, {
    spec: service.previousSpec,
    specVersion: service.previousSpecVersion ?? specVersionOfThisWrite,
    previousSpec: null,
    previousSpecVersion: null,
    updateStatus: {
      state: "rollback_started",
      startedAt: now,
      completedAt: null,
      message: `update rolled back ${why}`,
    },
  });
  return { start: new Set(), service: action, rollsBack: true };
}

/** Apply puts the index of the write in its place (model/service.ts). */
const specVersionOfThisWrite = -1;

function begin({ service, now }: Pass): Action {
  const status: UpdateStatus = {
    state: "updating",
    startedAt: now,
    completedAt: null,
    message: "update in progress",
  };
  return putService(service, { updateStatus: status });
}

function conclude(
  service: Service,
  status: UpdateStatus,
  state: UpdateState,
  message: string,
  now: InstantMs,
): Action {
  const done = state === "completed" || state === "rollback_completed";
  const completedAt = done ? now : null;
  return putService(service, { updateStatus: { ...status, state, message, completedAt } });
}

function latest(a: InstantMs, b: InstantMs): InstantMs {
  return a > b ? a : b;
}
