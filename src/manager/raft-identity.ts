/** Whether the holder of a manager's certificate may be the Raft peer that it says it is: pure, from the node rows. */
import type { PeerId } from "../raft/types.ts";
import type { View } from "../store/types.ts";

/**
 * Why node `nodeId` may not greet as Raft peer `peer`, or null when it may.
 *
 * A Raft id belongs to one node for ever: a row that gives it to another node is enough, however old the row is. What
 * else the rows say may be old: a manager that is far behind must still accept a leader that was promoted since. So a
 * node that its row does not make a manager, or makes another peer, is refused only while this manager follows a
 * leader (`hasLeader`), who keeps its rows up to date; whoever was promoted rightly dials again until they are.
 */
export function peerObjection(
  view: View,
  hasLeader: boolean,
  nodeId: string,
  peer: PeerId,
): string | null {
  const nodes = view.table("nodes");
  for (const node of nodes.all()) {
    if (node.manager?.raftId !== peer) continue;
    return node.id === nodeId
      ? null
      : `raft peer ${peer} is node ${node.id}, the certificate is that of node ${nodeId}`;
  }
  const row = nodes.get(nodeId);
  if (row === undefined || !hasLeader) return null;
  return row.manager === null
    ? `node ${nodeId} is no manager`
    : `node ${nodeId} is raft peer ${row.manager.raftId}, not ${peer}`;
}
