/** `script/faults`: real managers under faults, seed by seed, and a table at the end. */
import { appendFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildFailingSync } from "./failing-sync.ts";
import { networkFaults, processFaults } from "./nemesis.ts";
import { type RunReport, runFaults } from "./run.ts";

const help = `usage: script/faults [--managers 3,5] [--seeds 6] [--from 1] [--seconds 60] [--keep] [--verbose]

Starts real managers in network namespaces of this box, lets clients read and write through the Engine API while daemons are
killed and stopped, the network is parted, disks are full and syncs fail, and judges what the clients saw. Needs root.

  --managers LIST  sizes of the cluster, 3 or 5, comma-separated (default "3,5")
  --seeds N        runs of each size (default 6)
  --from S         first seed (default 1)
  --seconds T      how long faults go on in each run (default 60); every kind happens at least once however short that is
  --keep           keep histories and logs of runs without a violation too
  --verbose        print every fault as it happens

Prints a line a run. Exit code 1 when something was violated; the run's histories (for script/check-history) and logs are
kept then, and where they are is printed.
`;

/** Violations of a run that are printed; all are in its folder. */
const shownMax = 10;
const shownCharactersMax = 600;

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** A whole number of a flag. Throws with the flag's name. */
function whole(flag: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new Error(`--${flag} ${text}: it must be a whole number from 1`);
  return value;
}

interface Wanted {
  readonly sizes: readonly (3 | 5)[];
  readonly seeds: number;
  readonly from: number;
  readonly seconds: number;
  readonly keep: boolean;
  readonly verbose: boolean;
}

/** What the flags ask for; null: the help was printed. */
function wantedOf(args: readonly string[]): Wanted | null {
  const { values } = parseArgs({
    args: [...args],
    options: {
      managers: { type: "string", default: "3,5" },
      seeds: { type: "string", default: "6" },
      from: { type: "string", default: "1" },
      seconds: { type: "string", default: "60" },
      keep: { type: "boolean", default: false },
      verbose: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    print(help.trimEnd());
    return null;
  }
  const sizes = values.managers.split(",").map((text) => {
    const size = whole("managers", text);
    if (size !== 3 && size !== 5) throw new Error(`--managers ${text}: it must be 3 or 5`);
    return size;
  });
  return {
    sizes,
    seeds: whole("seeds", values.seeds),
    from: whole("from", values.from),
    seconds: whole("seconds", values.seconds),
    keep: values.keep,
    verbose: values.verbose,
  };
}

async function main(): Promise<number> {
  const wanted = wantedOf(process.argv.slice(2));
  if (wanted === null) return 0;
  if (process.geteuid?.() !== 0) throw new Error("network namespaces and mounts need root");
  const root = await mkdtemp("/var/tmp/shoal-faults-");
  const library = await buildFailingSync(root);
  const interruption = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => interruption.abort());
  const reports: RunReport[] = [];
  let broken = 0;
  for (const managers of wanted.sizes) {
    for (let number = 0; number < wanted.seeds && !interruption.signal.aborted; number += 1) {
      const seed = wanted.from + number;
      const report = await runOne({ wanted, managers, seed, root, library, interruption });
      if (report !== null) reports.push(report);
      if (report === null || report.violations.length > 0) broken += 1;
    }
  }
  if (broken === 0 && !wanted.keep) await rm(root, { recursive: true, force: true });
  print(tableOf(reports));
  // What an interrupted run has under way ends with the process.
  if (interruption.signal.aborted) process.exit(130);
  return broken === 0 ? 0 : 1;
}

/** One run, told; null when it could not be made. */
async function runOne(options: {
  readonly wanted: Wanted;
  readonly managers: 3 | 5;
  readonly seed: number;
  readonly root: string;
  readonly library: string;
  readonly interruption: AbortController;
}): Promise<RunReport | null> {
  const { wanted, managers, seed, root, library } = options;
  const { seconds } = wanted;
  const folder = join(root, `${managers}-managers-seed-${seed}`);
  await mkdir(folder);
  const say = (line: string): void => {
    appendFileSync(join(folder, "run.txt"), `${line}\n`);
    if (wanted.verbose) print(line);
  };
  let report: RunReport | null = null;
  try {
    const interruption = options.interruption.signal;
    report = await runFaults({ managers, seed, seconds, folder, library, interruption, say });
    print(lineOf(report));
    for (const violation of report.violations.slice(0, shownMax))
      print(`  ${violation.replaceAll("\n", " ").slice(0, shownCharactersMax)}`);
  } catch (error) {
    print(`${managers} managers, seed ${seed}: the run itself failed: ${String(error)}`);
  }
  const fine = report?.violations.length === 0;
  if (fine && !wanted.keep) await rm(folder, { recursive: true, force: true });
  else print(`  kept in ${folder}; alone: ${again(managers, seed, seconds)}`);
  return report;
}

function again(managers: number, seed: number, seconds: number): string {
  return `script/faults --managers ${managers} --seeds 1 --from ${seed} --seconds ${seconds}`;
}

function lineOf(report: RunReport): string {
  const { operations, registers, ledger } = report;
  const faults = [...report.faults].map(([kind, count]) => `${kind} ${count}`).join(", ");
  return [
    `${report.managers} managers, seed ${report.seed}, ${report.seconds} s:`,
    `${operations.ok} ok, ${operations.fail} failed, ${operations.unknown} unknown;`,
    `faults: ${faults};`,
    `${report.elections} elections;`,
    `registers ${registers.fine}/${registers.all} linearizable;`,
    `ledger ${ledger.acknowledged} acknowledged, ${ledger.lost} lost;`,
    `longest without a write ${(report.longestGapMs / 1_000).toFixed(1)} s;`,
    `recovered in ${(report.recoveryMs / 1_000).toFixed(1)} s;`,
    report.violations.length === 0 ? "no violation" : `${report.violations.length} VIOLATIONS`,
  ].join(" ");
}

/** One row a cluster size, and their sum. */
function tableOf(reports: readonly RunReport[]): string {
  const kinds = [...processFaults, ...networkFaults];
  const head = [
    "managers",
    "runs",
    "ok",
    "failed",
    "unknown",
    ...kinds,
    "faults",
    "elections",
    "lost",
    "violations",
  ];
  const sum = (rows: readonly RunReport[], of: (report: RunReport) => number): number =>
    rows.reduce((total, report) => total + of(report), 0);
  const row = (name: string, rows: readonly RunReport[]): string[] => {
    const faults = kinds.map((kind) => sum(rows, (report) => report.faults.get(kind) ?? 0));
    return [
      name,
      rows.length,
      sum(rows, ({ operations }) => operations.ok),
      sum(rows, ({ operations }) => operations.fail),
      sum(rows, ({ operations }) => operations.unknown),
      ...faults,
      faults.reduce((total, count) => total + count, 0),
      sum(rows, ({ elections }) => elections),
      sum(rows, ({ ledger }) => ledger.lost),
      sum(rows, ({ violations }) => violations.length),
    ].map(String);
  };
  const sizes = [...new Set(reports.map(({ managers }) => managers))];
  const rows = [
    head,
    ...sizes.map((size) =>
      row(
        String(size),
        reports.filter(({ managers }) => managers === size),
      ),
    ),
    row("all", reports),
  ];
  const widths = head.map((_, at) => Math.max(...rows.map((cells) => cells[at]?.length ?? 0)));
  return rows
    .map((cells) => cells.map((cell, at) => cell.padStart(widths[at] ?? 0)).join("  "))
    .join("\n");
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(`faults: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 2;
  },
);
