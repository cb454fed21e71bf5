/** All nodes as the scheduler sees them, worked out anew only where something changed. */
import type { InstantMs } from "../../lib/clock.ts";
import type { Node } from "../../model/node.ts";
import type { Task } from "../../model/task.ts";
import { type NodeView, nodeViewOf } from "../../scheduler/node-view.ts";
import type { View } from "../../store/types.ts";

/** Every node with what the tasks on it leave free, in id order. */
export function nodeViews(view: View, now: InstantMs): readonly NodeView[] {
  const views: NodeView[] = [];
  for (const node of view.table("nodes").all()) views.push(remembered(view, node, now));
  return views;
}

/** The same as if the task with this id were not there. */
export function nodeViewsWithout(view: View, now: InstantMs, taskId: string): readonly NodeView[] {
  const views: NodeView[] = [];
  for (const node of view.table("nodes").all()) {
    views.push(nodeViewOf(node, without(view.table("tasks").by("node", node.id), taskId), now));
  }
  return views;
}

interface Known {
  /** Stands for the tasks that `nodeView` was made from. */
  readonly stamp: object;
  readonly madeAt: InstantMs;
  readonly nodeView: NodeView;
}
/**
 * A memory, not a state: what is in it follows from a node's row, which never changes, and from the tasks that the stamp
 * stands for. Without it each placement would read every task of the cluster.
 */
const known = new WeakMap<Node, Known>();

function remembered(view: View, node: Node, now: InstantMs): NodeView {
  const tasks = view.table("tasks");
  const stamp = tasks.stamp("node", node.id);
  const found = known.get(node);
  if (found !== undefined && found.stamp === stamp && isGood(found, now)) return found.nodeView;
  const nodeView = nodeViewOf(node, tasks.by("node", node.id), now);
  known.set(node, { stamp, madeAt: now, nodeView });
  return nodeView;
}

/** From when it was made until the first of its failures is forgotten. */
function isGood({ madeAt, nodeView: { goodUntil } }: Known, now: InstantMs): boolean {
  return now >= madeAt && (goodUntil === null || now < goodUntil);
}

function* without(tasks: Iterable<Task>, id: string): Generator<Task> {
  for (const task of tasks) {
    if (task.id !== id) yield task;
  }
}
