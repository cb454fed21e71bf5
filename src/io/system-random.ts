/** Chance from the operating system. */
import { randomBytes, randomInt } from "node:crypto";
import type { Random } from "../lib/random.ts";

const idDigits = 25;

export const systemRandom: Random = {
  below: (limit) => randomInt(limit),
  id() {
    // 17 bytes are 136 bits; 36^25 is a little under 2^130, so taking it modulo is even to 2^-6 of one id.
    const value = BigInt(`0x${randomBytes(17).toString("hex")}`) % 36n ** BigInt(idDigits);
    return value.toString(36).padStart(idDigits, "0");
  },
};
