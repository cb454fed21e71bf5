/** Which addresses and subnets of an overlay network are given out next, and which hardware address goes with one. */
import { assert } from "../lib/assert.ts";
import {
  type Cidr,
  contains,
  formatIpv4,
  type Ipv4,
  lastOf,
  overlaps,
  sizeOf,
} from "../lib/ipv4.ts";

/** 02:42 and the address, as Docker's overlay: whoever knows the one knows the other. */
export function macOf(address: Ipv4): string {
  const octets = [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff);
  return ["02", "42", ...octets.map((value) => value.toString(16).padStart(2, "0"))].join(":");
}

/** The gateway of a subnet that asks for none: its first address behind the network's own. */
export function defaultGateway(subnet: Cidr): Ipv4 {
  return subnet.base + 1;
}

/** True when an endpoint or gateway may have this address: in the subnet, and neither its network nor its broadcast address. */
export function isHostAddress(subnet: Cidr, address: Ipv4): boolean {
  return contains(subnet, address) && address !== subnet.base && address !== lastOf(subnet);
}

/**
 * The addresses of one subnet for as long as one decision takes. Next-fit: the search starts behind the address that was
 * given out last and goes round, so that a freed address rests as long as possible before somebody else has it.
 */
export class AddressPool {
  readonly #subnet: Cidr;
  readonly #gateway: Ipv4;
  readonly #used: Set<Ipv4>;
  #cursor: Ipv4;

  /** `used` are the addresses of endpoints; others than host addresses of the subnet do not count. */
  constructor(subnet: Cidr, gateway: Ipv4, cursor: Ipv4, used: Iterable<Ipv4>) {
    assert(isHostAddress(subnet, gateway), `gateway ${formatIpv4(gateway)} is a host address`);
    this.#subnet = subnet;
    this.#gateway = gateway;
    this.#cursor = contains(subnet, cursor) ? cursor : subnet.base;
    this.#used = new Set();
    for (const address of used) {
      if (isHostAddress(subnet, address) && address !== gateway) this.#used.add(address);
    }
  }

  /** How many endpoints fit: all addresses but the network's, the broadcast's and the gateway's. */
  get capacity(): number {
    return sizeOf(this.#subnet) - 3;
  }
  get usedCount(): number {
    return this.#used.size;
  }
  /** The address that was given out last. */
  get cursor(): Ipv4 {
    return this.#cursor;
  }

  /** The next free address, which is used from now on; null when there is none. */
  take(): Ipv4 | null {
    if (this.#used.size >= this.capacity) return null;
    let address = this.#cursor;
    do {
      address = address >= lastOf(this.#subnet) ? this.#subnet.base : address + 1;
    } while (!this.#isFree(address));
    this.#used.add(address);
    this.#cursor = address;
    return address;
  }

  #isFree(address: Ipv4): boolean {
    return (
      address !== this.#gateway && isHostAddress(this.#subnet, address) && !this.#used.has(address)
    );
  }
}

/** The first block of that length in the pools, in their order, that overlaps none of `taken`; null when all are taken. */
export function firstFreeSubnet(
  pools: readonly Cidr[],
  prefixLength: number,
  taken: readonly Cidr[],
): Cidr | null {
  const size = 2 ** (32 - prefixLength);
  for (const pool of pools) {
    const inTheWay = taken.filter((block) => overlaps(block, pool)).sort((a, b) => a.base - b.base);
    let base = pool.base;
    for (const block of inTheWay) {
      if (base + size - 1 < block.base) break;
      // The first whole block behind this one; blocks that lie inside an earlier one change nothing.
      base = Math.max(base, Math.ceil((lastOf(block) + 1) / size) * size);
    }
    if (base + size - 1 <= lastOf(pool)) return { base, prefixLength };
  }
  return null;
}
