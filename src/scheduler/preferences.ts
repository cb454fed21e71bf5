/** Spreading over labels: a tree with one level a label, whose branches get equal shares for as long as they have room (swarmkit manager/scheduler/nodeset.go). */
import { type Candidate, ranksBefore, withTask } from "./candidate.ts";
import { labelValue } from "./constraint.ts";
import type { Demand } from "./demand.ts";
import { refusingFilter } from "./filters.ts";
import { Heap } from "./heap.ts";

/** A set of nodes that tasks of one group are given to, one at a time. */
export interface Branch {
  /** Active tasks of the service in it, on nodes that take no more as well. */
  readonly tasks: number;
  /** The node that is next; null when it has no room left. */
  best(): Candidate | null;
  /** Gives one task to the best node, and answers the node as it then is. Only while there is a best one. */
  place(): Candidate | null;
}

/**
 * The tree of all nodes for `demand`. A node without a label is in the branch of the empty value, which has a share of
 * its own. Preferences for anything but `node.labels.X` and `engine.labels.X` are passed over.
 */
export function branchOf(demand: Demand, candidates: readonly Candidate[]): Branch {
  return grow(demand, candidates, demand.spreadOver.filter(isLabel));
}

function grow(demand: Demand, candidates: readonly Candidate[], labels: readonly string[]): Branch {
  const [label, ...inner] = labels;
  if (label === undefined) return new Leaf(demand, candidates);
  const byValue = new Map<string, Candidate[]>();
  for (const candidate of candidates) {
    const value = labelValue(label, candidate.node) ?? "";
    const same = byValue.get(value);
    if (same === undefined) byValue.set(value, [candidate]);
    else same.push(candidate);
  }
  return new Fork([...byValue.values()].map((same) => grow(demand, same, inner)));
}

/** Nodes between which no preference decides. */
class Leaf implements Branch {
  tasks = 0;
  readonly #demand: Demand;
  readonly #open: Heap<Candidate>;

  constructor(demand: Demand, candidates: readonly Candidate[]) {
    this.#demand = demand;
    for (const candidate of candidates) this.tasks += candidate.serviceTasks;
    this.#open = new Heap(
      candidates.filter((candidate) => refusingFilter(demand, candidate) === null),
      ranksBefore,
    );
  }

  best(): Candidate | null {
    return this.#open.peek();
  }

  place(): Candidate | null {
    const chosen = this.#open.pop();
    if (chosen === null) return null;
    const loaded = withTask(chosen, this.#demand);
    this.tasks++;
    if (refusingFilter(this.#demand, loaded) === null) this.#open.push(loaded);
    return loaded;
  }
}

class Fork implements Branch {
  tasks = 0;
  readonly #open: Heap<Branch>;

  constructor(branches: readonly Branch[]) {
    for (const branch of branches) this.tasks += branch.tasks;
    this.#open = new Heap(
      branches.filter((branch) => branch.best() !== null),
      isEmptier,
    );
  }

  best(): Candidate | null {
    return this.#open.peek()?.best() ?? null;
  }

  place(): Candidate | null {
    const branch = this.#open.pop();
    const placed = branch?.place() ?? null;
    if (branch === null || placed === null) return null;
    this.tasks++;
    if (branch.best() !== null) this.#open.push(branch);
    return placed;
  }
}

/** Fewer tasks of the service first; between equals the branch with the better node, so that lone tasks do not pile up in one. */
function isEmptier(a: Branch, b: Branch): boolean {
  if (a.tasks !== b.tasks) return a.tasks < b.tasks;
  const bestOfA = a.best();
  const bestOfB = b.best();
  return bestOfA !== null && bestOfB !== null && ranksBefore(bestOfA, bestOfB);
}

function isLabel(descriptor: string): boolean {
  return /^(node|engine)\.labels\../i.test(descriptor);
}
