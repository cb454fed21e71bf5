/** The address pools that a cluster is founded with. */
import { failure } from "../../lib/errors.ts";
import { type Cidr, formatCidr, formatIpv4, overlaps, parseCidr } from "../../lib/ipv4.ts";
import { defaultGateway, firstFreeSubnet } from "../../overlay-net/addresses.ts";

/** Throws ShoalError("invalid") when a pool is malformed, overlaps another, or lies over one of the host's routes. */
export function validatePools(
  pools: readonly string[],
  subnetSize: number,
  routes: readonly string[],
): void {
  if (!Number.isInteger(subnetSize) || subnetSize < 8 || subnetSize > 29) {
    throw failure("invalid", `invalid subnet size ${subnetSize}: a prefix length from 8 to 29`);
  }
  const seen: Cidr[] = [];
  for (const pool of pools) {
    const parsed = parseCidr(pool);
    if (parsed === null || parsed.address !== parsed.block.base) {
      throw failure(
        "invalid",
        `invalid address pool ${pool}: an IPv4 block such as 10.0.0.0/8, its host bits zero`,
      );
    }
    const { block } = parsed;
    if (block.prefixLength > subnetSize) {
      throw failure("invalid", `address pool ${pool} is smaller than one subnet of /${subnetSize}`);
    }
    const twin = seen.find((other) => overlaps(other, block));
    if (twin !== undefined) {
      throw failure("invalid", `address pools ${formatCidr(twin)} and ${pool} overlap`);
    }
    const route = blocks(routes).find((other) => overlaps(other, block));
    if (route !== undefined) {
      throw failure(
        "invalid",
        `address pool ${pool} overlaps ${formatCidr(route)}, which this host has a route to; choose another with --default-addr-pool`,
      );
    }
    seen.push(block);
  }
}

/** The first subnet of the pools that no route of the host overlaps, and its gateway. */
export function firstSubnet(
  pools: readonly string[],
  subnetSize: number,
  routes: readonly string[],
): { readonly subnet: string; readonly gateway: string } {
  const free = firstFreeSubnet(blocks(pools), subnetSize, blocks(routes));
  if (free === null) {
    throw failure(
      "invalid",
      `the address pools ${pools.join(", ")} hold no subnet that is free on this host`,
    );
  }
  return { subnet: formatCidr(free), gateway: formatIpv4(defaultGateway(free)) };
}

/** Blocks other than the default route, which covers everything and clashes with nothing. */
function blocks(texts: readonly string[]): readonly Cidr[] {
  return texts.flatMap((text) => {
    const block = parseCidr(text)?.block;
    return block === undefined || block.prefixLength === 0 ? [] : [block];
  });
}
