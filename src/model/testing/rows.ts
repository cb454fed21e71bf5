/** Rows for tests: each builder fills what the test does not care for. */
import type { InstantMs } from "../../lib/clock.ts";
import type { Cluster } from "../cluster.ts";
import {
  defaultAddressPool,
  defaultClusterSpec,
  defaultDataPathPort,
  defaultSubnetSize,
} from "../defaults.ts";
import type { Network } from "../network.ts";
import type { Node, NodeDescription } from "../node.ts";
import type { Service, ServiceSpec } from "../service.ts";
import type { Task, TaskSpec, TaskStatus } from "../task.ts";

export function instant(ms: number): InstantMs {
  return ms as InstantMs;
}
const meta = { version: 1, createdAt: instant(0), updatedAt: instant(0) };

export function aTaskSpec(over: Partial<TaskSpec> = {}): TaskSpec {
  return {
    container: {
      image: "busybox:latest",
      labels: {},
      command: [],
      args: [],
      hostname: null,
      env: [],
      dir: null,
      user: null,
      groups: [],
      readOnly: false,
      stopSignal: null,
      stopGraceNs: null,
      hosts: [],
      dns: null,
      capabilityAdd: [],
      capabilityDrop: [],
      sysctls: {},
      ulimits: [],
      mounts: [],
      noNewPrivileges: false,
      oomScoreAdj: 0,
      init: null,
      isolation: null,
    },
    limits: null,
    reservations: null,
    restart: null,
    placement: null,
    networks: [],
    logDriver: null,
    forceUpdate: 0,
    ...over,
  };
}

export function aStatus(over: Partial<TaskStatus> = {}): TaskStatus {
  return {
    state: "new",
    message: "created",
    error: null,
    exitCode: null,
    containerId: null,
    pid: 0,
    at: instant(0),
    appliedAt: null,
    ...over,
  };
}

export function aTask(id: string, over: Partial<Task> = {}): Task {
  return {
    id,
    meta,
    serviceId: "service",
    serviceName: "web",
    serviceLabels: {},
    slot: 1,
    nodeId: null,
    spec: aTaskSpec(),
    specVersion: 1,
    desired: "running",
    startNotBefore: null,
    waitsFor: null,
    status: aStatus(),
    attachments: [],
    ...over,
  };
}

export function aServiceSpec(name: string, over: Partial<ServiceSpec> = {}): ServiceSpec {
  return {
    name,
    labels: {},
    mode: { kind: "replicated", replicas: 1 },
    task: aTaskSpec(),
    update: null,
    rollback: null,
    endpointMode: null,
    ...over,
  };
}

export function aService(id: string, over: Partial<Service> = {}): Service {
  return {
    id,
    meta,
    spec: aServiceSpec(id),
    specVersion: 1,
    previousSpec: null,
    previousSpecVersion: null,
    updateStatus: null,
    ...over,
  };
}

export function aDescription(over: Partial<NodeDescription> = {}): NodeDescription {
  return {
    hostname: "host",
    os: "linux",
    architecture: "x86_64",
    resources: { nanoCpus: 4_000_000_000, memoryBytes: 8 * 1024 ** 3 },
    engineVersion: "0.1.0",
    engineLabels: {},
    dataPathAddress: "192.0.2.1",
    underlayMtu: 1500,
    routes: [],
    ...over,
  };
}

export function aNode(id: string, over: Partial<Node> = {}): Node {
  return {
    id,
    meta,
    spec: { name: "", labels: {}, role: "worker", availability: "active" },
    description: aDescription({ hostname: id }),
    state: "ready",
    stateMessage: "",
    address: "192.0.2.1",
    clusterAddress: "192.0.2.1:2377",
    role: "worker",
    manager: null,
    ...over,
  };
}

export function aNetwork(id: string, over: Partial<Network> = {}): Network {
  return {
    id,
    meta,
    spec: {
      name: id,
      labels: {},
      driver: "overlay",
      driverOptions: {},
      internal: false,
      attachable: false,
      ingress: false,
      subnet: null,
      gateway: null,
    },
    vni: 4096,
    subnet: "10.0.1.0/24",
    gateway: "10.0.1.1",
    mtu: 1450,
    cursor: "10.0.1.1",
    ...over,
  };
}

export function aCluster(over: Partial<Cluster> = {}): Cluster {
  return {
    id: "cluster",
    meta,
    spec: defaultClusterSpec,
    rootCa: { certificatePem: "", keyPem: "", digest: "" },
    joinTokens: { worker: "", manager: "" },
    addressPools: [defaultAddressPool],
    subnetSize: defaultSubnetSize,
    dataPathPort: defaultDataPathPort,
    removedNodes: [],
    ...over,
  };
}
