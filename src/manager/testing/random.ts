/** Chance from a seed, for tests. */
import type { Random } from "../../lib/random.ts";

/** A small generator (mulberry32); ids are readable and in the order they were made. */
export function createTestRandom(seed = 1): Random {
  let state = seed >>> 0;
  let ids = 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
  return {
    below: (limit) => Math.floor(next() * limit),
    id: () => {
      ids += 1;
      const noise = Math.floor(next() * 36 ** 4).toString(36);
      return `${noise.padStart(4, "0")}s${seed}x${ids}`.padEnd(25, "0");
    },
  };
}
