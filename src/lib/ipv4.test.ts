/** IPv4 text and blocks, by tables and round trips. */
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  contains,
  formatCidr,
  formatIpv4,
  lastOf,
  overlaps,
  parseCidr,
  parseIpv4,
  sizeOf,
} from "./ipv4.ts";

test.each<[string, number | null]>([
  ["0.0.0.0", 0],
  ["255.255.255.255", 2 ** 32 - 1],
  ["10.0.1.2", 0x0a000102],
  ["256.0.0.0", null],
  ["1.2.3", null],
  ["1.2.3.4.5", null],
  ["01.2.3.4", null],
  ["1.2.3.-4", null],
  ["1.2.3. 4", null],
  ["", null],
  ["::1", null],
])("parseIpv4(%j) is %s", (text, expected) => {
  expect(parseIpv4(text)).toBe(expected);
});

test("every address survives its text", () => {
  fc.assert(
    fc.property(fc.nat(0xffff_ffff), (address) => {
      expect(parseIpv4(formatIpv4(address))).toBe(address);
    }),
  );
});

test.each<[string, string | null]>([
  ["10.0.1.5/24", "10.0.1.0/24"],
  ["192.168.255.255/9", "192.128.0.0/9"],
  ["255.255.255.255/32", "255.255.255.255/32"],
  ["1.2.3.4/0", "0.0.0.0/0"],
  ["1.2.3.4/33", null],
  ["1.2.3.4/", null],
  ["1.2.3.4/a", null],
  ["1.2.3.4", null],
  ["1.2.3.4/8/8", null],
])("parseCidr(%j) lies in %s", (text, block) => {
  const parsed = parseCidr(text);
  expect(parsed === null ? null : formatCidr(parsed.block)).toBe(block);
});

test("blocks overlap exactly when one holds the other's first address", () => {
  const cidr = fc
    .tuple(fc.nat(0xffff_ffff), fc.integer({ min: 0, max: 32 }))
    .map(([address, length]) => parseCidr(`${formatIpv4(address)}/${length}`));
  fc.assert(
    fc.property(cidr, cidr, (a, b) => {
      if (a === null || b === null) throw new Error("generated blocks parse");
      expect(overlaps(a.block, b.block)).toBe(
        contains(a.block, b.block.base) || contains(b.block, a.block.base),
      );
      expect(lastOf(a.block) - a.block.base + 1).toBe(sizeOf(a.block));
      expect(contains(a.block, a.address)).toBe(true);
    }),
  );
});
