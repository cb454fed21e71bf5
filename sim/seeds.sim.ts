// Goal: nothing that must not happen does, in full chaos. Method: SIM_SEEDS seeds from SIM_FROM on (30 from 1).
import { expect, test } from "vitest";
import { fullChaos } from "./scenarios/all.ts";
import { runSeed } from "./simulation.ts";

const seeds = Number(process.env["SIM_SEEDS"] ?? 30);
const from = Number(process.env["SIM_FROM"] ?? 1);
/** Seeds of one test: a failure names a few, and no test takes long. */
const perTest = 5;
const batches = Array.from({ length: Math.ceil(seeds / perTest) }, (_, at) => from + at * perTest);

test.each(batches)("seeds from %i on are clean", async (first) => {
  for (let seed = first; seed < Math.min(first + perTest, from + seeds); seed += 1) {
    const result = await runSeed(seed, fullChaos);
    expect(result.violation, `again: script/sim --from ${seed} --seeds 1`).toBeNull();
    expect(result.acknowledged).toBeGreaterThan(0);
  }
});
