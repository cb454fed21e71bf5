/** The allocator: gives new tasks their addresses, one on each of their networks, and makes them pending. */
import type { InstantMs } from "../../lib/clock.ts";
import type { Task } from "../../model/task.ts";
import { isBefore, isTerminal } from "../../model/task-state.ts";
import type { Action, ActionGroup, Change, View } from "../../store/types.ts";
import type { Controller, Decision } from "../controller.ts";
import { NetworkAddresses } from "./network-addresses.ts";

/** Tasks that one decision gives addresses to; more are taken up by the next one. */
export const tasksPerDecisionMax = 400;
/** Characters of JSON of all tasks of one decision: they may have to go in one group, and a group in one log entry (manager/limits.ts entryBytesMax). */
export const decisionCharactersMax: number = 512 * 1024;

/** There is one key: all new tasks are looked at together, because they may share networks. */
const everything = "addresses";

export const allocatorController: Controller = {
  name: "allocator",
  keysOf: (change, view) => (matters(change, view) ? [everything] : []),
  keysAtStart: () => [everything],
  reconcile: (_key, view, now): Decision => decide(view, now),
};

/** A task became new, an address came free while tasks wait, or a network changed under them. */
function matters(change: Change, view: View): boolean {
  if (change.table === "tasks") {
    const { before, after } = change;
    if (after?.status.state === "new") return !isOnlyTold(before, after);
    return holdsAddress(before) && !holdsAddress(after) && someAreNew(view);
  }
  if (change.table !== "networks") return false;
  // Where the next search starts is the allocator's own business.
  return change.before?.subnet !== change.after?.subnet && someAreNew(view);
}

/** True when a task that waited for an address waits on, with another reason at most. */
function isOnlyTold(before: Task | null, after: Task): boolean {
  return before?.status.state === "new" && before.desired === after.desired;
}

function someAreNew(view: View): boolean {
  return view.table("tasks").by("state", "new").next().done !== true;
}

/** An address is free again as soon as its task's row is gone or its process is over. */
function holdsAddress(task: Task | null): boolean {
  return task !== null && task.attachments.length > 0 && !isTerminal(task.status.state);
}

function decide(view: View, now: InstantMs): Decision {
  const addresses = new NetworkAddresses(view);
  const groups: ActionGroup[] = [];
  const bundles = new Bundles();
  let given = 0;
  let characters = 0;
  for (const task of view.table("tasks").by("state", "new")) {
    // What is to be removed or shut down before it was placed needs no address any more.
    if (!isBefore(task.desired, "complete")) continue;
    if (given === tasksPerDecisionMax || characters >= decisionCharactersMax) break;
    const result = addresses.attach(task);
    if (result.kind === "waits") {
      if (task.status.error !== result.reason) groups.push([waiting(task, result.reason, now)]);
      continue;
    }
    given++;
    characters += JSON.stringify(task).length;
    const networkIds = result.attachments.map((attachment) => attachment.networkId);
    bundles.add(networkIds, pending({ ...task, attachments: result.attachments }, now));
  }
  for (const { networkIds, actions } of bundles.all()) {
    // Writing the network's row is what keeps two leaders, or two entries under way, from giving one address twice.
    groups.push([...addresses.cursorsOf(networkIds), ...actions]);
  }
  const isCutShort = given === tasksPerDecisionMax || characters >= decisionCharactersMax;
  return { groups, lookAgainAt: isCutShort ? now : null };
}

function pending(task: Task, now: InstantMs): Action {
  const status = {
    ...task.status,
    state: "pending",
    message: "pending task scheduling",
    error: null,
    at: now,
    appliedAt: now,
  } as const;
  return { table: "tasks", kind: "put", row: { ...task, status }, expect: task.meta.version };
}

function waiting(task: Task, reason: string, now: InstantMs): Action {
  const message = "waiting for an address";
  const status = { ...task.status, message, error: reason, appliedAt: now };
  return { table: "tasks", kind: "put", row: { ...task, status }, expect: task.meta.version };
}

interface Bundle {
  readonly networkIds: Set<string>;
  readonly actions: Action[];
}

/** Actions by what must be written with them: those that touch one network, directly or through a third, go together; those that touch none go alone. */
class Bundles {
  readonly #alone: Bundle[] = [];
  readonly #byNetwork = new Map<string, Bundle>();

  add(networkIds: readonly string[], action: Action): void {
    if (networkIds.length === 0) {
      this.#alone.push({ networkIds: new Set(), actions: [action] });
      return;
    }
    const touched = new Set(networkIds.flatMap((id) => this.#byNetwork.get(id) ?? []));
    const [bundle = { networkIds: new Set<string>(), actions: [] }, ...others] = touched;
    for (const other of others) {
      for (const id of other.networkIds) bundle.networkIds.add(id);
      for (const earlier of other.actions) bundle.actions.push(earlier);
    }
    for (const id of networkIds) bundle.networkIds.add(id);
    bundle.actions.push(action);
    for (const id of bundle.networkIds) this.#byNetwork.set(id, bundle);
  }

  all(): readonly Bundle[] {
    return [...this.#alone, ...new Set(this.#byNetwork.values())];
  }
}
