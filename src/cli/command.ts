/** Commands: commander takes the words apart, this file gives docker's wording, help and exit codes. */
import { Command, CommanderError, Option } from "commander";
import { messageOf } from "../lib/errors.ts";
import type { Cli } from "./cli.ts";
import { checkFlagValue, type FlagSpec, Flags } from "./flag.ts";
import { flagHelp } from "./help.ts";

export interface Call {
  readonly cli: Cli;
  readonly args: readonly string[];
  readonly flags: Flags;
}

export interface CommandSpec {
  readonly name: string;
  readonly aliases?: readonly string[];
  /** After the command's name, e.g. `[OPTIONS] SERVICE [SERVICE...]`. */
  readonly usage: string;
  readonly summary: string;
  readonly flags?: readonly FlagSpec[];
  /** Fewest and most arguments; most null is any number. */
  readonly arguments: readonly [number, number | null];
  /** Flags end at the first argument: what follows belongs to a program (`service create IMAGE CMD -x`). */
  readonly flagsFirst?: boolean;
  /** The lines of `Aliases:` in help, when there are others than the plain ones. */
  readonly alsoCalled?: readonly string[];
  /** Answers the exit code; nothing is 0. */
  run(call: Call): Promise<number | undefined>;
}
export interface GroupSpec {
  readonly name: string;
  readonly summary: string;
  readonly commands: readonly (CommandSpec | GroupSpec)[];
}

/** The command was called wrongly, or ended with a message of its own: what to print on stderr, and the exit code. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly exitCode: number;
  constructor(message: string, exitCode: number) {
    super(message);
    this.exitCode = exitCode;
  }
}

const usageExitCode = 125;

/** Builds the commander command of a spec. `path` is the words before it; `cli` is asked for once flags are known. */
export function buildCommand(
  spec: CommandSpec | GroupSpec,
  path: string,
  cli: () => Promise<Cli>,
  finish: (exitCode: number) => void,
): Command {
  const full = `${path} ${spec.name}`;
  if ("commands" in spec) {
    const group = quietCommand(new Command(spec.name));
    group.helpInformation = () => groupHelp(spec, full);
    for (const command of spec.commands) group.addCommand(buildCommand(command, full, cli, finish));
    group.argument("[words...]");
    group.action(async () => {
      const [word] = group.args;
      if (word !== undefined) {
        throw new Refusal(
          `${path.split(" ")[0]}: unknown command: ${full} ${word}\n\nUsage:  ${full}\n\nRun '${full} --help' for more information`,
          1,
        );
      }
      (await cli()).out.write(groupHelp(spec, full));
    });
    return group;
  }
  return buildLeaf(spec, full, cli, finish);
}

/** The sentence and exit code of anything that a run threw, in docker's words. `commandPath` is what the user called. */
export function refusalOf(error: unknown, command: { path: string; usage: string }): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof CommanderError) {
    return new Refusal(`${flagSentence(error)}${usageTail(command)}`, usageExitCode);
  }
  // The value of a flag with a grammar of its own (--mount) is read late, and refused as if it had been read with the flags.
  if (/^invalid argument .* for ".*" flag: /s.test(messageOf(error))) {
    return new Refusal(`${messageOf(error)}${usageTail(command)}`, usageExitCode);
  }
  return new Refusal(messageOf(error), 1);
}

/** Turns off commander's own printing and leaving; help and errors are this program's. */
export function quietCommand(command: Command): Command {
  command.exitOverride();
  command.enablePositionalOptions();
  command.configureOutput({ writeErr: () => {}, outputError: () => {} });
  command.helpOption("--help", "Print usage");
  command.helpCommand(false);
  command.showSuggestionAfterError(false);
  command.allowExcessArguments(true);
  return command;
}

/** Adds a flag; a bool also takes `--NAME=true` and `--NAME=false`, see LeafCommand. */
export function addFlag(command: Command, flag: FlagSpec): void {
  const dashes = flag.short === undefined ? "" : `-${flag.short}, `;
  const value = flag.kind === "bool" ? "" : ` <${flag.shown ?? flag.kind}>`;
  const option = new Option(`${dashes}--${flag.name}${value}`, flag.help);
  // Commander reads `--no-x` as "x is off"; docker's `--no-trunc` is a flag like any other.
  option.negate = false;
  option.attributeName = () => flag.name;
  if (flag.kind === "bool") {
    const off = new Option(`--${flag.name}:false`).preset(false).hideHelp();
    off.negate = false;
    off.attributeName = () => flag.name;
    command.addOption(option).addOption(off);
    return;
  }
  option.argParser((text: string, before: unknown) => {
    checkFlagValue(flag, text);
    return Array.isArray(before) ? [...before, text] : [text];
  });
  command.addOption(option);
}

function buildLeaf(
  spec: CommandSpec,
  full: string,
  cli: () => Promise<Cli>,
  finish: (exitCode: number) => void,
): Command {
  const command = quietCommand(new LeafCommand(spec));
  for (const alias of spec.aliases ?? []) command.alias(alias);
  if (spec.flagsFirst === true) command.passThroughOptions();
  for (const flag of spec.flags ?? []) addFlag(command, flag);
  command.argument("[args...]");
  command.helpInformation = () => commandHelp(spec, full);
  command.action(async () => {
    const args = command.args;
    checkCount(spec, full, args.length);
    const given: Record<string, unknown> = {};
    for (const flag of spec.flags ?? []) {
      if (command.getOptionValueSource(flag.name) === "cli") {
        given[flag.name] = command.getOptionValue(flag.name);
      }
    }
    try {
      finish((await spec.run({ cli: await cli(), args, flags: new Flags(given) })) ?? 0);
    } catch (error) {
      throw refusalOf(error, { path: full, usage: spec.usage });
    }
  });
  return command;
}

/** A command with a run: knows pflag's `--bool=false`, which commander does not. */
class LeafCommand extends Command {
  readonly #spec: CommandSpec;
  constructor(spec: CommandSpec) {
    super(spec.name);
    this.#spec = spec;
  }
  override parseOptions(argv: string[]): { operands: string[]; unknown: string[] } {
    return super.parseOptions(rewriteBools(argv, this.#spec));
  }
}

/** `--detach=false` becomes the hidden `--detach:false`; words that are not this command's flags stay as they are. */
function rewriteBools(argv: readonly string[], spec: CommandSpec): string[] {
  const flags = spec.flags ?? [];
  const result: string[] = [];
  for (let at = 0; at < argv.length; at += 1) {
    const word = argv[at] ?? "";
    if (word === "--" || (!word.startsWith("-") && spec.flagsFirst === true)) {
      return [...result, ...argv.slice(at)];
    }
    const [dashed = "", value] = word.split(/=(.*)/s);
    const flag = flags.find(({ name, short }) => dashed === `--${name}` || dashed === `-${short}`);
    if (flag?.kind === "bool" && value !== undefined) {
      if (!/^(1|t|true|0|f|false)$/i.test(value)) {
        const sentence = `invalid argument ${JSON.stringify(value)} for "--${flag.name}" flag: strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax`;
        throw new CommanderError(usageExitCode, "shoal.value", sentence);
      }
      result.push(/^[1t]/i.test(value) ? `--${flag.name}` : `--${flag.name}:false`);
      continue;
    }
    result.push(word);
    const isAlone = flag !== undefined && flag.kind !== "bool" && value === undefined;
    if (isAlone && at + 1 < argv.length) {
      at += 1;
      result.push(argv[at] ?? "");
    }
  }
  return result;
}

function checkCount(spec: CommandSpec, full: string, count: number): void {
  const [min, max] = spec.arguments;
  if (count >= min && (max === null || count <= max)) return;
  const program = full.split(" ")[0];
  const plural = (n: number): string => (n === 1 ? "argument" : "arguments");
  const needs =
    max === 0
      ? "accepts no arguments"
      : min === max
        ? `requires ${min} ${plural(min)}`
        : count < min
          ? `requires at least ${min} ${plural(min)}`
          : `requires at most ${max} ${plural(max ?? 0)}`;
  throw new Refusal(
    `${program}: '${full}' ${needs}\n\nUsage:  ${full} ${spec.usage}\n\n${needs.startsWith("requires at least") ? "See" : "Run"} '${full} --help' for more information`,
    1,
  );
}

function usageTail(command: { path: string; usage: string }): string {
  return `\n\nUsage:  ${command.path} ${command.usage}\n\nRun '${command.path} --help' for more information`;
}

function flagSentence(error: CommanderError): string {
  const quoted = /'([^']*)'/.exec(error.message)?.[1] ?? "";
  switch (error.code) {
    case "commander.unknownOption": {
      if (quoted.startsWith("--")) return `unknown flag: ${quoted.split("=")[0]}`;
      return `unknown shorthand flag: '${quoted.slice(1, 2)}' in ${quoted}`;
    }
    case "commander.optionMissingArgument": {
      const long = /--([\w-]+)/.exec(quoted)?.[1];
      return `flag needs an argument: --${long ?? quoted}`;
    }
    default:
      return error.message.replace(/^error: /, "");
  }
}

/** `--help` of one command, laid out as docker's. */
export function commandHelp(spec: CommandSpec, full: string): string {
  const parts = [`Usage:  ${full} ${spec.usage}`.trimEnd(), spec.summary];
  const parent = full.split(" ").slice(0, -1).join(" ");
  const also = spec.alsoCalled ?? (spec.aliases ?? []).map((alias) => `${parent} ${alias}`);
  if (also.length > 0)
    parts.push(`Aliases:\n  ${[full, ...also.filter((a) => a !== full)].join(", ")}`);
  if ((spec.flags ?? []).length > 0) parts.push(`Options:\n${flagHelp(spec.flags ?? [])}`);
  return `${parts.join("\n\n")}\n`;
}

/** `--help` of a group of commands. */
export function groupHelp(spec: GroupSpec, full: string): string {
  const width = Math.max(11, ...spec.commands.map((command) => command.name.length + 1));
  const lines = [...spec.commands]
    .sort((a, b) => a.name.localeCompare(b.name))
    .map((command) => `  ${command.name.padEnd(width)} ${command.summary}`);
  return `Usage:  ${full} COMMAND\n\n${spec.summary}\n\nCommands:\n${lines.join("\n")}\n\nRun '${full} COMMAND --help' for more information on a command.\n`;
}
