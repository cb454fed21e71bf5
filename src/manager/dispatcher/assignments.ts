/** What one node needs to know, as a value; how two such values differ; and whom a change concerns. */
import type { Network } from "../../model/network.ts";
import type { Node } from "../../model/node.ts";
import { type Task, taskName } from "../../model/task.ts";
import { isBefore, isTerminal } from "../../model/task-state.ts";
import type { Change, View } from "../../store/types.ts";
import type { AssignedTask, AssignmentSet, NetworkPeer } from "../../wire/session.ts";

/** The rows of an assignment set, by id and key. */
export interface Assignments {
  readonly tasks: ReadonlyMap<string, AssignedTask>;
  readonly networks: ReadonlyMap<string, Network>;
  readonly peers: ReadonlyMap<string, NetworkPeer>;
}

export interface AssignmentDiff {
  readonly put: AssignmentSet;
  readonly remove: {
    readonly tasks: readonly string[];
    readonly networks: readonly string[];
    readonly peers: readonly string[];
  };
}

/**
 * All that node `nodeId` needs: its tasks, ended ones too until their rows go (their logs and containers are kept as
 * long), the networks of those that run or will, and every endpoint on these networks.
 */
export function assignmentsFor(view: View, nodeId: string): MutableAssignments {
  const tasks = new Map<string, AssignedTask>();
  const networks = new Map<string, Network>();
  const peers = new Map<string, NetworkPeer>();
  for (const task of view.table("tasks").by("node", nodeId)) {
    if (isBefore(task.status.state, "assigned")) continue;
    tasks.set(task.id, assignedTask(task));
    if (isTerminal(task.status.state)) continue;
    for (const { networkId } of task.attachments) {
      const network = view.table("networks").get(networkId);
      if (network !== undefined) networks.set(networkId, network);
    }
  }
  for (const networkId of networks.keys()) {
    for (const task of view.table("tasks").by("network", networkId)) {
      for (const peer of peersOf(task, view)) {
        if (peer.networkId === networkId) peers.set(peer.key, peer);
      }
    }
  }
  return { tasks, networks, peers };
}

/** The set as it is sent. */
export function setOf({ tasks, networks, peers }: Assignments): AssignmentSet {
  return {
    tasks: [...tasks.values()],
    networks: [...networks.values()],
    peers: [...peers.values()],
  };
}

/** What makes `want` of `have`; null when they say the same. */
export function diffAssignments(have: Assignments, want: Assignments): AssignmentDiff | null {
  const diff: AssignmentDiff = {
    put: {
      tasks: changed(have.tasks, want.tasks, isSameTask),
      networks: changed(have.networks, want.networks, isSameNetwork),
      peers: changed(have.peers, want.peers, isSamePeer),
    },
    remove: {
      tasks: missing(have.tasks, want.tasks),
      networks: missing(have.networks, want.networks),
      peers: missing(have.peers, want.peers),
    },
  };
  return isEmpty(diff) ? null : diff;
}

/** The peers part of diffAssignments when only the endpoints of `taskIds` can have changed: its cost follows them, not the set. */
export function diffPeers(
  have: Assignments,
  view: View,
  taskIds: Iterable<string>,
): AssignmentDiff | null {
  const put: NetworkPeer[] = [];
  const remove: string[] = [];
  for (const taskId of taskIds) {
    const task = view.table("tasks").get(taskId);
    const wanted = task === undefined ? [] : peersOf(task, view);
    const keys = new Set<string>();
    for (const peer of wanted) {
      if (!have.networks.has(peer.networkId)) continue;
      keys.add(peer.key);
      const old = have.peers.get(peer.key);
      if (old === undefined || !isSamePeer(old, peer)) put.push(peer);
    }
    for (const networkId of have.networks.keys()) {
      const key = keyOf(networkId, taskId);
      if (!keys.has(key) && have.peers.has(key)) remove.push(key);
    }
  }
  const diff: AssignmentDiff = {
    put: { tasks: [], networks: [], peers: put },
    remove: { tasks: [], networks: [], peers: remove },
  };
  return isEmpty(diff) ? null : diff;
}

/** An assignment set that its owner changes in place. */
export interface MutableAssignments extends Assignments {
  readonly tasks: Map<string, AssignedTask>;
  readonly networks: Map<string, Network>;
  readonly peers: Map<string, NetworkPeer>;
}

/** Does `diff` to `have`, as the node does on receiving it. */
export function patch(have: MutableAssignments, { put, remove }: AssignmentDiff): void {
  for (const id of remove.tasks) have.tasks.delete(id);
  for (const id of remove.networks) have.networks.delete(id);
  for (const key of remove.peers) have.peers.delete(key);
  for (const task of put.tasks) have.tasks.set(task.id, task);
  for (const network of put.networks) have.networks.set(network.id, network);
  for (const peer of put.peers) have.peers.set(peer.key, peer);
}

/** Whom a change concerns. */
export interface Touched {
  /** Nodes whose own tasks or networks may differ. */
  readonly nodes: readonly string[];
  /** Endpoints that may differ, for every node that has a task on one of their networks. */
  readonly peers: readonly { readonly taskId: string; readonly networkIds: readonly string[] }[];
  /** Networks that differ, for every node that has them. */
  readonly networks: readonly string[];
}
const untouched: Touched = { nodes: [], peers: [], networks: [] };

/** The nodes, endpoints and networks that `change` concerns; `view` is the one behind it. */
export function touchedBy(change: Change, view: View): Touched {
  if (change.table === "tasks") return touchedByTask(change.before, change.after);
  if (change.table === "nodes") return touchedByNode(change.before, change.after, view);
  if (change.table === "networks") {
    const { before, after } = change;
    const network = after ?? before;
    const same = before !== null && after !== null && isSameNetwork(before, after);
    return network === null || same ? untouched : { ...untouched, networks: [network.id] };
  }
  return untouched;
}

function touchedByTask(before: Task | null, after: Task | null): Touched {
  const nodes = new Set<string>();
  if (!isSameForItsNode(before, after)) {
    if (before?.nodeId) nodes.add(before.nodeId);
    if (after?.nodeId) nodes.add(after.nodeId);
  }
  const task = after ?? before;
  if (task === null || isSameForPeers(before, after)) return { ...untouched, nodes: [...nodes] };
  const attachments = [...(before?.attachments ?? []), ...(after?.attachments ?? [])];
  const networkIds = [...new Set(attachments.map(({ networkId }) => networkId))];
  const peers = networkIds.length === 0 ? [] : [{ taskId: task.id, networkIds }];
  return { nodes: [...nodes], peers, networks: [] };
}

function touchedByNode(before: Node | null, after: Node | null, view: View): Touched {
  const node = after ?? before;
  if (node === null || isSameEndpoint(before, after)) return untouched;
  const peers = [];
  for (const task of view.table("tasks").by("node", node.id)) {
    if (task.attachments.length === 0) continue;
    peers.push({ taskId: task.id, networkIds: task.attachments.map((one) => one.networkId) });
  }
  return { ...untouched, peers };
}

/** A task as its node sees it; kept by row, so that it is made once however often it is asked for. */
function assignedTask(task: Task): AssignedTask {
  const found = assigned.get(task);
  if (found !== undefined) return found;
  const made: AssignedTask = {
    id: task.id,
    serviceId: task.serviceId,
    serviceName: task.serviceName,
    slot: task.slot,
    nodeId: task.nodeId ?? "",
    spec: task.spec,
    desired: task.desired,
    attachments: task.attachments,
    serviceLabels: task.serviceLabels,
  };
  assigned.set(task, made);
  return made;
}
const assigned = new WeakMap<Task, AssignedTask>();

/** The endpoints of a task: one for each network it is attached to, while it is on a known node and not over. */
function peersOf(task: Task, view: View): readonly NetworkPeer[] {
  if (task.nodeId === null || task.attachments.length === 0) return [];
  if (isBefore(task.status.state, "assigned") || isTerminal(task.status.state)) return [];
  const node = view.table("nodes").get(task.nodeId);
  if (node === undefined) return [];
  const { id: taskId, nodeId, serviceName } = task;
  // A name leads to a task only while it serves: not before it runs, nor once it was told to stop.
  const named =
    task.status.state === "running" && !isTerminal(task.desired) && node.state !== "down";
  return task.attachments.map(({ networkId, address, mac, aliases }) => ({
    key: keyOf(networkId, taskId),
    networkId,
    taskId,
    nodeId,
    nodeAddress: endpointOf(node),
    address,
    mac,
    serviceName,
    containerName: taskName(task),
    aliases,
    named,
  }));
}

function keyOf(networkId: string, taskId: string): string {
  return `${networkId}/${taskId}`;
}

/** Where VXLAN frames reach the node. */
function endpointOf(node: Node): string {
  return node.description?.dataPathAddress ?? node.address;
}

function isSameEndpoint(before: Node | null, after: Node | null): boolean {
  if (before === null || after === null) return before === after;
  return (
    endpointOf(before) === endpointOf(after) &&
    (before.state === "down") === (after.state === "down")
  );
}

/** Where in its life a task is, as far as others care: not placed, on its way, running, over. */
function phaseOf({ status: { state } }: Task): number {
  if (isBefore(state, "assigned")) return 0;
  if (isTerminal(state)) return 3;
  return state === "running" ? 2 : 1;
}

function isSameForPeers(before: Task | null, after: Task | null): boolean {
  if (before === null || after === null) return before === after;
  return (
    before.nodeId === after.nodeId &&
    before.attachments === after.attachments &&
    phaseOf(before) === phaseOf(after) &&
    isTerminal(before.desired) === isTerminal(after.desired)
  );
}

function isSameForItsNode(before: Task | null, after: Task | null): boolean {
  if (before === null || after === null) return before === after;
  return (
    before.nodeId === after.nodeId &&
    before.desired === after.desired &&
    before.spec === after.spec &&
    before.attachments === after.attachments &&
    isTerminal(before.status.state) === isTerminal(after.status.state) &&
    isBefore(before.status.state, "assigned") === isBefore(after.status.state, "assigned")
  );
}

/** The spec, name and slot of a task never change. */
function isSameTask(have: AssignedTask, want: AssignedTask): boolean {
  return (
    have === want ||
    (have.desired === want.desired && isSamePlain(have.attachments, want.attachments))
  );
}

/** The cursor and the versions are the managers' own affair: they change with each address given out. */
function isSameNetwork(have: Network, want: Network): boolean {
  return (
    have === want ||
    (have.vni === want.vni &&
      have.subnet === want.subnet &&
      have.gateway === want.gateway &&
      have.mtu === want.mtu &&
      isSamePlain(have.spec, want.spec))
  );
}

function isSamePeer(have: NetworkPeer, want: NetworkPeer): boolean {
  return (
    have === want ||
    (have.nodeId === want.nodeId &&
      have.nodeAddress === want.nodeAddress &&
      have.address === want.address &&
      have.mac === want.mac &&
      have.named === want.named &&
      have.serviceName === want.serviceName &&
      have.containerName === want.containerName &&
      isSamePlain(have.aliases, want.aliases))
  );
}

function isSamePlain(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

function changed<V>(
  have: ReadonlyMap<string, V>,
  want: ReadonlyMap<string, V>,
  isSame: (a: V, b: V) => boolean,
): V[] {
  const found: V[] = [];
  for (const [key, wanted] of want) {
    const old = have.get(key);
    if (old === undefined || !isSame(old, wanted)) found.push(wanted);
  }
  return found;
}

function missing(have: ReadonlyMap<string, unknown>, want: ReadonlyMap<string, unknown>): string[] {
  return [...have.keys()].filter((key) => !want.has(key));
}

function isEmpty({ put, remove }: AssignmentDiff): boolean {
  return [put.tasks, put.networks, put.peers, remove.tasks, remove.networks, remove.peers].every(
    (list) => list.length === 0,
  );
}
