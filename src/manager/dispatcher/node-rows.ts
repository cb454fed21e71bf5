/** What the dispatcher reads from and writes to the rows of nodes and of their cluster. */
import type { Cluster } from "../../model/cluster.ts";
import type { Node } from "../../model/node.ts";
import type { Action, View } from "../../store/types.ts";

/** The cluster's row, once there is one. */
export function clusterOf(view: View): Cluster | null {
  const [cluster] = view.table("clusters").by("name", "default");
  return cluster ?? null;
}

/** `host:port` of every manager. */
export function managersOf(view: View): readonly string[] {
  const found: string[] = [];
  for (const node of view.table("nodes").all()) {
    if (node.manager !== null) found.push(node.manager.address);
  }
  return found;
}

/** Where the node is: its own word, with the host it is seen under where it listens on every address. */
export function addressOf(
  listening: string,
  seen: string,
  node: Node,
): Pick<Node, "address" | "clusterAddress"> {
  const colon = listening.lastIndexOf(":");
  if (colon < 0) return { address: node.address, clusterAddress: node.clusterAddress };
  const host = listening.slice(0, colon);
  if (!["", "0.0.0.0", "[::]"].includes(host)) return { address: host, clusterAddress: listening };
  // An agent beside its own manager is seen under an address that leads nobody else there.
  const known = seen === "" || seen.startsWith("127.") ? node.address : seen;
  return { address: known, clusterAddress: known + listening.slice(colon) };
}

/** Writes a node with some fields changed; null when they are so already. */
export function putNode(node: Node, changed: Partial<Omit<Node, "id" | "meta">>): Action | null {
  const { meta, ...row } = node;
  const next = { ...row, ...changed };
  if (JSON.stringify(sorted(next)) === JSON.stringify(sorted(row))) return null;
  return { table: "nodes", kind: "put", row: next, expect: meta.version };
}

/** Plain data with its keys in order: a row that was decoded has them in another one. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, member]) => [key, sorted(member)]));
}
