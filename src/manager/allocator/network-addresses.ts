/** The free addresses of all networks, as one decision finds and takes them. */
import { assert } from "../../lib/assert.ts";
import { type Cidr, formatIpv4, parseCidr, parseIpv4 } from "../../lib/ipv4.ts";
import type { Network } from "../../model/network.ts";
import type { Attachment, NetworkAttachmentSpec, Task } from "../../model/task.ts";
import { isTerminal } from "../../model/task-state.ts";
import { AddressPool, macOf } from "../../overlay-net/addresses.ts";
import type { Action, View } from "../../store/types.ts";

export type AttachResult =
  | { readonly kind: "given"; readonly attachments: readonly Attachment[] }
  /** Nothing was taken, and this is why, in words for the user. */
  | { readonly kind: "waits"; readonly reason: string };

export class NetworkAddresses {
  readonly #view: View;
  readonly #networks = new Map<string, OpenNetwork | null>();

  /** Used within one reading of `view`. */
  constructor(view: View) {
    this.#view = view;
  }

  /** An address on each of the task's networks, or on none of them. */
  attach(task: Task): AttachResult {
    const wanted: { readonly spec: NetworkAttachmentSpec; readonly network: OpenNetwork }[] = [];
    for (const spec of distinct(task.spec.networks)) {
      const network = this.#open(spec.target);
      if (network === null) {
        return { kind: "waits", reason: `network ${spec.target} does not exist` };
      }
      const { capacity, usedCount } = network.pool;
      if (usedCount >= capacity) {
        const name = network.row.spec.name;
        const reason = `no free IP in network ${name} (${usedCount}/${capacity} in use)`;
        return { kind: "waits", reason };
      }
      wanted.push({ spec, network });
    }
    return { kind: "given", attachments: wanted.map(({ spec, network }) => take(network, spec)) };
  }

  /** Writes where the next search on these networks starts. */
  cursorsOf(networkIds: Iterable<string>): readonly Action[] {
    const actions: Action[] = [];
    for (const id of networkIds) {
      const network = this.#networks.get(id);
      assert(network !== undefined && network !== null, `network ${id} gave an address`);
      const row = { ...network.row, cursor: formatIpv4(network.pool.cursor) };
      actions.push({ table: "networks", kind: "put", row, expect: network.row.meta.version });
    }
    return actions;
  }

  #open(id: string): OpenNetwork | null {
    const known = this.#networks.get(id);
    if (known !== undefined) return known;
    const row = this.#view.table("networks").get(id);
    const opened = row === undefined ? null : open(row, usedAddresses(this.#view, id));
    this.#networks.set(id, opened);
    return opened;
  }
}

interface OpenNetwork {
  readonly row: Network;
  readonly subnet: Cidr;
  readonly pool: AddressPool;
}

function open(row: Network, used: Iterable<number>): OpenNetwork {
  const subnet = parseCidr(row.subnet)?.block;
  const gateway = parseIpv4(row.gateway);
  assert(
    subnet !== undefined && gateway !== null,
    `network ${row.id} has a subnet and a gateway, not ${row.subnet} and ${row.gateway}`,
  );
  const cursor = parseIpv4(row.cursor) ?? gateway;
  return { row, subnet, pool: new AddressPool(subnet, gateway, cursor, used) };
}

/** Addresses on the network of tasks that are not over. */
function* usedAddresses(view: View, networkId: string): Generator<number> {
  for (const task of view.table("tasks").by("network", networkId)) {
    if (isTerminal(task.status.state)) continue;
    for (const attachment of task.attachments) {
      if (attachment.networkId !== networkId) continue;
      const address = parseIpv4(attachment.address);
      if (address !== null) yield address;
    }
  }
}

function take(network: OpenNetwork, spec: NetworkAttachmentSpec): Attachment {
  const address = network.pool.take();
  assert(address !== null, `network ${network.row.id} has room, as was seen before`);
  return {
    networkId: network.row.id,
    address: formatIpv4(address),
    prefixLength: network.subnet.prefixLength,
    mac: macOf(address),
    aliases: spec.aliases,
  };
}

/** A network that is named twice gives one address. */
function distinct(specs: readonly NetworkAttachmentSpec[]): readonly NetworkAttachmentSpec[] {
  return [...new Map(specs.map((spec) => [spec.target, spec])).values()];
}
