/** `shoal network`: create, ls, inspect, rm. */

import { failure } from "../../lib/errors.ts";
import { say } from "../cli.ts";
import { DaemonError, filterQuery } from "../client.ts";
import type { CommandSpec, GroupSpec } from "../command.ts";
import type { NetworkJson } from "../engine-types.ts";
import { inspectAll } from "../output/inspect.ts";
import { type ListLayout, renderList } from "../output/list.ts";
import { goTime } from "../output/node-pretty.ts";
import { naturalOrder, shortId } from "../output/units.ts";
import { filterMap, labelMap } from "../values.ts";
import {
  filterFlag,
  inspectFormatFlag,
  listFormatFlag,
  noTruncFlag,
  quietFlag,
} from "./common-flags.ts";
import { forEach } from "./each.ts";

const create: CommandSpec = {
  name: "create",
  usage: "[OPTIONS] NETWORK",
  summary: "Create a network",
  arguments: [1, 1],
  flags: [
    { name: "attachable", kind: "bool", help: "Enable manual container attachment" },
    {
      name: "aux-address",
      kind: "map",
      help: "Auxiliary IPv4 or IPv6 addresses used by Network driver (default map[])",
    },
    {
      name: "config-from",
      kind: "string",
      help: "The network from which to copy the configuration",
    },
    { name: "config-only", kind: "bool", help: "Create a configuration only network" },
    {
      name: "driver",
      short: "d",
      kind: "string",
      help: "Driver to manage the Network",
      default: "bridge",
    },
    {
      name: "gateway",
      kind: "list",
      shown: "strings",
      help: "IPv4 or IPv6 Gateway for the master subnet",
    },
    { name: "ingress", kind: "bool", help: "Create swarm routing-mesh network" },
    { name: "internal", kind: "bool", help: "Restrict external access to the network" },
    {
      name: "ip-range",
      kind: "list",
      shown: "strings",
      help: "Allocate container ip from a sub-range",
    },
    {
      name: "ipam-driver",
      kind: "string",
      help: "IP Address Management Driver",
      default: "default",
    },
    { name: "ipam-opt", kind: "map", help: "Set IPAM driver specific options (default map[])" },
    {
      name: "ipv4",
      kind: "bool",
      help: "Enable or disable IPv4 address assignment (default true)",
    },
    { name: "ipv6", kind: "bool", help: "Enable or disable IPv6 address assignment" },
    { name: "label", kind: "list", help: "Set metadata on a network" },
    { name: "opt", short: "o", kind: "map", help: "Set driver specific options (default map[])" },
    { name: "scope", kind: "string", help: "Control the network's scope" },
    {
      name: "subnet",
      kind: "list",
      shown: "strings",
      help: "Subnet in CIDR format that represents a network segment",
    },
  ],
  run: async ({ cli, args, flags }) => {
    const subnets = flags.list("subnet").flatMap((text) => text.split(","));
    const ranges = flags.list("ip-range").flatMap((text) => text.split(","));
    const gateways = flags.list("gateway").flatMap((text) => text.split(","));
    if (subnets.length < ranges.length || subnets.length < gateways.length) {
      throw failure("invalid", "every ip-range or gateway must have a corresponding subnet");
    }
    const auxiliary = labelMap(flags.list("aux-address"));
    const config = subnets.map((subnet, at) => ({
      Subnet: subnet,
      ...(ranges[at] === undefined ? {} : { IPRange: ranges[at] }),
      ...(gateways[at] === undefined ? {} : { Gateway: gateways[at] }),
      ...(at === 0 && Object.keys(auxiliary).length > 0 ? { AuxiliaryAddresses: auxiliary } : {}),
    }));
    const from = flags.text("config-from");
    const body = {
      Name: args[0] ?? "",
      Driver: flags.text("driver") ?? "bridge",
      Scope: flags.text("scope") ?? "",
      ...(flags.has("ipv4") ? { EnableIPv4: flags.on("ipv4") } : {}),
      ...(flags.has("ipv6") ? { EnableIPv6: flags.on("ipv6") } : {}),
      IPAM: {
        Driver: flags.text("ipam-driver") ?? "default",
        Options: labelMap(flags.list("ipam-opt")),
        Config: config,
      },
      Internal: flags.on("internal"),
      Attachable: flags.on("attachable"),
      Ingress: flags.on("ingress"),
      ConfigOnly: flags.on("config-only"),
      ConfigFrom: from === null ? null : { Network: from },
      Options: labelMap(flags.list("opt")),
      Labels: labelMap(flags.list("label")),
    };
    const { Id } = await cli.engine().json<{ Id: string }>("POST", "/networks/create", { body });
    say(cli, Id);
    return 0;
  },
};

const ls: CommandSpec = {
  name: "ls",
  aliases: ["list"],
  usage: "[OPTIONS]",
  summary: "List networks",
  arguments: [0, 0],
  flags: [
    { ...filterFlag, help: 'Provide filter values (e.g. "driver=bridge")' },
    listFormatFlag,
    { ...noTruncFlag, help: "Do not truncate the output" },
    quietFlag("Only display network IDs"),
  ],
  run: async ({ cli, flags }) => {
    const filters = filterQuery(filterMap(flags.list("filter")));
    const found = await cli
      .engine()
      .json<NetworkJson[]>("GET", "/networks", { query: { filters } });
    found.sort((a, b) => naturalOrder(a.Name, b.Name));
    cli.out.write(
      renderList(layout(flags.on("no-trunc")), found, {
        format: flags.text("format"),
        quiet: flags.on("quiet"),
      }),
    );
    return 0;
  },
};

const inspect: CommandSpec = {
  name: "inspect",
  usage: "[OPTIONS] NETWORK [NETWORK...]",
  summary: "Display detailed information on one or more networks",
  arguments: [1, null],
  flags: [
    inspectFormatFlag,
    { name: "verbose", short: "v", kind: "bool", help: "Verbose output for diagnostics" },
  ],
  run: async ({ cli, args, flags }) =>
    await inspectAll(cli, args, flags.text("format"), (reference) =>
      cli.engine().json("GET", `/networks/${encodeURIComponent(reference)}`, {
        query: { verbose: flags.on("verbose") ? "true" : null },
      }),
    ),
};

const rm: CommandSpec = {
  name: "rm",
  aliases: ["remove"],
  usage: "NETWORK [NETWORK...]",
  summary: "Remove one or more networks",
  arguments: [1, null],
  flags: [
    { name: "force", short: "f", kind: "bool", help: "Do not error if the network does not exist" },
  ],
  run: async ({ cli, args, flags }) =>
    await forEach(cli, args, async (network) => {
      try {
        await cli.engine().json("DELETE", `/networks/${encodeURIComponent(network)}`);
      } catch (error) {
        if (flags.on("force") && error instanceof DaemonError && error.status === 404) return;
        throw error;
      }
      say(cli, network);
    }),
};

export const networkGroup: GroupSpec = {
  name: "network",
  summary: "Manage networks",
  commands: [create, inspect, ls, rm],
};

function layout(noTrunc: boolean): ListLayout<NetworkJson> {
  return {
    columns: {
      ID: { header: "NETWORK ID", value: ({ Id }) => (noTrunc ? Id : shortId(Id)) },
      Name: { header: "NAME", value: ({ Name }) => Name },
      Driver: { header: "DRIVER", value: ({ Driver }) => Driver },
      Scope: { header: "SCOPE", value: ({ Scope }) => Scope },
      IPv4: { header: "IPV4", value: ({ EnableIPv4 }) => String(EnableIPv4 ?? false) },
      IPv6: { header: "IPV6", value: ({ EnableIPv6 }) => String(EnableIPv6 ?? false) },
      Internal: { header: "INTERNAL", value: ({ Internal }) => String(Internal ?? false) },
      Labels: {
        header: "LABELS",
        value: ({ Labels }) =>
          Object.entries(Labels ?? {})
            .map(([key, value]) => `${key}=${value}`)
            .sort()
            .join(","),
      },
      CreatedAt: {
        header: "CREATED AT",
        value: ({ Created }) => goTime(Created).replace(/utc$/, "UTC"),
      },
    },
    table: ["ID", "Name", "Driver", "Scope"],
    quiet: "ID",
  };
}
