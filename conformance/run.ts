/** The command line of the conformance runs: script/conformance raft|trace. */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { messageOf } from "../src/lib/errors.ts";
import { runConfChange } from "./confchange.ts";
import { dataFiles, missingData } from "./data.ts";
import type { Outcome } from "./grammar.ts";
import { runInteraction } from "./interaction/run.ts";
import { runQuorum } from "./quorum.ts";
import { checkTrace, describeViolation, ETCD_RULES, OUR_RULES } from "./trace/check.ts";

const usage = `Usage: script/conformance raft [--set NAME]... [--level N] [--verbose]
       script/conformance trace [--ours] FILE...

Runs data that others wrote against our Raft, and prints what passed. The data is read from data/raft/etcd-raft below
$SHOAL_SHARED (default: the folder shared beside the checkout) and checked against known sha256 sums.
  --set NAME    quorum, confchange, interaction or trace; all when left out
  --level N     of the interaction set: 1 states and messages, 2 also their order and grouping, 3 byte for byte;
                all three when left out
  --verbose     all differences in full, not only the first of each file
  --ours        the traces are of our core (its refusals of votes tell what is committed), in a network
                that may repeat messages
trace FILE... checks traces in etcd's NDJSON format: the eight invariants of etcd's TLA+ specification, and that each
event follows from those before it.
Exit code: 0 when all passed, 1 when something failed, 2 when the data or the arguments are wrong.
`;

const setNames = ["quorum", "confchange", "interaction", "trace"] as const;
type SetName = (typeof setNames)[number];
type Level = 1 | 2 | 3;

interface Options {
  /** Differences shown of each file; null: all. */
  readonly shownMax: number | null;
  readonly level: Level | null;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Runs one transcript set and prints it file by file; answers whether everything passed. */
function runTranscripts(
  title: string,
  prefix: string,
  options: Options,
  run: (text: string) => Outcome,
): boolean {
  let commands = 0;
  let passed = 0;
  let filesPassed = 0;
  const files = dataFiles(prefix);
  for (const { path, text, complaint } of files) {
    if (complaint !== null) say(`  ${complaint}`);
    const outcome = runSafely(text, run);
    commands += outcome.commands;
    passed += outcome.commands - outcome.failed.length;
    if (outcome.failed.length === 0 && complaint === null) filesPassed += 1;
    say(`  ${path}: ${outcome.commands - outcome.failed.length}/${outcome.commands}`);
    for (const { line, expected, actual } of outcome.failed.slice(
      0,
      options.shownMax ?? undefined,
    )) {
      say(`    line ${line} expects\n${indented(expected)}    and got\n${indented(actual)}`);
    }
  }
  say(`${title}: ${passed}/${commands} commands, ${filesPassed}/${files.length} files`);
  return filesPassed === files.length && files.length > 0;
}

/** A transcript that stops the code under test fails at its first line, with the reason. */
function runSafely(text: string, run: (text: string) => Outcome): Outcome {
  try {
    return run(text);
  } catch (error) {
    return {
      commands: 1,
      failed: [{ line: 1, expected: "", actual: `it stopped: ${messageOf(error)}` }],
    };
  }
}

function indented(text: string): string {
  return text.replace(/^(?=.)/gm, "      | ");
}

/** All three levels, or the one that was asked for. */
function runInteractionSet(options: Options): boolean {
  const levels: readonly Level[] = options.level === null ? [1, 2, 3] : [options.level];
  const passed = levels.map((level) => ({
    level,
    ok: runTranscripts(`interaction, level ${level}`, "testdata/", options, (text) =>
      runInteraction(text, level),
    ),
  }));
  return passed.every(({ ok }) => ok);
}

/** Checks one trace and prints the outcome. */
function runTrace(name: string, text: string, ours: boolean): boolean {
  const { events, violation } = checkTrace(text, ours ? OUR_RULES : ETCD_RULES);
  if (violation === null) {
    say(`  ${name}: accepted, ${events} events`);
    return true;
  }
  say(`  ${name}: rejected\n    ${describeViolation(violation)}`);
  return false;
}

function runTraceSet(): boolean {
  const files = dataFiles("tla-example-trace");
  let passed = 0;
  for (const { path, text, complaint } of files) {
    if (complaint !== null) say(`  ${complaint}`);
    if (runTrace(path, text, false) && complaint === null) passed += 1;
  }
  say(`trace: ${passed}/${files.length} files`);
  return passed === files.length && files.length > 0;
}

function runSet(set: SetName, options: Options): boolean {
  switch (set) {
    case "quorum":
      return runTranscripts("quorum", "quorum/", options, runQuorum);
    case "confchange":
      return runTranscripts("confchange", "confchange/", options, runConfChange);
    case "interaction":
      return runInteractionSet(options);
    case "trace":
      return runTraceSet();
    default:
      return set satisfies never;
  }
}

function setNamed(name: string): SetName {
  const found = setNames.find((set) => set === name);
  if (found === undefined) throw new Error(`--set takes ${setNames.join(", ")}, not ${name}`);
  return found;
}

function levelNamed(text: string | undefined): Level | null {
  if (text === undefined) return null;
  if (text === "1" || text === "2" || text === "3") return Number(text) as Level;
  throw new Error(`--level takes 1, 2 or 3, not ${text}`);
}

function main(args: readonly string[]): number {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      set: { type: "string", multiple: true },
      level: { type: "string" },
      verbose: { type: "boolean", default: false },
      ours: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const [what, ...rest] = positionals;
  if (what === "trace" && rest.length > 0) {
    const passed = rest.map((file) => runTrace(file, readFileSync(file, "utf8"), values.ours));
    return passed.every((ok) => ok) ? 0 : 1;
  }
  if (what !== "raft" || rest.length > 0)
    throw new Error("say raft, or trace FILE...; --help says more");
  const options = { shownMax: values.verbose ? null : 1, level: levelNamed(values.level) };
  const sets = values.set === undefined ? setNames : values.set.map(setNamed);
  const missing = missingData();
  if (missing !== null) throw new Error(missing);
  const failed: SetName[] = [];
  for (const set of sets) if (!runSet(set, options)) failed.push(set);
  say(failed.length === 0 ? "all passed" : `FAILED: ${failed.join(", ")}`);
  return failed.length === 0 ? 0 : 1;
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`conformance: ${messageOf(error)}\n`);
  process.exitCode = 2;
}
