/** What a task runs, from docker's JSON and back. */
import { failure } from "../../lib/errors.ts";
import { defaultRestart, defaultStopGraceNs } from "../../model/defaults.ts";
import type { Limits, Resources } from "../../model/resources.ts";
import type {
  ContainerSpec,
  NetworkAttachmentSpec,
  Placement,
  RestartPolicy,
  TaskSpec,
} from "../../model/task.ts";
import { Fields } from "./fields.ts";
import { readMounts, writeMount } from "./mount.ts";
import { withoutNull, withoutUnset } from "./set-fields.ts";

/** Reads `TaskTemplate` of a service's fields; `legacyNetworks` are those of the service itself, which count where the task names none. */
export function readTaskSpec(
  service: Fields,
  legacyNetworks: readonly NetworkAttachmentSpec[],
): TaskSpec {
  const task = service.object("TaskTemplate") ?? Fields.root(null, "service", "ServiceSpec");
  task.refuse("PluginSpec", "plugin tasks");
  task.refuse("NetworkAttachmentSpec", "network attachment tasks");
  const runtime = task.text("Runtime");
  if (runtime !== "" && runtime !== "container") {
    throw task.unsupported(`runtime ${runtime} is not supported yet`);
  }
  const networks = readNetworks(task);
  const resources = task.object("Resources");
  const spec: TaskSpec = {
    container: readContainerSpec(task),
    limits: resources === null ? null : readLimits(resources),
    reservations: resources === null ? null : readReservations(resources),
    restart: readRestartPolicy(task),
    placement: readPlacement(task),
    networks: networks.length > 0 ? networks : legacyNetworks,
    logDriver: readLogDriver(task),
    forceUpdate: task.number("ForceUpdate", "uint64"),
  };
  resources?.done();
  task.done();
  return spec;
}

/** Docker's JSON of a task's spec. With `defaults`, options that were left open show what they come to. */
export function writeTaskSpec(spec: TaskSpec, defaults: boolean): Record<string, unknown> {
  const restart = spec.restart ?? (defaults ? defaultRestart : null);
  return withoutNull({
    ContainerSpec: writeContainerSpec(spec.container, defaults),
    Resources: writeResources(spec.limits, spec.reservations),
    RestartPolicy: restart === null ? null : writeRestartPolicy(restart),
    Placement: spec.placement === null ? null : writePlacement(spec.placement),
    Networks:
      spec.networks.length === 0
        ? null
        : spec.networks.map((network) => ({
            Target: network.target,
            ...withoutUnset({ Aliases: network.aliases }),
          })),
    LogDriver:
      spec.logDriver === null
        ? null
        : { Name: spec.logDriver.name, ...withoutUnset({ Options: spec.logDriver.options }) },
    ForceUpdate: spec.forceUpdate,
  });
}

/** Reads `Networks` of a task or, as older clients send it, of a service. */
export function readNetworks(fields: Fields): readonly NetworkAttachmentSpec[] {
  return fields.objects("Networks").map((network) => {
    network.refuse("DriverOpts", "driver options of a network attachment");
    const attachment = { target: network.text("Target"), aliases: network.texts("Aliases") };
    network.done();
    return attachment;
  });
}

function readContainerSpec(task: Fields): ContainerSpec {
  const fields = task.object("ContainerSpec");
  if (fields === null) {
    throw failure("invalid", "rpc error: code = InvalidArgument desc = TaskSpec: missing runtime");
  }
  fields.refuse("Healthcheck", "health checks");
  fields.refuse("Secrets", "secrets");
  fields.refuse("Configs", "configs");
  fields.refuse("TTY", "terminals (tty)");
  fields.refuse("OpenStdin", "open standard inputs (stdin_open)");
  const init = fields.flagOrNull("Init");
  if (init === true) throw fields.unsupported("an init process (--init) is not supported yet");
  const isolation = fields.textOrNull("Isolation");
  if (isolation !== null && isolation !== "default") {
    throw fields.unsupported(`isolation ${isolation} is not supported on linux`);
  }
  const spec: ContainerSpec = {
    image: fields.text("Image"),
    labels: fields.textMap("Labels"),
    command: fields.texts("Command"),
    args: fields.texts("Args"),
    hostname: fields.textOrNull("Hostname"),
    env: fields.texts("Env"),
    dir: fields.textOrNull("Dir"),
    user: fields.textOrNull("User"),
    groups: fields.texts("Groups"),
    readOnly: fields.flag("ReadOnly"),
    stopSignal: fields.textOrNull("StopSignal"),
    stopGraceNs: fields.numberOrNull("StopGracePeriod"),
    hosts: fields.texts("Hosts"),
    dns: readDns(fields),
    capabilityAdd: fields.texts("CapabilityAdd"),
    capabilityDrop: fields.texts("CapabilityDrop"),
    sysctls: fields.textMap("Sysctls"),
    ulimits: fields.objects("Ulimits").map((limit) => {
      const read = {
        name: limit.text("Name"),
        soft: limit.number("Soft"),
        hard: limit.number("Hard"),
      };
      limit.done();
      return read;
    }),
    mounts: readMounts(fields),
    noNewPrivileges: readPrivileges(fields),
    oomScoreAdj: fields.number("OomScoreAdj"),
    init,
    isolation,
  };
  fields.done();
  refuseTemplates(fields, spec);
  return spec;
}

/** Docker expands `{{.Node.ID}}` and its like in these; as long as we do not, it must not reach a container as it stands. */
function refuseTemplates(fields: Fields, spec: ContainerSpec): void {
  const places = [
    spec.hostname ?? "",
    ...spec.env,
    ...spec.mounts.flatMap((mount) => [mount.source ?? "", mount.target]),
  ];
  const template = places.find((text) => text.includes("{{"));
  if (template !== undefined) {
    throw fields.unsupported(`templates such as ${template} are not supported yet`);
  }
}

function writeContainerSpec(spec: ContainerSpec, defaults: boolean): object {
  return {
    ...withoutUnset({
      Image: spec.image,
      Labels: spec.labels,
      Command: spec.command,
      Args: spec.args,
      Hostname: spec.hostname,
      Env: spec.env,
      Dir: spec.dir,
      User: spec.user,
      Groups: spec.groups,
      Privileges: spec.noNewPrivileges ? { NoNewPrivileges: true } : null,
      StopSignal: spec.stopSignal,
      ReadOnly: spec.readOnly,
      Mounts: spec.mounts.map(writeMount),
      Hosts: spec.hosts,
      Sysctls: spec.sysctls,
      CapabilityAdd: spec.capabilityAdd,
      CapabilityDrop: spec.capabilityDrop,
      Ulimits: spec.ulimits.map(({ name, soft, hard }) => ({ Name: name, Hard: hard, Soft: soft })),
      OomScoreAdj: spec.oomScoreAdj,
    }),
    ...withoutNull({
      Init: spec.init,
      StopGracePeriod: spec.stopGraceNs ?? (defaults ? defaultStopGraceNs : null),
      DNSConfig: writeDns(spec.dns, defaults),
      Isolation: spec.isolation ?? (defaults ? "default" : null),
    }),
  };
}

function readDns(fields: Fields): ContainerSpec["dns"] {
  const dns = fields.object("DNSConfig");
  if (dns === null) return null;
  const read = {
    nameservers: dns.texts("Nameservers"),
    search: dns.texts("Search"),
    options: dns.texts("Options"),
  };
  dns.done();
  return read;
}

function writeDns(dns: ContainerSpec["dns"], defaults: boolean): object | null {
  if (dns === null) return defaults ? {} : null;
  return withoutUnset({ Nameservers: dns.nameservers, Search: dns.search, Options: dns.options });
}

/** Only NoNewPrivileges exists so far. */
function readPrivileges(fields: Fields): boolean {
  const privileges = fields.object("Privileges");
  if (privileges === null) return false;
  privileges.refuse("CredentialSpec", "credential specs");
  privileges.refuse("SELinuxContext", "SELinux contexts");
  privileges.refuse("Seccomp", "seccomp profiles");
  privileges.refuse("AppArmor", "AppArmor modes");
  const noNewPrivileges = privileges.flag("NoNewPrivileges");
  privileges.done();
  return noNewPrivileges;
}

function readLimits(resources: Fields): Limits | null {
  const limits = resources.object("Limits");
  if (limits === null) return null;
  const read = {
    nanoCpus: limits.number("NanoCPUs"),
    memoryBytes: limits.number("MemoryBytes"),
    pids: limits.number("Pids"),
  };
  limits.done();
  return read;
}

function readReservations(resources: Fields): Resources | null {
  const reservations = resources.object("Reservations");
  if (reservations === null) return null;
  reservations.refuse("GenericResources", "generic resources");
  const read = {
    nanoCpus: reservations.number("NanoCPUs"),
    memoryBytes: reservations.number("MemoryBytes"),
  };
  reservations.done();
  return read;
}

function writeResources(limits: Limits | null, reservations: Resources | null): object | null {
  if (limits === null && reservations === null) return null;
  return withoutNull({
    Limits:
      limits &&
      withoutUnset({
        NanoCPUs: limits.nanoCpus,
        MemoryBytes: limits.memoryBytes,
        Pids: limits.pids,
      }),
    Reservations:
      reservations &&
      withoutUnset({ NanoCPUs: reservations.nanoCpus, MemoryBytes: reservations.memoryBytes }),
  });
}

function readRestartPolicy(task: Fields): RestartPolicy | null {
  const policy = task.object("RestartPolicy");
  if (policy === null) return null;
  const condition = policy.text("Condition");
  if (!["", "none", "on-failure", "any"].includes(condition)) {
    throw failure("invalid", `invalid RestartCondition: "${condition}"`);
  }
  const read: RestartPolicy = {
    condition: condition === "" ? "any" : (condition as RestartPolicy["condition"]),
    delayNs: policy.numberOrNull("Delay"),
    maxAttempts: policy.numberOrNull("MaxAttempts", "uint64"),
    windowNs: policy.numberOrNull("Window"),
  };
  policy.done();
  return read;
}

function writeRestartPolicy(policy: RestartPolicy): object {
  return withoutNull({
    Condition: policy.condition,
    Delay: policy.delayNs,
    MaxAttempts: policy.maxAttempts,
    Window: policy.windowNs,
  });
}

function readPlacement(task: Fields): Placement | null {
  const placement = task.object("Placement");
  if (placement === null) return null;
  const read: Placement = {
    constraints: placement.texts("Constraints"),
    spreadOver: placement.objects("Preferences").map(readSpread),
    maxReplicas: placement.number("MaxReplicas", "uint64"),
    platforms: placement.objects("Platforms").map((platform) => {
      const one = { os: platform.text("OS"), architecture: platform.text("Architecture") };
      platform.refuse("Variant", "platform variants");
      platform.done();
      return one;
    }),
  };
  placement.done();
  return read;
}

function readSpread(preference: Fields): string {
  const spread = preference.object("Spread");
  preference.done();
  if (spread === null)
    throw failure("invalid", "unknown placement preference: only spread is known");
  const descriptor = spread.text("SpreadDescriptor");
  spread.done();
  return descriptor;
}

function writePlacement(placement: Placement): object {
  return withoutUnset({
    Constraints: placement.constraints,
    Preferences: placement.spreadOver.map((descriptor) => ({
      Spread: { SpreadDescriptor: descriptor },
    })),
    MaxReplicas: placement.maxReplicas,
    Platforms: placement.platforms.map(({ os, architecture }) =>
      withoutUnset({ Architecture: architecture, OS: os }),
    ),
  });
}

function readLogDriver(task: Fields): TaskSpec["logDriver"] {
  const driver = task.object("LogDriver");
  if (driver === null) return null;
  const name = driver.text("Name");
  if (name !== "" && name !== "json-file") {
    throw driver.unsupported(`log driver ${name} is not supported yet (json-file is)`);
  }
  const options = driver.textMap("Options");
  driver.done();
  return { name, options };
}
