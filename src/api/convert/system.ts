/** `docker version` and `docker info`. */
import type { InstantMs } from "../../lib/clock.ts";
import type { LocalSwarm, SystemInfo } from "../backend.ts";
import { apiVersion, minApiVersion } from "../version.ts";
import { writeClusterInfo } from "./cluster.ts";
import { timeText } from "./time.ts";

/** Go's word for a machine, as docker's command prints it beside "linux/". */
const goArchitectures: Readonly<Record<string, string>> = { x86_64: "amd64", aarch64: "arm64" };

export function writeVersion(info: SystemInfo): object {
  const architecture = goArchitectures[info.architecture] ?? info.architecture;
  return {
    Platform: { Name: "Shoal" },
    Components: [
      {
        Name: "Engine",
        Version: info.version,
        Details: {
          ApiVersion: apiVersion,
          Arch: architecture,
          BuildTime: info.builtAt,
          Experimental: "false",
          GitCommit: info.gitCommit,
          GoVersion: "",
          KernelVersion: info.kernelVersion,
          MinAPIVersion: minApiVersion,
          Os: "linux",
        },
      },
      {
        Name: "shoal-core",
        Version: info.coreVersion ?? "not connected",
        Details: { GitCommit: info.gitCommit },
      },
    ],
    Version: info.version,
    ApiVersion: apiVersion,
    MinAPIVersion: minApiVersion,
    GitCommit: info.gitCommit,
    GoVersion: "",
    Os: "linux",
    Arch: architecture,
    KernelVersion: info.kernelVersion,
    Experimental: false,
    BuildTime: info.builtAt,
  };
}

export interface Counts {
  readonly running: number;
  readonly stopped: number;
  readonly images: number;
}

export function writeInfo(
  info: SystemInfo,
  swarm: LocalSwarm,
  counts: Counts,
  now: InstantMs,
): object {
  const warnings =
    info.coreVersion === null
      ? ["WARNING: the native core is not connected: no container can start"]
      : [];
  return {
    ID: info.id,
    Containers: counts.running + counts.stopped,
    ContainersRunning: counts.running,
    ContainersPaused: 0,
    ContainersStopped: counts.stopped,
    Images: counts.images,
    Driver: info.storageDriver,
    DriverStatus: [],
    DockerRootDir: info.dataRoot,
    Plugins: {
      Volume: [],
      Network: ["host", "null", "overlay"],
      Authorization: [],
      Log: ["json-file"],
    },
    MemoryLimit: true,
    SwapLimit: true,
    CpuCfsPeriod: true,
    CpuCfsQuota: true,
    CPUShares: true,
    CPUSet: true,
    PidsLimit: true,
    OomKillDisable: false,
    IPv4Forwarding: true,
    BridgeNfIptables: true,
    BridgeNfIp6tables: true,
    Debug: info.debug,
    NFd: -1,
    NGoroutines: 0,
    SystemTime: timeText(now),
    LoggingDriver: "json-file",
    CgroupDriver: "cgroupfs",
    CgroupVersion: info.cgroupVersion,
    NEventsListener: 0,
    KernelVersion: info.kernelVersion,
    OperatingSystem: info.operatingSystem,
    OSVersion: info.osVersion,
    OSType: "linux",
    Architecture: info.architecture,
    NCPU: info.cpus,
    MemTotal: info.memoryBytes,
    IndexServerAddress: "https://index.docker.io/v1/",
    RegistryConfig: { InsecureRegistryCIDRs: [], IndexConfigs: {}, Mirrors: [] },
    GenericResources: [],
    HttpProxy: "",
    HttpsProxy: "",
    NoProxy: "",
    Name: info.hostname,
    Labels: info.labels,
    ExperimentalBuild: false,
    ServerVersion: info.version,
    Runtimes: { "shoal-core": { path: "shoal-core" } },
    DefaultRuntime: "shoal-core",
    Swarm: writeLocalSwarm(swarm),
    LiveRestoreEnabled: true,
    Isolation: "",
    InitBinary: "",
    ContainerdCommit: { ID: "" },
    RuncCommit: { ID: "" },
    InitCommit: { ID: "" },
    SecurityOptions: [],
    CDISpecDirs: [],
    Warnings: warnings,
  };
}

function writeLocalSwarm(swarm: LocalSwarm): object {
  return {
    NodeID: swarm.nodeId,
    NodeAddr: swarm.nodeAddress,
    LocalNodeState: swarm.state,
    ControlAvailable: swarm.controlAvailable,
    Error: swarm.error,
    RemoteManagers:
      swarm.managers.length === 0
        ? null
        : swarm.managers.map(({ nodeId, address }) => ({ NodeID: nodeId, Addr: address })),
    ...(swarm.controlAvailable && { Nodes: swarm.nodeCount, Managers: swarm.managerCount }),
    ...(swarm.cluster !== null && { Cluster: writeClusterInfo(swarm.cluster) }),
  };
}

/** The `Swarm` header of a ping. */
export function swarmHeader(swarm: LocalSwarm): string {
  if (swarm.state !== "active") return swarm.state;
  return swarm.controlAvailable ? "active/manager" : "active/worker";
}
