/** Rows for tests, each with what does not matter filled in. */
import { defaultClusterSpec } from "../../model/defaults.ts";
import type { Node, NodeDescription } from "../../model/node.ts";
import type { Service, ServiceSpec } from "../../model/service.ts";
import type { Task, TaskSpec } from "../../model/task.ts";
import { aTaskSpec } from "../../model/testing/rows.ts";
import type { Action, TableName, Tables } from "../../store/types.ts";

export function testTaskSpec(changed: Partial<TaskSpec> = {}): TaskSpec {
  return aTaskSpec(changed);
}

export function testServiceSpec(changed: Partial<ServiceSpec> = {}): ServiceSpec {
  return {
    name: "web",
    labels: {},
    mode: { kind: "replicated", replicas: 1 },
    task: testTaskSpec(),
    update: null,
    rollback: null,
    endpointMode: null,
    ...changed,
  };
}

export function testService(id: string, spec: ServiceSpec): Omit<Service, "meta"> {
  return {
    id,
    spec,
    specVersion: -1,
    previousSpec: null,
    previousSpecVersion: null,
    updateStatus: null,
  };
}

export function testDescription(changed: Partial<NodeDescription> = {}): NodeDescription {
  return {
    hostname: "host",
    os: "linux",
    architecture: "x86_64",
    resources: { nanoCpus: 4_000_000_000, memoryBytes: 8_000_000_000 },
    engineVersion: "0.1.0",
    engineLabels: {},
    dataPathAddress: "192.0.2.1",
    underlayMtu: 1500,
    routes: [],
    ...changed,
  };
}

export function testNode(id: string, changed: Partial<Node> = {}): Omit<Node, "meta"> {
  return {
    id,
    spec: { name: "", labels: {}, role: "worker", availability: "active" },
    description: testDescription({ hostname: id }),
    state: "ready",
    stateMessage: "",
    address: "192.0.2.1",
    clusterAddress: "192.0.2.1:2377",
    role: "worker",
    manager: null,
    ...changed,
  };
}

export function testCluster(historyLimit = 5): Omit<Tables["clusters"], "meta"> {
  return {
    id: "cluster",
    spec: { ...defaultClusterSpec, taskHistoryLimit: historyLimit },
    rootCa: { certificatePem: "", keyPem: "", digest: "" },
    joinTokens: { worker: "", manager: "" },
    addressPools: ["10.0.0.0/8"],
    subnetSize: 24,
    dataPathPort: 4789,
    removedNodes: [],
  };
}

/** Puts a row that is not there yet. */
export function add<T extends TableName>(table: T, row: Omit<Tables[T], "meta">): Action {
  // One row of the table that it names.
  return { table, kind: "put", row, expect: null } as unknown as Action;
}

/** Puts a row that was read before, with some fields changed. */
export function change<T extends TableName>(
  table: T,
  row: Tables[T],
  changed: Partial<Tables[T]>,
): Action {
  const { meta, ...rest } = row;
  // One row of the table that it names.
  return {
    table,
    kind: "put",
    row: { ...rest, ...changed },
    expect: meta.version,
  } as unknown as Action;
}

/** A task that runs on `nodeId`, unless `changed` says otherwise. */
export function testTask(
  id: string,
  service: Pick<Service, "id" | "spec" | "specVersion">,
  changed: Partial<Task> = {},
): Omit<Task, "meta"> {
  return {
    id,
    serviceId: service.id,
    serviceName: service.spec.name,
    serviceLabels: {},
    slot: 1,
    nodeId: null,
    spec: service.spec.task,
    specVersion: service.specVersion,
    desired: "running",
    startNotBefore: null,
    waitsFor: null,
    status: {
      state: "new",
      message: "",
      error: null,
      exitCode: null,
      containerId: null,
      pid: 0,
      at: 0 as Task["status"]["at"],
      appliedAt: null,
    },
    attachments: [],
    ...changed,
  };
}
