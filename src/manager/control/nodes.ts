/** Nodes: change what is wanted of one, remove one that is gone. */
import type { Node, NodeSpec } from "../../model/node.ts";
import { validateNodeSpec } from "../../model/validate.ts";
import type { RaftStatus } from "../../raft/types.ts";
import type { ActionGroup, View } from "../../store/types.ts";
import { quorumWithout } from "../raft-membership.ts";
import { managerCount } from "../roles.ts";
import { put, removal, rpcError, withoutMeta } from "./commit.ts";
import { lookUp } from "./lookup.ts";
import { theCluster } from "./swarm.ts";

/** The node with a new spec. A demotion that would leave no manager, or no majority, is refused. */
export function updateNode(
  view: View,
  reference: string,
  version: number,
  spec: NodeSpec,
  raft: RaftStatus,
): { readonly node: Node; readonly group: ActionGroup } {
  const node = lookUp(view, "nodes", reference);
  validateNodeSpec(spec);
  if (node.meta.version !== version) throw rpcError("out-of-sequence", "update out of sequence");
  if (node.spec.role === "manager" && spec.role === "worker") {
    if (managerCount(view) === 1) {
      throw rpcError("failed-precondition", "attempting to demote the last manager of the swarm");
    }
    if (
      node.manager !== null &&
      raft.role === "leader" &&
      !quorumWithout(raft, node.manager.raftId)
    ) {
      throw rpcError(
        "failed-precondition",
        "can't remove member from the raft: this would result in a loss of quorum",
      );
    }
  }
  return { node, group: [put("nodes", { ...withoutMeta(node), spec }, version)] };
}

/** The node's row gone and its certificate refused from now on. One that is up needs `force`; a manager is demoted first. */
export function removeNode(
  view: View,
  reference: string,
  force: boolean,
): { readonly node: Node; readonly group: ActionGroup } {
  const node = lookUp(view, "nodes", reference);
  if (node.spec.role === "manager" || node.manager !== null) {
    throw rpcError(
      "failed-precondition",
      `node ${node.id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal`,
    );
  }
  if (!force && node.state === "ready") {
    throw rpcError("failed-precondition", `node ${node.id} is not down and can't be removed`);
  }
  const cluster = theCluster(view);
  const removedNodes = [...cluster.removedNodes, node.id];
  return {
    node,
    group: [
      removal("nodes", node),
      put("clusters", { ...withoutMeta(cluster), removedNodes }, cluster.meta.version),
    ],
  };
}
