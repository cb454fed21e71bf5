// Goal: each scenario is clean, and does what it says. Method: two seeds of each.
import { expect, test } from "vitest";
import { scenarios } from "./scenarios/all.ts";
import { type RunResult, runSeed } from "./simulation.ts";

const does: Readonly<Record<string, (result: RunResult) => number>> = {
  "leader-crash": ({ faults }) => faults.crashes,
  "rolling-restart": ({ faults }) => faults.crashes,
  "partition-minority": ({ faults }) => faults.partitions,
  bridge: ({ faults }) => faults.partitions,
  "worker-power-off": ({ faults }) => faults.powerOffs,
  "promote-demote": ({ faults }) => faults.crashes + faults.powerOffs + faults.partitions,
};

test.each(scenarios.filter(({ name }) => name in does))("$name is clean", async (scenario) => {
  for (const seed of [1, 2]) {
    const result = await runSeed(seed, scenario);
    const again = `again: script/sim --scenario ${scenario.name} --from ${seed} --seeds 1`;
    expect(result.violation, again).toBeNull();
    expect(does[scenario.name]?.(result)).toBeGreaterThan(0);
    expect(result.acknowledged).toBeGreaterThan(0);
  }
});
