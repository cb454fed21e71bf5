/** From flags to the JSON of `POST /services/create`, field by field as docker's command sends it. */
import { failure } from "../lib/errors.ts";
import type {
  ContainerSpecJson,
  PlacementJson,
  ServiceModeJson,
  ServiceSpecJson,
  TaskTemplateJson,
  UpdateConfigJson,
} from "./engine-types.ts";
import type { Flags } from "./flag.ts";
import {
  hostLine,
  parseMount,
  parsePort,
  parsePreference,
  parseUlimit,
  portJson,
} from "./service-values.ts";
import { labelMap, nanoCpus, shellWords } from "./values.ts";

/** What a spec needs that flags alone do not say. */
export interface SpecContext {
  /** Networks by what the user called them, as ids, in the order given. */
  readonly networks: NonNullable<TaskTemplateJson["Networks"]>;
  /** Variables of --env-file, before those of --env. */
  readonly fileEnv: readonly string[];
  /** Of the caller, for `--env NAME` without a value. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** The spec of a new service. Throws `invalid` with docker's words. */
export function createSpec(
  image: string,
  args: readonly string[],
  flags: Flags,
  context: SpecContext,
): ServiceSpecJson {
  const name = flags.text("name") ?? "";
  const spec: ServiceSpecJson = {
    ...(name === "" ? {} : { Name: name }),
    Labels: labelMap(flags.list("label")),
    TaskTemplate: {
      ContainerSpec: containerSpec(image, args, flags, context),
      Resources: {
        Limits: compact({
          NanoCPUs: cpus(flags, "limit-cpu"),
          MemoryBytes: flags.bytes("limit-memory") ?? 0,
          Pids: flags.number("limit-pids") ?? 0,
        }),
        Reservations: compact({
          NanoCPUs: cpus(flags, "reserve-cpu"),
          MemoryBytes: flags.bytes("reserve-memory") ?? 0,
        }),
      },
      Placement: placement(flags),
      ForceUpdate: 0,
    },
    Mode: mode(flags),
    EndpointSpec: { Mode: flags.text("endpoint-mode") ?? "vip" },
  };
  const restart = restartPolicy(flags, undefined);
  if (restart !== undefined) spec.TaskTemplate.RestartPolicy = restart;
  const logging = logDriver(flags);
  if (logging !== undefined) spec.TaskTemplate.LogDriver = logging;
  if (context.networks.length > 0) spec.TaskTemplate.Networks = [...context.networks];
  const update = updateConfig(flags, "update", undefined);
  if (update !== undefined) spec.UpdateConfig = update;
  const rollback = updateConfig(flags, "rollback", undefined);
  if (rollback !== undefined) spec.RollbackConfig = rollback;
  const ports = flags.list("publish").flatMap(parsePort).map(portJson);
  if (ports.length > 0) spec.EndpointSpec = { ...spec.EndpointSpec, Ports: ports };
  return spec;
}

/** Restart policy with what the flags change; undefined when neither they nor `before` say anything. */
export function restartPolicy(
  flags: Flags,
  before: TaskTemplateJson["RestartPolicy"],
): TaskTemplateJson["RestartPolicy"] {
  const names = ["restart-condition", "restart-delay", "restart-max-attempts", "restart-window"];
  if (!names.some((name) => flags.has(name))) return before;
  const policy = { ...(before ?? { Condition: "any", Delay: 5e9, MaxAttempts: 0 }) };
  const condition = flags.text("restart-condition");
  if (condition !== null) policy.Condition = condition;
  const delay = flags.ns("restart-delay");
  if (delay !== null) policy.Delay = delay;
  const attempts = flags.number("restart-max-attempts");
  if (attempts !== null) policy.MaxAttempts = attempts;
  const window = flags.ns("restart-window");
  if (window !== null) policy.Window = window;
  return policy;
}

/** Update or rollback settings with what the flags change; undefined when neither they nor `before` say anything. */
export function updateConfig(
  flags: Flags,
  kind: "update" | "rollback",
  before: UpdateConfigJson | undefined,
): UpdateConfigJson | undefined {
  const fields = [
    "parallelism",
    "delay",
    "monitor",
    "failure-action",
    "max-failure-ratio",
    "order",
  ];
  if (!fields.some((name) => flags.has(`${kind}-${name}`))) return before;
  const config: UpdateConfigJson = {
    ...(before ?? {
      Parallelism: 1,
      FailureAction: "pause",
      Monitor: 5e9,
      MaxFailureRatio: 0,
      Order: "stop-first",
    }),
  };
  const parallelism = flags.number(`${kind}-parallelism`);
  if (parallelism !== null) config.Parallelism = parallelism;
  const delay = flags.ns(`${kind}-delay`);
  if (delay !== null && delay !== 0) config.Delay = delay;
  else if (delay === 0) delete config.Delay;
  const monitor = flags.ns(`${kind}-monitor`);
  if (monitor !== null) config.Monitor = monitor;
  const action = flags.text(`${kind}-failure-action`);
  if (action !== null) config.FailureAction = action;
  const ratio = flags.number(`${kind}-max-failure-ratio`);
  if (ratio !== null) config.MaxFailureRatio = ratio;
  const order = flags.text(`${kind}-order`);
  if (order !== null) config.Order = order;
  return config;
}

/** The health check that flags ask for; undefined when they say nothing. Throws `invalid` when they contradict each other. */
export function healthcheck(
  flags: Flags,
  before: ContainerSpecJson["Healthcheck"],
): ContainerSpecJson["Healthcheck"] {
  const names = ["cmd", "interval", "retries", "start-interval", "start-period", "timeout"].map(
    (n) => `health-${n}`,
  );
  const isAsked = names.some((name) => flags.has(name));
  if (flags.on("no-healthcheck")) {
    if (isAsked) throw failure("invalid", "--no-healthcheck conflicts with --health-* options");
    return { Test: ["NONE"] };
  }
  if (!isAsked) return before;
  const check: NonNullable<ContainerSpecJson["Healthcheck"]> = { ...before };
  if (check.Test?.[0] === "NONE") delete check.Test;
  const command = flags.text("health-cmd");
  if (command !== null) check.Test = command === "" ? [] : ["CMD-SHELL", command];
  const times = {
    "health-interval": "Interval",
    "health-timeout": "Timeout",
    "health-start-period": "StartPeriod",
    "health-start-interval": "StartInterval",
  } as const;
  for (const [name, field] of Object.entries(times)) {
    const ns = flags.ns(name);
    if (ns !== null) check[field] = ns;
  }
  const retries = flags.number("health-retries");
  if (retries !== null) check.Retries = retries;
  return check;
}

/** Log driver that flags ask for; undefined when they do not. */
export function logDriver(flags: Flags): TaskTemplateJson["LogDriver"] {
  const name = flags.text("log-driver");
  if (name === null || name === "") return undefined;
  const options = flags.list("log-opt");
  return { Name: name, ...(options.length > 0 ? { Options: labelMap(options) } : {}) };
}

/** The value of a processor flag in nano-CPUs; 0 when not given. */
export function cpus(flags: Flags, name: string): number {
  const text = flags.text(name);
  return text === null ? 0 : nanoCpus(text);
}

/** An image as docker's command sends it: `latest` where nothing else is said, Docker Hub unnamed; an id stays as it is. */
export function taggedImage(image: string): string {
  if (/^(sha256:)?[0-9a-f]{64}$/.test(image)) return image;
  const short = image.replace(/^docker\.io\/(library\/)?/, "");
  const isTagged = short.includes("@") || short.slice(short.lastIndexOf("/") + 1).includes(":");
  return isTagged || short === "" ? short : `${short}:latest`;
}

/** Leaves away what is 0, "", empty or undefined, as Go's omitempty. */
export function compact<T extends object>(value: T): Partial<T> {
  const kept = Object.entries(value).filter(([, field]) => {
    if (Array.isArray(field)) return field.length > 0;
    if (typeof field === "object" && field !== null) return Object.keys(field).length > 0;
    return field !== undefined && field !== null && field !== 0 && field !== "" && field !== false;
  });
  return Object.fromEntries(kept) as Partial<T>;
}

/** Variables as docker reads them: `NAME` alone takes the caller's value, or is left away. Later ones win. */
export function environment(
  entries: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): string[] {
  const values = new Map<string, string>();
  for (const entry of entries) {
    const at = entry.indexOf("=");
    const name = at < 0 ? entry : entry.slice(0, at);
    if (name === "") throw failure("invalid", `invalid environment variable: ${entry}`);
    const value = at < 0 ? env[name] : entry.slice(at + 1);
    if (value !== undefined) values.set(name, `${name}=${value}`);
  }
  return [...values.values()];
}

function containerSpec(
  image: string,
  args: readonly string[],
  flags: Flags,
  context: SpecContext,
): ContainerSpecJson {
  const grace = flags.ns("stop-grace-period");
  const entrypoint = flags.text("entrypoint");
  const health = healthcheck(flags, undefined);
  return {
    Image: taggedImage(image),
    ...compact({
      Labels: labelMap(flags.list("container-label")),
      Command: entrypoint === null ? [] : shellWords(entrypoint),
      Args: [...args],
      Hostname: flags.text("hostname") ?? "",
      Env: environment([...context.fileEnv, ...flags.list("env")], context.env),
      Dir: flags.text("workdir") ?? "",
      User: flags.text("user") ?? "",
      Groups: [...flags.list("group")],
      StopSignal: flags.text("stop-signal") ?? "",
      TTY: flags.on("tty"),
      ReadOnly: flags.on("read-only"),
      Mounts: flags.list("mount").map(parseMount),
      Hosts: flags.list("host").map(hostLine),
      Isolation: flags.text("isolation") ?? "",
      Sysctls: labelMap(flags.list("sysctl")),
      CapabilityAdd: capabilities(flags.list("cap-add")),
      CapabilityDrop: capabilities(flags.list("cap-drop")),
      Ulimits: flags.list("ulimit").map(parseUlimit),
      OomScoreAdj: flags.number("oom-score-adj") ?? 0,
    }),
    ...(grace === null ? {} : { StopGracePeriod: grace }),
    ...(health === undefined ? {} : { Healthcheck: health }),
    Init: flags.on("init"),
    DNSConfig: compact({
      Nameservers: [...flags.list("dns")],
      Search: [...flags.list("dns-search")],
      Options: [...flags.list("dns-option")],
    }),
  };
}

/** `net_admin` and `CAP_NET_ADMIN` are the same; sorted, each once. */
export function capabilities(names: readonly string[]): string[] {
  const full = names.map((name) => {
    const upper = name.trim().toUpperCase();
    return upper === "ALL" || upper.startsWith("CAP_") ? upper : `CAP_${upper}`;
  });
  return [...new Set(full)].sort();
}

function placement(flags: Flags): PlacementJson {
  return compact({
    Constraints: [...flags.list("constraint")],
    Preferences: flags.list("placement-pref").map(parsePreference),
    MaxReplicas: flags.number("replicas-max-per-node") ?? 0,
  });
}

function mode(flags: Flags): ServiceModeJson {
  const name = flags.text("mode") ?? "replicated";
  const replicas = flags.number("replicas");
  switch (name) {
    case "replicated":
      return { Replicated: replicas === null ? {} : { Replicas: replicas } };
    case "global":
    case "global-job":
      if (replicas !== null) {
        throw failure(
          "invalid",
          "replicas can only be used with replicated or replicated-job mode",
        );
      }
      if (flags.has("replicas-max-per-node")) {
        throw failure(
          "invalid",
          "replicas-max-per-node can only be used with replicated or replicated-job mode",
        );
      }
      return name === "global" ? { Global: {} } : { GlobalJob: {} };
    case "replicated-job":
      return { ReplicatedJob: { MaxConcurrent: replicas ?? 1, TotalCompletions: replicas ?? 1 } };
    default:
      throw failure("invalid", `Unknown mode: ${name}, only replicated and global supported`);
  }
}
