/** Chance from a seed: the same seed gives the same run (sfc32, 128 bits of state). */
import { assert } from "../src/lib/assert.ts";
import type { Random } from "../src/lib/random.ts";

export interface SimRandom extends Random {
  /** True with probability `per mille` / 1000. */
  chance(perMille: number): boolean;
  /** A uniform integer in [from, to]. */
  between(from: number, to: number): number;
  pick<T>(items: readonly T[]): T;
  /** A stream of its own: what it draws does not move this one. */
  fork(name: string): SimRandom;
}

/** The stream of `seed`, any safe integer. */
export function createRandom(seed: number, name = ""): SimRandom {
  let a = 0x9e3779b9 ^ seed;
  let b = 0x243f6a88 ^ Math.floor(seed / 2 ** 32);
  let c = 0xb7e15162;
  let counter = 1;
  for (const char of name) c = Math.imul(c ^ char.charCodeAt(0), 0x01000193);

  function next(): number {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + sum) | 0;
    return sum >>> 0;
  }
  for (let warm = 0; warm < 15; warm += 1) next();

  const below = (limit: number): number => {
    assert(Number.isSafeInteger(limit) && limit > 0, `a limit of ${limit} is a positive integer`);
    // 53 bits: even enough for every limit that the simulator draws from.
    return Math.floor(((next() * 2 ** 21 + (next() >>> 11)) / 2 ** 53) * limit);
  };
  const random: SimRandom = {
    below,
    id() {
      let text = "";
      while (text.length < 25)
        text += below(36 ** 5)
          .toString(36)
          .padStart(5, "0");
      return text;
    },
    chance: (perMille) => below(1000) < perMille,
    between: (from, to) => from + below(to - from + 1),
    pick(items) {
      assert(items.length > 0, "there is something to pick from");
      return items[below(items.length)] as (typeof items)[number];
    },
    fork: (child) => createRandom(below(2 ** 52), child),
  };
  return random;
}
