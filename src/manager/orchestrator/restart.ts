/** Restart policy: whether an ended task is replaced, when its replacement may run, and the replacing (spec/swarm.md 1.5). */
import { after, type InstantMs } from "../../lib/clock.ts";
import type { Random } from "../../lib/random.ts";
import { defaultRestart, nsPerMs } from "../../model/defaults.ts";
import type { Service } from "../../model/service.ts";
import type { Task } from "../../model/task.ts";
import { isTerminal } from "../../model/task-state.ts";
import type { Action, View } from "../../store/types.ts";
import { checkService, createTask, type DecisionBuilder, desire, type NewTask } from "./rows.ts";
import { isOver, lossOf, type Slot, startTime, stoppingOf } from "./slots.ts";

/** What a reconcile of one service knows. */
export interface Pass {
  readonly service: Service;
  readonly view: View;
  readonly now: InstantMs;
  readonly random: Random;
  readonly out: DecisionBuilder;
  /** Whether a task differs from what its service wants now. */
  isDirty(task: Task): boolean;
}

/**
 * Whether the policy of `task` lets it be replaced. Attempts are counted from the rows of its slot: those of its spec
 * version but the first; the reaper keeps as many as this needs.
 */
export function shouldRestart(task: Task, slot: Slot): boolean {
  const policy = { ...defaultRestart, ...withoutNulls(task.spec.restart) };
  if (policy.condition === "none") return false;
  if (policy.condition === "on-failure" && task.status.state === "complete") return false;
  if (policy.maxAttempts === 0) return true;
  const restarts = slot.tasks.filter((row) => row.specVersion === task.specVersion).slice(1);
  if (policy.windowNs === 0) return restarts.length < policy.maxAttempts;
  const failedAt = endedAt(task);
  const from = failedAt - policy.windowNs / nsPerMs;
  const counted = restarts.filter(
    ({ meta }) => meta.createdAt > from && meta.createdAt <= failedAt,
  );
  return counted.length < policy.maxAttempts;
}

/** Whether a slot without live task stays so: its youngest task ended and is not to be restarted. */
export function isFinished(slot: Slot): boolean {
  return slot.live.length === 0 && slot.newest !== null && !shouldRestart(slot.newest, slot);
}

/**
 * One step of a slot that is to be kept: replaces what ended or lost its node, lets waiting tasks run, stops what is too
 * many. `mayReplace` is false where nothing new may start (the paused node of a global service).
 */
export function stepSlot(pass: Pass, slot: Slot, mayReplace: boolean): void {
  if (replaceBroken(pass, slot, mayReplace)) return;
  if (stopSurplus(pass, slot)) return;
  startWaiting(pass, slot);
}

/** The new task of a slot where nothing is left to run: at once, or behind what still stops there. */
export function successor(
  pass: Pass,
  slot: Slot | undefined,
  place: Pick<NewTask, "slot" | "nodeId">,
  alsoStopping: readonly Task[],
  startNotBefore: InstantMs | null,
): Action {
  const { view, now } = pass;
  const stopping = [
    ...(slot === undefined ? [] : stoppingOf(slot, view)),
    ...alsoStopping.filter((task) => !isOver(task, view)),
  ];
  const waitsFor = stopping.at(-1)?.id ?? null;
  const waits = waitsFor !== null || (startNotBefore !== null && startNotBefore > now);
  const task = {
    ...place,
    desired: waits ? "ready" : "running",
    startNotBefore,
    waitsFor,
  } as const;
  return createTask(pass.service, task, now, pass.random);
}

/** When a task ended, by a manager's clock where one stored it. */
export function endedAt(task: Task): InstantMs {
  return task.status.appliedAt ?? task.status.at;
}

function replaceBroken(pass: Pass, slot: Slot, mayReplace: boolean): boolean {
  const { view, now, out } = pass;
  const broken = slot.live.filter(
    (task) => isTerminal(task.status.state) || lossOf(task, view) !== null,
  );
  if (broken.length === 0) return false;
  const sound = slot.live.filter((task) => !broken.includes(task));
  const actions: Action[] = [];
  let replacement: Action | null = null;
  for (const task of broken) {
    const ended = isTerminal(task.status.state);
    const mayEndAt = ended && task.desired === "ready" ? startTime(task, slot, view, now) : now;
    if (mayEndAt > now) {
      // It failed while still in its own delay: that one is served first, or a task that always fails would spin.
      out.lookAt(mayEndAt);
      continue;
    }
    actions.push(desire(task, "shutdown"));
    if (!mayReplace || replacement !== null || !isNeeded(pass, task, sound)) continue;
    if (!shouldRestart(task, slot)) continue;
    const startNotBefore = ended ? restartTime(task, now) : now;
    const place = { slot: task.slot, nodeId: task.slot > 0 ? null : task.nodeId };
    replacement = successor(pass, slot, place, broken, startNotBefore);
  }
  if (replacement !== null) actions.push(checkService(pass.service), replacement);
  out.add(actions);
  return actions.length > 0;
}

/** A broken task wants a replacement unless another task of the slot stands in for it. */
function isNeeded(pass: Pass, task: Task, sound: readonly Task[]): boolean {
  if (sound.length === 0) return true;
  return !pass.isDirty(task) && sound.every((other) => pass.isDirty(other));
}

/** End of the restart delay; it counts from the failure, so that a change of leader does not lengthen it. */
function restartTime(task: Task, now: InstantMs): InstantMs {
  const failedAt = Math.min(now, Math.max(endedAt(task), task.startNotBefore ?? 0)) as InstantMs;
  return after(failedAt, (task.spec.restart?.delayNs ?? defaultRestart.delayNs) / nsPerMs);
}

/** More than one live task: keeps the one that the service wants most. Two stay only while a start-first update waits for the new one. */
function stopSurplus(pass: Pass, slot: Slot): boolean {
  if (slot.live.length < 2) return false;
  const clean = slot.live.filter((task) => !pass.isDirty(task)).sort(byProgress);
  const dirty = slot.live.filter((task) => pass.isDirty(task)).sort(byProgress);
  const cleanRuns = clean[0]?.status.state === "running";
  const surplus = [...clean.slice(1), ...(cleanRuns ? dirty : dirty.slice(1))];
  pass.out.add(surplus.map((task) => desire(task, "shutdown")));
  return surplus.length > 0;
}

/** Running first, then what is meant to run, then the oldest. */
function byProgress(a: Task, b: Task): number {
  const order = (task: Task): number =>
    task.status.state === "running" ? 0 : task.desired === "running" ? 1 : 2;
  return order(a) - order(b) || a.meta.createdAt - b.meta.createdAt || (a.id < b.id ? -1 : 1);
}

function startWaiting(pass: Pass, slot: Slot): void {
  for (const task of slot.live) {
    if (task.desired !== "ready") continue;
    const at = startTime(task, slot, pass.view, pass.now);
    if (at <= pass.now) pass.out.add([desire(task, "running")]);
    else pass.out.lookAt(at);
  }
}

function withoutNulls(policy: Task["spec"]["restart"]): Partial<typeof defaultRestart> {
  if (policy === null) return {};
  return {
    condition: policy.condition,
    ...(policy.delayNs === null ? {} : { delayNs: policy.delayNs }),
    ...(policy.maxAttempts === null ? {} : { maxAttempts: policy.maxAttempts }),
    ...(policy.windowNs === null ? {} : { windowNs: policy.windowNs }),
  };
}
