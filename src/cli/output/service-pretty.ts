/** `service inspect --pretty`, line by line as docker's. */
import type { ContainerSpecJson, ServiceJson, UpdateConfigJson } from "../engine-types.ts";
import { formatGoDuration } from "../values.ts";
import { ago, bytesSize } from "./units.ts";

/** The description of one service. `networkNames` by id. */
export function servicePretty(
  service: ServiceJson,
  networkNames: ReadonlyMap<string, string>,
  nowMs: number,
): string {
  const { Spec: spec } = service;
  const lines: string[] = ["", `ID:\t\t${service.ID}`, `Name:\t\t${spec.Name ?? ""}`];
  const labels = Object.entries(spec.Labels ?? {});
  if (labels.length > 0)
    lines.push("Labels:", ...labels.sort().map(([key, value]) => ` ${key}=${value}`));
  lines.push(...modeLines(service));
  lines.push(...updateStatusLines(service, nowMs));
  lines.push(...placementLines(service));
  lines.push(...configLines("UpdateConfig", "update", spec.UpdateConfig));
  lines.push(...configLines("RollbackConfig", "rollback", spec.RollbackConfig));
  lines.push(...containerLines(spec.TaskTemplate.ContainerSpec ?? {}));
  lines.push(...resourceLines(service));
  const networks = (spec.TaskTemplate.Networks ?? []).map(
    ({ Target }) => networkNames.get(Target ?? "") ?? Target,
  );
  if (networks.length > 0) lines.push(`Networks: ${networks.join(" ")} `);
  if (spec.EndpointSpec?.Mode) lines.push(`Endpoint Mode:\t${spec.EndpointSpec.Mode}`);
  const ports = service.Endpoint?.Ports ?? [];
  if (ports.length > 0) {
    lines.push("Ports:");
    for (const port of ports) {
      lines.push(
        ` PublishedPort = ${port.PublishedPort ?? 0}`,
        `  Protocol = ${port.Protocol ?? ""}`,
        `  TargetPort = ${port.TargetPort ?? 0}`,
        `  PublishMode = ${port.PublishMode ?? ""}`,
      );
    }
  }
  return `${lines.join("\n")}${ports.length > 0 ? " " : ""}\n\n`;
}

function modeLines({ Spec: { Mode: mode } }: ServiceJson): string[] {
  if (mode.Global !== undefined) return ["Service Mode:\tGlobal"];
  if (mode.Replicated !== undefined) {
    return ["Service Mode:\tReplicated", ` Replicas:\t${mode.Replicated.Replicas ?? 0}`];
  }
  return mode.ReplicatedJob === undefined
    ? ["Service Mode:\tGlobal Job"]
    : ["Service Mode:\tReplicated Job"];
}

function updateStatusLines({ UpdateStatus: status }: ServiceJson, nowMs: number): string[] {
  if (!status?.State) return [];
  const lines = ["UpdateStatus:", ` State:\t\t${status.State}`];
  if (status.StartedAt) lines.push(` Started:\t${ago(status.StartedAt, nowMs)}`);
  if (status.State === "completed" && status.CompletedAt) {
    lines.push(` Completed:\t${ago(status.CompletedAt, nowMs)}`);
  }
  lines.push(` Message:\t${status.Message ?? ""}`);
  return lines;
}

function placementLines({ Spec: spec }: ServiceJson): string[] {
  const placement = spec.TaskTemplate.Placement ?? {};
  const lines = ["Placement:"];
  if ((placement.Constraints ?? []).length > 0)
    lines.push(` Constraints:\t[${(placement.Constraints ?? []).join(" ")}]`);
  const spreads = (placement.Preferences ?? []).flatMap(({ Spread }) =>
    Spread ? [`spread=${Spread.SpreadDescriptor}`] : [],
  );
  if (spreads.length > 0) lines.push(` Preferences:   [${spreads.join(" ")}]`);
  if ((placement.MaxReplicas ?? 0) > 0)
    lines.push(` Max Replicas Per Node:   ${placement.MaxReplicas}`);
  return lines;
}

function configLines(title: string, verb: string, config: UpdateConfigJson | undefined): string[] {
  if (config === undefined) return [];
  const lines = [`${title}:`, ` Parallelism:\t${config.Parallelism}`];
  if ((config.Delay ?? 0) > 0) lines.push(` Delay:\t\t${formatGoDuration(config.Delay ?? 0)}`);
  lines.push(` On failure:\t${config.FailureAction ?? ""}`);
  if ((config.Monitor ?? 0) > 0)
    lines.push(` Monitoring Period: ${formatGoDuration(config.Monitor ?? 0)}`);
  lines.push(
    ` Max failure ratio: ${config.MaxFailureRatio}`,
    ` ${verb === "update" ? "Update" : "Rollback"} order:${verb === "update" ? "      " : "    "}${config.Order ?? ""}`,
  );
  return lines;
}

function containerLines(container: ContainerSpecJson): string[] {
  const lines = ["ContainerSpec:", ` Image:\t\t${container.Image ?? ""}`];
  const add = (label: string, values: readonly string[] | undefined, separator: string): void => {
    if ((values ?? []).length > 0) lines.push(`${label}${(values ?? []).join(separator)} `);
  };
  add(" Command:\t", container.Command, " ");
  add(" Args:\t\t", container.Args, " ");
  add(" Env:\t\t", container.Env, " ");
  if (container.Dir) lines.push(` Dir:\t\t${container.Dir}`);
  if (container.Init !== undefined) lines.push(` Init:\t\t${container.Init}`);
  if (container.User) lines.push(` User: ${container.User}`);
  add(" Groups:\t", container.Groups, " ");
  const mounts = container.Mounts ?? [];
  if (mounts.length > 0) {
    lines.push("Mounts:");
    for (const mount of mounts) {
      lines.push(
        ` Target:\t${mount.Target ?? ""}`,
        `  Source:\t${mount.Source ?? ""}`,
        `  ReadOnly:\t${mount.ReadOnly ?? false}`,
        `  Type:\t\t${mount.Type ?? ""}`,
      );
    }
  }
  return lines;
}

function resourceLines({ Spec: spec }: ServiceJson): string[] {
  const { Limits: limits, Reservations: reservations } = spec.TaskTemplate.Resources ?? {};
  const lines: string[] = [];
  const part = (title: string, value: typeof reservations | typeof limits): void => {
    if (value === undefined || ((value.NanoCPUs ?? 0) === 0 && (value.MemoryBytes ?? 0) === 0))
      return;
    lines.push(` ${title}:`);
    if ((value.NanoCPUs ?? 0) > 0) lines.push(`  CPU:\t\t${(value.NanoCPUs ?? 0) / 1e9}`);
    if ((value.MemoryBytes ?? 0) > 0) lines.push(`  Memory:\t${bytesSize(value.MemoryBytes ?? 0)}`);
  };
  part("Reservations", reservations);
  part("Limits", limits);
  return lines.length > 0 ? ["Resources:", ...lines] : ["Resources:"];
}
