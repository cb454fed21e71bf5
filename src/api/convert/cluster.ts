/** The swarm itself from docker's JSON and back. */
import { failure } from "../../lib/errors.ts";
import type { Cluster, ClusterSpec } from "../../model/cluster.ts";
import { defaultDataPathPort, defaultSubnetSize } from "../../model/defaults.ts";
import type { InitRequest, JoinSwarmRequest } from "../backend.ts";
import { writeTlsInfo } from "./certificate.ts";
import { Fields } from "./fields.ts";
import { readAvailability } from "./node.ts";
import { withoutUnset } from "./set-fields.ts";
import { writeMeta } from "./stored.ts";

const defaultListenAddress = "0.0.0.0:2377";

/** Reads the body of `swarm init`. */
export function readInitRequest(body: unknown): InitRequest {
  const fields = Fields.root(body, "swarm init", "InitRequest");
  const spec = readSpec(fields.object("Spec") ?? Fields.root(null, "swarm init", "Spec"));
  const autoLock = fields.flag("AutoLockManagers") || (spec.autoLockManagers ?? false);
  const request: InitRequest = {
    listenAddress: fields.text("ListenAddr") || defaultListenAddress,
    advertiseAddress: fields.text("AdvertiseAddr"),
    dataPathAddress: fields.text("DataPathAddr"),
    dataPathPort: readDataPathPort(fields),
    forceNewCluster: fields.flag("ForceNewCluster"),
    autoLockManagers: autoLock,
    availability: readAvailability(fields.text("Availability") || "active"),
    addressPools: fields.texts("DefaultAddrPool"),
    subnetSize: fields.number("SubnetSize", "uint64") || defaultSubnetSize,
    spec: { ...spec, ...(autoLock && { autoLockManagers: true }) },
  };
  fields.done();
  return request;
}

function readDataPathPort(fields: Fields): number {
  const port = fields.number("DataPathPort", "uint64");
  if (port === 0) return defaultDataPathPort;
  if (port < 1024 || port > 49_151) {
    throw failure("invalid", `Datapath port number is not in valid range (1024-49151) : ${port}`);
  }
  return port;
}

/** Reads the body of `swarm join`. */
export function readJoinRequest(body: unknown): JoinSwarmRequest {
  const fields = Fields.root(body, "swarm join", "JoinRequest");
  const request: JoinSwarmRequest = {
    listenAddress: fields.text("ListenAddr") || defaultListenAddress,
    advertiseAddress: fields.text("AdvertiseAddr"),
    dataPathAddress: fields.text("DataPathAddr"),
    remoteAddresses: fields.texts("RemoteAddrs"),
    joinToken: fields.text("JoinToken"),
    availability: readAvailability(fields.text("Availability") || "active"),
  };
  fields.done();
  if (request.remoteAddresses.length === 0) {
    throw failure("invalid", "at least 1 RemoteAddr is required to join");
  }
  return request;
}

/** Reads the body of `swarm update`: what it leaves out stays as it is. */
export function readClusterSpec(body: unknown, current: ClusterSpec): ClusterSpec {
  return { ...current, ...readSpec(Fields.root(body, "swarm update", "Spec")) };
}

/** Only the fields that were given; for most of them zero is not (moby daemon/cluster/convert/swarm.go). */
function readSpec(fields: Fields): Partial<ClusterSpec> {
  const orchestration = fields.object("Orchestration");
  const raft = fields.object("Raft");
  const dispatcher = fields.object("Dispatcher");
  const ca = fields.object("CAConfig");
  const taskDefaults = fields.object("TaskDefaults");
  const encryption = fields.object("EncryptionConfig");
  ca?.refuse("ExternalCAs", "external certificate authorities");
  ca?.refuse("SigningCACert", "given root certificates");
  ca?.refuse("SigningCAKey", "given root keys");
  ca?.refuse("ForceRotate", "rotations of the root certificate");
  taskDefaults?.refuse("LogDriver", "default log drivers");
  const hasLabels = fields.has("Labels");
  const labels = fields.textMap("Labels");
  const given: { -readonly [K in keyof ClusterSpec]?: ClusterSpec[K] | null } = {
    name: fields.textOrNull("Name"),
    labels: hasLabels ? labels : null,
    taskHistoryLimit: orchestration?.numberOrNull("TaskHistoryRetentionLimit") ?? null,
    snapshotInterval: raft?.number("SnapshotInterval", "uint64") || null,
    keepOldSnapshots: raft?.numberOrNull("KeepOldSnapshots", "uint64") ?? null,
    logEntriesForSlowFollowers: raft?.number("LogEntriesForSlowFollowers", "uint64") || null,
    electionTick: raft?.number("ElectionTick") || null,
    heartbeatTick: raft?.number("HeartbeatTick") || null,
    heartbeatPeriodNs: dispatcher?.number("HeartbeatPeriod") || null,
    nodeCertExpiryNs: ca?.number("NodeCertExpiry") || null,
    autoLockManagers: encryption?.flagOrNull("AutoLockManagers") ?? null,
  };
  for (const part of [orchestration, raft, dispatcher, ca, taskDefaults, encryption, fields]) {
    part?.done();
  }
  return Object.fromEntries(
    Object.entries(given).filter(([, value]) => value !== null),
  ) as Partial<ClusterSpec>;
}

/** ClusterInfo: the swarm without its tokens, as `docker info` shows it. */
export function writeClusterInfo(cluster: Cluster): object {
  return {
    ...writeMeta(cluster),
    Spec: writeClusterSpec(cluster.spec),
    TLSInfo: writeTlsInfo(cluster.rootCa.certificatePem),
    RootRotationInProgress: false,
    DefaultAddrPool: cluster.addressPools,
    SubnetSize: cluster.subnetSize,
    DataPathPort: cluster.dataPathPort,
  };
}

/** The swarm with its tokens. */
export function writeSwarm(cluster: Cluster): object {
  return {
    ...writeClusterInfo(cluster),
    JoinTokens: { Worker: cluster.joinTokens.worker, Manager: cluster.joinTokens.manager },
  };
}

function writeClusterSpec(spec: ClusterSpec): object {
  return {
    Name: spec.name,
    Labels: spec.labels,
    Orchestration: { TaskHistoryRetentionLimit: spec.taskHistoryLimit },
    Raft: {
      ...withoutUnset({ SnapshotInterval: spec.snapshotInterval }),
      KeepOldSnapshots: spec.keepOldSnapshots,
      ...withoutUnset({ LogEntriesForSlowFollowers: spec.logEntriesForSlowFollowers }),
      ElectionTick: spec.electionTick,
      HeartbeatTick: spec.heartbeatTick,
    },
    Dispatcher: withoutUnset({ HeartbeatPeriod: spec.heartbeatPeriodNs }),
    CAConfig: withoutUnset({ NodeCertExpiry: spec.nodeCertExpiryNs }),
    TaskDefaults: {},
    EncryptionConfig: { AutoLockManagers: spec.autoLockManagers },
  };
}
