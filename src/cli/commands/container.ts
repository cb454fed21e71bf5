/** Containers of one node: `ps`, `logs`, `top`, and `inspect` of anything. */
import { failure } from "../../lib/errors.ts";
import type { Cli } from "../cli.ts";
import { DaemonError, filterQuery } from "../client.ts";
import type { CommandSpec } from "../command.ts";
import type { ContainerSummaryJson } from "../engine-types.ts";
import { inspectAll } from "../output/inspect.ts";
import { type ListLayout, renderList } from "../output/list.ts";
import { readFrames } from "../output/stdcopy.ts";
import { renderColumns } from "../output/table.ts";
import { ago, ellipsis, humanSize, shortId } from "../output/units.ts";
import { filterMap, timestamp } from "../values.ts";
import {
  filterFlag,
  inspectFormatFlag,
  listFormatFlag,
  logFlags,
  quietFlag,
} from "./common-flags.ts";
import { localTime } from "./image.ts";

const commandLengthMax = 20;

const ps: CommandSpec = {
  name: "ps",
  usage: "[OPTIONS]",
  summary: "List containers",
  arguments: [0, 0],
  flags: [
    {
      name: "all",
      short: "a",
      kind: "bool",
      help: "Show all containers (default shows just running)",
    },
    filterFlag,
    listFormatFlag,
    {
      name: "last",
      short: "n",
      kind: "int",
      help: "Show n last created containers (includes all states) (default -1)",
    },
    {
      name: "latest",
      short: "l",
      kind: "bool",
      help: "Show the latest created container (includes all states)",
    },
    { name: "no-trunc", kind: "bool", help: "Don't truncate output" },
    quietFlag("Only display container IDs"),
    { name: "size", short: "s", kind: "bool", help: "Display total file sizes" },
  ],
  run: async ({ cli, flags }) => {
    const last = flags.on("latest") ? 1 : (flags.number("last") ?? -1);
    const containers = await cli.engine().json<ContainerSummaryJson[]>("GET", "/containers/json", {
      query: {
        all: flags.on("all") ? "1" : null,
        size: flags.on("size") ? "1" : null,
        limit: last > 0 ? String(last) : null,
        filters: filterQuery(filterMap(flags.list("filter"))),
      },
    });
    cli.out.write(
      renderList(layout(cli, flags.on("no-trunc"), flags.on("size")), containers, {
        format: flags.text("format"),
        quiet: flags.on("quiet"),
      }),
    );
    return 0;
  },
};

const logs: CommandSpec = {
  name: "logs",
  usage: "[OPTIONS] CONTAINER",
  summary: "Fetch the logs of a container",
  arguments: [1, 1],
  flags: [
    ...logFlags,
    {
      name: "until",
      kind: "string",
      help: 'Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)',
    },
  ],
  run: async ({ cli, args, flags }) => {
    const container = await cli
      .engine()
      .json<{ Id: string; Config?: { Tty?: boolean } }>(
        "GET",
        `/containers/${encodeURIComponent(args[0] ?? "")}/json`,
      );
    const [since, until] = [flags.text("since"), flags.text("until")];
    const source = await cli.engine().stream("GET", `/containers/${container.Id}/logs`, {
      query: {
        stdout: "1",
        stderr: "1",
        tail: flags.text("tail") ?? "all",
        follow: flags.on("follow") ? "1" : null,
        timestamps: flags.on("timestamps") ? "1" : null,
        details: flags.on("details") ? "1" : null,
        since: since === null ? null : timestamp(since, cli.now()),
        until: until === null ? null : timestamp(until, cli.now()),
      },
      signal: cli.signal,
    });
    if (container.Config?.Tty === true) {
      for await (const piece of source as AsyncIterable<Buffer>) cli.out.write(piece);
    } else {
      for await (const { stream, payload } of readFrames(source)) {
        (stream === "stdout" ? cli.out : cli.err).write(payload);
      }
    }
    return 0;
  },
};

const top: CommandSpec = {
  name: "top",
  usage: "CONTAINER [ps OPTIONS]",
  summary: "Display the running processes of a container",
  arguments: [1, null],
  flagsFirst: true,
  run: async ({ cli, args }) => {
    const [container = "", ...options] = args;
    const table = await cli
      .engine()
      .json<{ Titles: string[]; Processes: string[][] }>(
        "GET",
        `/containers/${encodeURIComponent(container)}/top`,
        { query: { ps_args: options.length > 0 ? options.join(" ") : null } },
      );
    cli.out.write(renderColumns([table.Titles, ...table.Processes], 20, 3));
    return 0;
  },
};

/** Kinds that `inspect` tries, in docker's order, and where each is found. */
const kinds: Readonly<Record<string, (reference: string) => string>> = {
  container: (reference) => `/containers/${reference}/json`,
  image: (reference) => `/images/${reference.replaceAll("%2F", "/")}/json`,
  network: (reference) => `/networks/${reference}`,
  volume: (reference) => `/volumes/${reference}`,
  service: (reference) => `/services/${reference}?insertDefaults=true`,
  task: (reference) => `/tasks/${reference}`,
  node: (reference) => `/nodes/${reference}`,
  plugin: (reference) => `/plugins/${reference}/json`,
  secret: (reference) => `/secrets/${reference}`,
  config: (reference) => `/configs/${reference}`,
};
/** What this version has; the others are refused by name when asked for with --type. */
const triedKinds = ["container", "image", "network", "service", "task", "node"];

const inspect: CommandSpec = {
  name: "inspect",
  usage: "[OPTIONS] NAME|ID [NAME|ID...]",
  summary: "Return low-level information on Docker objects",
  arguments: [1, null],
  flags: [
    inspectFormatFlag,
    {
      name: "size",
      short: "s",
      kind: "bool",
      help: "Display total file sizes if the type is container",
    },
    { name: "type", kind: "string", help: "Only inspect objects of the given type" },
  ],
  run: async ({ cli, args, flags }) => {
    const type = flags.text("type") ?? "";
    if (type !== "" && !(type in kinds)) {
      const known = Object.keys(kinds)
        .sort()
        .map((kind) => JSON.stringify(kind))
        .join(", ");
      throw failure("invalid", `unknown type: ${JSON.stringify(type)}: must be one of ${known}`);
    }
    return await inspectAll(cli, args, flags.text("format"), (reference) =>
      inspectAny(cli, reference, type === "" ? triedKinds : [type], type === ""),
    );
  },
};

export const containerCommands: readonly CommandSpec[] = [ps, logs, top, inspect];

async function inspectAny(
  cli: Cli,
  reference: string,
  tried: readonly string[],
  isAny: boolean,
): Promise<unknown> {
  for (const kind of tried) {
    const path = kinds[kind]?.(encodeURIComponent(reference)) ?? "";
    try {
      return await cli.engine().json<unknown>("GET", path);
    } catch (error) {
      // 503: not a manager, so nothing of the swarm can be it. Otherwise only "no such" goes on to the next kind.
      const goesOn =
        error instanceof DaemonError && (error.status === 404 || (isAny && error.status === 503));
      if (!goesOn || !isAny) throw error;
    }
  }
  throw failure("not-found", `error: no such object: ${reference}`);
}

function layout(cli: Cli, noTrunc: boolean, withSize: boolean): ListLayout<ContainerSummaryJson> {
  const image = (container: ContainerSummaryJson): string => {
    if (container.Image === "") return "<no image>";
    if (noTrunc) return container.Image;
    return /^sha256:|^[0-9a-f]{64}$/.test(container.Image)
      ? shortId(container.Image)
      : container.Image.replace(/@sha256:[0-9a-f]+$/, "");
  };
  const command = (text: string): string =>
    JSON.stringify(noTrunc ? text : ellipsis(text, commandLengthMax));
  const table = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
  return {
    columns: {
      ID: { header: "CONTAINER ID", value: ({ Id }) => (noTrunc ? Id : shortId(Id)) },
      Names: {
        header: "NAMES",
        value: ({ Names }) =>
          Names.map((name) => name.replace(/^\//, ""))
            .filter((name) => noTrunc || !name.includes("/"))
            .join(","),
      },
      Image: { header: "IMAGE", value: image },
      Command: { header: "COMMAND", value: ({ Command }) => command(Command) },
      CreatedAt: { header: "CREATED AT", value: ({ Created }) => localTime(Created) },
      RunningFor: { header: "CREATED", value: ({ Created }) => ago(Created, cli.now()) },
      Ports: { header: "PORTS", value: portsOf },
      State: { header: "STATE", value: ({ State }) => State },
      Status: { header: "STATUS", value: ({ Status }) => Status },
      Size: { header: "SIZE", value: sizeOf },
      Labels: {
        header: "LABELS",
        value: ({ Labels }) =>
          Object.entries(Labels ?? {})
            .map(([key, value]) => `${key}=${value}`)
            .sort()
            .join(","),
      },
      Mounts: {
        header: "MOUNTS",
        value: ({ Mounts }) =>
          (Mounts ?? [])
            .map(({ Name, Source }) => Name || Source || "")
            .map((name) => (noTrunc ? name : ellipsis(name, 15)))
            .join(","),
      },
      LocalVolumes: {
        header: "LOCAL VOLUMES",
        value: ({ Mounts }) => String((Mounts ?? []).filter(({ Name }) => Boolean(Name)).length),
      },
      Networks: {
        header: "NETWORKS",
        value: ({ NetworkSettings }) => Object.keys(NetworkSettings?.Networks ?? {}).join(","),
      },
    },
    table: withSize ? [...table, "Size"] : table,
    quiet: "ID",
  };
}
function sizeOf({ SizeRw, SizeRootFs }: ContainerSummaryJson): string {
  const own = humanSize(SizeRw ?? 0);
  return (SizeRootFs ?? 0) > 0 ? `${own} (virtual ${humanSize(SizeRootFs ?? 0)})` : own;
}
function portsOf({ Ports }: ContainerSummaryJson): string {
  return (Ports ?? [])
    .map((port) =>
      port.PublicPort
        ? `${port.IP ?? ""}:${port.PublicPort}->${port.PrivatePort}/${port.Type}`
        : `${port.PrivatePort}/${port.Type}`,
    )
    .join(", ");
}
