/** The command line of script/teeth: each fault of the bank in a copy of its own, and whether it is caught. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { bank, type Fault } from "./bank.ts";
import { conform, simulate, type Verdict } from "./catch.ts";
import { type Copy, copyOf, copyWith, faulty, removeCopy } from "./copy.ts";
import { caughtLine, markdown, type Outcome, sumUp } from "./table.ts";

const usage = `Usage: script/teeth [--only NAME]... [--seeds N] [--quick] [--markdown] [--list]

Puts one fault at a time into a copy of the source and runs the simulator on it, seeds 1, 2, 3 and so on, until one
fails. What the first 100 seeds do not catch goes to etcd's transcripts, and what these do not either, to more seeds.
First the copy without a fault has to be clean.
Exit code: 0 every fault is caught, 1 one is not, 2 bad arguments, or a fault that does not fit the source any more.
  --only NAME  this fault; may be given several times
  --seeds N    at most so many seeds a fault (default 1000)
  --quick      at most 60 seeds a fault, and no transcripts: some faults are not caught then
  --markdown   print the table as Markdown
  --list       print the faults and run nothing
`;
/** Faults that are tried at a time. */
const atATime = 2;
/** Seeds that the copy without a fault must stand. */
const cleanSeeds = 60;
const quickSeeds = 60;
/** Seeds before the transcripts, which are quick, have their turn. */
const firstSeeds = 100;
/** For all seeds of one fault, and for the transcripts. */
const limitMs = 15 * 60_000;

interface Options {
  readonly faults: readonly Fault[];
  readonly seeds: number;
  readonly quick: boolean;
  readonly markdown: boolean;
  readonly list: boolean;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function optionsOf(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: "string", multiple: true },
      seeds: { type: "string" },
      quick: { type: "boolean", default: false },
      markdown: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    process.exit(0);
  }
  const faults =
    values.only === undefined
      ? bank
      : values.only.map((name) => {
          const fault = bank.find((one) => one.name === name);
          if (fault === undefined) throw new Error(`no fault is named ${name}; see --list`);
          return fault;
        });
  const seeds = values.seeds ?? String(values.quick ? quickSeeds : 1000);
  if (!/^[1-9]\d{0,8}$/.test(seeds)) {
    throw new Error(`--seeds takes a whole number from 1, not ${seeds}`);
  }
  const { quick, markdown, list } = values;
  return { faults, seeds: Number(seeds), quick, markdown, list };
}

/** Tries `fault` in a copy of its own. */
async function attempt(whole: Copy, fault: Fault, options: Options): Promise<Verdict> {
  const folder = `${whole.folder}-${fault.name}`;
  const { only } = fault;
  try {
    copyWith(whole, fault, folder);
    const first = Math.min(firstSeeds, options.seeds);
    const checks: (() => Promise<Verdict>)[] = [];
    if (only === undefined) checks.push(() => simulate(folder, 1, first, limitMs));
    if (!options.quick) checks.push(() => conform(folder, dataFolder(), limitMs));
    if (only === undefined && options.seeds > first) {
      checks.push(() => simulate(folder, first + 1, options.seeds, limitMs));
    }
    for (const check of checks) {
      const verdict = await check();
      if (verdict.kind !== "clean") return verdict;
    }
    return { kind: "clean", seeds: only === undefined ? options.seeds : null };
  } finally {
    removeCopy(folder);
  }
}

/** Where etcd's transcripts lie, seen from the checkout: a copy would look beside itself. */
function dataFolder(): string {
  return process.env["SHOAL_SHARED"] ?? join(process.cwd(), "..", "shared");
}

/** What must not fail does not: a check that says no to everything is none. */
async function provesClean(whole: Copy, quick: boolean): Promise<boolean> {
  const runs = [simulate(whole.folder, 1, cleanSeeds, limitMs)];
  if (!quick) runs.push(conform(whole.folder, dataFolder(), limitMs));
  for (const verdict of await Promise.all(runs)) {
    if (verdict.kind === "clean") continue;
    say(`without any fault: ${verdict.said}`);
    return false;
  }
  say(`without a fault: clean (${cleanSeeds} seeds${quick ? "" : ", and the transcripts"})`);
  return true;
}

async function main(options: Options): Promise<number> {
  if (options.list) {
    for (const { name, pitfall, what } of options.faults) {
      say(`${name.padEnd(40)}${pitfall.padEnd(12)}${what}`);
    }
    return 0;
  }
  const base = mkdtempSync(join(tmpdir(), "shoal-teeth-"));
  try {
    const whole = copyOf(process.cwd(), join(base, "whole"));
    for (const fault of options.faults) faulty(fault, whole.sources.get(fault.file));
    if (!(await provesClean(whole, options.quick))) return 1;
    const outcomes: Outcome[] = [];
    const waiting = [...options.faults];
    const worker = async (): Promise<void> => {
      for (let fault = waiting.shift(); fault !== undefined; fault = waiting.shift()) {
        const outcome = { fault, verdict: await attempt(whole, fault, options) };
        outcomes.push(outcome);
        say(caughtLine(outcome));
      }
    };
    await Promise.all(Array.from({ length: atATime }, worker));
    const inOrder = options.faults.flatMap((fault) => outcomes.filter((o) => o.fault === fault));
    if (options.markdown) say(`\n${markdown(inOrder)}`);
    say(`\n${sumUp(inOrder)}`);
    return inOrder.every(({ verdict }) => verdict.kind === "caught") ? 0 : 1;
  } finally {
    removeCopy(base);
  }
}

try {
  process.exitCode = await main(optionsOf(process.argv.slice(2)));
} catch (error) {
  process.stderr.write(`teeth: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 2;
}
