/** What this node is assigned, kept from whole sets and differences: each message becomes the change that it means. */
import type { Network } from "../model/network.ts";
import type { AssignedTask, NetworkPeer, ToAgent } from "../wire/session.ts";
import type { AssignmentChange, WorkerState } from "./worker-db.ts";

export interface Held {
  readonly revision: number;
  readonly tasks: ReadonlyMap<string, AssignedTask>;
  readonly networks: ReadonlyMap<string, Network>;
  readonly peers: ReadonlyMap<string, NetworkPeer>;
}
/** What is held after a message, and what that changed. */
export interface Taken {
  readonly held: Held;
  readonly change: AssignmentChange;
  readonly removedTasks: readonly string[];
}
type AssignAll = Extract<ToAgent, { readonly kind: "assign-all" }>;
type AssignDiff = Extract<ToAgent, { readonly kind: "assign-diff" }>;

/** What was held when the process ended. */
export function heldFrom(state: WorkerState): Held {
  return {
    revision: state.revision,
    tasks: new Map(state.tasks.map((item) => [item.id, item])),
    networks: new Map(state.networks.map((item) => [item.id, item])),
    peers: new Map(state.peers.map((item) => [item.key, item])),
  };
}

/** The whole set: what it lacks is gone. */
export function takeAll(held: Held, message: AssignAll): Taken {
  const { set, revision } = message;
  const next: Held = {
    revision,
    tasks: new Map(set.tasks.map((item) => [item.id, item])),
    networks: new Map(set.networks.map((item) => [item.id, item])),
    peers: new Map(set.peers.map((item) => [item.key, item])),
  };
  return {
    held: next,
    removedTasks: missing(held.tasks, next.tasks),
    change: {
      revision,
      putTasks: changed(held.tasks, next.tasks),
      putNetworks: changed(held.networks, next.networks),
      removeNetworks: missing(held.networks, next.networks),
      putPeers: changed(held.peers, next.peers),
      removePeers: missing(held.peers, next.peers),
    },
  };
}

/** A difference; null when it builds on another revision than the one held: a gap. */
export function takeDiff(held: Held, message: AssignDiff): Taken | null {
  if (message.from !== held.revision) return null;
  const { put, remove, revision } = message;
  return {
    held: {
      revision,
      tasks: merged(held.tasks, put.tasks, (item) => item.id, remove.tasks),
      networks: merged(held.networks, put.networks, (item) => item.id, remove.networks),
      peers: merged(held.peers, put.peers, (item) => item.key, remove.peers),
    },
    removedTasks: remove.tasks.filter((id) => held.tasks.has(id)),
    change: {
      revision,
      putTasks: put.tasks,
      putNetworks: put.networks,
      removeNetworks: remove.networks,
      putPeers: put.peers,
      removePeers: remove.peers,
    },
  };
}

function merged<T>(
  held: ReadonlyMap<string, T>,
  put: readonly T[],
  keyOf: (item: T) => string,
  remove: readonly string[],
): ReadonlyMap<string, T> {
  const next = new Map(held);
  for (const key of remove) next.delete(key);
  for (const item of put) next.set(keyOf(item), item);
  return next;
}

function missing<T>(held: ReadonlyMap<string, T>, next: ReadonlyMap<string, T>): readonly string[] {
  return [...held.keys()].filter((key) => !next.has(key));
}

function changed<T>(held: ReadonlyMap<string, T>, next: ReadonlyMap<string, T>): readonly T[] {
  // Both come from the same writer, so equal values have equal text; a false difference only writes once more.
  return [...next].flatMap(([key, item]) =>
    JSON.stringify(held.get(key)) === JSON.stringify(item) ? [] : [item],
  );
}
