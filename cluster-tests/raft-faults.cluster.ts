/**
 * Goal: what managers acknowledge is never lost or untrue, whatever befalls processes, disks and the network between them.
 * How: three and five real managers for some seconds with every kind of fault; what clients saw is judged (raft-faults/judge.ts).
 * The long runs are script/faults.
 */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { buildFailingSync } from "./raft-faults/failing-sync.ts";
import { networkFaults, processFaults } from "./raft-faults/nemesis.ts";
import { runFaults } from "./raft-faults/run.ts";

const seconds = 20;
let root: string;
let library: string;
let before: Holdings;

beforeAll(async () => {
  before = await holdings();
  root = await mkdtemp("/var/tmp/shoal-faults-");
  library = await buildFailingSync(root);
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
  expect(leaked(before, await holdings(), [root, "shoal-rf-"])).toEqual([]);
});

test.each([
  { managers: 3, seed: 1 },
  { managers: 5, seed: 1 },
] as const)(
  "$managers managers under every kind of fault, seed $seed",
  async ({ managers, seed }) => {
    const folder = join(root, String(managers));
    await mkdir(folder);
    const story: string[] = [];
    const say = (line: string): number => story.push(line);
    const { signal: interruption } = new AbortController();
    const options = { managers, seed, seconds, folder, library, interruption, say };
    const report = await runFaults(options);
    expect(report.violations, story.join("\n")).toEqual([]);
    const kinds = [...processFaults, ...networkFaults].filter(
      (kind) => kind !== "bridge" || managers === 5,
    );
    expect([...report.faults.keys()].sort()).toEqual(kinds.sort());
    expect(report.operations.ok).toBeGreaterThan(200);
    expect(report.elections).toBeGreaterThan(1);
    expect(report.registers).toEqual({ fine: report.registers.all, all: report.registers.all });
    expect(report.ledger.acknowledged).toBeGreaterThan(5);
    expect(report.ledger.lost).toBe(0);
  },
);
