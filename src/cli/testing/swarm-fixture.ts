/** A small swarm as the Engine API shows it: two nodes, services of both modes, tasks with history, networks, images, containers. */
import type { NodeJson, ServiceJson, SwarmJson } from "../engine-types.ts";
import type { Answer, Routes } from "./fixture-engine.ts";

const hour = 3_600_000;
const at = (agoMs: number): string =>
  new Date(Date.now() - agoMs).toISOString().replace("Z", "123456Z");

const leader = {
  ID: "0nh20d1fy88pvctmqw1mxsy4f",
  Version: { Index: 9 },
  CreatedAt: "2026-11-20T15:01:07.768212858Z",
  UpdatedAt: "2026-11-20T15:01:08.375631801Z",
  Spec: { Labels: { disk: "ssd", zone: "a" }, Role: "manager", Availability: "active" },
  Description: {
    Hostname: "m10",
    Platform: { Architecture: "x86_64", OS: "linux" },
    Resources: { NanoCPUs: 2000000000, MemoryBytes: 25276502016 },
    Engine: {
      EngineVersion: "0.1.0",
      Labels: { a: "b" },
      Plugins: [
        { Type: "Log", Name: "json-file" },
        { Type: "Network", Name: "host" },
        { Type: "Network", Name: "overlay" },
      ],
    },
    TLSInfo: {
      TrustRoot: "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n",
      CertIssuerSubject: "MBMx",
      CertIssuerPublicKey: "MFkw",
    },
  },
  Status: { State: "ready", Addr: "10.77.0.2" },
  ManagerStatus: { Leader: true, Reachability: "reachable", Addr: "10.77.0.2:2377" },
};
const worker = {
  ...leader,
  ID: "9zz20d1fy88pvctmqw1mxsy4f",
  Spec: { Labels: {}, Role: "worker", Availability: "drain" },
  Description: { ...leader.Description, Hostname: "m9" },
  Status: { State: "down", Addr: "10.77.0.3", Message: "heartbeat failure" },
  ManagerStatus: undefined,
};
const network = {
  Name: "web-net",
  Id: "lg8fiyux0ksfsyenak5ow7hfo",
  Created: "2026-11-20T15:05:46.329123456Z",
  Scope: "swarm",
  Driver: "overlay",
  EnableIPv4: true,
  EnableIPv6: false,
  IPAM: {
    Driver: "default",
    Options: null,
    Config: [{ Subnet: "10.0.1.0/24", Gateway: "10.0.1.1" }],
  },
  Internal: false,
  Attachable: true,
  Ingress: false,
  ConfigFrom: { Network: "" },
  ConfigOnly: false,
  Containers: null,
  Options: { "com.docker.network.driver.overlay.vxlanid_list": "4097" },
  Labels: { team: "x" },
};
const host = {
  ...network,
  Name: "host",
  Id: "46f35e5b50e9a9f130dec133c2b939de7f595485725b3459e597dcbed0d9c63e",
  Scope: "local",
  Driver: "host",
  Labels: {},
};
const service = {
  ID: "meldexbtmg79kwl34za8ye0i9",
  Version: { Index: 12 },
  CreatedAt: at(2 * hour),
  UpdatedAt: at(hour),
  Spec: {
    Name: "web",
    Labels: { a: "1" },
    TaskTemplate: {
      ContainerSpec: {
        Image:
          "busybox:latest@sha256:7cbe9730ef06e814f9f66e9ad11d8e8ed98018b137b2df59bf901e7c0e129f3f",
        Args: ["sleep", "1000"],
        Env: ["A=b"],
        Init: false,
        Mounts: [{ Type: "bind", Source: "/a", Target: "/b", ReadOnly: true }],
        StopGracePeriod: 10000000000,
        DNSConfig: {},
        Isolation: "default",
      },
      Resources: {
        Limits: { NanoCPUs: 500000000, MemoryBytes: 67108864 },
        Reservations: { MemoryBytes: 33554432 },
      },
      RestartPolicy: { Condition: "any", Delay: 5000000000, MaxAttempts: 0 },
      Placement: {
        Constraints: ["node.role==manager", "node.labels.zone==a"],
        Preferences: [{ Spread: { SpreadDescriptor: "node.labels.zone" } }],
      },
      Networks: [{ Target: network.Id }],
      ForceUpdate: 0,
      Runtime: "container",
    },
    Mode: { Replicated: { Replicas: 10 } },
    UpdateConfig: {
      Parallelism: 2,
      Delay: 3000000000,
      FailureAction: "pause",
      Monitor: 5000000000,
      MaxFailureRatio: 0.5,
      Order: "start-first",
    },
    RollbackConfig: {
      Parallelism: 1,
      FailureAction: "pause",
      Monitor: 5000000000,
      MaxFailureRatio: 0,
      Order: "stop-first",
    },
    EndpointSpec: { Mode: "vip" },
  },
  Endpoint: {
    Spec: { Mode: "vip" },
    Ports: [{ Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: "ingress" }],
  },
  UpdateStatus: {
    State: "completed",
    StartedAt: at(hour),
    CompletedAt: at(hour / 2),
    Message: "update completed",
  },
  ServiceStatus: { RunningTasks: 9, DesiredTasks: 10, CompletedTasks: 0 },
};
const globalService = {
  ...service,
  ID: "ac24y6xu9ncqtvaq37a9owbqc",
  Spec: {
    ...service.Spec,
    Name: "agent",
    Mode: { Global: {} },
    UpdateConfig: undefined,
    RollbackConfig: undefined,
  },
  UpdateStatus: undefined,
  Endpoint: { Spec: { Mode: "vip" } },
  ServiceStatus: { RunningTasks: 1, DesiredTasks: 2, CompletedTasks: 0 },
};
function task(
  id: string,
  slot: number,
  agoMs: number,
  state: string,
  desired: string,
  error?: string,
): object {
  return {
    ID: id,
    Version: { Index: 14 },
    CreatedAt: at(agoMs),
    UpdatedAt: at(agoMs),
    Spec: service.Spec.TaskTemplate,
    ServiceID: service.ID,
    Slot: slot,
    NodeID: slot % 2 === 0 ? worker.ID : leader.ID,
    Status: {
      Timestamp: at(agoMs),
      State: state,
      Message: "x",
      ...(error === undefined ? {} : { Err: error }),
      PortStatus: {},
    },
    DesiredState: desired,
  };
}
const tasks = [
  task("aaa1rebyh5gbibfbsp214x23x", 10, 90_000, "running", "running"),
  task(
    "bbb2rebyh5gbibfbsp214x23x",
    2,
    30_000,
    "pending",
    "running",
    "no suitable node (scheduling constraints not satisfied on 2 nodes)",
  ),
  task("ccc3rebyh5gbibfbsp214x23x", 1, 5 * hour, "failed", "shutdown", "task: non-zero exit (1)"),
  task("ddd4rebyh5gbibfbsp214x23x", 1, 4 * hour, "running", "running"),
];
const swarm = {
  ID: "p115lcv1kjbc79h9x2mslat77",
  Version: { Index: 10 },
  CreatedAt: "2026-11-20T15:01:07.768173831Z",
  UpdatedAt: "2026-11-20T15:01:08.38409311Z",
  Spec: {
    Name: "default",
    Labels: {},
    Orchestration: { TaskHistoryRetentionLimit: 5 },
    Raft: {
      SnapshotInterval: 10000,
      KeepOldSnapshots: 0,
      LogEntriesForSlowFollowers: 500,
      ElectionTick: 10,
      HeartbeatTick: 1,
    },
    Dispatcher: { HeartbeatPeriod: 5000000000 },
    CAConfig: { NodeCertExpiry: 7776000000000000 },
    TaskDefaults: {},
    EncryptionConfig: { AutoLockManagers: false },
  },
  TLSInfo: leader.Description.TLSInfo,
  RootRotationInProgress: false,
  DefaultAddrPool: null,
  SubnetSize: 24,
  DataPathPort: 4789,
  JoinTokens: { Worker: "SWMTKN-1-digest-worker", Manager: "SWMTKN-1-digest-manager" },
};
const images = [
  {
    Id: "sha256:7cbe9730ef06e814f9f66e9ad11d8e8ed98018b137b2df59bf901e7c0e129f3f",
    RepoTags: ["busybox:latest", "127.0.0.1:5000/busybox:1"],
    RepoDigests: [],
    Created: Math.floor(Date.now() / 1000) - 3 * 86400,
    Size: 4261550,
    Containers: -1,
    Labels: null,
    ParentId: "",
    SharedSize: -1,
  },
  {
    Id: "sha256:8cbe9730ef06e814f9f66e9ad11d8e8ed98018b137b2df59bf901e7c0e129f3f",
    RepoTags: [],
    RepoDigests: [],
    Created: Math.floor(Date.now() / 1000) - 400 * 86400,
    Size: 999,
    Containers: -1,
    Labels: null,
    ParentId: "",
    SharedSize: -1,
  },
];
const containers = [
  {
    Id: "69bbddcba3ec35615899a643fa4c92fded9c0c507535a9e300f1b677aa15de7e",
    Names: ["/web.1.ddd4rebyh5gbibfbsp214x23x"],
    Image: "busybox:latest@sha256:7cbe9730ef06e814f9f66e9ad11d8e8ed98018b137b2df59bf901e7c0e129f3f",
    ImageID: images[0]?.Id,
    Command: "sleep 1000 and some more words",
    Created: Math.floor(Date.now() / 1000) - 7000,
    Ports: [],
    Labels: { b: "2" },
    State: "running",
    Status: "Up 2 hours",
    HostConfig: { NetworkMode: "default" },
    NetworkSettings: { Networks: { "web-net": {} } },
    Mounts: [],
  },
];
const info = {
  ID: "x",
  Name: "m10",
  Containers: 1,
  ContainersRunning: 1,
  ContainersPaused: 0,
  ContainersStopped: 0,
  Images: 2,
  ServerVersion: "0.1.0",
  Driver: "overlay2",
  Swarm: {
    NodeID: leader.ID,
    NodeAddr: "10.77.0.2",
    LocalNodeState: "active",
    ControlAvailable: true,
    Error: "",
    RemoteManagers: [{ NodeID: leader.ID, Addr: "10.77.0.2:2377" }],
    Nodes: 2,
    Managers: 1,
    Cluster: swarm,
  },
};

const byFilter =
  (all: readonly { ID: string; Spec: { Name: string } }[]) =>
  (query: URLSearchParams): Answer => {
    const filters = JSON.parse(query.get("filters") ?? "{}") as Record<
      string,
      Record<string, true>
    >;
    const fits = all.filter(
      (one) =>
        (filters["id"] === undefined ||
          Object.keys(filters["id"]).some((id) => one.ID.startsWith(id))) &&
        (filters["name"] === undefined ||
          Object.keys(filters["name"]).some((name) => one.Spec.Name.startsWith(name))),
    );
    return { json: fits };
  };
const missing = (message: string): Answer => ({ status: 404, json: { message } });

export const swarmRoutes: Routes = {
  "GET /nodes": { json: [leader, worker] },
  "GET /info": { json: info },
  [`GET /nodes/${leader.ID}`]: { json: leader },
  "GET /nodes/m10": { json: leader },
  [`GET /nodes/${worker.ID}`]: { json: worker },
  "GET /nodes/m9": { json: worker },
  "GET /nodes/nope": missing("node nope not found"),
  "GET /services": byFilter([service, globalService]),
  "GET /services/web": { json: service },
  [`GET /services/${service.ID}`]: { json: service },
  "GET /services/agent": { json: globalService },
  "GET /services/nope": missing("service nope not found"),
  "GET /tasks": { json: tasks },
  [`GET /tasks/ddd4rebyh5gbibfbsp214x23x`]: { json: tasks[3] },
  "GET /tasks/nope": missing("task nope not found"),
  "GET /networks": { json: [network, host] },
  [`GET /networks/${network.Id}`]: { json: network },
  "GET /networks/web-net": { json: network },
  "GET /networks/nope": missing("network nope not found"),
  "GET /swarm": { json: swarm },
  "GET /images/json": { json: images },
  "GET /containers/json": { json: containers },
  "GET /containers/x/top": {
    json: { Titles: ["UID", "PID", "CMD"], Processes: [["root", "1584", "sleep 100"]] },
  },
};

/** The replicated service `web`. */
export const webService: ServiceJson = service;
/** The cluster. */
export const swarmObject: SwarmJson = swarm;
/** The node that leads, m10. */
export const leaderNode: NodeJson = leader;
/** The id of network web-net. */
export const networkId: string = network.Id;
