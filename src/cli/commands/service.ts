/** `shoal service`: create, ls, ps, inspect, logs, scale, update, rm, rollback and explain. */
import { readFileSync } from "node:fs";
import { failure, messageOf } from "../../lib/errors.ts";
import { type Cli, say, warn } from "../cli.ts";
import { DaemonError, filterQuery } from "../client.ts";
import { type CommandSpec, type GroupSpec, Refusal } from "../command.ts";
import type {
  ExplanationJson,
  NetworkJson,
  ServiceJson,
  TaskJson,
  TaskTemplateJson,
} from "../engine-types.ts";
import { explainText } from "../output/explain.ts";
import { inspectAll } from "../output/inspect.ts";
import { type ListLayout, renderList } from "../output/list.ts";
import { waitForService } from "../output/progress.ts";
import { writeServiceLogs } from "../output/service-logs.ts";
import { servicePretty } from "../output/service-pretty.ts";
import { formatPorts, imageOf, taskTable } from "../output/tasks.ts";
import { goJson, parseTemplate } from "../output/template.ts";
import { naturalOrder, shortId } from "../output/units.ts";
import { refuseUnsupported, serviceCreateFlags, serviceUpdateFlags } from "../service-flags.ts";
import { createSpec } from "../service-spec.ts";
import { updateSpec } from "../service-update.ts";
import { parseNetwork } from "../service-values.ts";
import { filterMap, timestamp } from "../values.ts";
import {
  detachFlag,
  filterFlag,
  inspectFormatFlag,
  listFormatFlag,
  logFlags,
  noResolveFlag,
  noTruncFlag,
  prettyFlag,
  quietFlag,
} from "./common-flags.ts";
import { forEach } from "./each.ts";

const create: CommandSpec = {
  name: "create",
  usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
  summary: "Create a new service",
  arguments: [1, null],
  flagsFirst: true,
  flags: serviceCreateFlags,
  run: async ({ cli, args, flags }) => {
    refuseUnsupported("service create", flags);
    const [image = "", ...command] = args;
    const context = {
      networks: await networks(cli, flags.list("network")),
      fileEnv: flags.list("env-file").flatMap(readEnvFile),
      env: cli.env,
    };
    const spec = createSpec(image, command, flags, context);
    const created = await cli
      .engine()
      .json<{ ID: string; Warnings?: string[] | null }>("POST", "/services/create", { body: spec });
    sayWarnings(cli, created.Warnings);
    say(cli, created.ID);
    if (!flags.on("detach")) await waitForService(cli, created.ID, flags.on("quiet"));
    return 0;
  },
};

const ls: CommandSpec = {
  name: "ls",
  aliases: ["list"],
  usage: "[OPTIONS]",
  summary: "List services",
  arguments: [0, 0],
  flags: [filterFlag, listFormatFlag, quietFlag("Only display IDs")],
  run: async ({ cli, flags }) => {
    const services = await cli.engine().json<ServiceJson[]>("GET", "/services", {
      query: {
        filters: filterQuery(filterMap(flags.list("filter"))),
        status: flags.on("quiet") ? null : "true",
      },
    });
    services.sort((a, b) => naturalOrder(a.Spec.Name ?? "", b.Spec.Name ?? ""));
    const format = { format: flags.text("format"), quiet: flags.on("quiet") };
    cli.out.write(renderList(layout, services, format));
    return 0;
  },
};

const ps: CommandSpec = {
  name: "ps",
  usage: "[OPTIONS] SERVICE [SERVICE...]",
  summary: "List the tasks of one or more services",
  arguments: [1, null],
  flags: [
    filterFlag,
    { ...listFormatFlag, help: "Pretty-print tasks using a Go template" },
    noResolveFlag,
    noTruncFlag,
    quietFlag("Only display task IDs"),
  ],
  run: async ({ cli, args, flags }) => {
    const ids: Record<string, true> = {};
    const unknown: string[] = [];
    for (const reference of args) {
      const id = await findService(cli, reference);
      if (id === null) unknown.push(`no such service: ${reference}`);
      else ids[id] = true;
    }
    if (Object.keys(ids).length > 0) {
      const filters = { ...filterMap(flags.list("filter")), service: ids };
      const tasks = await cli
        .engine()
        .json<TaskJson[]>("GET", "/tasks", { query: { filters: filterQuery(filters) } });
      cli.out.write(
        await taskTable(cli, tasks, {
          format: flags.text("format"),
          quiet: flags.on("quiet"),
          noTrunc: flags.on("no-trunc"),
          noResolve: flags.on("no-resolve"),
        }),
      );
    }
    if (unknown.length > 0) throw failure("not-found", unknown.join("\n"));
    return 0;
  },
};

const inspect: CommandSpec = {
  name: "inspect",
  usage: "[OPTIONS] SERVICE [SERVICE...]",
  summary: "Display detailed information on one or more services",
  arguments: [1, null],
  flags: [inspectFormatFlag, prettyFlag],
  run: async ({ cli, args, flags }) => {
    const get = async (reference: string): Promise<ServiceJson> => {
      try {
        return await cli
          .engine()
          .json<ServiceJson>("GET", `/services/${encodeURIComponent(reference)}`, {
            query: { insertDefaults: "true" },
          });
      } catch (error) {
        if (!(error instanceof DaemonError) || error.status !== 404) throw error;
        throw failure("not-found", `Error: no such service: ${reference}`);
      }
    };
    if (!flags.on("pretty")) return await inspectAll(cli, args, flags.text("format"), get);
    if (flags.has("format"))
      throw failure("invalid", "--format is incompatible with human friendly format");
    return await forEach(cli, args, async (reference) => {
      const service = await get(reference);
      const names = new Map<string, string>();
      for (const { Target } of service.Spec.TaskTemplate.Networks ?? []) {
        const network = await cli
          .engine()
          .json<NetworkJson>("GET", `/networks/${Target}`, { query: { scope: "swarm" } });
        names.set(Target ?? "", network.Name);
      }
      cli.out.write(servicePretty(service, names, cli.now()));
    });
  },
};

const logs: CommandSpec = {
  name: "logs",
  usage: "[OPTIONS] SERVICE|TASK",
  summary: "Fetch the logs of a service or task",
  arguments: [1, 1],
  flags: [
    ...logFlags,
    noResolveFlag,
    { name: "no-task-ids", kind: "bool", help: "Do not include task IDs in output" },
    noTruncFlag,
    { name: "raw", kind: "bool", help: "Do not neatly format logs" },
  ],
  run: async ({ cli, args, flags }) => {
    const reference = encodeURIComponent(args[0] ?? "");
    let path = `/services/${reference}`;
    let slots = 1;
    try {
      const service = await cli.engine().json<ServiceJson>("GET", path);
      slots = service.Spec.Mode.Replicated?.Replicas ?? 1;
    } catch (error) {
      if (!(error instanceof DaemonError) || error.status !== 404) throw error;
      path = `/tasks/${reference}`;
      try {
        await cli.engine().json<TaskJson>("GET", path);
      } catch (second) {
        if (!(second instanceof DaemonError) || second.status !== 404) throw second;
        throw failure("not-found", `no such task or service: ${args[0] ?? ""}`);
      }
    }
    const since = flags.text("since");
    const source = await cli.engine().stream("GET", `${path}/logs`, {
      query: {
        stdout: "1",
        stderr: "1",
        details: "1",
        tail: flags.text("tail") ?? "all",
        follow: flags.on("follow") ? "1" : null,
        timestamps: flags.on("timestamps") ? "1" : null,
        since: since === null ? null : timestamp(since, cli.now()),
      },
      signal: cli.signal,
    });
    await writeServiceLogs(cli, source, {
      raw: flags.on("raw"),
      noTrunc: flags.on("no-trunc"),
      noResolve: flags.on("no-resolve"),
      noTaskIds: flags.on("no-task-ids"),
      details: flags.on("details"),
      timestamps: flags.on("timestamps"),
      slotDigits: String(slots).length,
    });
    return 0;
  },
};

const scale: CommandSpec = {
  name: "scale",
  usage: "SERVICE=REPLICAS [SERVICE=REPLICAS...]",
  summary: "Scale one or multiple replicated services",
  arguments: [1, null],
  flags: [detachFlag],
  run: async ({ cli, args, flags }) => {
    const wanted = args.map((argument) => {
      const at = argument.indexOf("=");
      if (at < 0) {
        throw new Refusal(
          `invalid scale specifier '${argument}'.\nSee 'shoal service scale --help'.\n\nUsage:  shoal service scale SERVICE=REPLICAS [SERVICE=REPLICAS...]\n\nScale one or multiple replicated services`,
          1,
        );
      }
      return { name: argument.slice(0, at), replicas: argument.slice(at + 1) };
    });
    const scaled: string[] = [];
    const errors: string[] = [];
    for (const { name, replicas } of wanted) {
      if (!/^\d+$/.test(replicas)) {
        errors.push(
          `${name}: invalid replicas value ${replicas}: strconv.ParseUint: parsing ${JSON.stringify(replicas)}: invalid syntax`,
        );
        continue;
      }
      try {
        scaled.push(await scaleOne(cli, name, Number(replicas)));
      } catch (error) {
        errors.push(`${name}: ${messageOf(error)}`);
      }
    }
    if (!flags.on("detach")) for (const id of scaled) await waitForService(cli, id, false);
    if (errors.length > 0) throw failure("invalid", errors.join("\n"));
    return 0;
  },
};

const update: CommandSpec = {
  name: "update",
  usage: "[OPTIONS] SERVICE",
  summary: "Update a service",
  arguments: [1, 1],
  flags: serviceUpdateFlags,
  run: async ({ cli, args, flags }) => {
    refuseUnsupported("service update", flags);
    const reference = args[0] ?? "";
    const service = await getService(cli, reference);
    if (flags.on("rollback")) {
      const others = serviceUpdateFlags.filter(
        ({ name }) =>
          flags.has(name) &&
          !["rollback", "detach", "quiet", "no-resolve-image", "with-registry-auth"].includes(name),
      );
      if (others.length > 0)
        throw failure("invalid", "other flags may not be combined with --rollback");
    }
    const added = await networks(cli, flags.list("network-add"));
    const removed = await networks(cli, flags.list("network-rm"));
    const spec = flags.on("rollback")
      ? service.Spec
      : updateSpec(service.Spec, flags, {
          networksAdded: added,
          networksRemoved: new Set(removed.map(({ Target }) => Target ?? "")),
          env: cli.env,
        });
    await post(cli, service, spec, {
      registryAuthFrom: flags.on("with-registry-auth") ? null : "spec",
      rollback: flags.on("rollback") ? "previous" : null,
    });
    say(cli, reference);
    if (!flags.on("detach")) await waitForService(cli, service.ID, flags.on("quiet"));
    return 0;
  },
};

const rm: CommandSpec = {
  name: "rm",
  aliases: ["remove"],
  usage: "SERVICE [SERVICE...]",
  summary: "Remove one or more services",
  arguments: [1, null],
  run: async ({ cli, args }) =>
    await forEach(cli, args, async (service) => {
      await cli.engine().json("DELETE", `/services/${encodeURIComponent(service)}`);
      say(cli, service);
    }),
};

const rollback: CommandSpec = {
  name: "rollback",
  usage: "[OPTIONS] SERVICE",
  summary: "Revert changes to a service's configuration",
  arguments: [1, 1],
  flags: [detachFlag, quietFlag("Suppress progress output")],
  run: async ({ cli, args, flags }) => {
    const reference = args[0] ?? "";
    const service = await getService(cli, reference);
    await post(cli, service, service.Spec, { rollback: "previous" });
    say(cli, reference);
    if (!flags.on("detach")) await waitForService(cli, service.ID, flags.on("quiet"));
    return 0;
  },
};

const explain: CommandSpec = {
  name: "explain",
  usage: "[OPTIONS] SERVICE",
  summary: "Say for each task why it is where it is, or what it waits for",
  arguments: [1, 1],
  flags: [
    {
      name: "verbose",
      short: "v",
      kind: "bool",
      help: "Show every node and the filter that refused it",
    },
    { name: "format", kind: "string", help: "'json', or a Go template for each task" },
  ],
  run: async ({ cli, args, flags }) => {
    const path = `/shoal/v1/services/${encodeURIComponent(args[0] ?? "")}/explain`;
    const { Tasks } = await cli.engine().plainJson<{ Tasks: ExplanationJson[] }>("GET", path);
    const format = flags.text("format");
    if (format === "json") say(cli, goJson(Tasks));
    else if (format !== null) {
      const template = parseTemplate(format.replaceAll("\\t", "\t").replaceAll("\\n", "\n"));
      for (const task of Tasks) say(cli, template(task));
    } else cli.out.write(explainText(Tasks, flags.on("verbose"), cli.now()));
    return 0;
  },
};

export const serviceGroup: GroupSpec = {
  name: "service",
  summary: "Manage Swarm services",
  commands: [create, explain, inspect, logs, ls, ps, rm, rollback, scale, update],
};

async function getService(cli: Cli, reference: string): Promise<ServiceJson> {
  return await cli.engine().json<ServiceJson>("GET", `/services/${encodeURIComponent(reference)}`, {
    query: { insertDefaults: "false" },
  });
}

/** The id for an id, a unique start of one, or a name; null when there is none. */
async function findService(cli: Cli, reference: string): Promise<string | null> {
  const byId = await list(cli, { id: { [reference]: true } });
  const byName = await list(cli, { name: { [reference]: true } });
  const all = [...byId, ...byName];
  const exact =
    all.find((service) => service.ID === reference) ??
    all.find((service) => service.Spec.Name === reference);
  if (exact !== undefined) return exact.ID;
  if (byId.length > 1) {
    throw failure("invalid", `multiple services found with provided prefix: ${reference}`);
  }
  return byId[0]?.ID ?? null;
}
async function list(
  cli: Cli,
  filters: Record<string, Record<string, true>>,
): Promise<ServiceJson[]> {
  return await cli
    .engine()
    .json<ServiceJson[]>("GET", "/services", { query: { filters: filterQuery(filters) } });
}

async function networks(
  cli: Cli,
  given: readonly string[],
): Promise<NonNullable<TaskTemplateJson["Networks"]>> {
  const found: NonNullable<TaskTemplateJson["Networks"]> = [];
  for (const text of given) {
    const { name, aliases, driverOptions } = parseNetwork(text);
    const network = await cli
      .engine()
      .json<NetworkJson>("GET", `/networks/${encodeURIComponent(name)}`, {
        query: { scope: "swarm" },
      });
    found.push({
      Target: network.Id,
      ...(aliases.length > 0 ? { Aliases: [...aliases] } : {}),
      ...(Object.keys(driverOptions).length > 0 ? { DriverOpts: { ...driverOptions } } : {}),
    });
  }
  return found.sort((a, b) => ((a.Target ?? "") < (b.Target ?? "") ? -1 : 1));
}

function readEnvFile(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw failure("invalid", `open ${path}: ${messageOf(error)}`, error);
  }
  return text
    .split("\n")
    .map((line) => line.trimStart().replace(/\r$/, ""))
    .filter((line) => line !== "" && !line.startsWith("#"));
}

async function scaleOne(cli: Cli, reference: string, replicas: number): Promise<string> {
  const service = await getService(cli, reference);
  const spec = structuredClone(service.Spec);
  if (spec.Mode.Replicated !== undefined) spec.Mode.Replicated.Replicas = replicas;
  else if (spec.Mode.ReplicatedJob !== undefined)
    spec.Mode.ReplicatedJob.TotalCompletions = replicas;
  else throw failure("invalid", "scale can only be used with replicated or replicated-job mode");
  await post(cli, service, spec, {});
  say(cli, `${reference} scaled to ${replicas}`);
  return service.ID;
}

async function post(
  cli: Cli,
  service: ServiceJson,
  spec: ServiceJson["Spec"],
  query: Readonly<Record<string, string | null>>,
): Promise<void> {
  const answer = await cli
    .engine()
    .json<{ Warnings?: string[] | null } | null>("POST", `/services/${service.ID}/update`, {
      query: { ...query, version: String(service.Version.Index) },
      body: spec,
    });
  sayWarnings(cli, answer?.Warnings);
}

function sayWarnings(cli: Cli, warnings: readonly string[] | null | undefined): void {
  for (const warning of warnings ?? []) warn(cli, warning);
}

const layout: ListLayout<ServiceJson> = {
  columns: {
    ID: { header: "ID", value: (service) => shortId(service.ID) },
    Name: { header: "NAME", value: (service) => service.Spec.Name ?? "" },
    Mode: { header: "MODE", value: modeOf },
    Replicas: { header: "REPLICAS", value: replicasOf },
    Image: {
      header: "IMAGE",
      value: (service) => imageOf(service.Spec.TaskTemplate.ContainerSpec?.Image ?? "", false),
    },
    Ports: {
      header: "PORTS",
      value: (service) =>
        formatPorts(
          (service.Endpoint?.Ports ?? []).filter((port) => port.PublishMode === "ingress"),
          ", ",
        ),
    },
  },
  table: ["ID", "Name", "Mode", "Replicas", "Image", "Ports"],
  quiet: "ID",
};

function modeOf({ Spec: { Mode: mode } }: ServiceJson): string {
  if (mode.Global !== undefined) return "global";
  if (mode.Replicated !== undefined) return "replicated";
  return mode.ReplicatedJob === undefined ? "global job" : "replicated job";
}
function replicasOf(service: ServiceJson): string {
  const status = service.ServiceStatus;
  const running = status?.RunningTasks ?? 0;
  const job = service.Spec.Mode.ReplicatedJob;
  if (job !== undefined) {
    return `${running}/${status?.DesiredTasks ?? 0} (${status?.CompletedTasks ?? 0}/${job.TotalCompletions ?? 0} completed)`;
  }
  const max = service.Spec.TaskTemplate.Placement?.MaxReplicas ?? 0;
  const limit = max > 0 ? ` (max ${max} per node)` : "";
  return `${running}/${status?.DesiredTasks ?? 0}${limit}`;
}
