/** Tables of tasks: `service ps` and `node ps`. */
import type { Cli } from "../cli.ts";
import { DaemonError } from "../client.ts";
import type { NodeJson, PortConfig, ServiceJson, TaskJson } from "../engine-types.ts";
import { type ListLayout, renderList } from "./list.ts";
import { ago, ellipsis, naturalOrder, shortId } from "./units.ts";

/** Longest error that is shown when not asked for all. */
const errorLengthMax = 30;

export interface TaskListOptions {
  readonly format: string | null;
  readonly quiet: boolean;
  readonly noTrunc: boolean;
  readonly noResolve: boolean;
}
interface TaskRow {
  readonly task: TaskJson;
  readonly name: string;
  readonly node: string;
}

/** The text of a task table: by name, newest first, older tasks of the same slot under ` \_ `. */
export async function taskTable(
  cli: Cli,
  tasks: readonly TaskJson[],
  options: TaskListOptions,
): Promise<string> {
  const names = new NameResolver(cli, options.noResolve);
  const rows: TaskRow[] = [];
  for (const task of tasks) {
    const service = await names.service(task.ServiceID);
    const slot = task.Slot ? String(task.Slot) : (task.NodeID ?? "");
    const name = slot === "" ? service : `${service}.${slot}`;
    rows.push({ task, name, node: await names.node(task.NodeID ?? "") });
  }
  rows.sort(
    (a, b) =>
      naturalOrder(a.name, b.name) ||
      (a.task.CreatedAt === b.task.CreatedAt
        ? 0
        : (a.task.CreatedAt ?? "") > (b.task.CreatedAt ?? "")
          ? -1
          : 1),
  );
  const isDefaultTable = options.format === null || /^table\b/.test(options.format);
  const named = rows.map((row, at) => {
    const isOlder = rows[at - 1]?.name === row.name;
    return isOlder && isDefaultTable && !options.quiet ? { ...row, name: ` \\_ ${row.name}` } : row;
  });
  return renderList(layout(cli, options.noTrunc || options.quiet), named, options);
}

/** Names of services and nodes by id, each asked for once; the id itself when it is gone. */
export class NameResolver {
  readonly #cli: Cli;
  readonly #plain: boolean;
  readonly #known = new Map<string, Promise<string>>();
  constructor(cli: Cli, plain: boolean) {
    this.#cli = cli;
    this.#plain = plain;
  }
  service(id: string): Promise<string> {
    return this.#resolve(`/services/${id}`, id, (value) => (value as ServiceJson).Spec.Name ?? id);
  }
  node(id: string): Promise<string> {
    return this.#resolve(
      `/nodes/${id}`,
      id,
      (value) => (value as NodeJson).Spec.Name || (value as NodeJson).Description?.Hostname || id,
    );
  }
  #resolve(path: string, id: string, name: (value: unknown) => string): Promise<string> {
    if (this.#plain || id === "") return Promise.resolve(id);
    const known = this.#known.get(path);
    if (known !== undefined) return known;
    const asked = this.#cli
      .engine()
      .json<unknown>("GET", path)
      .then(name)
      .catch((error: unknown) => {
        // Removed meanwhile: its id is all that can be said of it.
        if (error instanceof DaemonError && error.status === 404) return id;
        throw error;
      });
    this.#known.set(path, asked);
    return asked;
  }
}

/** `*:8080->80/tcp`, in docker's order. */
export function formatPorts(ports: readonly PortConfig[], separator: string): string {
  return [...ports]
    .sort(
      (a, b) =>
        (a.PublishedPort ?? 0) - (b.PublishedPort ?? 0) ||
        (a.TargetPort ?? 0) - (b.TargetPort ?? 0),
    )
    .map(
      (port) => `*:${port.PublishedPort ?? 0}->${port.TargetPort ?? 0}/${port.Protocol ?? "tcp"}`,
    )
    .join(separator);
}

function layout(cli: Cli, noTrunc: boolean): ListLayout<TaskRow> {
  return {
    columns: {
      ID: { header: "ID", value: ({ task }) => (noTrunc ? task.ID : shortId(task.ID)) },
      Name: { header: "NAME", value: ({ name }) => name },
      Image: {
        header: "IMAGE",
        value: ({ task }) => imageOf(task.Spec.ContainerSpec?.Image ?? "", noTrunc),
      },
      Node: { header: "NODE", value: ({ node }) => node },
      DesiredState: { header: "DESIRED STATE", value: ({ task }) => capital(task.DesiredState) },
      CurrentState: {
        header: "CURRENT STATE",
        value: ({ task }) =>
          `${capital(task.Status.State)} ${ago(task.Status.Timestamp, cli.now()).toLowerCase()}`,
      },
      Error: { header: "ERROR", value: ({ task }) => errorOf(task.Status.Err ?? "", noTrunc) },
      Ports: {
        header: "PORTS",
        value: ({ task }) => formatPorts(task.Status.PortStatus?.Ports ?? [], ","),
      },
    },
    table: ["ID", "Name", "Image", "Node", "DesiredState", "CurrentState", "Error", "Ports"],
    quiet: "ID",
  };
}

/** `busybox:latest` of `busybox:latest@sha256:…`. */
export function imageOf(image: string, whole: boolean): string {
  return whole || !image.includes("@") ? image : image.replace(/@sha256:[0-9a-f]+$/, "");
}
function errorOf(error: string, whole: boolean): string {
  if (error === "") return "";
  return `"${whole ? error : ellipsis(error, errorLengthMax)}"`;
}
function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
