/** Controller of roles: gives a promoted node its Raft id, and takes a demoted one's record away once Raft let it go. */
import type { Node } from "../model/node.ts";
import type { PeerId } from "../raft/types.ts";
import type { Action, View } from "../store/types.ts";
import { type Controller, type Decision, quiet } from "./controller.ts";

/** `members` are the peers of Raft's membership as applied here; it is asked anew each time. */
export function createRolesController(members: () => ReadonlySet<PeerId>): Controller {
  return {
    name: "roles",
    *keysOf(change) {
      if (change.table === "nodes" && change.after !== null) yield change.after.id;
    },
    *keysAtStart(view) {
      for (const node of view.table("nodes").all()) yield node.id;
    },
    reconcile(key, view, now, random): Decision {
      const node = view.table("nodes").get(key);
      if (node === undefined) return quiet;
      if (node.spec.role === "manager" && node.manager === null && node.clusterAddress !== "") {
        return put(node, { raftId: random.id(), address: node.clusterAddress });
      }
      if (node.spec.role === "worker" && node.manager !== null) {
        if (!members().has(node.manager.raftId)) return put(node, null);
        return { groups: [], lookAgainAt: (now + lookAgainMs) as typeof now };
      }
      if (
        node.manager !== null &&
        node.clusterAddress !== "" &&
        node.manager.address !== node.clusterAddress
      ) {
        return put(node, { ...node.manager, address: node.clusterAddress });
      }
      return quiet;
    },
  };
}

/** How soon to look whether Raft let a demoted manager go. */
const lookAgainMs = 200;

function put(node: Node, manager: Node["manager"]): Decision {
  const { meta, ...row } = node;
  const action: Action = {
    table: "nodes",
    kind: "put",
    row: { ...row, manager },
    expect: meta.version,
  };
  return { groups: [[action]], lookAgainAt: null };
}

/** How many managers the rows want. */
export function managerCount(view: View): number {
  let count = 0;
  for (const node of view.table("nodes").all()) if (node.spec.role === "manager") count += 1;
  return count;
}
