/** Goal: our CRC-32C is the world's. Method: the published vectors of RFC 3720 B.4, and one split anywhere. */
import { expect, test } from "vitest";
import { crc32c } from "./crc32c.ts";

const vectors: readonly (readonly [string, Uint8Array, number])[] = [
  ["nothing", new Uint8Array(0), 0],
  ["123456789", new TextEncoder().encode("123456789"), 0xe3069283],
  ["32 zeros", new Uint8Array(32), 0x8a9136aa],
  ["32 ones", new Uint8Array(32).fill(255), 0x62a8ab43],
  ["ascending", Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
  ["descending", Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
];

test.each(vectors)("crc32c() of %s is the published value", (_name, bytes, expected) => {
  expect(crc32c(bytes)).toBe(expected);
});

test("crc32c() goes on where an earlier one stopped", () => {
  const bytes = Uint8Array.from({ length: 67 }, (_, i) => (i * 37) & 255);
  const whole = crc32c(bytes);
  for (let at = 0; at <= bytes.length; at += 1) {
    expect(crc32c(bytes.subarray(at), crc32c(bytes.subarray(0, at)))).toBe(whole);
  }
});
