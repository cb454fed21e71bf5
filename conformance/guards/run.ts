/** The command line of script/guards: each guard of the bank taken out of a copy of the native core, and whether its test fails then. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { bank } from "./bank/index.ts";
import { run } from "./cargo.ts";
import { copyNative, takeOut, without } from "./copy.ts";
import type { Guard, GuardTest } from "./guard.ts";
import { isCaught, markdown, type Outcome, outcomeLine, sumUp, testName } from "./table.ts";

const usage = `Usage: script/guards [--only NAME]... [--markdown] [--list]

Takes one guard at a time out of a copy of the native core, builds the copy and runs the test that guards the guard: it
must fail. First, each of these tests has to pass in the copy as it is. Needs root, as the tests make real containers;
they run in namespaces in which the machine's disks are read-only. The copy and what is built of it stay in .guards.
Exit code: 0 every guard is missed, 1 one is not, 2 bad arguments, or a guard that does not fit the source any more.
  --only NAME  this guard; may be given several times
  --markdown   print the table as Markdown
  --list       print the guards and run nothing
`;

interface Options {
  readonly guards: readonly Guard[];
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
      markdown: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    process.exit(0);
  }
  const guards =
    values.only === undefined
      ? bank
      : values.only.map((name) => {
          const guard = bank.find((one) => one.name === name);
          if (guard === undefined) throw new Error(`no guard is named ${name}; see --list`);
          return guard;
        });
  return { guards, markdown: values.markdown, list: values.list };
}

/** What must not fail does not: a test that fails anyway guards nothing. */
async function provesClean(folder: string, guards: readonly Guard[]): Promise<boolean> {
  const tests = new Map<string, GuardTest>(guards.map(({ test }) => [testName(test), test]));
  let clean = true;
  for (const [name, test] of [...tests].sort(([one], [other]) => (one < other ? -1 : 1))) {
    const verdict = await run(folder, test);
    if (verdict.kind === "passed") continue;
    say(`with every guard: ${name}: ${verdict.kind}: ${verdict.said}`);
    clean = false;
  }
  if (clean) say(`with every guard: ${tests.size} tests pass`);
  return clean;
}

async function attempt(folder: string, guard: Guard): Promise<Outcome> {
  const begun = performance.now();
  const putBack = takeOut(guard, folder);
  try {
    const verdict = await run(folder, guard.test);
    return { guard, verdict, seconds: (performance.now() - begun) / 1_000 };
  } finally {
    putBack();
  }
}

async function main(options: Options): Promise<number> {
  if (options.list) {
    for (const { name, item, what } of options.guards) {
      say(`${name.padEnd(34)}${item.padEnd(32)}${what}`);
    }
    return 0;
  }
  const folder = join(process.cwd(), ".guards");
  mkdirSync(folder, { recursive: true });
  copyNative(process.cwd(), folder);
  for (const guard of options.guards) without(guard, folder);
  if (!(await provesClean(folder, options.guards))) return 1;
  const outcomes: Outcome[] = [];
  for (const guard of options.guards) {
    const outcome = await attempt(folder, guard);
    outcomes.push(outcome);
    say(outcomeLine(outcome));
  }
  if (options.markdown) say(`\n${markdown(outcomes)}`);
  say(`\n${sumUp(outcomes)}`);
  return outcomes.every(isCaught) ? 0 : 1;
}

try {
  process.exitCode = await main(optionsOf(process.argv.slice(2)));
} catch (error) {
  process.stderr.write(`guards: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 2;
}
