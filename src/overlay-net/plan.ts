/** From what a node was assigned to the kernel's networks it should have: pure, so that the same rule runs in the simulator. */
import { assert } from "../lib/assert.ts";
import type { Network } from "../model/network.ts";
import type { Attachment } from "../model/task.ts";
import type { NetworkPeer } from "../wire/session.ts";

/** A task of this node that needs its networks, and its container once there is one. */
export interface LocalTask {
  readonly taskId: string;
  readonly containerId: string | null;
  readonly attachments: readonly Attachment[];
}
export interface PlanInput {
  readonly nodeId: string;
  /** VTEP of this node: IPv4. */
  readonly localAddress: string;
  readonly dataPathPort: number;
  readonly networks: readonly Network[];
  readonly peers: readonly NetworkPeer[];
  readonly tasks: readonly LocalTask[];
}
export interface WantedPort {
  /** Name of the veth in the sandbox. */
  readonly port: string;
  readonly containerId: string;
  /** Name of the interface in the container. */
  readonly name: string;
  /** `a.b.c.d/len`. */
  readonly address: string;
  readonly mac: string;
  readonly mtu: number;
}
/** One network on this node. */
export interface WantedSandbox {
  readonly sandbox: string;
  readonly networkId: string;
  readonly bridge: { readonly address: string; readonly mtu: number };
  readonly vxlan: {
    readonly vni: number;
    readonly local: string;
    readonly port: number;
    readonly mtu: number;
  };
  readonly ports: readonly WantedPort[];
  /** MAC -> VTEP of its node; remote endpoints only. */
  readonly fdb: ReadonlyMap<string, string>;
  /** Address -> MAC; remote endpoints only. */
  readonly neighbours: ReadonlyMap<string, string>;
}
/** By sandbox name. */
export type NetworkState = ReadonlyMap<string, WantedSandbox>;

/** Prefix of all our sandboxes: what has it and is not wanted is removed. */
export const sandboxPrefix = "ov-";
/** Interface names have at most 15 characters: one letter and these digits of the container's id. */
const portDigits = 12;

/** `ov-001000` for VNI 4096. */
export function sandboxName(vni: number): string {
  return `${sandboxPrefix}${vni.toString(16).padStart(6, "0")}`;
}

/** Name of a container's port in a sandbox. */
export function portName(containerId: string): string {
  return `v${containerId.slice(0, portDigits)}`;
}

/** The networks that `tasks` need. A network that a task names and that is not known yet is left out: its task waits. */
export function planNetworks(input: PlanInput): NetworkState {
  const state = new Map<string, WantedSandbox>();
  const peersOf = groupBy(input.peers, (peer) => peer.networkId);
  for (const network of input.networks) {
    const users = input.tasks.filter((task) => attachmentOf(task, network.id) !== undefined);
    if (users.length === 0) continue;
    const fdb = new Map<string, string>();
    const neighbours = new Map<string, string>();
    for (const peer of peersOf.get(network.id) ?? []) {
      if (peer.nodeId === input.nodeId) continue;
      fdb.set(peer.mac, peer.nodeAddress);
      neighbours.set(peer.address, peer.mac);
    }
    state.set(sandboxName(network.vni), {
      sandbox: sandboxName(network.vni),
      networkId: network.id,
      bridge: { address: `${network.gateway}/${prefixOf(network.subnet)}`, mtu: network.mtu },
      vxlan: {
        vni: network.vni,
        local: input.localAddress,
        port: input.dataPathPort,
        mtu: network.mtu,
      },
      ports: users.flatMap((task) => portOf(task, network)),
      fdb,
      neighbours,
    });
  }
  return state;
}

function portOf(task: LocalTask, network: Network): readonly WantedPort[] {
  if (task.containerId === null) return [];
  const at = task.attachments.findIndex((item) => item.networkId === network.id);
  const attachment = task.attachments[at];
  assert(attachment !== undefined, `task ${task.taskId} is attached to ${network.id}`);
  return [
    {
      port: portName(task.containerId),
      containerId: task.containerId,
      name: `eth${at}`,
      address: `${attachment.address}/${attachment.prefixLength}`,
      mac: attachment.mac,
      mtu: network.mtu,
    },
  ];
}

function attachmentOf(task: LocalTask, networkId: string): Attachment | undefined {
  return task.attachments.find((item) => item.networkId === networkId);
}

function prefixOf(subnet: string): string {
  return subnet.slice(subnet.indexOf("/") + 1);
}

function groupBy<T>(
  items: readonly T[],
  keyOf: (item: T) => string,
): ReadonlyMap<string, readonly T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}
