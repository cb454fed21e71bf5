/** `shoal machine cluster`: a whole swarm of machines in one command. */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { failure } from "../../lib/errors.ts";
import { createCluster, eachMember, listClusters, removeCluster } from "../../machine/cluster.ts";
import { AlreadyInState, PreCreateFailure } from "../../machine/provision.ts";
import { say, warn } from "../cli.ts";
import { type CommandSpec, type GroupSpec, Refusal } from "../command.ts";
import { renderTable } from "../output/table.ts";
import {
  confirmed,
  driverName,
  engineSettings,
  machineFlags,
  open,
  removeFlags,
} from "./machine.ts";

const create: CommandSpec = {
  name: "create",
  usage: "[OPTIONS] NAME",
  summary: "Create machines and make them one swarm",
  arguments: [1, 1],
  flags: [
    machineFlags.storage,
    machineFlags.driver,
    machineFlags.keep,
    machineFlags.subnet,
    machineFlags.engineOpt,
    machineFlags.engineEnv,
    { name: "managers", short: "m", kind: "uint", help: "Number of managers", default: "3" },
    { name: "workers", short: "w", kind: "uint", help: "Number of workers", default: "2" },
    { name: "load", kind: "list", shown: "FILE", help: "Load this image archive on every machine" },
  ],
  run: async ({ cli, args, flags }) => {
    const name = args[0] ?? "";
    const startedAt = cli.now();
    const managers = flags.number("managers") ?? 3;
    const workers = flags.number("workers") ?? 2;
    const images = flags.list("load").map((file) => resolve(file));
    for (const image of images) {
      if (statSync(image, { throwIfNoEntry: false }) === undefined) {
        throw failure("invalid", `open ${image}: no such file or directory`);
      }
    }
    try {
      await createCluster(
        open(cli, flags),
        {
          name,
          driver: driverName(cli, flags),
          managers,
          workers,
          subnet: flags.text("subnet"),
          images,
          ...engineSettings(flags),
        },
        { keepOnFailure: flags.on("keep-on-failure"), say: (line) => warn(cli, line) },
      );
    } catch (error) {
      if (error instanceof PreCreateFailure) throw new Refusal(error.message, 3);
      throw error;
    }
    const seconds = ((cli.now() - startedAt) / 1000).toFixed(1);
    warn(cli, `Cluster ${name}: ${managers} managers and ${workers} workers in ${seconds} s.`);
    warn(cli, "To point your docker command at it, run:");
    const storage = flags.text("storage-path");
    const where = storage === null ? "" : `--storage-path ${storage} `;
    say(cli, `eval "$(shoal machine env ${where}${name}-m1)"`);
    return 0;
  },
};

const ls: CommandSpec = {
  name: "ls",
  aliases: ["list"],
  usage: "[OPTIONS]",
  summary: "List clusters",
  arguments: [0, 0],
  flags: [
    machineFlags.storage,
    { name: "quiet", short: "q", kind: "bool", help: "Only display names" },
  ],
  run: async ({ cli, flags }) => {
    const clusters = await listClusters(open(cli, flags));
    if (flags.on("quiet")) for (const { name } of clusters) say(cli, name);
    else {
      cli.out.write(
        renderTable(
          ["NAME", "MANAGERS", "WORKERS", "RUNNING"],
          clusters.map(({ name, managers, workers, running }) => [
            name,
            String(managers.length),
            String(workers.length),
            `${running}/${managers.length + workers.length}`,
          ]),
        ),
      );
    }
    return 0;
  },
};

const rm: CommandSpec = {
  name: "rm",
  aliases: ["remove"],
  usage: "[OPTIONS] NAME [NAME...]",
  summary: "Remove all machines of a cluster",
  arguments: [1, null],
  flags: [machineFlags.storage, ...removeFlags],
  run: async ({ cli, args, flags }) => {
    say(cli, `About to remove every machine of ${args.join(", ")}`);
    if (!(await confirmed(cli, flags))) return 1;
    const machines = open(cli, flags);
    for (const name of args) {
      await removeCluster(machines, name, flags.on("force"));
      say(cli, `Successfully removed ${name}`);
    }
    return 0;
  },
};

function power(name: "start" | "stop", done: string): CommandSpec {
  return {
    name,
    usage: "[OPTIONS] NAME",
    summary: `${name === "start" ? "Start" : "Stop"} all machines of a cluster`,
    arguments: [1, 1],
    flags: [machineFlags.storage],
    run: async ({ cli, args, flags }) => {
      const machines = open(cli, flags);
      await eachMember(machines, args[0] ?? "", async (record) => {
        try {
          await machines[name](record.name);
        } catch (error) {
          // Those that are so already need nothing.
          if (!(error instanceof AlreadyInState)) throw error;
        }
        warn(cli, `Machine "${record.name}" was ${done}.`);
      });
      return 0;
    },
  };
}

export const clusterGroup: GroupSpec = {
  name: "cluster",
  summary: "Manage clusters of machines",
  commands: [create, ls, rm, power("start", "started"), power("stop", "stopped")],
};
