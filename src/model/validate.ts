/** What a spec must hold before it is stored, in swarmkit's words (swarmkit manager/controlapi). Shapes were checked before. */
import { failure, type ShoalError } from "../lib/errors.ts";
import { parseCidr, parseIpv4 } from "../lib/ipv4.ts";
import type { ClusterSpec } from "./cluster.ts";
import { nsPerSecond } from "./defaults.ts";
import type { NetworkSpec } from "./network.ts";
import type { NodeSpec } from "./node.ts";
import type { Resources } from "./resources.ts";
import type { ServiceSpec, UpdateConfig } from "./service.ts";
import type { ContainerSpec, Mount, Placement, RestartPolicy, TaskSpec } from "./task.ts";

/** Longest name of a service or a network, in characters: it becomes a DNS label. */
export const nameLengthMax = 63;
/** Smallest CPU share that may be asked for, in billionths of a CPU. */
export const nanoCpusMin = 1_000_000;
/** Least memory that may be asked for, in bytes: 4 MiB. */
export const memoryBytesMin: number = 4 * 1024 * 1024;
/** Shortest life of a node's certificate, in nanoseconds: one hour. */
export const certificateLifeMinNs: number = 3600 * nsPerSecond;

/** Throws ShoalError("invalid") with the first thing that is wrong. */
export function validateServiceSpec(spec: ServiceSpec): void {
  requireName(spec.name);
  validateTaskSpec(spec.task);
  validateUpdateConfig(spec.update, "update");
  validateUpdateConfig(spec.rollback, "rollback");
  if (spec.rollback?.failureAction === "rollback") {
    throw invalid("rollback failure action can only be pause or continue, not rollback");
  }
  const { mode } = spec;
  if (mode.kind === "replicated" && !(Number.isInteger(mode.replicas) && mode.replicas >= 0)) {
    throw invalid(`Number of replicas must be non-negative, not ${mode.replicas}`);
  }
  if (mode.kind === "global" && (spec.task.placement?.maxReplicas ?? 0) > 0) {
    throw invalid("max replicas per node can only be used with replicated services");
  }
}

/** Throws ShoalError("invalid") with the first thing that is wrong. The subnet itself is checked where it is allocated. */
export function validateNetworkSpec(spec: NetworkSpec): void {
  requireName(spec.name);
  if (spec.ingress && spec.attachable)
    throw invalid("attachable ingress networks are not supported");
  if (spec.gateway === null) return;
  if (parseIpv4(spec.gateway) === null) {
    throw failure(
      "invalid",
      `invalid network config:\ninvalid gateway ${spec.gateway}: it is no IPv4 address`,
    );
  }
  const subnet = spec.subnet === null ? null : parseCidr(spec.subnet);
  if (subnet === null) {
    throw failure(
      "invalid",
      `invalid network config:\ngateway ${spec.gateway} has no matching subnet`,
    );
  }
}

/** Throws ShoalError("invalid") with the first thing that is wrong. */
export function validateNodeSpec(spec: NodeSpec): void {
  if (spec.name !== "") requireName(spec.name);
  for (const key of Object.keys(spec.labels)) {
    if (key === "") throw invalid("a node label must have a name");
  }
}

/** Throws ShoalError("invalid") with the first thing that is wrong. */
export function validateClusterSpec(spec: ClusterSpec): void {
  if (spec.name !== "default") throw invalid('swarm spec must be named "default"');
  if (spec.nodeCertExpiryNs < certificateLifeMinNs) {
    throw invalid("minimum certificate expiry time is: 1h0m0s");
  }
  if (spec.heartbeatPeriodNs < 0) {
    throw invalid("heartbeat time period cannot be a negative duration");
  }
  if (spec.heartbeatTick < 1) throw invalid("the heartbeat tick must be at least 1");
  if (spec.electionTick <= spec.heartbeatTick) {
    throw invalid("the election tick must be greater than the heartbeat tick");
  }
  if (spec.snapshotInterval < 1) throw invalid("the snapshot interval must be at least 1 entry");
}

function validateTaskSpec(task: TaskSpec): void {
  if (task.limits !== null) {
    requireResources(task.limits);
    if (task.limits.pids < 0)
      throw invalid(`invalid pids limit ${task.limits.pids}: Must not be negative`);
  }
  if (task.reservations !== null) requireResources(task.reservations);
  validateRestartPolicy(task.restart);
  validatePlacement(task.placement);
  validateContainerSpec(task.container);
  const seen = new Set<string>();
  for (const { target } of task.networks) {
    if (target === "") throw invalid("a network attachment must name its network");
    if (seen.has(target))
      throw invalid(`network ${target} is given twice: a task joins a network once`);
    seen.add(target);
  }
}

function requireResources(resources: Resources): void {
  const { nanoCpus, memoryBytes } = resources;
  if (nanoCpus !== 0 && nanoCpus < nanoCpusMin) {
    throw invalid(`invalid cpu value ${nanoCpus / 1e9}: Must be at least ${nanoCpusMin / 1e9}`);
  }
  if (memoryBytes !== 0 && memoryBytes < memoryBytesMin) {
    throw invalid(`invalid memory value ${memoryBytes}: Must be at least 4MiB`);
  }
}

function validateRestartPolicy(policy: RestartPolicy | null): void {
  if ((policy?.delayNs ?? 0) < 0) throw invalid("TaskSpec: restart-delay cannot be negative");
  if ((policy?.windowNs ?? 0) < 0) throw invalid("TaskSpec: restart-window cannot be negative");
}

function validateUpdateConfig(config: UpdateConfig | null, word: "update" | "rollback"): void {
  if (config === null) return;
  if (config.delayNs < 0) throw invalid(`TaskSpec: ${word}-delay cannot be negative`);
  if (config.monitorNs < 0) throw invalid(`TaskSpec: ${word}-monitor cannot be negative`);
  if (!(config.maxFailureRatio >= 0 && config.maxFailureRatio <= 1)) {
    throw invalid(`TaskSpec: ${word}-maxfailureratio cannot be less than 0 or bigger than 1`);
  }
}

/** The grammar of constraints (swarmkit manager/constraint); what they mean is the scheduler's. */
const constraintKey = /^[a-z_][a-z0-9\-_.]+$/i;
const constraintValue = /^[a-z0-9:\-_\s.*()?+[\]\\^$|/]+$/i;
const spreadDescriptor = /^(node|engine)\.labels\../i;

function validatePlacement(placement: Placement | null): void {
  for (const expression of placement?.constraints ?? []) {
    const operator = ["==", "!="].find((candidate) => expression.includes(candidate));
    if (operator === undefined) {
      throw invalid(`constraint expected one operator from ==, !=, but "${expression}" has none`);
    }
    const at = expression.indexOf(operator);
    const key = expression.slice(0, at).trim();
    const value = expression.slice(at + operator.length).trim();
    if (!constraintKey.test(key))
      throw invalid(`key '${key}' is invalid in constraint "${expression}"`);
    if (!constraintValue.test(value)) {
      throw invalid(`value '${value}' is invalid in constraint "${expression}"`);
    }
  }
  for (const descriptor of placement?.spreadOver ?? []) {
    if (!spreadDescriptor.test(descriptor)) {
      throw invalid(
        `placement preference spread=${descriptor} is unknown: spread over node.labels.NAME or engine.labels.NAME`,
      );
    }
  }
}

function validateContainerSpec(spec: ContainerSpec): void {
  if (spec.image === "") throw invalid("ContainerSpec: image reference must be provided");
  if (!isImageReference(spec.image)) {
    throw invalid(`ContainerSpec: "${spec.image}" is not a valid repository/tag`);
  }
  for (const variable of spec.env) {
    if (variable === "" || variable.startsWith("=")) {
      throw invalid(`ContainerSpec: invalid environment variable: ${variable}`);
    }
  }
  if (spec.stopGraceNs !== null && spec.stopGraceNs < 0) {
    throw invalid("ContainerSpec: stop-grace-period cannot be negative");
  }
  if (
    spec.stopSignal !== null &&
    !/^(?:(?:SIG)?[A-Z][A-Z0-9+-]*|[1-9]\d?)$/i.test(spec.stopSignal)
  ) {
    throw invalid(`ContainerSpec: invalid stop signal: ${spec.stopSignal}`);
  }
  if (spec.hostname !== null && !hostnamePattern.test(spec.hostname)) {
    throw invalid(`ContainerSpec: invalid hostname: ${spec.hostname}`);
  }
  if (spec.dir !== null && !spec.dir.startsWith("/")) {
    throw invalid(
      `ContainerSpec: the working directory '${spec.dir}' is invalid, it needs to be an absolute path`,
    );
  }
  if (spec.oomScoreAdj < -1000 || spec.oomScoreAdj > 1000) {
    throw invalid(
      `ContainerSpec: Invalid value ${spec.oomScoreAdj}, range for oom score adj is [-1000, 1000]`,
    );
  }
  for (const capability of [...spec.capabilityAdd, ...spec.capabilityDrop]) {
    if (!isCapability(capability))
      throw invalid(`ContainerSpec: invalid capability: "${capability}"`);
  }
  validateUlimits(spec.ulimits);
  validateDns(spec.dns);
  validateMounts(spec.mounts);
}

function validateUlimits(ulimits: ContainerSpec["ulimits"]): void {
  for (const { name, soft, hard } of ulimits) {
    if (!ulimitNames.has(name)) throw invalid(`ContainerSpec: invalid ulimit type: ${name}`);
    if (hard !== -1 && (soft === -1 || soft > hard)) {
      throw invalid(
        `ContainerSpec: ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`,
      );
    }
  }
}

function validateDns(dns: ContainerSpec["dns"]): void {
  for (const server of dns?.nameservers ?? []) {
    if (parseIpv4(server) === null && !/^[0-9a-f:.]*:[0-9a-f:.]*$/i.test(server)) {
      throw invalid(`ContainerSpec: invalid nameserver ${server}: it is no IP address`);
    }
  }
}

function validateMounts(mounts: readonly Mount[]): void {
  const targets = new Set<string>();
  for (const mount of mounts) {
    if (mount.target === "")
      throw invalid("ContainerSpec: invalid mount config: field Target must not be empty");
    if (!mount.target.startsWith("/")) {
      throw invalid(
        `ContainerSpec: invalid mount target, must be an absolute path: ${mount.target}`,
      );
    }
    const target = cleanPath(mount.target);
    if (target === "/")
      throw invalid("ContainerSpec: invalid mount target: destination can't be '/'");
    if (targets.has(target)) throw invalid(`ContainerSpec: duplicate mount point: ${mount.target}`);
    targets.add(target);
    validateMountSource(mount);
  }
}

function validateMountSource(mount: Mount): void {
  switch (mount.kind) {
    case "bind":
      if (mount.source === null || !mount.source.startsWith("/")) {
        throw invalid(
          `ContainerSpec: invalid bind mount source, must be an absolute path: ${mount.source ?? ""}`,
        );
      }
      return;
    case "tmpfs":
      if (mount.source !== null)
        throw invalid("ContainerSpec: invalid tmpfs source, source must be empty");
      if ((mount.sizeBytes ?? 0) < 0) {
        throw invalid(`ContainerSpec: invalid tmpfs size ${mount.sizeBytes}: Must not be negative`);
      }
      return;
    default:
      mount.kind satisfies never;
  }
}

const namePattern = /^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$/;

/** Swarmkit's validateAnnotations. The length comes first, so that the pattern never sees a long text. */
function requireName(name: string): void {
  if (name === "") throw invalid("meta: name must be provided");
  if (name.length > nameLengthMax)
    throw invalid(`name must be ${nameLengthMax} characters or fewer`);
  if (!namePattern.test(name)) throw invalid("name must be valid as a DNS name component");
}

const hostnamePattern =
  /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;
const domainPattern =
  /^[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::\d+)?$/;
const pathPartPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^\w[\w.-]{0,127}$/;
const digestPattern = /^sha256:[0-9a-f]{64}$/;
/** Longest name of an image, in characters (distribution/reference). */
const imageNameLengthMax = 255;

/** `[domain/]path[:tag][@digest]` (distribution/reference grammar). */
function isImageReference(text: string): boolean {
  if (/^[0-9a-f]{64}$/.test(text)) return false;
  const [named = "", digest, more] = text.split("@");
  if (more !== undefined || (digest !== undefined && !digestPattern.test(digest))) return false;
  const colon = named.lastIndexOf(":");
  const hasTag = colon > named.lastIndexOf("/");
  if (hasTag && !tagPattern.test(named.slice(colon + 1))) return false;
  const name = hasTag ? named.slice(0, colon) : named;
  if (name.length > imageNameLengthMax) return false;
  const parts = name.split("/");
  const [first = ""] = parts;
  const hasDomain =
    parts.length > 1 &&
    (/[.:]/.test(first) || first === "localhost" || first !== first.toLowerCase());
  if (hasDomain && !domainPattern.test(first)) return false;
  return (hasDomain ? parts.slice(1) : parts).every((part) => pathPartPattern.test(part));
}

/** capabilities(7), and docker's ALL. */
const capabilities = new Set(
  (
    "ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID " +
    "IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW " +
    "PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO " +
    "SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM"
  ).split(" "),
);
const ulimitNames = new Set(
  "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split(
    " ",
  ),
);

function isCapability(text: string): boolean {
  return capabilities.has(text.toUpperCase().replace(/^CAP_/, ""));
}

/** Without doubled, leading-dot and trailing slashes, so that one target has one spelling. */
function cleanPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") parts.pop();
    else parts.push(part);
  }
  return `/${parts.join("/")}`;
}

function invalid(text: string): ShoalError {
  return failure("invalid", `rpc error: code = InvalidArgument desc = ${text}`);
}
