// Goal: nothing that must not happen does, in full chaos. Method: SIM_SEEDS seeds from SIM_FROM on (30 from 1).
import { expect, test } from "vitest";
import { fullChaos } from "./scenarios/all.ts";
import { runSeed } from "./simulation.ts";

const count = Number(process.env["SIM_SEEDS"] ?? 30);
const from = Number(process.env["SIM_FROM"] ?? 1);
const seeds = Array.from({ length: count }, (_, at) => from + at);

test.each(seeds)("seed %i is clean", async (seed) => {
  const result = await runSeed(seed, fullChaos);
  expect(result.violation, `again: script/sim --from ${seed} --seeds 1`).toBeNull();
  expect(result.entries).toBeGreaterThan(0);
  expect(result.reads).toBeGreaterThan(0);
});
