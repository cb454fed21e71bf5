// Goal: a seed is all there is to a run. Method: the same one twice in one process, another one between.
import { expect, test } from "vitest";
import { runRaftSeed } from "./simulation.ts";

test.each([3, 11, 40])("seed %i gives the same run twice", async (seed) => {
  const words: string[] = [];
  const first = await runRaftSeed(seed);
  const other = await runRaftSeed(seed + 1);
  const second = await runRaftSeed(seed, (at, what) => words.push(`${at} ${what}`));
  expect(second).toEqual(first);
  expect(other.traceHash).not.toBe(first.traceHash);
  expect(words.length).toBeGreaterThan(1_000);
});
