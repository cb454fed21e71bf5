/** The numbers of a new network: its VNI, its subnet and its gateway, none of which anything else in the cluster uses. */
import { failure, ShoalError } from "../../lib/errors.ts";
import {
  type Cidr,
  formatCidr,
  formatIpv4,
  overlaps,
  parseCidr,
  parseIpv4,
} from "../../lib/ipv4.ts";
import { defaultAddressPool, defaultSubnetSize } from "../../model/defaults.ts";
import type { NetworkSpec } from "../../model/network.ts";
import { defaultGateway, firstFreeSubnet, isHostAddress } from "../../overlay-net/addresses.ts";
import type { View } from "../../store/types.ts";

/** Below are the numbers that Windows keeps for VLANs (moby daemon/libnetwork/drivers/overlay/ovmanager). */
export const vniMin = 4096;
export const vniMax: number = 2 ** 24 - 1;
/** Shortest and longest prefix of an overlay subnet; the longest leaves five addresses for tasks. */
export const prefixLengthMin = 8;
export const prefixLengthMax = 29;
/** docker's option that asks for a VNI. */
const vniOption = "com.docker.network.driver.overlay.vxlanid_list";

export interface NetworkNumbers {
  readonly vni: number;
  /** CIDR, host bits zero. */
  readonly subnet: string;
  readonly gateway: string;
}

/**
 * Numbers for a network with this spec, or why there are none: ShoalError "invalid" for a malformed wish, "forbidden"
 * for a subnet that overlaps another (docker's status for it), "conflict" for a VNI in use, "unavailable" when the pools
 * or the VNIs are used up. Of two networks that are planned from one view, the store refuses the second
 * as "stale": plan it again from a fresh view.
 */
export function planNetwork(view: View, spec: NetworkSpec): NetworkNumbers | ShoalError {
  const vni = chooseVni(view, spec);
  if (vni instanceof ShoalError) return vni;
  const subnet = chooseSubnet(view, spec);
  if (subnet instanceof ShoalError) return subnet;
  const gateway = chooseGateway(spec, subnet);
  if (gateway instanceof ShoalError) return gateway;
  return { vni, subnet: formatCidr(subnet), gateway };
}

function chooseVni(view: View, spec: NetworkSpec): number | ShoalError {
  const usedBy = new Map<number, string>();
  for (const network of view.table("networks").all()) usedBy.set(network.vni, network.spec.name);
  const wanted = spec.driverOptions[vniOption];
  if (wanted !== undefined) return checkVni(wanted, usedBy, spec);
  for (let vni = vniMin; vni <= vniMax; vni++) {
    if (!usedBy.has(vni)) return vni;
  }
  return failure(
    "unavailable",
    `network ${spec.name}: all VNIs are in use; remove a network first`,
  );
}

function checkVni(
  text: string,
  usedBy: ReadonlyMap<number, string>,
  spec: NetworkSpec,
): number | ShoalError {
  const vni = Number(text);
  if (!/^\d{1,8}$/.test(text) || vni < vniMin || vni > vniMax) {
    return failure(
      "invalid",
      `network ${spec.name}: VNI "${text}" is not one number from ${vniMin} to ${vniMax}; change or leave out ${vniOption}`,
    );
  }
  const user = usedBy.get(vni);
  if (user === undefined) return vni;
  return failure(
    "conflict",
    `network ${spec.name}: VNI ${vni} is in use by network ${user}; choose another one or leave out ${vniOption}`,
  );
}

/** A block that is taken, and by what. */
interface Taken {
  readonly block: Cidr;
  readonly by: string;
}

function chooseSubnet(view: View, spec: NetworkSpec): Cidr | ShoalError {
  const taken = takenBlocks(view);
  if (spec.subnet !== null) return checkSubnet(spec.subnet, taken, spec);
  const [cluster] = view.table("clusters").all();
  const pools = cluster?.addressPools ?? [defaultAddressPool];
  const prefixLength = cluster?.subnetSize ?? defaultSubnetSize;
  const free = firstFreeSubnet(
    pools.flatMap((pool) => parseCidr(pool)?.block ?? []),
    prefixLength,
    taken.map(({ block }) => block),
  );
  if (free !== null) return free;
  return failure(
    "unavailable",
    `network ${spec.name}: no free /${prefixLength} subnet is left in the address pools ${pools.join(", ")}; remove a network, or ask for a subnet elsewhere with --subnet`,
  );
}

/** Subnets of networks, and what the nodes reach by their own routes: a subnet over one of those would cut it off. */
function takenBlocks(view: View): readonly Taken[] {
  const taken: Taken[] = [];
  const add = (text: string, by: string): void => {
    const parsed = parseCidr(text);
    // A default route covers everything and clashes with nothing.
    if (parsed !== null && parsed.block.prefixLength > 0) taken.push({ block: parsed.block, by });
  };
  for (const network of view.table("networks").all()) {
    add(network.subnet, `network ${network.spec.name}`);
  }
  for (const { id, description } of view.table("nodes").all()) {
    if (description === null) continue;
    const name = description.hostname === "" ? id : description.hostname;
    for (const route of description.routes) add(route, `a route of node ${name}`);
    add(`${description.dataPathAddress}/32`, `the address of node ${name}`);
  }
  return taken;
}

function checkSubnet(text: string, taken: readonly Taken[], spec: NetworkSpec): Cidr | ShoalError {
  const parsed = parseCidr(text);
  if (parsed === null) {
    return failure(
      "invalid",
      `network ${spec.name}: invalid subnet ${text}: it is no IPv4 block such as 10.0.9.0/24`,
    );
  }
  const { address, block } = parsed;
  if (block.prefixLength < prefixLengthMin || block.prefixLength > prefixLengthMax) {
    return failure(
      "invalid",
      `network ${spec.name}: invalid subnet ${text}: its prefix must be from /${prefixLengthMin} to /${prefixLengthMax}`,
    );
  }
  if (address !== block.base) {
    return failure(
      "invalid",
      `network ${spec.name}: invalid subnet ${text}: it should be ${formatCidr(block)}`,
    );
  }
  const clash = taken.find((other) => overlaps(other.block, block));
  if (clash === undefined) return block;
  return failure(
    "forbidden",
    `network ${spec.name}: invalid pool request: Pool overlaps with other one on this address space: ${text} overlaps ${formatCidr(clash.block)} of ${clash.by}; choose another subnet`,
  );
}

function chooseGateway(spec: NetworkSpec, subnet: Cidr): string | ShoalError {
  if (spec.gateway === null) return formatIpv4(defaultGateway(subnet));
  const address = parseIpv4(spec.gateway);
  if (address !== null && isHostAddress(subnet, address)) return spec.gateway;
  const first = formatIpv4(defaultGateway(subnet));
  return failure(
    "invalid",
    `network ${spec.name}: invalid gateway ${spec.gateway}: it is no host address of ${formatCidr(subnet)}; use one such as ${first}`,
  );
}
