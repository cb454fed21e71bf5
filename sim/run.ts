/** The simulator's command line: Raft alone from seeds, or with --scenario NAME whole clusters. See `script/sim --help`. */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { asMarkdown, asText, RaftReport } from "./raft/report.ts";
import { runRaftSeed } from "./raft/simulation.ts";
import { scenarioNamed, scenarios } from "./scenarios/all.ts";
import type { Scenario } from "./scenarios/scenario.ts";
import { type RunResult, runSeed } from "./simulation.ts";

const usage = `Usage: script/sim [--seeds N] [--from S] [--minutes M] [--scenario NAME] [--stop-at-first] [--trace]

Runs simulations from seeds: the same seed gives the same run. Exit code: 0 clean, 1 something that must not be was, 2 bad arguments.
  --seeds N        how many seeds (default 1000, of whole clusters 200)
  --from S         the first seed (default 1)
  --minutes M      instead of --seeds: as many as go into M minutes
  --scenario NAME  one of the below (default raft)
  --stop-at-first  end with the first seed that fails
  --trace          print every event; for one seed
  --markdown       print the table of what was done as Markdown (raft)
  --table FILE     and write it there (raft)

Scenarios:
  ${"raft".padEnd(20)} Raft alone: production core, driver and log, on simulated disks, clocks and networks
Whole clusters:
${scenarios.map(({ name, about }) => `  ${name.padEnd(20)} ${about}`).join("\n")}
`;
/** Between two lines that say how far it is, in ms. */
const progressMs = 10_000;

interface Options {
  readonly seeds: number;
  readonly from: number;
  readonly untilMs: number | null;
  /** Null: Raft alone. */
  readonly scenario: Scenario | null;
  readonly stopAtFirst: boolean;
  readonly trace: boolean;
  readonly markdown: boolean;
  readonly table: string | null;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function optionsOf(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seeds: { type: "string" },
      from: { type: "string", default: "1" },
      minutes: { type: "string" },
      scenario: { type: "string", default: "raft" },
      "stop-at-first": { type: "boolean", default: false },
      trace: { type: "boolean", default: false },
      markdown: { type: "boolean", default: false },
      table: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    process.exit(0);
  }
  const scenario = values.scenario === "raft" ? null : scenarioNamed(values.scenario);
  if (scenario === undefined) throw new Error(`unknown scenario: ${values.scenario}`);
  const { minutes, seeds = scenario === null ? "1000" : "200" } = values;
  return {
    seeds: minutes === undefined ? wholeNumber("--seeds", seeds) : Number.MAX_SAFE_INTEGER,
    from: wholeNumber("--from", values.from),
    untilMs:
      minutes === undefined ? null : performance.now() + positive("--minutes", minutes) * 60_000,
    scenario,
    stopAtFirst: values["stop-at-first"],
    trace: values.trace,
    markdown: values.markdown,
    table: values.table ?? null,
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

interface Ran {
  readonly violation: string | null;
  readonly traceHash: string;
  readonly simulatedMs: number;
}

/** Runs seed after seed, saying what fails and how far it is. `name` is of the scenario. */
async function runSeeds(
  options: Options,
  name: string,
  run: (seed: number, trace: ((atMs: number, what: string) => void) | null) => Promise<Ran>,
): Promise<void> {
  const begin = performance.now();
  let told = begin;
  let done = 0;
  let current = options.from;
  process.on("unhandledRejection", (error) => {
    say(`seed ${current}: VIOLATION: a promise was rejected and nobody heard: ${String(error)}`);
    say(`  again: script/sim --scenario ${name} --from ${current} --seeds 1`);
    process.exit(1);
  });
  const trace = options.trace
    ? (atMs: number, what: string) => say(`${(atMs / 1_000).toFixed(3)} ${what}`)
    : null;
  for (let seed = options.from; seed < options.from + options.seeds; seed += 1) {
    if (options.untilMs !== null && performance.now() >= options.untilMs) break;
    current = seed;
    const result = await run(seed, trace);
    done += 1;
    if (result.violation !== null) {
      say(
        `seed ${seed}: VIOLATION after ${(result.simulatedMs / 1_000).toFixed(3)} s: ${result.violation}`,
      );
      say(`  again: script/sim --scenario ${name} --from ${seed} --seeds 1`);
      if (options.stopAtFirst) break;
    } else if (options.seeds === 1) {
      say(`seed ${seed}: clean, trace ${result.traceHash}`);
    }
    if (performance.now() - told >= progressMs) {
      told = performance.now();
      say(`… ${done} seeds, ${Math.round((told - begin) / 1_000)} s`);
    }
  }
}

async function main(options: Options): Promise<number> {
  const begin = performance.now();
  const seconds = (): number => (performance.now() - begin) / 1_000;
  const { scenario } = options;
  if (scenario === null) {
    const report = new RaftReport();
    await runSeeds(options, "raft", async (seed, trace) => {
      const result = await runRaftSeed(seed, trace);
      report.add(result);
      return result;
    });
    const { user, system } = process.cpuUsage();
    const rows = report.rows(seconds(), (user + system) / 1e6);
    say("");
    process.stdout.write(options.markdown ? asMarkdown(rows) : asText(rows));
    if (options.table !== null) writeFileSync(options.table, asMarkdown(rows));
    return report.violations.length === 0 ? 0 : 1;
  }
  const results: RunResult[] = [];
  await runSeeds(options, scenario.name, async (seed, trace) => {
    const result = await runSeed(seed, scenario, trace);
    results.push(result);
    return result;
  });
  return summary(results, seconds(), scenario);
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
