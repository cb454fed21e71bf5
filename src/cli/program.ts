/** The whole command: its tree, its global flags, and one run of it. */
import { Command, CommanderError } from "commander";
import type { Cli, Terminal } from "./cli.ts";
import { EngineClient } from "./client.ts";
import {
  addFlag,
  buildCommand,
  type CommandSpec,
  type GroupSpec,
  quietCommand,
  Refusal,
  refusalOf,
} from "./command.ts";
import { clusterGroup } from "./commands/cluster.ts";
import { containerCommands } from "./commands/container.ts";
import { imageCommands, imageGroup } from "./commands/image.ts";
import { machineGroup } from "./commands/machine.ts";
import { networkGroup } from "./commands/network.ts";
import { nodeGroup } from "./commands/node.ts";
import { raftGroup } from "./commands/raft.ts";
import { serviceGroup } from "./commands/service.ts";
import { swarmGroup } from "./commands/swarm.ts";
import { systemCommands } from "./commands/system.ts";
import type { FlagSpec } from "./flag.ts";
import { flagHelp } from "./help.ts";
import { type HostOptions, resolveEndpoint } from "./host.ts";
import { shoalVersion } from "./shoal-version.ts";

const groups: readonly GroupSpec[] = [
  imageGroup,
  machineGroup(clusterGroup),
  networkGroup,
  nodeGroup,
  raftGroup,
  serviceGroup,
  swarmGroup,
];
const commands: readonly CommandSpec[] = [
  ...containerCommands,
  ...imageCommands,
  ...systemCommands,
];

const globalFlags: readonly FlagSpec[] = [
  {
    name: "config",
    kind: "string",
    help: "Location of client config files (accepted for docker's sake, not read)",
  },
  { name: "debug", short: "D", kind: "bool", help: "Enable debug mode" },
  {
    name: "host",
    short: "H",
    kind: "list",
    help: "Daemon socket to connect to (DOCKER_HOST, SHOAL_HOST)",
  },
  { name: "log-level", short: "l", kind: "string", help: "Set the logging level", default: "info" },
  { name: "tls", kind: "bool", help: "Use TLS; implied by --tlsverify" },
  { name: "tlscacert", kind: "string", help: "Trust certs signed only by this CA" },
  { name: "tlscert", kind: "string", help: "Path to TLS certificate file" },
  { name: "tlskey", kind: "string", help: "Path to TLS key file" },
  { name: "tlsverify", kind: "bool", help: "Use TLS and verify the remote" },
  { name: "version", short: "v", kind: "bool", help: "Print version information and quit" },
];

/** Runs the command with these words (without `node` and the program's name). Answers the exit code; never throws but for bugs. */
export async function runShoal(
  words: readonly string[],
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const root = quietCommand(new Command("shoal"));
  root.enablePositionalOptions();
  root.helpInformation = rootHelp;
  root.configureOutput({ writeOut: (text) => void terminal.out.write(text) });
  for (const flag of globalFlags) addFlag(root, flag);

  let engine: EngineClient | null = null;
  const cli: Cli = {
    ...terminal,
    signal,
    engine: () => {
      engine ??= new EngineClient(resolveEndpoint(hostOptions(root.opts()), terminal.env));
      return engine;
    },
  };
  let exitCode = 0;
  const finish = (code: number): void => {
    exitCode = code;
  };
  for (const spec of [...groups, ...commands]) {
    root.addCommand(buildCommand(spec, "shoal", async () => cli, finish));
  }
  setOutputs(root, terminal);
  root.argument("[words...]");
  root.action(() => {
    const [word] = root.args;
    if (word !== undefined) {
      throw new Refusal(
        `shoal: unknown command: shoal ${word}\n\nRun 'shoal --help' for more information`,
        1,
      );
    }
    const isVersion = root.getOptionValue("version") === true;
    terminal.out.write(isVersion ? `Shoal version ${shoalVersion}\n` : rootHelp());
  });
  try {
    await root.parseAsync([...words], { from: "user" });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    if (signal.aborted) return 130;
    const refusal = refusalOf(error, called(root, words));
    terminal.err.write(`${refusal.message}\n`);
    return refusal.exitCode;
  } finally {
    (engine as EngineClient | null)?.close();
  }
}

/** The path and usage of the command that the words name, for messages about its flags. */
function called(root: Command, words: readonly string[]): { path: string; usage: string } {
  let path = "shoal";
  let usage = "[OPTIONS] COMMAND [ARG...]";
  let level: readonly (GroupSpec | CommandSpec)[] = [...groups, ...commands];
  const valued = new Set([
    "-H",
    "--host",
    "-l",
    "--log-level",
    "--config",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
  ]);
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? "";
    if (level.length === 0) break;
    if (word.startsWith("-")) {
      if (valued.has(word)) at += 1;
      continue;
    }
    const found = level.find(
      (spec) => spec.name === word || ("aliases" in spec && spec.aliases?.includes(word)),
    );
    if (found === undefined) break;
    path = `${path} ${found.name}`;
    usage = "usage" in found ? found.usage : "COMMAND";
    level = "commands" in found ? found.commands : [];
  }
  return { path: root.name() === "shoal" ? path : root.name(), usage };
}

function setOutputs(command: Command, terminal: Terminal): void {
  command.configureOutput({ writeOut: (text) => void terminal.out.write(text) });
  for (const inner of command.commands) setOutputs(inner, terminal);
}

function hostOptions(values: Readonly<Record<string, unknown>>): HostOptions {
  const text = (name: string): string | null => {
    const value = values[name];
    return Array.isArray(value) ? String(value.at(-1)) : null;
  };
  return {
    host: text("host"),
    tls: values["tls"] === true,
    tlsVerify: values["tlsverify"] === true,
    caFile: text("tlscacert"),
    certFile: text("tlscert"),
    keyFile: text("tlskey"),
  };
}

function rootHelp(): string {
  const section = (
    title: string,
    specs: readonly { readonly name: string; readonly summary: string }[],
  ): string => {
    const lines = [...specs]
      .sort((a, b) => a.name.localeCompare(b.name))
      .map(({ name, summary }) => `  ${name.padEnd(11)} ${summary}`);
    return `${title}:\n${lines.join("\n")}`;
  };
  return `${[
    "Usage:  shoal [OPTIONS] COMMAND",
    "Many machines that move as one: services on a swarm, with docker's commands",
    section("Management Commands", groups),
    section("Commands", commands),
    `Global Options:\n${flagHelp(globalFlags)}`,
    "Run 'shoal COMMAND --help' for more information on a command.",
  ].join("\n\n")}\n`;
}
