/** Addresses of machines: one subnet for each storage path, gateway first, one fixed address a machine. */
import { failure } from "../lib/errors.ts";

/** Lives inside the machines' own network namespaces only. */
export const defaultMachineSubnet = "10.77.0.0/24";

export interface Subnet {
  /** First address, as a number. */
  readonly base: number;
  readonly prefixLength: number;
}

/** Reads `A.B.C.D/N`; N is 8 to 29, so that a gateway and some machines fit. Throws `invalid`. */
export function parseSubnet(text: string): Subnet {
  const [address, length, ...rest] = text.split("/");
  const prefixLength = Number(length);
  if (
    address === undefined ||
    rest.length > 0 ||
    !/^\d{1,2}$/.test(length ?? "") ||
    prefixLength < 8 ||
    prefixLength > 29
  ) {
    throw failure("invalid", `invalid subnet ${text}: say ADDRESS/LENGTH with a length of 8 to 29`);
  }
  const base = parseAddress(address);
  if (base % 2 ** (32 - prefixLength) !== 0) {
    throw failure("invalid", `invalid subnet ${text}: the address has bits beyond its length`);
  }
  return { base, prefixLength };
}

/** The number of a dotted IPv4 address. Throws `invalid`. */
export function parseAddress(text: string): number {
  const parts = text.split(".");
  if (parts.length !== 4 || parts.some((part) => !/^(0|[1-9]\d{0,2})$/.test(part))) {
    throw failure("invalid", `invalid address ${JSON.stringify(text)}: say four numbers, A.B.C.D`);
  }
  let value = 0;
  for (const part of parts) {
    if (Number(part) > 255)
      throw failure("invalid", `invalid address ${text}: ${part} is over 255`);
    value = value * 256 + Number(part);
  }
  return value;
}

/** Dotted form of an address. */
export function formatAddress(value: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join(".");
}

/** The address of the switch: the first one of the subnet. */
export function gatewayOf(subnet: Subnet): string {
  return formatAddress(subnet.base + 1);
}

/**
 * The address of a new machine: `wanted` when given, else the lowest that nobody in `taken` has.
 * Throws `invalid` for one outside the subnet, `conflict` for one in use or when none is left.
 */
export function chooseAddress(
  subnet: Subnet,
  taken: ReadonlySet<string>,
  wanted: string | null,
): string {
  const first = subnet.base + 2;
  const last = subnet.base + 2 ** (32 - subnet.prefixLength) - 2;
  const range = `${formatAddress(first)} to ${formatAddress(last)}`;
  if (wanted !== null) {
    const value = parseAddress(wanted);
    if (value < first || value > last) {
      throw failure(
        "invalid",
        `address ${wanted} is not free for machines: choose one of ${range}`,
      );
    }
    if (taken.has(formatAddress(value))) {
      throw failure("conflict", `address ${wanted} belongs to another machine; choose another`);
    }
    return formatAddress(value);
  }
  for (let value = first; value <= last; value += 1) {
    const address = formatAddress(value);
    if (!taken.has(address)) return address;
  }
  throw failure("conflict", `every address from ${range} belongs to a machine; remove one first`);
}
