// Goal: a seed is all there is to a run. Method: the same one twice in one process, another one beside it.
import { expect, test } from "vitest";
import { fullChaos } from "./scenarios/all.ts";
import { runSeed } from "./simulation.ts";

test.each([2, 5])("seed %i gives the same run twice", async (seed) => {
  const first = await runSeed(seed, fullChaos);
  const other = await runSeed(seed + 1, fullChaos);
  const second = await runSeed(seed, fullChaos);
  expect(second).toEqual(first);
  expect(other.traceHash).not.toBe(first.traceHash);
  expect(first.events).toBeGreaterThan(1_000);
});
