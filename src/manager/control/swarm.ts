/** The cluster row: made once, changed by version, its tokens rotated. And the node rows of those who join. */

import { present } from "../../lib/assert.ts";
import { failure } from "../../lib/errors.ts";
import type { Random } from "../../lib/random.ts";
import type { Cluster, ClusterSpec } from "../../model/cluster.ts";
import type { Network } from "../../model/network.ts";
import type { Availability, Node, NodeRole } from "../../model/node.ts";
import { validateClusterSpec } from "../../model/validate.ts";
import type { ActionGroup, View } from "../../store/types.ts";
import type { RootCa } from "../ca/authority.ts";
import { createToken } from "../ca/join-token.ts";
import { put, rpcError, withoutMeta } from "./commit.ts";

/** The one cluster row. It is there from the first entry on. */
export function theCluster(view: View): Cluster {
  for (const cluster of view.table("clusters").all()) return cluster;
  throw failure(
    "unavailable",
    "this manager has not received the cluster's state yet; try again in a moment",
  );
}

export interface NewCluster {
  readonly id: string;
  readonly spec: ClusterSpec;
  readonly root: RootCa;
  readonly addressPools: readonly string[];
  readonly subnetSize: number;
  readonly dataPathPort: number;
  /** Named subnet of the ingress network: the first of the pools. */
  readonly ingressSubnet: { readonly subnet: string; readonly gateway: string };
}

/** The first write of a cluster: its row, its first node, the ingress network. */
export function createCluster(
  cluster: NewCluster,
  first: JoiningNode,
  random: Random,
): ActionGroup {
  validateClusterSpec(cluster.spec);
  const row: Omit<Cluster, "meta"> = {
    id: cluster.id,
    spec: cluster.spec,
    rootCa: cluster.root,
    joinTokens: {
      worker: createToken(cluster.root.digest, random),
      manager: createToken(cluster.root.digest, random),
    },
    addressPools: cluster.addressPools,
    subnetSize: cluster.subnetSize,
    dataPathPort: cluster.dataPathPort,
    removedNodes: [],
  };
  const ingress: Omit<Network, "meta"> = {
    id: random.id(),
    spec: {
      name: "ingress",
      labels: {},
      driver: "overlay",
      driverOptions: {},
      internal: false,
      attachable: false,
      ingress: true,
      subnet: null,
      gateway: null,
    },
    vni: 4096,
    subnet: cluster.ingressSubnet.subnet,
    gateway: cluster.ingressSubnet.gateway,
    mtu: 1450,
    cursor: cluster.ingressSubnet.gateway,
  };
  return [
    put("clusters", row, null),
    put("nodes", nodeRow(first), null),
    put("networks", ingress, null),
  ];
}

export interface JoiningNode {
  readonly id: string;
  readonly role: NodeRole;
  readonly availability: Availability;
  readonly address: string;
  /** `host:port` where it listens. */
  readonly clusterAddress: string;
  /** For managers. */
  readonly raftId: string | null;
}

/** The write that takes a node in. */
export function joinNode(node: JoiningNode): ActionGroup {
  return [put("nodes", nodeRow(node), null)];
}

function nodeRow(node: JoiningNode): Omit<Node, "meta"> {
  return {
    id: node.id,
    spec: { name: "", labels: {}, role: node.role, availability: node.availability },
    description: null,
    state: "unknown",
    stateMessage: "",
    address: node.address,
    clusterAddress: node.clusterAddress,
    role: node.role,
    manager:
      node.role === "manager"
        ? { raftId: present(node.raftId, "a manager's raft id"), address: node.clusterAddress }
        : null,
  };
}

/** The cluster with a new spec and, as asked, new tokens. */
export function updateCluster(
  view: View,
  version: number,
  spec: ClusterSpec,
  rotate: { readonly workerToken: boolean; readonly managerToken: boolean },
  random: Random,
): ActionGroup {
  const cluster = theCluster(view);
  if (cluster.meta.version !== version) throw rpcError("out-of-sequence", "update out of sequence");
  validateClusterSpec(spec);
  if (spec.name !== cluster.spec.name)
    throw rpcError("invalid", "renaming clusters is not supported");
  const { worker, manager } = cluster.joinTokens;
  const { digest } = cluster.rootCa;
  const joinTokens = {
    worker: rotate.workerToken ? createToken(digest, random) : worker,
    manager: rotate.managerToken ? createToken(digest, random) : manager,
  };
  return [put("clusters", { ...withoutMeta(cluster), spec, joinTokens }, version)];
}
