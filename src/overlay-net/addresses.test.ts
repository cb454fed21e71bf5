/** Next-fit and first-free against plain searches. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Cidr, formatCidr, formatIpv4, overlaps, parseCidr, parseIpv4 } from "../lib/ipv4.ts";
import { AddressPool, defaultGateway, firstFreeSubnet, macOf } from "./addresses.ts";

function cidr(text: string): Cidr {
  const parsed = parseCidr(text);
  if (parsed === null) throw new Error(`${text} is a block`);
  return parsed.block;
}
function ip(text: string): number {
  const parsed = parseIpv4(text);
  if (parsed === null) throw new Error(`${text} is an address`);
  return parsed;
}
function takeAll(pool: AddressPool): string[] {
  const taken: string[] = [];
  for (let at = pool.take(); at !== null; at = pool.take()) taken.push(formatIpv4(at));
  return taken;
}

test("a hardware address is 02:42 and the address", () => {
  expect(macOf(ip("10.0.1.254"))).toBe("02:42:0a:00:01:fe");
});

describe("a pool", () => {
  test("goes on behind the last address, round, and past what is used", () => {
    const subnet = cidr("10.0.0.8/29");
    const pool = new AddressPool(subnet, ip("10.0.0.9"), ip("10.0.0.12"), [ip("10.0.0.11")]);
    expect(pool.capacity).toBe(5);
    expect(takeAll(pool)).toEqual(["10.0.0.13", "10.0.0.14", "10.0.0.10", "10.0.0.12"]);
    expect(pool.usedCount).toBe(5);
    expect(formatIpv4(pool.cursor)).toBe("10.0.0.12");
  });

  test("of a /24 has 253 addresses beside its gateway", () => {
    const subnet = cidr("10.0.1.0/24");
    const pool = new AddressPool(subnet, defaultGateway(subnet), defaultGateway(subnet), []);
    const all = takeAll(pool);
    expect(all).toHaveLength(253);
    expect([all[0], all.at(-1)]).toEqual(["10.0.1.2", "10.0.1.254"]);
  });

  test("counts no address that is not its own", () => {
    const subnet = cidr("10.0.1.0/29");
    const strange = ["10.0.1.0", "10.0.1.1", "10.0.1.7", "10.9.9.9"].map(ip);
    const pool = new AddressPool(subnet, ip("10.0.1.1"), ip("10.9.9.9"), strange);
    expect(pool.usedCount).toBe(0);
    expect(takeAll(pool)).toHaveLength(5);
  });

  test("gives each free address once, whatever is used and wherever it starts", () => {
    const inputs = fc.record({
      length: fc.integer({ min: 24, max: 29 }),
      used: fc.array(fc.nat(255), { maxLength: 80 }),
      cursor: fc.nat(255),
      gateway: fc.nat(255),
    });
    fc.assert(
      fc.property(inputs, ({ length, used, cursor, gateway }) => {
        const subnet = cidr(`10.0.0.0/${length}`);
        const hosts = 2 ** (32 - length) - 2;
        const gatewayAddress = subnet.base + 1 + (gateway % hosts);
        const usedAddresses = used.map((offset) => subnet.base + offset);
        const pool = new AddressPool(subnet, gatewayAddress, subnet.base + cursor, usedAddresses);
        const wanted: string[] = [];
        for (let at = subnet.base + 1; at <= subnet.base + hosts; at++) {
          if (at !== gatewayAddress && !usedAddresses.includes(at)) wanted.push(formatIpv4(at));
        }
        const given = takeAll(pool);
        expect(given.sort()).toEqual(wanted.sort());
      }),
    );
  });
});

describe("the first free subnet", () => {
  test.each<[string, string[], number, string[], string | null]>([
    ["an empty pool", ["10.0.0.0/8"], 24, [], "10.0.0.0/24"],
    ["behind what is taken", ["10.0.0.0/8"], 24, ["10.0.0.0/24", "10.0.1.0/24"], "10.0.2.0/24"],
    ["a gap", ["10.0.0.0/8"], 24, ["10.0.2.0/24", "10.0.0.0/24"], "10.0.1.0/24"],
    ["behind a larger block", ["10.0.0.0/8"], 24, ["10.0.0.0/15"], "10.2.0.0/24"],
    ["behind a smaller block", ["10.0.0.0/8"], 16, ["10.0.3.0/24"], "10.1.0.0/16"],
    [
      "blocks inside one another",
      ["10.0.0.0/8"],
      24,
      ["10.0.0.0/16", "10.0.1.0/24"],
      "10.1.0.0/24",
    ],
    ["the next pool", ["10.0.0.0/24", "10.9.0.0/16"], 24, ["10.0.0.0/24"], "10.9.0.0/24"],
    ["no pool is large enough", ["10.0.0.0/25"], 24, [], null],
    ["everything is taken", ["10.0.0.0/23"], 24, ["10.0.0.0/8"], null],
    [
      "the end of all addresses",
      ["255.255.255.0/24"],
      25,
      ["255.255.255.0/25"],
      "255.255.255.128/25",
    ],
  ])("%s", (_name, pools, length, taken, expected) => {
    const found = firstFreeSubnet(pools.map(cidr), length, taken.map(cidr));
    expect(found === null ? null : formatCidr(found)).toBe(expected);
  });

  test("is the one that a plain search finds", () => {
    const block = fc
      .tuple(fc.nat(0xffff), fc.integer({ min: 17, max: 30 }))
      .map(([offset, length]) => cidr(`${formatIpv4(0x0a000000 + offset)}/${length}`));
    fc.assert(
      fc.property(
        fc.array(block, { maxLength: 20 }),
        fc.integer({ min: 18, max: 26 }),
        (taken, n) => {
          const pool = cidr("10.0.0.0/17");
          let plain: string | null = null;
          for (let base = pool.base; base < pool.base + 2 ** 15; base += 2 ** (32 - n)) {
            const candidate = { base, prefixLength: n };
            if (plain === null && !taken.some((other) => overlaps(other, candidate))) {
              plain = formatCidr(candidate);
            }
          }
          const found = firstFreeSubnet([pool], n, taken);
          expect(found === null ? null : formatCidr(found)).toBe(plain);
        },
      ),
    );
  });
});
