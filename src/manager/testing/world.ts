/** A small cluster for tests of the control loop: a real store and loop, and nodes that do what a plan says. */
import { after, type InstantMs } from "../../lib/clock.ts";
import { silentLog } from "../../lib/log.ts";
import type { Node } from "../../model/node.ts";
import type { Service, ServiceSpec } from "../../model/service.ts";
import { slotKey, type Task } from "../../model/task.ts";
import { isBefore, isTerminal, type TaskState } from "../../model/task-state.ts";
import { createStore } from "../../store/store.ts";
import type { Action, ActionGroup, Store } from "../../store/types.ts";
import { type Controller, quiet } from "../controller.ts";
import { type ControllerLoop, createControllerLoop } from "../controller-loop.ts";
import { createTestClock, type TestClock } from "./clock.ts";
import { createTestProposer, type TestProposer } from "./proposer.ts";
import { createTestRandom } from "./random.ts";
import { add, change, testCluster, testNode, testService } from "./rows.ts";

/** How the nodes of a test treat a task. */
export interface Plan {
  /** Time from being told to run until it runs, in ms; null: it never gets there. */
  startMs(task: Task): number | null;
  /** How it ends by itself once it would run: `at` ms after that (0: instead of running). Null: it runs on. */
  end(
    task: Task,
  ): { readonly afterMs: number; readonly state: "failed" | "complete" | "rejected" } | null;
  /** Time from being told to stop until it has stopped, in ms. */
  stopMs(task: Task): number;
}
export const healthy: Plan = { startMs: () => 50, end: () => null, stopMs: () => 20 };

export interface World {
  readonly store: Store;
  readonly clock: TestClock;
  readonly proposer: TestProposer;
  readonly loop: ControllerLoop;
  /** Most tasks of one slot that ran at once on nodes that are up. */
  readonly mostRunning: Map<string, number>;
  plan: Plan;
  /** Nodes that lost power: nothing is heard from them. */
  readonly dark: Set<string>;
  /** Gives a node its power back: it goes on with its tasks as they are wanted now. */
  relight(nodeId: string): void;
  addNodes(...ids: readonly string[]): void;
  setNode(id: string, changed: Partial<Node>): void;
  createService(id: string, spec: ServiceSpec): void;
  /** As `docker service update` does it. */
  updateService(id: string, spec: ServiceSpec): void;
  removeService(id: string): void;
  service(id: string): Service;
  tasks(serviceId: string): readonly Task[];
  /** Tasks whose process runs, by their own word. */
  running(serviceId: string): readonly Task[];
  node(id: string): Node;
}

/** Starts a world with a cluster row and a running loop. */
export function createWorld(controllers: readonly Controller[], seed = 1, historyLimit = 5): World {
  const clock = createTestClock();
  const store = createStore();
  const proposer = createTestProposer(store, clock);
  const log = silentLog;
  const random = createTestRandom(seed);
  const loop = createControllerLoop({
    store,
    proposer,
    clock,
    random,
    log,
    controllers: [...controllers, testPlacement],
  });
  const mostRunning = new Map<string, number>();
  const timers = new Map<string, () => void>();
  const world: World = {
    store,
    clock,
    proposer,
    loop,
    mostRunning,
    plan: healthy,
    dark: new Set(),
    relight(nodeId) {
      world.dark.delete(nodeId);
      for (const task of [...store.view().table("tasks").by("node", nodeId)]) act(task);
    },
    addNodes(...ids) {
      for (const id of ids) proposer.commit([add("nodes", testNode(id))]);
    },
    setNode(id, changed) {
      proposer.commit([change("nodes", world.node(id), changed)]);
    },
    createService(id, spec) {
      proposer.commit([add("services", testService(id, spec))]);
    },
    updateService(id, spec) {
      const old = world.service(id);
      proposer.commit([
        change("services", old, {
          spec,
          specVersion: -1,
          previousSpec: old.spec,
          previousSpecVersion: old.specVersion,
          updateStatus: null,
        }),
      ]);
    },
    removeService(id) {
      const { meta } = world.service(id);
      proposer.commit([{ table: "services", kind: "remove", id, expect: meta.version }]);
    },
    service(id) {
      const found = store.view().table("services").get(id);
      if (found === undefined) throw new Error(`no service ${id}`);
      return found;
    },
    node(id) {
      const found = store.view().table("nodes").get(id);
      if (found === undefined) throw new Error(`no node ${id}`);
      return found;
    },
    tasks: (serviceId) => [...store.view().table("tasks").by("service", serviceId)],
    running: (serviceId) =>
      world.tasks(serviceId).filter((task) => task.status.state === "running"),
  };

  function report(id: string, state: TaskState): void {
    timers.delete(id);
    const task = store.view().table("tasks").get(id);
    if (task === undefined || isTerminal(task.status.state)) return;
    if (task.nodeId !== null && world.dark.has(task.nodeId)) return;
    const now = clock.now();
    const status = { ...task.status, state, message: state, at: now, appliedAt: now };
    const runningAt = state === "running" ? { runningAt: now } : {};
    proposer.commit([change("tasks", task, { status, ...runningAt })]);
  }

  function later(task: Task, delayMs: number, state: TaskState): void {
    timers.get(task.id)?.();
    const cancel = clock.wakeAt(after(clock.now(), delayMs), () => report(task.id, state));
    timers.set(task.id, cancel);
  }

  /** What the task's node does next. */
  function act(task: Task): void {
    const { state } = task.status;
    if (isBefore(state, "assigned") || isTerminal(state)) return;
    if (isTerminal(task.desired)) {
      later(task, world.plan.stopMs(task), "shutdown");
      return;
    }
    const end = world.plan.end(task);
    if (state === "running") {
      if (end !== null) later(task, end.afterMs, end.state);
      return;
    }
    if (task.desired === "ready") {
      if (end?.state === "rejected") later(task, 10, "rejected");
      else if (state !== "ready") later(task, 10, "ready");
      return;
    }
    const startMs = world.plan.startMs(task);
    if (startMs === null) return;
    later(task, startMs, end?.afterMs === 0 ? end.state : "running");
  }

  store.watch(({ changes }) => {
    const view = store.view();
    for (const { table, before, after: now } of changes) {
      if (table !== "tasks" || now === null) continue;
      const same = before?.desired === now.desired && before.status.state === now.status.state;
      if (!same) act(now);
      const key = `${now.serviceId}/${slotKey(now)}`;
      let count = 0;
      for (const task of view.table("tasks").by("slot", key)) {
        const up = view.table("nodes").get(task.nodeId ?? "")?.state !== "down";
        if (task.status.state === "running" && up) count += 1;
      }
      mostRunning.set(key, Math.max(mostRunning.get(key) ?? 0, count));
    }
  });
  proposer.commit([add("clusters", testCluster(historyLimit))]);
  loop.start();
  return world;
}

/** Puts each new task on the node with the fewest, in place of allocator and placement. */
const testPlacement: Controller = {
  name: "test-placement",
  *keysOf(changed) {
    if (changed.table === "nodes") yield "all";
    if (changed.table === "tasks" && changed.after?.status.state === "new") yield "all";
  },
  *keysAtStart() {
    yield "all";
  },
  reconcile(_key, view, now) {
    const load = new Map<string, number>();
    for (const node of view.table("nodes").all()) {
      if (node.state === "ready" && node.spec.availability === "active") load.set(node.id, 0);
    }
    const waiting: Task[] = [];
    for (const task of view.table("tasks").all()) {
      if (task.status.state === "new" && !isTerminal(task.desired)) waiting.push(task);
      else if (task.nodeId !== null && !isTerminal(task.status.state)) {
        load.set(task.nodeId, (load.get(task.nodeId) ?? 0) + 1);
      }
    }
    const groups: ActionGroup[] = [];
    for (const task of waiting) {
      const nodeId =
        task.nodeId ?? leastLoaded(load, view.table("nodes").get.bind(view.table("nodes")));
      if (nodeId === null) continue;
      load.set(nodeId, (load.get(nodeId) ?? 0) + 1);
      groups.push([assigned(task, nodeId, now)]);
    }
    return groups.length === 0 ? quiet : { groups, lookAgainAt: null };
  },
};

function leastLoaded(
  load: ReadonlyMap<string, number>,
  nodeOf: (id: string) => Node | undefined,
): string | null {
  let found: string | null = null;
  for (const [id, count] of load) {
    const node = nodeOf(id);
    if (node?.state !== "ready" || node.spec.availability !== "active") continue;
    if (found === null || count < (load.get(found) ?? 0)) found = id;
  }
  return found;
}

function assigned(task: Task, nodeId: string, now: InstantMs): Action {
  const status = { ...task.status, state: "assigned" as const, at: now, appliedAt: now };
  return change("tasks", task, { nodeId, status });
}
