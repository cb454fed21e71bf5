/** `shoal node`: ls, ps, inspect, update, promote, demote, rm. */
import { failure } from "../../lib/errors.ts";
import { type Cli, say } from "../cli.ts";
import { filterQuery } from "../client.ts";
import type { CommandSpec, GroupSpec } from "../command.ts";
import type { InfoJson, NodeJson, TaskJson } from "../engine-types.ts";
import { inspectAll } from "../output/inspect.ts";
import { type ListLayout, renderList } from "../output/list.ts";
import { nodePretty } from "../output/node-pretty.ts";
import { taskTable } from "../output/tasks.ts";
import { naturalOrder } from "../output/units.ts";
import { filterMap, labelMap } from "../values.ts";
import {
  filterFlag,
  inspectFormatFlag,
  listFormatFlag,
  noResolveFlag,
  noTruncFlag,
  prettyFlag,
  quietFlag,
} from "./common-flags.ts";
import { forEach } from "./each.ts";

const ls: CommandSpec = {
  name: "ls",
  aliases: ["list"],
  usage: "[OPTIONS]",
  summary: "List nodes in the swarm",
  arguments: [0, 0],
  flags: [filterFlag, listFormatFlag, quietFlag("Only display IDs")],
  run: async ({ cli, flags }) => {
    const filters = filterQuery(filterMap(flags.list("filter")));
    const nodes = await cli.engine().json<NodeJson[]>("GET", "/nodes", { query: { filters } });
    const isQuiet = flags.on("quiet");
    const info = isQuiet ? null : await cli.engine().json<InfoJson>("GET", "/info");
    nodes.sort((a, b) => naturalOrder(hostname(a), hostname(b)));
    const format = { format: flags.text("format"), quiet: isQuiet };
    const isTable = format.format === null || format.format.startsWith("table");
    cli.out.write(
      renderList(layout(info?.Swarm?.NodeID ?? "", isTable && !isQuiet), nodes, format),
    );
    return 0;
  },
};

const ps: CommandSpec = {
  name: "ps",
  usage: "[OPTIONS] [NODE...]",
  summary: "List tasks running on one or more nodes, defaults to current node",
  arguments: [0, null],
  flags: [
    filterFlag,
    { ...listFormatFlag, help: "Pretty-print tasks using a Go template" },
    noResolveFlag,
    noTruncFlag,
    quietFlag("Only display task IDs"),
  ],
  run: async ({ cli, args, flags }) => {
    const tasks: TaskJson[] = [];
    const code = await forEach(cli, args.length === 0 ? ["self"] : args, async (reference) => {
      const id = await resolveSelf(cli, reference);
      const node = await cli.engine().json<NodeJson>("GET", `/nodes/${id}`);
      const filters = { ...filterMap(flags.list("filter")), node: { [node.ID]: true as const } };
      tasks.push(
        ...(await cli
          .engine()
          .json<TaskJson[]>("GET", "/tasks", { query: { filters: filterQuery(filters) } })),
      );
    });
    if (code === 0 || tasks.length > 0) {
      cli.out.write(
        await taskTable(cli, tasks, {
          format: flags.text("format"),
          quiet: flags.on("quiet"),
          noTrunc: flags.on("no-trunc"),
          noResolve: flags.on("no-resolve"),
        }),
      );
    }
    return code;
  },
};

const inspect: CommandSpec = {
  name: "inspect",
  usage: "[OPTIONS] self|NODE [NODE...]",
  summary: "Display detailed information on one or more nodes",
  arguments: [1, null],
  flags: [inspectFormatFlag, prettyFlag],
  run: async ({ cli, args, flags }) => {
    const get = async (reference: string): Promise<NodeJson> =>
      await cli.engine().json<NodeJson>("GET", `/nodes/${await resolveSelf(cli, reference)}`);
    if (!flags.on("pretty")) return await inspectAll(cli, args, flags.text("format"), get);
    if (flags.has("format"))
      throw failure("invalid", "--format is incompatible with human friendly format");
    return await forEach(cli, args, async (reference) => {
      cli.out.write(nodePretty(await get(reference)));
    });
  },
};

const update: CommandSpec = {
  name: "update",
  usage: "[OPTIONS] NODE",
  summary: "Update a node",
  arguments: [1, 1],
  flags: [
    {
      name: "availability",
      kind: "string",
      help: 'Availability of the node ("active", "pause", "drain")',
    },
    { name: "label-add", kind: "list", help: 'Add or update a node label ("key=value")' },
    { name: "label-rm", kind: "list", help: "Remove a node label if exists" },
    { name: "role", kind: "string", help: 'Role of the node ("worker", "manager")' },
  ],
  run: async ({ cli, args, flags }) => {
    const reference = args[0] ?? "";
    await changeNode(cli, reference, (node) => {
      const labels = { ...node.Spec.Labels, ...labelMap(flags.list("label-add")) };
      for (const key of flags.list("label-rm")) {
        if (!(key in labels)) throw failure("invalid", `key ${key} doesn't exist in node's labels`);
        delete labels[key];
      }
      return {
        ...node.Spec,
        Labels: labels,
        Role: flags.text("role") ?? node.Spec.Role,
        Availability: flags.text("availability") ?? node.Spec.Availability,
      };
    });
    say(cli, reference);
    return 0;
  },
};

const promote: CommandSpec = {
  name: "promote",
  usage: "NODE [NODE...]",
  summary: "Promote one or more nodes to manager in the swarm",
  arguments: [1, null],
  run: async ({ cli, args }) =>
    await forEach(cli, args, (node) =>
      changeRole(
        cli,
        node,
        "manager",
        "is already a manager.",
        "promoted to a manager in the swarm.",
      ),
    ),
};
const demote: CommandSpec = {
  name: "demote",
  usage: "NODE [NODE...]",
  summary: "Demote one or more nodes from manager in the swarm",
  arguments: [1, null],
  run: async ({ cli, args }) =>
    await forEach(cli, args, (node) =>
      changeRole(cli, node, "worker", "is already a worker.", "demoted in the swarm."),
    ),
};

const rm: CommandSpec = {
  name: "rm",
  aliases: ["remove"],
  usage: "[OPTIONS] NODE [NODE...]",
  summary: "Remove one or more nodes from the swarm",
  arguments: [1, null],
  flags: [{ name: "force", short: "f", kind: "bool", help: "Force remove a node from the swarm" }],
  run: async ({ cli, args, flags }) =>
    await forEach(cli, args, async (node) => {
      await cli.engine().json("DELETE", `/nodes/${encodeURIComponent(node)}`, {
        query: { force: flags.on("force") ? "1" : null },
      });
      say(cli, node);
    }),
};

export const nodeGroup: GroupSpec = {
  name: "node",
  summary: "Manage Swarm nodes",
  commands: [demote, inspect, ls, promote, ps, rm, update],
};

async function resolveSelf(cli: Cli, reference: string): Promise<string> {
  if (reference !== "self") return encodeURIComponent(reference);
  const info = await cli.engine().json<InfoJson>("GET", "/info");
  const id = info.Swarm?.NodeID ?? "";
  if (id === "") {
    throw failure(
      "unavailable",
      'Error response from daemon: This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
    );
  }
  return id;
}

async function changeNode(
  cli: Cli,
  reference: string,
  change: (node: NodeJson) => NodeJson["Spec"] | null,
): Promise<boolean> {
  const node = await cli
    .engine()
    .json<NodeJson>("GET", `/nodes/${await resolveSelf(cli, reference)}`);
  const spec = change(node);
  if (spec === null) return false;
  await cli.engine().json("POST", `/nodes/${node.ID}/update`, {
    query: { version: String(node.Version.Index) },
    body: spec,
  });
  return true;
}

async function changeRole(
  cli: Cli,
  reference: string,
  role: string,
  already: string,
  done: string,
): Promise<void> {
  let nodeId = reference;
  const isChanged = await changeNode(cli, reference, (node) => {
    nodeId = node.ID;
    return node.Spec.Role === role ? null : { ...node.Spec, Role: role };
  });
  if (isChanged)
    say(cli, role === "manager" ? `Node ${reference} ${done}` : `Manager ${reference} ${done}`);
  else say(cli, `Node ${nodeId} ${already}`);
}

function hostname(node: NodeJson): string {
  return node.Description?.Hostname ?? "";
}
function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** `self` is this node's id; a table marks it with a star. */
function layout(self: string, isTable: boolean): ListLayout<NodeJson> {
  return {
    columns: {
      ID: {
        header: "ID",
        value: (node) => (!isTable ? node.ID : node.ID === self ? `${node.ID} *` : `${node.ID}  `),
      },
      Self: { header: "SELF", value: (node) => String(node.ID === self), bool: true },
      Hostname: { header: "HOSTNAME", value: hostname },
      Status: { header: "STATUS", value: (node) => capital(node.Status.State) },
      Availability: { header: "AVAILABILITY", value: (node) => capital(node.Spec.Availability) },
      ManagerStatus: {
        header: "MANAGER STATUS",
        value: ({ ManagerStatus: manager }) =>
          !manager ? "" : manager.Leader === true ? "Leader" : capital(manager.Reachability ?? ""),
      },
      TLSStatus: { header: "TLS STATUS", value: () => "Ready" },
      EngineVersion: {
        header: "ENGINE VERSION",
        value: (node) => node.Description?.Engine?.EngineVersion ?? "",
      },
    },
    table: ["ID", "Hostname", "Status", "Availability", "ManagerStatus", "EngineVersion"],
    quiet: "ID",
  };
}
