/** From an image and a container's spec to the OCI configuration that docker would make of them. */
import { failure } from "../lib/errors.ts";
import type { ImageConfig } from "../model/image.ts";
import type { Limits } from "../model/resources.ts";
import type { ContainerSpec, Mount } from "../model/task.ts";
import type { OciMount, OciSpec } from "../wire/native.ts";
import { capabilitiesOf } from "./capabilities.ts";
import type { ContainerUser } from "./user.ts";

export interface OciInput {
  readonly containerId: string;
  readonly image: ImageConfig;
  readonly spec: ContainerSpec;
  readonly limits: Limits | null;
  readonly user: ContainerUser;
  readonly hostname: string;
  /** `/NAME` under each cgroup hierarchy. */
  readonly cgroupParent: string;
  /** Where /etc/hosts, /etc/hostname and /etc/resolv.conf lie on the host. */
  readonly etc: {
    readonly hosts: string;
    readonly hostname: string;
    readonly resolvConf: string;
  };
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/** Length of a scheduling period, in microseconds, as docker's --cpus. */
const cpuPeriodUs = 100_000;
/** Size of /dev/shm, in bytes. */
const shmBytes: number = 64 * 1024 * 1024;

/** What is executed: entrypoint and command of spec and image, as docker merges them. Throws invalid when there is nothing. */
export function argumentsOf(
  image: ImageConfig,
  spec: Pick<ContainerSpec, "command" | "args">,
): { readonly entrypoint: readonly string[]; readonly args: readonly string[] } {
  // A given entrypoint makes the image's command void.
  const entrypoint = spec.command.length > 0 ? spec.command : image.entrypoint;
  const args = spec.args.length > 0 ? spec.args : spec.command.length > 0 ? [] : image.command;
  if (entrypoint.length + args.length === 0) {
    throw failure("invalid", "no command specified");
  }
  return { entrypoint, args };
}

/** The environment: PATH and HOSTNAME, then the image's, then the spec's; `NAME` alone takes a variable away. */
export function environmentOf(
  image: ImageConfig,
  spec: Pick<ContainerSpec, "env">,
  hostname: string,
  home: string,
): readonly string[] {
  const merged = new Map<string, string>();
  for (const entry of [defaultPath, `HOSTNAME=${hostname}`, ...image.env, ...spec.env]) {
    const equals = entry.indexOf("=");
    if (equals < 0) merged.delete(entry);
    else merged.set(entry.slice(0, equals), entry);
  }
  if (!merged.has("HOME")) merged.set("HOME", `HOME=${home}`);
  return [...merged.values()];
}

/** The configuration for the core. Throws ShoalError("invalid") in docker's words. */
export function ociSpec(input: OciInput): OciSpec {
  const { image, spec, user } = input;
  const { entrypoint, args } = argumentsOf(image, spec);
  const capabilities = capabilitiesOf(spec.capabilityAdd, spec.capabilityDrop);
  return {
    ociVersion: "1.2.0",
    process: {
      terminal: false,
      user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
      args: [...entrypoint, ...args],
      env: environmentOf(image, spec, input.hostname, user.home),
      cwd: spec.dir || image.workingDir || "/",
      capabilities: {
        bounding: capabilities,
        effective: capabilities,
        permitted: capabilities,
        inheritable: [],
        ambient: [],
      },
      rlimits: spec.ulimits.map((limit) => ({
        type: `RLIMIT_${limit.name.toUpperCase()}`,
        hard: limit.hard,
        soft: limit.soft,
      })),
      noNewPrivileges: spec.noNewPrivileges,
      oomScoreAdj: spec.oomScoreAdj,
    },
    root: { path: "rootfs", readonly: spec.readOnly },
    hostname: input.hostname,
    mounts: [...defaultMounts(), ...byDepth([...etcMounts(input), ...spec.mounts.map(mountOf)])],
    annotations: {},
    linux: {
      namespaces: ["mount", "network", "uts", "pid", "ipc", "cgroup"].map((type) => ({
        type,
        path: null,
      })),
      resources: resourcesOf(input.limits),
      cgroupsPath: `${input.cgroupParent}/${input.containerId}`,
      maskedPaths,
      readonlyPaths,
      sysctl: spec.sysctls,
    },
  };
}

function resourcesOf(limits: Limits | null): OciSpec["linux"]["resources"] {
  const { memoryBytes, nanoCpus, pids } = limits ?? { memoryBytes: 0, nanoCpus: 0, pids: 0 };
  return {
    // Without an own number, swap may double the memory (moby daemon adaptContainerSettings).
    memory:
      memoryBytes > 0 ? { limit: memoryBytes, reservation: null, swap: 2 * memoryBytes } : null,
    cpu:
      nanoCpus > 0
        ? {
            shares: null,
            quota: Math.round((nanoCpus / 1e9) * cpuPeriodUs),
            period: cpuPeriodUs,
            cpus: null,
          }
        : null,
    pids: pids > 0 ? { limit: pids } : null,
  };
}

function defaultMounts(): readonly OciMount[] {
  const safe = ["nosuid", "noexec", "nodev"];
  return [
    mount("/proc", "proc", "proc", safe),
    mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    mount("/dev/pts", "devpts", "devpts", [
      "nosuid",
      "noexec",
      "newinstance",
      "ptmxmode=0666",
      "mode=0620",
      "gid=5",
    ]),
    mount("/sys", "sysfs", "sysfs", [...safe, "ro"]),
    mount("/sys/fs/cgroup", "cgroup", "cgroup", ["ro", ...safe]),
    mount("/dev/mqueue", "mqueue", "mqueue", safe),
    mount("/dev/shm", "tmpfs", "shm", [...safe, "mode=1777", `size=${shmBytes}`]),
  ];
}

function etcMounts(input: OciInput): readonly OciMount[] {
  const taken = new Set(input.spec.mounts.map((item) => item.target));
  const files = [
    ["/etc/resolv.conf", input.etc.resolvConf],
    ["/etc/hostname", input.etc.hostname],
    ["/etc/hosts", input.etc.hosts],
  ] as const;
  return files
    .filter(([target]) => !taken.has(target))
    .map(([target, source]) => mount(target, "bind", source, ["rbind", "rprivate"]));
}

function mountOf(item: Mount): OciMount {
  if (item.kind === "bind") {
    return mount(item.target, "bind", item.source ?? "", [
      "rbind",
      item.propagation ?? "rprivate",
      // Docker's read-only holds for what is mounted below the source too.
      ...(item.readOnly ? ["rro"] : []),
    ]);
  }
  return mount(item.target, "tmpfs", "tmpfs", [
    "noexec",
    "nosuid",
    "nodev",
    "rprivate",
    ...(item.readOnly ? ["ro"] : []),
    ...(item.sizeBytes === null || item.sizeBytes === 0 ? [] : [`size=${item.sizeBytes}`]),
    ...(item.mode === null ? [] : [`mode=${item.mode.toString(8)}`]),
  ]);
}

/** A mount must not hide one below it: shorter paths first, otherwise as given. */
function byDepth(mounts: readonly OciMount[]): readonly OciMount[] {
  const depth = (item: OciMount) =>
    item.destination.split("/").filter((part) => part !== "").length;
  return mounts.toSorted((a, b) => depth(a) - depth(b));
}

function mount(
  destination: string,
  type: string,
  source: string,
  options: readonly string[],
): OciMount {
  return { destination, type, source, options };
}

/** moby oci/defaults.go. */
const maskedPaths: readonly string[] = [
  "/proc/asound",
  "/proc/acpi",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/sys/firmware",
  "/sys/devices/virtual/powercap",
];
const readonlyPaths: readonly string[] = [
  "/proc/bus",
  "/proc/fs",
  "/proc/irq",
  "/proc/sys",
  "/proc/sysrq-trigger",
];
