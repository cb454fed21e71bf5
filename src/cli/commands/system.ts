/** `shoal version`, `shoal info` and `shoal events`. */
import { messageOf } from "../../lib/errors.ts";
import { say, warn } from "../cli.ts";
import { filterQuery } from "../client.ts";
import type { CommandSpec } from "../command.ts";
import type { InfoJson } from "../engine-types.ts";
import { infoText } from "../output/info.ts";
import { readJsonLines } from "../output/json-lines.ts";
import { renderColumns } from "../output/table.ts";
import { goJson, parseTemplate } from "../output/template.ts";
import { shoalVersion } from "../shoal-version.ts";
import { filterMap, timestamp } from "../values.ts";
import { filterFlag, inspectFormatFlag } from "./common-flags.ts";

interface VersionJson {
  readonly Platform?: { readonly Name?: string };
  readonly Version?: string;
  readonly ApiVersion?: string;
  readonly MinAPIVersion?: string;
  readonly GitCommit?: string;
  readonly Os?: string;
  readonly Arch?: string;
  readonly BuildTime?: string;
  readonly KernelVersion?: string;
  readonly Components?:
    | readonly {
        readonly Name: string;
        readonly Version: string;
        readonly Details?: Readonly<Record<string, string>> | null;
      }[]
    | null;
}
interface EventJson {
  readonly Type: string;
  readonly Action: string;
  readonly Actor?: {
    readonly ID?: string;
    readonly Attributes?: Readonly<Record<string, string>> | null;
  };
  readonly time?: number;
  readonly timeNano?: number;
}

const version: CommandSpec = {
  name: "version",
  usage: "[OPTIONS]",
  summary: "Show the Shoal version information",
  arguments: [0, 0],
  flags: [inspectFormatFlag],
  run: async ({ cli, flags }) => {
    const arch = process.arch === "x64" ? "amd64" : process.arch;
    const client = {
      Version: shoalVersion,
      ApiVersion: "1.50",
      DefaultAPIVersion: "1.50",
      Os: process.platform,
      Arch: arch,
      Context: "default",
    };
    let server: VersionJson | null = null;
    let problem: unknown = null;
    try {
      server = await cli.engine().json<VersionJson>("GET", "/version");
    } catch (error) {
      problem = error;
    }
    const format = flags.text("format");
    if (format === "json") say(cli, goJson({ Client: client, Server: server }));
    else if (format !== null) say(cli, parseTemplate(format)({ Client: client, Server: server }));
    else {
      const lines = [
        ["Client: Shoal"],
        [" Version:", client.Version],
        [" API version:", client.ApiVersion],
        [" Node version:", process.version],
        [" OS/Arch:", `${client.Os}/${client.Arch}`],
        [" Context:", client.Context],
      ];
      if (server !== null) lines.push([""], ...serverLines(server));
      cli.out.write(renderColumns(lines, 19, 1));
    }
    if (problem === null) return 0;
    warn(cli, messageOf(problem));
    return 1;
  },
};

const info: CommandSpec = {
  name: "info",
  usage: "[OPTIONS]",
  summary: "Display system-wide information",
  arguments: [0, 0],
  flags: [inspectFormatFlag],
  run: async ({ cli, flags }) => {
    const value = await cli.engine().json<InfoJson>("GET", "/info");
    const format = flags.text("format");
    if (format === "json") say(cli, goJson(value));
    else if (format !== null) say(cli, parseTemplate(format)(value));
    else cli.out.write(infoText(value));
    return 0;
  },
};

const events: CommandSpec = {
  name: "events",
  usage: "[OPTIONS]",
  summary: "Get real time events from the server",
  arguments: [0, 0],
  flags: [
    filterFlag,
    { name: "format", kind: "string", help: inspectFormatFlag.help },
    { name: "since", kind: "string", help: "Show all events created since timestamp" },
    { name: "until", kind: "string", help: "Stream events until this timestamp" },
  ],
  run: async ({ cli, flags }) => {
    const [since, until] = [flags.text("since"), flags.text("until")];
    const format = flags.text("format");
    const template = format === null || format === "json" ? null : parseTemplate(format);
    const source = await cli.engine().stream("GET", "/events", {
      query: {
        filters: filterQuery(filterMap(flags.list("filter"))),
        since: since === null ? null : timestamp(since, cli.now()),
        until: until === null ? null : timestamp(until, cli.now()),
      },
      signal: cli.signal,
    });
    try {
      for await (const event of readJsonLines<EventJson>(source)) {
        if (format === "json") say(cli, goJson(event));
        else say(cli, template === null ? eventLine(event) : template(event));
      }
    } catch (error) {
      if (!cli.signal.aborted) throw error;
    }
    return 0;
  },
};

export const systemCommands: readonly CommandSpec[] = [version, info, events];

function serverLines(server: VersionJson): string[][] {
  const name = server.Platform?.Name || "Shoal";
  const lines = [[`Server: ${name}`]];
  const components = server.Components ?? [];
  const engine = components.find((component) => component.Name === "Engine");
  lines.push(
    [" Engine:"],
    ["  Version:", engine?.Version ?? server.Version ?? ""],
    [
      "  API version:",
      `${server.ApiVersion ?? ""} (minimum version ${server.MinAPIVersion ?? ""})`,
    ],
    ["  Git commit:", server.GitCommit ?? ""],
    ["  Built:", server.BuildTime ?? ""],
    ["  OS/Arch:", `${server.Os ?? ""}/${server.Arch ?? ""}`],
  );
  for (const component of components.filter(({ Name }) => Name !== "Engine")) {
    lines.push([` ${component.Name}:`], ["  Version:", component.Version]);
    const commit = component.Details?.["GitCommit"];
    if (commit) lines.push(["  GitCommit:", commit]);
  }
  return lines;
}

/** `2026-11-20T15:06:08.803000000Z container start ID (a=b, c=d)`. */
function eventLine(event: EventJson): string {
  const nanos = BigInt(Math.trunc(event.time ?? 0)) * 1_000_000_000n;
  // timeNano is beyond what a double holds exactly: its last digits are rounded, its milliseconds are right.
  const ms = event.timeNano === undefined ? Number(nanos / 1_000_000n) : event.timeNano / 1e6;
  const time = `${new Date(ms).toISOString().slice(0, -1)}000000Z`;
  const attributes = Object.entries(event.Actor?.Attributes ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`);
  const tail = attributes.length > 0 ? ` (${attributes.join(", ")})` : "";
  return `${time} ${event.Type} ${event.Action} ${event.Actor?.ID ?? ""}${tail}`;
}
