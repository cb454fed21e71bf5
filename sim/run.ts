/** The simulator's command line: script/sim [--seeds N] [--from S] [--minutes M] [--scenario NAME] [--trace]. */
import { parseArgs } from "node:util";
import { fullChaos, scenarioNamed, scenarios } from "./scenarios/all.ts";
import type { Scenario } from "./scenarios/scenario.ts";
import { type RunResult, runSeed } from "./simulation.ts";

const usage = `Usage: script/sim [--seeds N] [--from S] [--minutes M] [--scenario NAME] [--trace]

Runs whole clusters from seeds: the same seed gives the same run.
  --seeds N        how many seeds (default 200)
  --from S         the first seed (default 1)
  --minutes M      instead of --seeds: as many as go into M minutes
  --scenario NAME  one of the below (default full-chaos)
  --trace          print every event; for one seed

Scenarios:
${scenarios.map(({ name, about }) => `  ${name.padEnd(20)} ${about}`).join("\n")}
`;
/** Between two lines that say how far it is, in ms. */
const progressMs = 10_000;

interface Options {
  readonly seeds: number;
  readonly from: number;
  readonly untilMs: number | null;
  readonly scenario: Scenario;
  readonly trace: boolean;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function optionsOf(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seeds: { type: "string", default: "200" },
      from: { type: "string", default: "1" },
      minutes: { type: "string" },
      scenario: { type: "string", default: fullChaos.name },
      trace: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    process.exit(0);
  }
  const scenario = scenarioNamed(values.scenario);
  if (scenario === undefined) throw new Error(`unknown scenario: ${values.scenario}`);
  const { minutes } = values;
  return {
    seeds: minutes === undefined ? wholeNumber("--seeds", values.seeds) : Number.MAX_SAFE_INTEGER,
    from: wholeNumber("--from", values.from),
    untilMs:
      minutes === undefined ? null : performance.now() + positive("--minutes", minutes) * 60_000,
    scenario,
    trace: values.trace,
  };
}

function wholeNumber(flag: string, text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) {
    throw new Error(`${flag} takes a whole number, not ${text}`);
  }
  return value;
}

function positive(flag: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new Error(`${flag} takes a positive number, not ${text}`);
  return value;
}

async function main(options: Options): Promise<number> {
  const results: RunResult[] = [];
  const begin = performance.now();
  let told = begin;
  const { scenario, from } = options;
  const trace = options.trace
    ? (atMs: number, what: string) => say(`${(atMs / 1_000).toFixed(3)} ${what}`)
    : null;
  for (let seed = from; seed < from + options.seeds; seed += 1) {
    if (options.untilMs !== null && performance.now() >= options.untilMs) break;
    const result = await runSeed(seed, scenario, trace);
    results.push(result);
    if (result.violation !== null) {
      say(
        `seed ${seed}: VIOLATION after ${(result.simulatedMs / 1_000).toFixed(3)} s: ${result.violation}`,
      );
      say(`  again: script/sim --scenario ${scenario.name} --from ${seed} --seeds 1`);
    } else if (options.seeds === 1) {
      say(`seed ${seed}: clean, trace ${result.traceHash}`);
    }
    if (performance.now() - told >= progressMs) {
      told = performance.now();
      say(`… ${results.length} seeds, ${Math.round((told - begin) / 1_000)} s`);
    }
  }
  return summary(results, (performance.now() - begin) / 1_000, scenario);
}

function summary(results: readonly RunResult[], seconds: number, scenario: Scenario): number {
  const sum = (of: (result: RunResult) => number): number =>
    results.reduce((total, result) => total + of(result), 0);
  const count = (value: number): string => Math.round(value).toLocaleString("en-US");
  const violations = results.filter((result) => result.violation !== null).length;
  const nodeTicks = sum((result) => result.nodeTicks);
  const slowest = results.reduce((most, result) => Math.max(most, result.convergedMs), 0);
  let traces = 0;
  for (const { traceHash } of results) {
    traces = (Math.imul(traces, 31) + Number.parseInt(traceHash, 16)) >>> 0;
  }
  say("");
  for (const [what, value] of [
    ["scenario", scenario.name],
    ["seeds", count(results.length)],
    ["wall time", `${seconds.toFixed(1)} s`],
    ["simulated time", `${count(sum((result) => result.simulatedMs) / 1_000)} s`],
    ["node-ticks", count(nodeTicks)],
    ["node-ticks per second", count(nodeTicks / seconds)],
    [
      "events",
      `${count(sum((result) => result.events))} (${count(sum((result) => result.events) / seconds)} a second)`,
    ],
    ["log entries", count(sum((result) => result.entries))],
    ["terms with a leader", count(sum((result) => result.terms))],
    ["requests", count(sum((result) => result.requests))],
    ["acknowledged writes", count(sum((result) => result.acknowledged))],
    ["linearizable reads", count(sum((result) => result.reads))],
    ["messages delivered", count(sum((result) => result.delivered))],
    ["messages dropped", count(sum((result) => result.dropped))],
    ["crashes", count(sum(({ faults }) => faults.crashes))],
    ["power-offs", count(sum(({ faults }) => faults.powerOffs))],
    ["pauses", count(sum(({ faults }) => faults.pauses))],
    ["partitions", count(sum(({ faults }) => faults.partitions))],
    ["failed syncs", count(sum(({ faults }) => faults.syncErrors))],
    ["other faults", count(sum(({ faults }) => faults.others))],
    ["slowest to converge", `${(slowest / 1_000).toFixed(1)} s`],
    ["trace of all seeds", traces.toString(16).padStart(8, "0")],
    ["violations", count(violations)],
  ] as const) {
    say(`${what.padEnd(24)}${value}`);
  }
  return violations === 0 ? 0 : 1;
}

let options: Options;
try {
  options = optionsOf(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`sim: ${error instanceof Error ? error.message : error}\n\n${usage}`);
  process.exit(2);
}
process.exitCode = await main(options);
