// Goal: nothing that must not happen does, whatever a seed draws. Method: RAFT_SEEDS seeds from RAFT_FROM on (200 from 1), and all that once failed.
import { expect, test } from "vitest";
import { corpus } from "./corpus.ts";
import { addCounts, noCounts } from "./counts.ts";
import { runRaftSeed } from "./simulation.ts";

const count = Number(process.env["RAFT_SEEDS"] ?? 200);
const from = Number(process.env["RAFT_FROM"] ?? 1);
/** Seeds a test: a failure says which one it was. */
const BLOCK = 20;
const blocks = Array.from({ length: Math.ceil(count / BLOCK) }, (_, at) => from + at * BLOCK);
const total = noCounts();

test.each(blocks)("twenty seeds from %i are clean", async (first) => {
  for (let seed = first; seed < first + BLOCK; seed += 1) {
    const run = await runRaftSeed(seed);
    expect(run.violation, again(seed)).toBeNull();
    expect(run.nodeTicks).toBeGreaterThan(0);
    addCounts(total, run.counts);
  }
});

test.runIf(count >= 200)("they brought every kind of fault", () => {
  const rare = ["histories too dear to judge", "clusters beyond healing"];
  const absent = Object.entries(total).filter(([name, n]) => n === 0 && !rare.includes(name));
  expect(absent).toEqual([]);
  expect(total["clusters healed"]).toBeGreaterThan(count * 0.8);
});

test.runIf(corpus.length > 0).each(corpus)(
  "seed $seed, which once found: $what",
  async ({ seed }) => {
    expect((await runRaftSeed(seed)).violation, again(seed)).toBeNull();
  },
);

function again(seed: number): string {
  return `again: script/sim --from ${seed} --seeds 1`;
}
