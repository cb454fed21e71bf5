/** `shoal info`: what the daemon says of itself, in docker's order and words. */
import type { InfoJson, SwarmInfoJson } from "../engine-types.ts";
import { shoalVersion } from "../shoal-version.ts";
import { bytesSize, humanDuration } from "./units.ts";

/** The whole text. */
export function infoText(info: InfoJson): string {
  const text = (key: string): string => {
    const value = info[key];
    return typeof value === "string" || typeof value === "number" ? String(value) : "";
  };
  const lines = [
    "Client:",
    ` Version:    ${shoalVersion}`,
    " Context:    default",
    " Debug Mode: false",
    "",
    "Server:",
    ` Containers: ${text("Containers")}`,
    `  Running: ${text("ContainersRunning")}`,
    `  Paused: ${text("ContainersPaused")}`,
    `  Stopped: ${text("ContainersStopped")}`,
    ` Images: ${text("Images")}`,
    ` Server Version: ${text("ServerVersion")}`,
    ` Storage Driver: ${text("Driver")}`,
  ];
  const status = info["DriverStatus"];
  for (const entry of Array.isArray(status) ? status : []) {
    if (Array.isArray(entry)) lines.push(`  ${String(entry[0])}: ${String(entry[1])}`);
  }
  add(lines, " Logging Driver: ", text("LoggingDriver"));
  add(lines, " Cgroup Driver: ", text("CgroupDriver"));
  add(lines, " Cgroup Version: ", text("CgroupVersion"));
  const plugins = (info["Plugins"] ?? {}) as Readonly<Record<string, readonly string[] | null>>;
  lines.push(" Plugins:");
  for (const kind of ["Volume", "Network", "Log"]) {
    lines.push(`  ${kind}: ${(plugins[kind] ?? []).join(" ")}`);
  }
  lines.push(...swarmLines(info.Swarm ?? {}));
  add(lines, " Kernel Version: ", text("KernelVersion"));
  add(lines, " Operating System: ", text("OperatingSystem"));
  add(lines, " OSType: ", text("OSType"));
  add(lines, " Architecture: ", text("Architecture"));
  lines.push(
    ` CPUs: ${text("NCPU")}`,
    ` Total Memory: ${bytesSize(Number(info["MemTotal"] ?? 0))}`,
    ` Name: ${text("Name")}`,
    ` ID: ${text("ID")}`,
    ` Docker Root Dir: ${text("DockerRootDir")}`,
    ` Debug Mode: ${String(info["Debug"] ?? false)}`,
  );
  const labels = info["Labels"];
  if (Array.isArray(labels) && labels.length > 0) {
    lines.push(" Labels:", ...labels.map((label) => `  ${String(label)}`));
  }
  lines.push(` Experimental: ${String(info["ExperimentalBuild"] ?? false)}`);
  const warnings = info["Warnings"];
  const below = Array.isArray(warnings)
    ? warnings.map((warning) => `${String(warning)}\n`).join("")
    : "";
  return `${lines.join("\n")}\n\n${below}`;
}

function swarmLines(swarm: SwarmInfoJson): string[] {
  const state = swarm.LocalNodeState ?? "inactive";
  const lines = [` Swarm: ${state}`];
  if (state === "inactive" || state === "locked") return lines;
  lines.push(`  NodeID: ${swarm.NodeID ?? ""}`);
  if (swarm.Error) lines.push(`  Error: ${swarm.Error}`);
  lines.push(`  Is Manager: ${swarm.ControlAvailable ?? false}`);
  const cluster = swarm.Cluster;
  if (
    swarm.ControlAvailable === true &&
    cluster !== undefined &&
    !swarm.Error &&
    state !== "error"
  ) {
    const { Spec: spec } = cluster;
    lines.push(
      `  ClusterID: ${cluster.ID}`,
      `  Managers: ${swarm.Managers ?? 0}`,
      `  Nodes: ${swarm.Nodes ?? 0}`,
    );
    const pools = cluster.DefaultAddrPool ?? [];
    if (pools.length > 0) lines.push(`  Default Address Pool: ${pools.join("  ")}  `);
    if ((cluster.SubnetSize ?? 0) > 0) lines.push(`  SubnetSize: ${cluster.SubnetSize}`);
    if ((cluster.DataPathPort ?? 0) > 0) lines.push(`  Data Path Port: ${cluster.DataPathPort}`);
    lines.push(
      "  Orchestration:",
      `   Task History Retention Limit: ${spec.Orchestration.TaskHistoryRetentionLimit ?? 5}`,
      "  Raft:",
      `   Snapshot Interval: ${spec.Raft.SnapshotInterval ?? 0}`,
    );
    if (spec.Raft.KeepOldSnapshots !== undefined) {
      lines.push(`   Number of Old Snapshots to Retain: ${spec.Raft.KeepOldSnapshots}`);
    }
    lines.push(
      `   Heartbeat Tick: ${spec.Raft.HeartbeatTick}`,
      `   Election Tick: ${spec.Raft.ElectionTick}`,
      "  Dispatcher:",
      `   Heartbeat Period: ${humanDuration((spec.Dispatcher.HeartbeatPeriod ?? 0) / 1e6)}`,
      "  CA Configuration:",
      `   Expiry Duration: ${humanDuration((spec.CAConfig.NodeCertExpiry ?? 0) / 1e6)}`,
      "   Force Rotate: 0",
      `  Autolock Managers: ${spec.EncryptionConfig.AutoLockManagers}`,
      `  Root Rotation In Progress: ${cluster.RootRotationInProgress ?? false}`,
    );
  }
  lines.push(`  Node Address: ${swarm.NodeAddr ?? ""}`);
  const managers = [...(swarm.RemoteManagers ?? [])].map(({ Addr }) => Addr).sort();
  if (managers.length > 0)
    lines.push("  Manager Addresses:", ...managers.map((address) => `   ${address}`));
  return lines;
}

function add(lines: string[], label: string, value: string): void {
  if (value !== "") lines.push(`${label}${value}`);
}
