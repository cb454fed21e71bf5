/** Containers as `docker ps` and `docker inspect` show them. */
import type { InstantMs } from "../../lib/clock.ts";
import type { Container } from "../../model/container.ts";
import type { Mount } from "../../model/task.ts";
import { humanDuration, timeText } from "./time.ts";

/** A container of a list. */
export function writeContainerSummary(container: Container, now: InstantMs): object {
  return {
    Id: container.id,
    Names: [`/${container.name}`],
    Image: container.imageRef,
    ImageID: container.imageId,
    Command: [...container.entrypoint, ...container.args].join(" "),
    Created: Math.floor(container.createdAt / 1000),
    Ports: [],
    Labels: container.labels,
    State: container.state,
    Status: statusText(container, now),
    HostConfig: { NetworkMode: networkMode(container) },
    NetworkSettings: { Networks: writeEndpoints(container) },
    Mounts: container.mounts.map(writeMountPoint),
  };
}

/** An inspected container. */
export function writeContainer(container: Container, storageDriver: string): object {
  const running = container.state === "running";
  const [path = "", ...args] = [...container.entrypoint, ...container.args];
  return {
    Id: container.id,
    Created: timeText(container.createdAt),
    Path: path,
    Args: args,
    State: {
      Status: container.state,
      Running: running,
      Paused: false,
      Restarting: false,
      OOMKilled: container.oomKilled,
      Dead: container.state === "dead",
      Pid: running ? container.pid : 0,
      ExitCode: container.exitCode,
      Error: container.error,
      StartedAt: timeText(container.startedAt),
      FinishedAt: timeText(container.finishedAt),
    },
    Image: container.imageId,
    ResolvConfPath: "",
    HostnamePath: "",
    HostsPath: "",
    LogPath: container.logPath,
    Name: `/${container.name}`,
    RestartCount: 0,
    Driver: storageDriver,
    Platform: "linux",
    MountLabel: "",
    ProcessLabel: "",
    AppArmorProfile: "",
    ExecIDs: null,
    HostConfig: writeHostConfig(container),
    GraphDriver: { Data: {}, Name: storageDriver },
    Mounts: container.mounts.map(writeMountPoint),
    Config: writeConfig(container),
    NetworkSettings: {
      Bridge: "",
      SandboxID: "",
      SandboxKey: "",
      Ports: {},
      HairpinMode: false,
      LinkLocalIPv6Address: "",
      LinkLocalIPv6PrefixLen: 0,
      SecondaryIPAddresses: null,
      SecondaryIPv6Addresses: null,
      EndpointID: "",
      Gateway: "",
      GlobalIPv6Address: "",
      GlobalIPv6PrefixLen: 0,
      IPAddress: "",
      IPPrefixLen: 0,
      IPv6Gateway: "",
      MacAddress: "",
      Networks: writeEndpoints(container),
    },
  };
}

/** "Up 6 seconds", "Exited (137) 3 seconds ago". */
export function statusText(container: Container, now: InstantMs): string {
  switch (container.state) {
    case "created":
      return "Created";
    case "running":
      return `Up ${humanDuration(now - (container.startedAt ?? now))}`;
    case "exited": {
      const ago = humanDuration(now - (container.finishedAt ?? now));
      return `Exited (${container.exitCode}) ${ago} ago`;
    }
    case "dead":
      return "Dead";
    default:
      return container.state satisfies never;
  }
}

function writeConfig(container: Container): object {
  return {
    Hostname: container.hostname,
    Domainname: "",
    User: container.user,
    AttachStdin: false,
    AttachStdout: false,
    AttachStderr: false,
    Tty: false,
    OpenStdin: false,
    StdinOnce: false,
    Env: container.env,
    Cmd: container.args,
    Image: container.imageRef,
    Volumes: {},
    WorkingDir: container.workingDir,
    Entrypoint: container.entrypoint,
    OnBuild: null,
    Labels: container.labels,
    StopSignal: container.stopSignal,
    StopTimeout: container.stopTimeoutSeconds,
  };
}

function writeHostConfig(container: Container): object {
  return {
    Binds: null,
    LogConfig: { Type: "json-file", Config: {} },
    NetworkMode: networkMode(container),
    PortBindings: {},
    RestartPolicy: { Name: "no", MaximumRetryCount: 0 },
    AutoRemove: false,
    CapAdd: container.capabilityAdd,
    CapDrop: container.capabilityDrop,
    IpcMode: "private",
    PidMode: "",
    UTSMode: "",
    Privileged: false,
    ReadonlyRootfs: container.readOnly,
    ConsoleSize: [0, 0],
    Isolation: "default",
    NanoCpus: container.limits.nanoCpus,
    Memory: container.limits.memoryBytes,
    PidsLimit: container.limits.pids,
  };
}

function networkMode(container: Container): string {
  return container.networks.length === 0 ? "none" : "default";
}

function writeEndpoints(container: Container): Readonly<Record<string, object>> {
  return Object.fromEntries(
    container.networks.map((network) => [
      network.networkName,
      {
        IPAMConfig: { IPv4Address: network.address },
        Links: null,
        Aliases: network.aliases,
        MacAddress: network.mac,
        DriverOpts: null,
        GwPriority: 0,
        NetworkID: network.networkId,
        EndpointID: container.state === "running" ? container.id : "",
        Gateway: network.gateway,
        IPAddress: network.address,
        IPPrefixLen: network.prefixLength,
        IPv6Gateway: "",
        GlobalIPv6Address: "",
        GlobalIPv6PrefixLen: 0,
        DNSNames: network.aliases,
      },
    ]),
  );
}

function writeMountPoint(mount: Mount): object {
  return {
    Type: mount.kind,
    Source: mount.source ?? "",
    Destination: mount.target,
    Mode: "",
    RW: !mount.readOnly,
    Propagation: mount.kind === "bind" ? (mount.propagation ?? "rprivate") : "",
  };
}
