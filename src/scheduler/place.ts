/** Chooses a node for each waiting task, or says why there is none. Looks at nothing but its arguments, and changes nothing. */
import { present } from "../lib/assert.ts";
import type { Task } from "../model/task.ts";
import { type Candidate, candidateOf, withTask } from "./candidate.ts";
import { type Demand, demandOf } from "./demand.ts";
import { explainRefusals, noSuitableNode } from "./explain.ts";
import { refusingFilter } from "./filters.ts";
import { groupKey, type NodeView } from "./node-view.ts";
import { branchOf } from "./preferences.ts";

export interface Placement {
  readonly taskId: string;
  readonly nodeId: string;
}
export interface ScheduleResult {
  readonly placements: readonly Placement[];
  readonly unplaced: readonly { readonly taskId: string; readonly reason: string }[];
}

/**
 * Places the tasks. Those that name a node already (global services) are held against that node, before all others.
 * The rest is planned group by group (service and spec version), in the order in which each group's first task comes;
 * what one group takes, the next one finds taken.
 */
export function schedule(tasks: readonly Task[], nodes: readonly NodeView[]): ScheduleResult {
  const plan = new Plan(nodes);
  for (const task of tasks) {
    if (task.nodeId !== null) plan.confirm(task, task.nodeId);
  }
  for (const group of groupsOf(tasks)) plan.spread(group);
  return plan;
}

function groupsOf(tasks: readonly Task[]): Iterable<readonly Task[]> {
  const groups = new Map<string, Task[]>();
  for (const task of tasks) {
    if (task.nodeId !== null) continue;
    const key = groupKey(task);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [task]);
    else group.push(task);
  }
  return groups.values();
}

class Plan implements ScheduleResult {
  readonly placements: Placement[] = [];
  readonly unplaced: { readonly taskId: string; readonly reason: string }[] = [];
  /** The nodes with what this plan has put on them so far. */
  readonly #views: Map<string, NodeView>;

  constructor(nodes: readonly NodeView[]) {
    this.#views = new Map(nodes.map((view) => [view.node.id, view]));
  }

  confirm(task: Task, nodeId: string): void {
    const view = this.#views.get(nodeId);
    if (view === undefined) {
      this.unplaced.push({ taskId: task.id, reason: `node ${nodeId} is no longer in the cluster` });
      return;
    }
    const demand = demandOf(task);
    const candidate = candidateOf(view, demand);
    if (refusingFilter(demand, candidate) === null) {
      this.#assign(task, withTask(candidate, demand), demand);
    } else {
      this.unplaced.push({ taskId: task.id, reason: explainRefusals(demand, [candidate]) });
    }
  }

  /** Tasks of one group. */
  spread(group: readonly Task[]): void {
    const [first] = group;
    if (first === undefined) return;
    const demand = demandOf(first);
    const branch = branchOf(demand, this.#candidates(demand));
    let reason: string | null = null;
    for (const task of group) {
      const chosen = branch.place();
      if (chosen === null) {
        // The same for all that are left: nothing is placed any more.
        reason ??= noSuitableNode(demand, this.#candidates(demand));
        this.unplaced.push({ taskId: task.id, reason });
      } else {
        this.#assign(task, chosen, demand);
      }
    }
  }

  #candidates(demand: Demand): readonly Candidate[] {
    return [...this.#views.values()].map((view) => candidateOf(view, demand));
  }

  /** `loaded` is the node with the task on it. */
  #assign(task: Task, loaded: Candidate, demand: Demand): void {
    const nodeId = loaded.node.id;
    const view = present(this.#views.get(nodeId), `the view of node ${nodeId}`);
    this.placements.push({ taskId: task.id, nodeId });
    this.#views.set(nodeId, {
      ...view,
      free: loaded.free,
      activeTasks: loaded.activeTasks,
      tasksOf: new Map(view.tasksOf).set(demand.serviceId, loaded.serviceTasks),
    });
  }
}
