/** `service update`: what the flags change in the spec that the daemon has. */
import { failure } from "../lib/errors.ts";
import type { ContainerSpecJson, ServiceSpecJson, TaskTemplateJson } from "./engine-types.ts";
import type { Flags } from "./flag.ts";
import {
  capabilities,
  cpus,
  environment,
  healthcheck,
  logDriver,
  restartPolicy,
  taggedImage,
  updateConfig,
} from "./service-spec.ts";
import {
  hostLine,
  parseMount,
  parsePort,
  parsePreference,
  parseUlimit,
  portJson,
} from "./service-values.ts";
import { labelMap, shellWords } from "./values.ts";

/** What the flags name that only the daemon knows. */
export interface UpdateContext {
  /** Networks of --network-add, as ids. */
  readonly networksAdded: NonNullable<TaskTemplateJson["Networks"]>;
  /** Ids (and names) of --network-rm. */
  readonly networksRemoved: ReadonlySet<string>;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** A copy of `before` with the changes. Throws `invalid` when they do not fit it. */
export function updateSpec(
  before: ServiceSpecJson,
  flags: Flags,
  context: UpdateContext,
): ServiceSpecJson {
  const spec = structuredClone(before);
  const task = spec.TaskTemplate;
  const container = task.ContainerSpec ?? {};
  task.ContainerSpec = container;

  changeContainer(container, flags, context);
  changeLists(container, flags);
  changeTask(task, flags, context);

  const labels = changedMap(spec.Labels ?? {}, flags, "label");
  spec.Labels = labels;
  const update = updateConfig(flags, "update", spec.UpdateConfig);
  if (update !== undefined) spec.UpdateConfig = update;
  const rollback = updateConfig(flags, "rollback", spec.RollbackConfig);
  if (rollback !== undefined) spec.RollbackConfig = rollback;

  const replicas = flags.number("replicas");
  if (replicas !== null) {
    if (spec.Mode.Replicated !== undefined) spec.Mode.Replicated.Replicas = replicas;
    else if (spec.Mode.ReplicatedJob !== undefined)
      spec.Mode.ReplicatedJob.TotalCompletions = replicas;
    else
      throw failure("invalid", "replicas can only be used with replicated or replicated-job mode");
  }
  const endpointMode = flags.text("endpoint-mode");
  if (endpointMode !== null) spec.EndpointSpec = { ...spec.EndpointSpec, Mode: endpointMode };
  changePorts(spec, flags);
  if (flags.on("force")) task.ForceUpdate += 1;
  return spec;
}

function changeContainer(container: ContainerSpecJson, flags: Flags, context: UpdateContext): void {
  const texts = {
    image: "Image",
    hostname: "Hostname",
    workdir: "Dir",
    user: "User",
    "stop-signal": "StopSignal",
    isolation: "Isolation",
  } as const;
  for (const [flag, field] of Object.entries(texts)) {
    const text = flags.text(flag);
    if (text !== null) container[field] = flag === "image" ? taggedImage(text) : text;
  }
  const args = flags.text("args");
  if (args !== null) setOrDelete(container, "Args", shellWords(args));
  const entrypoint = flags.text("entrypoint");
  if (entrypoint !== null) setOrDelete(container, "Command", shellWords(entrypoint));
  if (flags.has("init")) container.Init = flags.on("init");
  if (flags.has("tty")) container.TTY = flags.on("tty");
  if (flags.has("read-only")) container.ReadOnly = flags.on("read-only");
  const grace = flags.ns("stop-grace-period");
  if (grace !== null) container.StopGracePeriod = grace;
  const oom = flags.number("oom-score-adj");
  if (oom !== null) container.OomScoreAdj = oom;
  const health = healthcheck(flags, container.Healthcheck);
  if (health !== undefined) container.Healthcheck = health;

  const removed = new Set(flags.list("env-rm"));
  const added = flags.list("env-add");
  if (removed.size > 0 || added.length > 0) {
    const kept = (container.Env ?? []).filter((entry) => !removed.has(entry.split("=")[0] ?? ""));
    setOrDelete(container, "Env", environment([...kept, ...added], context.env));
  }
  for (const [flag, field] of [
    ["container-label", "Labels"],
    ["sysctl", "Sysctls"],
  ] as const) {
    if (!flags.has(`${flag}-add`) && !flags.has(`${flag}-rm`)) continue;
    container[field] = changedMap(container[field] ?? {}, flags, flag);
  }
}

function changeLists(container: ContainerSpecJson, flags: Flags): void {
  const change = (
    field: "Groups" | "Hosts",
    flag: string,
    read: (text: string) => string,
    removes: (entry: string, text: string) => boolean,
  ): void => {
    const added = flags.list(`${flag}-add`).map(read);
    const removed = flags.list(`${flag}-rm`);
    if (added.length === 0 && removed.length === 0) return;
    const kept = (container[field] ?? []).filter(
      (entry) => !removed.some((text) => removes(entry, text)),
    );
    setOrDelete(container, field, [...new Set([...kept, ...added])]);
  };
  change(
    "Groups",
    "group",
    (text) => text,
    (entry, text) => entry === text,
  );
  change("Hosts", "host", hostLine, (entry, text) => {
    const [address = "", ...names] = entry.split(/\s+/);
    const at = text.indexOf(":");
    const name = at < 0 ? text : text.slice(0, at);
    return names.includes(name) && (at < 0 || text.slice(at + 1) === address);
  });

  const dns = { ...container.DNSConfig };
  for (const [flag, field] of [
    ["dns", "Nameservers"],
    ["dns-search", "Search"],
    ["dns-option", "Options"],
  ] as const) {
    const removed = new Set(flags.list(`${flag}-rm`));
    const list = [
      ...(dns[field] ?? []).filter((entry) => !removed.has(entry)),
      ...flags.list(`${flag}-add`),
    ];
    if (list.length > 0) dns[field] = [...new Set(list)];
    else delete dns[field];
  }
  container.DNSConfig = dns;

  const mountsRemoved = new Set(flags.list("mount-rm"));
  const mountsAdded = flags.list("mount-add").map(parseMount);
  if (mountsRemoved.size > 0 || mountsAdded.length > 0) {
    const replaced = new Set(mountsAdded.map((mount) => mount.Target));
    const kept = (container.Mounts ?? []).filter(
      ({ Target }) => !mountsRemoved.has(Target ?? "") && !replaced.has(Target),
    );
    setOrDelete(container, "Mounts", [...kept, ...mountsAdded]);
  }
  const limitsRemoved = new Set(flags.list("ulimit-rm"));
  const limitsAdded = flags.list("ulimit-add").map(parseUlimit);
  if (limitsRemoved.size > 0 || limitsAdded.length > 0) {
    const replaced = new Set(limitsAdded.map((limit) => limit.Name));
    const kept = (container.Ulimits ?? []).filter(
      ({ Name }) => !limitsRemoved.has(Name) && !replaced.has(Name),
    );
    setOrDelete(container, "Ulimits", [...kept, ...limitsAdded]);
  }
  const [add, drop] = [capabilities(flags.list("cap-add")), capabilities(flags.list("cap-drop"))];
  if (add.length > 0 || drop.length > 0) {
    // Adding what was dropped takes it back, and the other way round.
    const added = new Set([
      ...(container.CapabilityAdd ?? []).filter((name) => !drop.includes(name)),
      ...add,
    ]);
    const dropped = new Set([
      ...(container.CapabilityDrop ?? []).filter((name) => !add.includes(name)),
      ...drop,
    ]);
    setOrDelete(container, "CapabilityAdd", [...added].sort());
    setOrDelete(container, "CapabilityDrop", [...dropped].sort());
  }
}

function changeTask(task: TaskTemplateJson, flags: Flags, context: UpdateContext): void {
  const limits = { ...task.Resources?.Limits };
  const reservations = { ...task.Resources?.Reservations };
  if (flags.has("limit-cpu")) limits.NanoCPUs = cpus(flags, "limit-cpu");
  if (flags.has("limit-memory")) limits.MemoryBytes = flags.bytes("limit-memory") ?? 0;
  if (flags.has("limit-pids")) limits.Pids = flags.number("limit-pids") ?? 0;
  if (flags.has("reserve-cpu")) reservations.NanoCPUs = cpus(flags, "reserve-cpu");
  if (flags.has("reserve-memory")) reservations.MemoryBytes = flags.bytes("reserve-memory") ?? 0;
  if (
    ["limit-cpu", "limit-memory", "limit-pids", "reserve-cpu", "reserve-memory"].some((name) =>
      flags.has(name),
    )
  ) {
    task.Resources = { ...task.Resources, Limits: limits, Reservations: reservations };
  }
  const restart = restartPolicy(flags, task.RestartPolicy);
  if (restart !== undefined) task.RestartPolicy = restart;
  const logging = logDriver(flags);
  if (logging !== undefined) task.LogDriver = logging;

  const placement = { ...task.Placement };
  const constraintsRemoved = new Set(flags.list("constraint-rm"));
  const constraints = [
    ...(placement.Constraints ?? []).filter((entry) => !constraintsRemoved.has(entry)),
    ...flags.list("constraint-add"),
  ];
  setOrDelete(placement, "Constraints", [...new Set(constraints)]);
  const preferencesRemoved = new Set(
    flags.list("placement-pref-rm").map((text) => parsePreference(text).Spread.SpreadDescriptor),
  );
  setOrDelete(placement, "Preferences", [
    ...(placement.Preferences ?? []).filter(
      ({ Spread }) => !preferencesRemoved.has(Spread?.SpreadDescriptor ?? ""),
    ),
    ...flags.list("placement-pref-add").map(parsePreference),
  ]);
  const maxReplicas = flags.number("replicas-max-per-node");
  if (maxReplicas !== null) placement.MaxReplicas = maxReplicas;
  if (task.Placement !== undefined || Object.keys(placement).length > 0) task.Placement = placement;

  if (context.networksAdded.length > 0 || context.networksRemoved.size > 0) {
    const kept = (task.Networks ?? []).filter(
      ({ Target }) => !context.networksRemoved.has(Target ?? ""),
    );
    const present = new Set(kept.map(({ Target }) => Target));
    for (const network of context.networksAdded) {
      if (present.has(network.Target)) {
        throw failure("invalid", `service is already attached to network ${network.Target}`);
      }
    }
    setOrDelete(task, "Networks", [...kept, ...context.networksAdded]);
  }
}

function changePorts(spec: ServiceSpecJson, flags: Flags): void {
  const added = flags.list("publish-add").flatMap(parsePort).map(portJson);
  const removed = flags
    .list("publish-rm")
    .map((text) => Number(/\d+/.exec(text)?.[0] ?? Number.NaN));
  if (added.length === 0 && removed.length === 0) return;
  const replaced = new Set(added.map((port) => `${port.Protocol} ${port.TargetPort}`));
  const kept = (spec.EndpointSpec?.Ports ?? []).filter(
    (port) =>
      !removed.includes(port.TargetPort ?? 0) &&
      !replaced.has(`${port.Protocol} ${port.TargetPort}`),
  );
  spec.EndpointSpec = { ...spec.EndpointSpec };
  setOrDelete(spec.EndpointSpec, "Ports", [...kept, ...added]);
}

function changedMap(
  before: Readonly<Record<string, string>>,
  flags: Flags,
  flag: string,
): Record<string, string> {
  const removed = new Set(flags.list(`${flag}-rm`));
  const kept = Object.entries(before).filter(([key]) => !removed.has(key));
  return { ...Object.fromEntries(kept), ...labelMap(flags.list(`${flag}-add`)) };
}

/** An empty list is left away, as Go's omitempty does. */
function setOrDelete<T extends object, K extends keyof T>(target: T, key: K, value: T[K]): void {
  if (Array.isArray(value) && value.length === 0) delete target[key];
  else target[key] = value;
}
