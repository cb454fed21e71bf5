/** `shoal raft`: the Raft log of a manager that is not running, looked at and repaired. */
import { messageOf } from "../../lib/errors.ts";
import {
  checkRaft,
  defaultDataRoot,
  type LogReport,
  type RaftFiles,
  repairRaft,
} from "../../node/raft-offline.ts";
import { say } from "../cli.ts";
import { type Call, type CommandSpec, type GroupSpec, Refusal } from "../command.ts";
import type { FlagSpec } from "../flag.ts";
import { raftReport } from "../output/raft-report.ts";

/** Something is wrong with the log, or is left to be done. */
const problemsExitCode = 1;
/** The log could not be looked at: it is not there, somebody uses it, or the disk does not give it. */
const unreadableExitCode = 2;

const keyFileFlag: FlagSpec = {
  name: "key-file",
  kind: "string",
  shown: "FILE",
  help: "Node key file that holds the log's data keys (default: the one beside the log)",
};

const check: CommandSpec = {
  name: "check",
  usage: "[OPTIONS] [DIR]",
  summary: "Look at a manager's raft log and say what is wrong with it",
  arguments: [0, 1],
  flags: [
    keyFileFlag,
    { name: "format", kind: "string", help: "Format output: 'text' or 'json'", default: "text" },
  ],
  run: async (call) => {
    const format = call.flags.text("format") ?? "text";
    if (format !== "text" && format !== "json") {
      throw new Refusal(`unknown format "${format}": text or json`, unreadableExitCode);
    }
    const report = await readable(() => checkRaft(filesOf(call)));
    if (format === "json") say(call.cli, JSON.stringify(report, null, 2));
    else call.cli.out.write(raftReport(report));
    return exitCodeOf(report);
  },
};

const repair: CommandSpec = {
  name: "repair",
  usage: "[OPTIONS] [DIR]",
  summary: "Repair a manager's raft log, as far as that loses nothing that was acknowledged",
  arguments: [0, 1],
  flags: [
    keyFileFlag,
    {
      name: "yes",
      short: "y",
      kind: "bool",
      help: "Do it; without this, only say what would be done",
    },
  ],
  run: async (call) => {
    const { cli, flags } = call;
    let count = 0;
    const outcome = await readable(() =>
      repairRaft(filesOf(call), (directory, steps) => {
        count = steps.length;
        if (count === 0) say(cli, `${directory}: nothing to repair`);
        else say(cli, `${directory}: repairing means to`);
        for (const { what, loses } of steps) {
          say(cli, `  ${what}`);
          say(cli, `    loses: ${loses}`);
        }
        return flags.on("yes");
      }),
    );
    if (count === 0) return 0;
    if (outcome.done) {
      say(cli, "Repaired.");
      return 0;
    }
    say(cli, "Nothing was changed. To do it, run this again with --yes.");
    return problemsExitCode;
  },
};

export const raftGroup: GroupSpec = {
  name: "raft",
  summary: `Check and repair the raft log of a stopped manager (under ${defaultDataRoot})`,
  commands: [check, repair],
};

function filesOf({ args, flags }: Call): RaftFiles {
  return { path: args[0] ?? null, keyFile: flags.text("key-file") };
}

function exitCodeOf(report: LogReport): number {
  return report.problems.length === 0 ? 0 : problemsExitCode;
}

/** A log that may not be repaired has problems; every other failure is one to look at it. */
async function readable<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const refused = (error as { readonly code?: unknown } | null)?.code === "failed-precondition";
    throw new Refusal(messageOf(error), refused ? problemsExitCode : unreadableExitCode);
  }
}
