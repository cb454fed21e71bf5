/** The command line of the history checker: script/check-history [--limit N] FILE... */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { messageOf } from "../../src/lib/errors.ts";
import { HISTORY_WORK_MAX, judge } from "./check.ts";
import { parseHistory, type RegisterOperation } from "./jepsen.ts";
import { register } from "./models.ts";

const usage = `Usage: script/check-history [--limit N] [--explain] FILE...

Reads histories of one register (the format of etcd's Jepsen logs: read, write, cas) and prints for each
  FILE linearizable | not linearizable | unknown
  --limit N   give up on a history after N steps of work and call it unknown (default ${HISTORY_WORK_MAX})
  --explain   say for a history that is not linearizable which answer cannot be explained
Exit code: 0 when all are linearizable, 1 when one is not or is unknown, 2 when one could not be read.
`;

interface Options {
  readonly files: readonly string[];
  readonly limit: number;
  readonly explain: boolean;
}

function optionsOf(args: readonly string[]): Options | null {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      limit: { type: "string", default: String(HISTORY_WORK_MAX) },
      explain: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return null;
  const limit = Number(values.limit);
  if (!/^\d+$/.test(values.limit) || !Number.isSafeInteger(limit) || limit === 0) {
    throw new Error(`--limit takes a positive whole number, not ${values.limit}`);
  }
  if (positionals.length === 0) throw new Error("name at least one history; --help says more");
  return { files: positionals, limit, explain: values.explain };
}

/** Prints the verdict on a file; answers the exit code that it asks for. */
function checkFile(file: string, { limit, explain }: Options): number {
  let history: RegisterOperation[];
  try {
    history = parseHistory(readFileSync(file, "utf8"));
  } catch (error) {
    process.stderr.write(`check-history: ${file}: ${messageOf(error)}\n`);
    return 2;
  }
  const { verdict, stuck } = judge(history, register, limit);
  process.stdout.write(`${file} ${verdict.replace("-", " ")}\n`);
  if (explain && stuck !== null) {
    process.stdout.write(
      `  no order of the operations explains the answer of line ${stuck.return} (asked in line ${stuck.call})\n`,
    );
  }
  return verdict === "linearizable" ? 0 : 1;
}

/** Does what the command line says; answers the exit code. */
export function checkHistories(args: readonly string[]): number {
  let options: Options | null;
  try {
    options = optionsOf(args);
  } catch (error) {
    process.stderr.write(`check-history: ${messageOf(error)}\n`);
    return 2;
  }
  if (options === null) {
    process.stdout.write(usage);
    return 0;
  }
  let code = 0;
  for (const file of options.files) code = Math.max(code, checkFile(file, options));
  return code;
}
