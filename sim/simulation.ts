/** One run: a seed and a scenario make a cluster, its faults, its clients, and what came of it. */
import { converges } from "./checkers/liveness.ts";
import { Cluster } from "./cluster.ts";
import { drawMix } from "./fault-mix.ts";
import { type FaultCounts, Nemesis } from "./nemesis.ts";
import { createRandom } from "./random.ts";
import type { Scenario } from "./scenarios/scenario.ts";
import { Workload } from "./workload.ts";
import { Violation } from "./world.ts";

export interface RunResult {
  readonly seed: number;
  readonly scenario: string;
  /** What must not happen and did; null when all is well. */
  readonly violation: string | null;
  readonly traceHash: string;
  readonly simulatedMs: number;
  readonly nodeTicks: number;
  readonly events: number;
  readonly entries: number;
  readonly terms: number;
  readonly acknowledged: number;
  readonly requests: number;
  readonly reads: number;
  readonly delivered: number;
  readonly dropped: number;
  readonly faults: FaultCounts;
  /** How long the cluster took to be whole and quiet again, in ms. */
  readonly convergedMs: number;
}
export type Trace = (atMs: number, what: string) => void;

/** Runs one seed to its end. What the code under test throws is a violation too, wherever it comes up. */
export async function runSeed(
  seed: number,
  scenario: Scenario,
  trace: Trace | null = null,
): Promise<RunResult> {
  const random = createRandom(seed, scenario.name);
  const cluster = new Cluster(random.fork("cluster"), scenario.mix(drawMix(random.fork("mix"))));
  const { world, safety, network } = cluster;
  world.trace = trace;
  const nemesis = new Nemesis(cluster);
  const workload = new Workload(cluster);
  const begin = world.now();
  let violation: string | null = null;
  let convergedMs = 0;
  const stray = (error: unknown): void => {
    world.fail(`thrown where nobody catches it: ${error instanceof Error ? error.stack : error}`);
  };
  process.on("uncaughtException", stray);
  process.on("unhandledRejection", stray);
  try {
    await cluster.setUp();
    workload.start();
    nemesis.start();
    await cluster.pass(cluster.mix.faultMs);
    nemesis.heal();
    await workload.settle();
    convergedMs = await converges(cluster);
    if (cluster.mix.losesMinority && nemesis.loseMinority() > 0) {
      convergedMs = Math.max(convergedMs, await converges(cluster));
    }
  } catch (error) {
    violation =
      error instanceof Violation ? error.message : String((error as Error).stack ?? error);
  } finally {
    process.off("uncaughtException", stray);
    process.off("unhandledRejection", stray);
  }
  return {
    seed,
    scenario: scenario.name,
    violation,
    traceHash: world.traceHash(),
    simulatedMs: world.now() - begin,
    nodeTicks: Math.round(cluster.nodeTicks),
    events: world.events,
    entries: safety.highest,
    terms: safety.terms,
    acknowledged: safety.acknowledgedCount,
    requests: workload.requests,
    reads: workload.reads,
    delivered: network.delivered,
    dropped: network.dropped,
    faults: nemesis.counts,
    convergedMs,
  };
}
