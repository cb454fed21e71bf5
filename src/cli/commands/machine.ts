/** `shoal machine`: the machines of this box, with docker-machine's verbs, columns and exit codes. */
import { createInterface } from "node:readline/promises";
import { failure, messageOf } from "../../lib/errors.ts";
import { eachAtOnce } from "../../machine/cluster.ts";
import { envText, shellName, unsetText } from "../../machine/env.ts";
import { listTimeoutMs, startsAtOnceMax } from "../../machine/limits.ts";
import { NetnsDriver } from "../../machine/netns/driver.ts";
import {
  AlreadyInState,
  Machines,
  type MachineView,
  PreCreateFailure,
} from "../../machine/provision.ts";
import type { SwarmPlan } from "../../machine/record.ts";
import { parsePlace, scp } from "../../machine/scp.ts";
import { ssh } from "../../machine/ssh.ts";
import { MachineStore, storagePath } from "../../machine/store.ts";
import { type Cli, say, warn } from "../cli.ts";
import { type CommandSpec, type GroupSpec, Refusal } from "../command.ts";
import type { FlagSpec, Flags } from "../flag.ts";
import { HttpEngineApi } from "../machine-api.ts";
import { inspectAll } from "../output/inspect.ts";
import { type ListLayout, renderList } from "../output/list.ts";
import { netnsPrograms } from "../programs.ts";
import { inspectFormatFlag } from "./common-flags.ts";

const preCreateExitCode = 3;

const storageFlag: FlagSpec = {
  name: "storage-path",
  short: "s",
  kind: "string",
  help: "Where machines are kept (MACHINE_STORAGE_PATH, default ~/.shoal/machine)",
};
const driverFlag: FlagSpec = {
  name: "driver",
  short: "d",
  kind: "string",
  help: "Driver to create machine with",
  default: "netns",
};
const keepFlag: FlagSpec = {
  name: "keep-on-failure",
  kind: "bool",
  help: "Leave a machine whose create failed running, to look at it",
};
const subnetFlag: FlagSpec = {
  name: "subnet",
  kind: "string",
  help: "Subnet of the machines of this storage path (default 10.77.0.0/24)",
};
const engineOptFlag: FlagSpec = {
  name: "engine-opt",
  kind: "list",
  help: "Specify a flag to include with the created engine, in the form flag=value",
};
const engineEnvFlag: FlagSpec = {
  name: "engine-env",
  kind: "list",
  help: "Specify environment variables to set in the engine",
};
const forceRmFlags: readonly FlagSpec[] = [
  {
    name: "force",
    short: "f",
    kind: "bool",
    help: "Remove local configuration even if machine cannot be removed, also implies an automatic yes",
  },
  {
    name: "y",
    short: "y",
    kind: "bool",
    help: "Assumes automatic yes to proceed with remove, without prompting further user confirmation",
  },
];

const create: CommandSpec = {
  name: "create",
  usage: "[OPTIONS] NAME",
  summary: "Create a machine",
  arguments: [0, 1],
  flags: [
    storageFlag,
    driverFlag,
    keepFlag,
    subnetFlag,
    engineOptFlag,
    engineEnvFlag,
    { name: "ip", kind: "string", help: "Fixed address of the machine" },
    {
      name: "join",
      kind: "string",
      shown: "TOKEN@ADDR",
      help: "Join the swarm at ADDR (HOST[:PORT]) with this token",
    },
    {
      name: "resume",
      kind: "string",
      shown: "NAME",
      help: "Go on with a create that failed or was interrupted",
    },
    {
      name: "swarm-init",
      kind: "bool",
      help: "Make a swarm with this machine as its first manager",
    },
  ],
  run: async ({ cli, args, flags }) => {
    const machines = open(cli, flags);
    const options = {
      keepOnFailure: flags.on("keep-on-failure"),
      progress: (name: string, step: string) =>
        warn(cli, `(${name}) ${stepWords[step] ?? step}...`),
    };
    const resumed = flags.text("resume");
    const name = resumed ?? args[0];
    if (name === undefined) throw failure("invalid", "Error: No machine name specified");
    try {
      if (resumed !== null) await machines.resume(resumed, options);
      else {
        await machines.create(
          {
            name,
            driver: driverName(cli, flags),
            address: flags.text("ip"),
            subnet: flags.text("subnet"),
            swarm: swarmPlan(flags),
            cluster: null,
            role: null,
            ...engineSettings(flags),
          },
          options,
        );
      }
    } catch (error) {
      if (error instanceof PreCreateFailure) throw new Refusal(error.message, preCreateExitCode);
      throw error;
    }
    warn(cli, "Shoal is up and running!");
    warn(cli, `To see how to connect your client to the machine, run: shoal machine env ${name}`);
    return 0;
  },
};

const ls: CommandSpec = {
  name: "ls",
  usage: "[OPTIONS]",
  summary: "List machines",
  arguments: [0, null],
  flags: [
    storageFlag,
    { name: "quiet", short: "q", kind: "bool", help: "Enable quiet mode" },
    {
      name: "filter",
      kind: "filter",
      help: "Filter output based on conditions provided (driver, state, name, swarm)",
    },
    {
      name: "format",
      short: "f",
      kind: "string",
      help: "Pretty-print machines using a Go template",
    },
    { name: "timeout", short: "t", kind: "uint", help: "Timeout in seconds", default: "10" },
  ],
  run: async ({ cli, flags }) => {
    const machines = open(cli, flags);
    const isQuiet = flags.on("quiet");
    const broken: MachineView[] = [];
    const records = await machines.store.list((name, error) =>
      broken.push({
        name,
        driver: "",
        state: "Error",
        url: "",
        swarm: "",
        version: "",
        errors: messageOf(error),
        responseMs: 0,
      }),
    );
    const seconds = flags.number("timeout");
    const timeoutMs = seconds === null ? listTimeoutMs : seconds * 1000;
    const views = await Promise.all(records.map((record) => machines.view(record, timeoutMs)));
    const shown = [...views, ...broken].filter((view) => matches(view, flags.list("filter")));
    cli.out.write(
      renderList(layout(activeUrl(cli)), shown, { format: flags.text("format"), quiet: isQuiet }),
    );
    return 0;
  },
};

const inspect: CommandSpec = {
  name: "inspect",
  usage: "[OPTIONS] [NAME...]",
  summary: "Inspect information about a machine",
  arguments: [0, null],
  flags: [storageFlag, inspectFormatFlag],
  run: async ({ cli, args, flags }) => {
    const machines = open(cli, flags);
    const names = await namesOrDefault(machines, args);
    return await inspectAll(cli, names, flags.text("format"), async (name) => {
      const record = await machines.store.get(name);
      const driver = machines.driver(record.driver);
      // The token of an unfinished join is a secret.
      const swarm =
        record.swarm?.kind === "join" ? { ...record.swarm, token: "(hidden)" } : record.swarm;
      return {
        Name: record.name,
        DriverName: record.driver,
        CreatedAt: record.createdAt,
        State: await machines.state(name),
        Driver: {
          IPAddress: driver.address(record),
          PrefixLength: record.prefixLength,
          Gateway: record.gateway,
          URL: driver.url(record),
          Index: record.index,
          StorePath: machines.store.path,
          Features: driver.features,
        },
        Create: { Step: record.step, Error: record.error, Swarm: swarm },
        Cluster: { Name: record.cluster, Role: record.role },
        EngineOptions: { Arguments: record.daemonArguments, Env: record.daemonEnvironment },
      };
    });
  },
};

const env: CommandSpec = {
  name: "env",
  usage: "[OPTIONS] [NAME]",
  summary: "Display the commands to set up the environment for the Docker client",
  arguments: [0, 1],
  flags: [
    storageFlag,
    {
      name: "shell",
      kind: "string",
      help: "Force environment to be configured for a specified shell: [fish, cmd, powershell, tcsh, emacs], default is auto-detect",
    },
    { name: "unset", short: "u", kind: "bool", help: "Unset variables instead of setting them" },
  ],
  run: async ({ cli, args, flags }) => {
    const shell = shellName(flags.text("shell"), cli.env["SHELL"]);
    if (flags.on("unset")) {
      cli.out.write(
        unsetText(shell, ["DOCKER_HOST", "DOCKER_MACHINE_NAME"], "shoal machine env -u"),
      );
      return 0;
    }
    const machines = open(cli, flags);
    const [name = ""] = await namesOrDefault(machines, args);
    const record = await machines.store.get(name);
    const driver = machines.driver(record.driver);
    if ((await driver.state(record)) !== "Running") {
      throw failure(
        "failed-precondition",
        `Error checking TLS connection: Host is not running: start it with "shoal machine start ${name}"`,
      );
    }
    const variables = { DOCKER_HOST: driver.url(record), DOCKER_MACHINE_NAME: name };
    cli.out.write(envText(shell, variables, `shoal machine env ${name}`));
    return 0;
  },
};

const sshCommand: CommandSpec = {
  name: "ssh",
  usage: "[OPTIONS] NAME [COMMAND...]",
  summary: "Log into or run a command on a machine",
  arguments: [1, null],
  flagsFirst: true,
  flags: [
    storageFlag,
    { name: "tty", short: "t", kind: "bool", help: "Give the command a terminal of its own" },
  ],
  run: async ({ cli, args, flags }) => {
    const [name = "", ...words] = args[1] === "--" ? [args[0] ?? "", ...args.slice(2)] : args;
    const isTerminal = cli.in.isTTY === true && cli.out.isTTY === true;
    const tty = flags.has("tty") ? flags.on("tty") : words.length === 0 && isTerminal;
    return await ssh(open(cli, flags), name, words, tty);
  },
};

const scpCommand: CommandSpec = {
  name: "scp",
  usage: "[OPTIONS] [NAME:]PATH [NAME:]PATH",
  summary: "Copy files between machines",
  arguments: [2, 2],
  flags: [
    storageFlag,
    {
      name: "recursive",
      short: "r",
      kind: "bool",
      help: "Copy files recursively (required to copy directories)",
    },
  ],
  run: async ({ cli, args, flags }) => {
    const [from = "", to = ""] = args;
    await scp(open(cli, flags), parsePlace(from), parsePlace(to), flags.on("recursive"));
    return 0;
  },
};

const rm: CommandSpec = {
  name: "rm",
  usage: "[OPTIONS] NAME [NAME...]",
  summary: "Remove a machine",
  arguments: [1, null],
  flags: [storageFlag, ...forceRmFlags],
  run: async ({ cli, args, flags }) => {
    const machines = open(cli, flags);
    say(cli, `About to remove ${args.join(", ")}`);
    say(cli, "WARNING: This action will delete both local reference and remote instance.");
    if (!(await confirmed(cli, flags))) return 1;
    return await eachMachine(cli, args, async (name) => {
      await machines.remove(name, flags.on("force"));
      say(cli, `Successfully removed ${name}`);
    });
  },
};

const active: CommandSpec = {
  name: "active",
  usage: "[OPTIONS]",
  summary: "Print which machine is active",
  arguments: [0, 0],
  flags: [storageFlag],
  run: async ({ cli, flags }) => {
    const machines = open(cli, flags);
    const url = activeUrl(cli);
    for (const record of await machines.store.list(() => {})) {
      if (machines.driver(record.driver).url(record) === url) {
        say(cli, record.name);
        return 0;
      }
    }
    throw failure("not-found", "Error: No active host found");
  },
};

/** Verbs that do one thing to each machine, and say what they did. */
function power(
  name: "start" | "stop" | "kill" | "restart" | "provision",
  summary: string,
  doing: string,
  done: string,
): CommandSpec {
  return {
    name,
    usage: "[OPTIONS] [NAME...]",
    summary,
    arguments: [0, null],
    flags: [storageFlag],
    run: async ({ cli, args, flags }) => {
      const machines = open(cli, flags);
      return await eachMachine(cli, await namesOrDefault(machines, args), async (machine) => {
        warn(cli, `${doing} "${machine}"...`);
        try {
          await machines[name](machine);
        } catch (error) {
          // docker-machine says so and is content.
          if (!(error instanceof AlreadyInState)) throw error;
          warn(cli, error.message);
          return;
        }
        warn(cli, `Machine "${machine}" was ${done}.`);
      });
    },
  };
}

/** Verbs that print one line for each machine. */
function ask(
  name: string,
  summary: string,
  answer: (machines: Machines, machine: string) => Promise<string>,
): CommandSpec {
  return {
    name,
    usage: "[OPTIONS] [NAME...]",
    summary,
    arguments: [0, null],
    flags: [storageFlag],
    run: async ({ cli, args, flags }) => {
      const machines = open(cli, flags);
      let code = 0;
      for (const machine of await namesOrDefault(machines, args)) {
        try {
          say(cli, await answer(machines, machine));
        } catch (error) {
          warn(cli, messageOf(error));
          code = 1;
        }
      }
      return code;
    },
  };
}

const asks: readonly CommandSpec[] = [
  ask("ip", "Get the IP address of a machine", async (machines, name) => {
    const record = await running(machines, name);
    return machines.driver(record.driver).address(record);
  }),
  ask("url", "Get the URL of a machine", async (machines, name) => {
    const record = await running(machines, name);
    return machines.driver(record.driver).url(record);
  }),
  ask("status", "Get the status of a machine", (machines, name) => machines.state(name)),
  ask("config", "Print the connection config for machine", async (machines, name) => {
    const record = await running(machines, name);
    return `-H=${machines.driver(record.driver).url(record)}`;
  }),
];

/** The commands of `shoal machine`, without those of `cluster`. */
export const machineCommands: readonly CommandSpec[] = [
  active,
  create,
  env,
  inspect,
  ls,
  rm,
  scpCommand,
  sshCommand,
  power("start", "Start a machine", "Starting", "started"),
  power("stop", "Stop a machine", "Stopping", "stopped"),
  power("kill", "Kill a machine", "Killing", "killed"),
  power("restart", "Restart a machine", "Restarting", "restarted"),
  power("provision", "Start the daemon of a running machine again", "Provisioning", "provisioned"),
  ...asks,
];

/** `shoal machine` with the group of clusters in it. */
export function machineGroup(cluster: GroupSpec): GroupSpec {
  return { name: "machine", summary: "Manage machines", commands: [...machineCommands, cluster] };
}

/** The machines of the storage path that flags and environment name. */
export function open(cli: Cli, flags: Flags): Machines {
  const store = new MachineStore(storagePath(flags.text("storage-path"), cli.env));
  const drivers = [new NetnsDriver(store, netnsPrograms(cli.env))];
  return new Machines({ store, drivers, api: new HttpEngineApi() });
}

/** `-d`, else MACHINE_DRIVER, else netns. */
export function driverName(cli: Cli, flags: Flags): string {
  return flags.text("driver") ?? (cli.env["MACHINE_DRIVER"] || "netns");
}

/** What --engine-opt and --engine-env say, for the record. */
export function engineSettings(flags: Flags): {
  readonly daemonArguments: readonly string[];
  readonly daemonEnvironment: readonly string[];
} {
  for (const variable of flags.list("engine-env")) {
    if (!/^[A-Za-z_]\w*=/.test(variable)) {
      throw failure("invalid", `--engine-env ${variable}: say NAME=VALUE`);
    }
  }
  return {
    daemonArguments: flags.list("engine-opt").map((option) => `--${option.replace(/^--/, "")}`),
    daemonEnvironment: flags.list("engine-env"),
  };
}

/** Whether the user agrees to a removal; -y and -f say so. */
export async function confirmed(cli: Cli, flags: Flags): Promise<boolean> {
  if (flags.on("y") || flags.on("force")) return true;
  const questions = createInterface({ input: cli.in, output: cli.out });
  try {
    return /^y(es)?$/i.test((await questions.question("Are you sure? (y/n): ")).trim());
  } finally {
    questions.close();
  }
}

export const machineFlags: Readonly<
  Record<"storage" | "driver" | "keep" | "subnet" | "engineOpt" | "engineEnv", FlagSpec>
> = {
  storage: storageFlag,
  driver: driverFlag,
  keep: keepFlag,
  subnet: subnetFlag,
  engineOpt: engineOptFlag,
  engineEnv: engineEnvFlag,
};
export const removeFlags: readonly FlagSpec[] = forceRmFlags;

const stepWords: Readonly<Record<string, string>> = {
  check: "Running pre-create checks",
  resources: "Creating machine",
  start: "Starting machine",
  ready: "Waiting for the API",
  swarm: "Configuring swarm",
};

function swarmPlan(flags: Flags): SwarmPlan | null {
  const join = flags.text("join");
  if (join !== null && flags.on("swarm-init")) {
    throw failure("invalid", "--join and --swarm-init exclude each other");
  }
  if (flags.on("swarm-init")) return { kind: "init" };
  if (join === null) return null;
  const at = join.indexOf("@");
  if (at <= 0 || at === join.length - 1) throw failure("invalid", `--join ${join}: say TOKEN@ADDR`);
  const remote = join.slice(at + 1);
  return {
    kind: "join",
    token: join.slice(0, at),
    remote: /:\d+$/.test(remote) ? remote : `${remote}:2377`,
  };
}

async function running(machines: Machines, name: string): ReturnType<MachineStore["get"]> {
  const record = await machines.store.get(name);
  if ((await machines.driver(record.driver).state(record)) !== "Running") {
    throw failure("failed-precondition", "Host is not running");
  }
  return record;
}

async function namesOrDefault(
  machines: Machines,
  args: readonly string[],
): Promise<readonly string[]> {
  if (args.length > 0) return args;
  if ((await machines.store.names()).includes("default")) return ["default"];
  throw failure("invalid", 'Error: No machine name(s) specified and no "default" machine exists');
}

async function eachMachine(
  cli: Cli,
  names: readonly string[],
  work: (name: string) => Promise<void>,
): Promise<number> {
  let code = 0;
  await eachAtOnce(names, startsAtOnceMax, async (name) => {
    try {
      await work(name);
    } catch (error) {
      warn(cli, messageOf(error));
      code = 1;
    }
  });
  return code;
}

function activeUrl(cli: Cli): string {
  return cli.env["DOCKER_HOST"] || cli.env["SHOAL_HOST"] || "";
}

function matches(view: MachineView, filters: readonly string[]): boolean {
  const wanted = new Map<string, string[]>();
  for (const filter of filters) {
    const at = filter.indexOf("=");
    const key = filter.slice(0, at).toLowerCase();
    wanted.set(key, [...(wanted.get(key) ?? []), filter.slice(at + 1)]);
  }
  for (const [key, values] of wanted) {
    const isMatch = values.some((value) => {
      switch (key) {
        case "driver":
          return view.driver === value;
        case "state":
          return view.state.toLowerCase() === value.toLowerCase();
        case "name":
          return new RegExp(value).test(view.name);
        case "swarm":
          return view.swarm === value;
        default:
          throw failure("invalid", `Unsupported filter key '${key}'`);
      }
    });
    if (!isMatch) return false;
  }
  return true;
}

function layout(active: string): ListLayout<MachineView> {
  return {
    columns: {
      Name: { header: "NAME", value: ({ name }) => name },
      Active: { header: "ACTIVE", value: ({ url }) => (url !== "" && url === active ? "*" : "-") },
      DriverName: { header: "DRIVER", value: ({ driver }) => driver },
      State: { header: "STATE", value: ({ state }) => state },
      URL: { header: "URL", value: ({ url }) => url },
      Swarm: { header: "SWARM", value: ({ swarm }) => swarm },
      DockerVersion: { header: "DOCKER", value: ({ version }) => version || "Unknown" },
      Error: { header: "ERRORS", value: ({ errors }) => errors.replaceAll("\n", " ") },
      ResponseTime: { header: "RESPONSE", value: ({ responseMs }) => `${responseMs}ms` },
    },
    table: ["Name", "Active", "DriverName", "State", "URL", "Swarm", "DockerVersion", "Error"],
    quiet: "Name",
  };
}
