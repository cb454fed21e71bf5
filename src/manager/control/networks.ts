/** Networks: create one with its VNI and subnet, remove one that nothing uses. */
import { failure, ShoalError } from "../../lib/errors.ts";
import type { Random } from "../../lib/random.ts";
import type { Network, NetworkSpec } from "../../model/network.ts";
import { isTerminal } from "../../model/task-state.ts";
import { validateNetworkSpec } from "../../model/validate.ts";
import type { ActionGroup, View } from "../../store/types.ts";
import { planNetwork } from "../allocator/plan-network.ts";
import { put, removal, rpcError } from "./commit.ts";
import { lookUp } from "./lookup.ts";

/** Bytes that VXLAN adds to a packet over IPv4. */
const vxlanOverheadBytes = 50;
/** What the path between nodes carries where no node has said otherwise. */
const underlayMtuDefault = 1500;
const predefined = new Set(["bridge", "host", "none"]);

/** A new network. Of two planned from one view, the store refuses the later one as stale: it is planned again. */
export function createNetwork(
  view: View,
  spec: NetworkSpec,
  random: Random,
): { readonly id: string; readonly group: ActionGroup } {
  validateNetworkSpec(spec);
  if (predefined.has(spec.name)) {
    throw failure("forbidden", `operation is not permitted on predefined ${spec.name} network`);
  }
  for (const _ of view.table("networks").by("name", spec.name.toLowerCase())) {
    throw failure("conflict", `network with name ${spec.name} already exists`);
  }
  const numbers = planNetwork(view, spec);
  if (numbers instanceof ShoalError) throw numbers;
  const { vni, subnet, gateway } = numbers;
  const id = random.id();
  const row = { id, spec, vni, subnet, gateway, mtu: mtuOf(view, spec), cursor: gateway };
  return { id, group: [put("networks", row, null)] };
}

/** The network gone. Refused while a service or a task that is not over uses it. */
export function removeNetwork(
  view: View,
  reference: string,
): { readonly network: Network; readonly group: ActionGroup } {
  const network = lookUp(view, "networks", reference);
  for (const service of view.table("services").by("network", network.id)) {
    throw rpcError(
      "failed-precondition",
      `network ${network.id} is in use by service ${service.id}`,
    );
  }
  for (const task of view.table("tasks").by("network", network.id)) {
    if (!isTerminal(task.status.state)) {
      throw rpcError("failed-precondition", `network ${network.id} is in use by task ${task.id}`);
    }
  }
  return { network, group: [removal("networks", network)] };
}

/** The option, or the smallest of the nodes' paths, less what VXLAN adds (spec/overlay.md 2, 9). */
function mtuOf(view: View, spec: NetworkSpec): number {
  const option = spec.driverOptions["com.docker.network.driver.mtu"];
  if (option !== undefined) {
    const mtu = Number(option);
    if (!Number.isInteger(mtu) || mtu < 68 + vxlanOverheadBytes || mtu > 65_535) {
      throw failure(
        "invalid",
        `invalid value "${option}" for com.docker.network.driver.mtu: bytes, 118 to 65535`,
      );
    }
    return mtu - vxlanOverheadBytes;
  }
  let smallest = underlayMtuDefault;
  for (const node of view.table("nodes").all()) {
    if (node.description !== null) smallest = Math.min(smallest, node.description.underlayMtu);
  }
  return smallest - vxlanOverheadBytes;
}
