/** A seeded source of chance for tests: the same seed gives the same run. */
import { assert } from "../../lib/assert.ts";
import type { Random } from "../../lib/random.ts";

/** xorshift32 over `seed`, mixed first so that neighbouring seeds part at once. */
export function seededRandom(seed: number): Random {
  let state = (Math.imul(seed + 1, 0x9e3779b1) ^ 0x5bd1e995) >>> 0 || 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
  for (let i = 0; i < 8; i += 1) next();
  return {
    below: (limit) => {
      assert(Number.isSafeInteger(limit) && limit > 0, "a limit is a positive integer");
      return next() % limit;
    },
    id: () => next().toString(36).padStart(7, "0"),
  };
}
