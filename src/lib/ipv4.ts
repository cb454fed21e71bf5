/** IPv4 addresses and blocks as numbers that can be compared. */

/** An address as an unsigned 32-bit number. */
export type Ipv4 = number;

/** A block of addresses. */
export interface Cidr {
  /** Its first address: the bits behind the prefix are zero. */
  readonly base: Ipv4;
  readonly prefixLength: number;
}

const octet = /^(0|[1-9]\d{0,2})$/;

/** The address of dotted text; null when it is none. Octets with leading zeros are refused, as Go's net.ParseIP does. */
export function parseIpv4(text: string): Ipv4 | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  let address = 0;
  for (const part of parts) {
    if (!octet.test(part)) return null;
    const value = Number(part);
    if (value > 255) return null;
    address = address * 256 + value;
  }
  return address;
}

/** Dotted text of an address. */
export function formatIpv4(address: Ipv4): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join(".");
}

/** The address and the block of `a.b.c.d/n` (10.0.1.5/24 lies in 10.0.1.0/24); null when the text is none. */
export function parseCidr(text: string): { readonly address: Ipv4; readonly block: Cidr } | null {
  const [before, after, more] = text.split("/");
  if (before === undefined || after === undefined || more !== undefined) return null;
  const address = parseIpv4(before);
  if (address === null || !octet.test(after)) return null;
  const prefixLength = Number(after);
  if (prefixLength > 32) return null;
  return { address, block: blockAround(address, prefixLength) };
}

/** `base/n`. */
export function formatCidr(block: Cidr): string {
  return `${formatIpv4(block.base)}/${block.prefixLength}`;
}

/** The block of that length in which the address lies. */
export function blockAround(address: Ipv4, prefixLength: number): Cidr {
  const size = 2 ** (32 - prefixLength);
  return { base: address - (address % size), prefixLength };
}

/** How many addresses a block has, its first and last ones included. */
export function sizeOf(block: Cidr): number {
  return 2 ** (32 - block.prefixLength);
}

/** The last address of a block: its broadcast address. */
export function lastOf(block: Cidr): Ipv4 {
  return block.base + sizeOf(block) - 1;
}

/** True when the address lies in the block. */
export function contains(block: Cidr, address: Ipv4): boolean {
  return address >= block.base && address <= lastOf(block);
}

/** True when the blocks share an address. */
export function overlaps(a: Cidr, b: Cidr): boolean {
  return a.base <= lastOf(b) && b.base <= lastOf(a);
}
