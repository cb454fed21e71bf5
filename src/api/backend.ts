/** What the Engine API needs of the node behind it, in the model's words. node/ implements it over engine, worker and manager. */
import type { Cluster, ClusterSpec } from "../model/cluster.ts";
import type { Container } from "../model/container.ts";
import type { EngineEvent } from "../model/event.ts";
import type { Image } from "../model/image.ts";
import type { Network, NetworkSpec } from "../model/network.ts";
import type { Availability, Node, NodeSpec } from "../model/node.ts";
import type { Service, ServiceSpec } from "../model/service.ts";
import type { Task } from "../model/task.ts";

/** Everything throws ShoalError with docker's wording; nothing else is thrown but bugs. References are an id, a unique id prefix or a name. */
export interface Backend {
  readonly system: SystemBackend;
  readonly swarm: SwarmBackend;
  readonly nodes: NodeBackend;
  readonly services: ServiceBackend;
  readonly tasks: TaskBackend;
  readonly networks: NetworkBackend;
  readonly images: ImageBackend;
  readonly containers: ContainerBackend;
}

export type LocalSwarmState = "inactive" | "pending" | "active" | "error" | "locked";
export interface LocalSwarm {
  readonly state: LocalSwarmState;
  readonly nodeId: string;
  readonly nodeAddress: string;
  readonly error: string;
  /** This node is a manager. */
  readonly controlAvailable: boolean;
  readonly managers: readonly { readonly nodeId: string; readonly address: string }[];
  /** Counted on managers; 0 on workers. */
  readonly nodeCount: number;
  readonly managerCount: number;
  /** On managers that can be asked; null otherwise. */
  readonly cluster: Cluster | null;
}
export interface SystemInfo {
  readonly id: string;
  readonly hostname: string;
  readonly version: string;
  readonly gitCommit: string;
  readonly builtAt: string;
  readonly kernelVersion: string;
  readonly osVersion: string;
  readonly operatingSystem: string;
  readonly architecture: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly dataRoot: string;
  readonly cgroupVersion: "1" | "2";
  readonly storageDriver: string;
  readonly labels: readonly string[];
  readonly debug: boolean;
  readonly startedAtMs: number;
  /** Of the native core; null while it is not connected. */
  readonly coreVersion: string | null;
}
export interface SystemBackend {
  info(): Promise<SystemInfo>;
  /** Cheap: read for every ping. */
  swarm(): LocalSwarm;
  /** Past events since `sinceNs` that are still held, then live ones until `untilNs` or `signal`. */
  events(query: {
    readonly sinceNs: bigint | null;
    readonly untilNs: bigint | null;
    readonly signal: AbortSignal;
  }): AsyncIterable<EngineEvent>;
  diskUsage(): Promise<{ readonly layersBytes: number }>;
}

export interface InitRequest {
  readonly listenAddress: string;
  readonly advertiseAddress: string;
  readonly dataPathAddress: string;
  readonly dataPathPort: number;
  readonly forceNewCluster: boolean;
  readonly autoLockManagers: boolean;
  readonly availability: Availability;
  readonly addressPools: readonly string[];
  readonly subnetSize: number;
  /** Fields of the spec that were given. */
  readonly spec: Partial<ClusterSpec>;
}
export interface JoinSwarmRequest {
  readonly listenAddress: string;
  readonly advertiseAddress: string;
  readonly dataPathAddress: string;
  readonly remoteAddresses: readonly string[];
  readonly joinToken: string;
  readonly availability: Availability;
}
export interface SwarmBackend {
  /** Answers the id of this node. */
  init(request: InitRequest): Promise<string>;
  join(request: JoinSwarmRequest): Promise<void>;
  leave(force: boolean): Promise<void>;
  /** Refused with docker's "This node is not a swarm manager. …" where it is none. */
  inspect(): Promise<Cluster>;
  update(
    version: number,
    spec: ClusterSpec,
    rotate: {
      readonly workerToken: boolean;
      readonly managerToken: boolean;
      readonly unlockKey: boolean;
    },
  ): Promise<void>;
  unlockKey(): Promise<string>;
  unlock(key: string): Promise<void>;
}

export interface ManagerStatus {
  readonly nodeId: string;
  readonly leader: boolean;
  readonly reachability: "reachable" | "unreachable" | "unknown";
  readonly address: string;
}
export interface NodeBackend {
  list(): Promise<readonly Node[]>;
  get(reference: string): Promise<Node>;
  managers(): Promise<readonly ManagerStatus[]>;
  update(reference: string, version: number, spec: NodeSpec): Promise<void>;
  remove(reference: string, force: boolean): Promise<void>;
}

export interface ServiceCounts {
  readonly running: number;
  readonly desired: number;
  readonly completed: number;
}
/** For `shoal service explain`. */
export interface TaskExplanation {
  readonly taskId: string;
  readonly taskName: string;
  readonly state: string;
  readonly desired: string;
  readonly nodeId: string | null;
  readonly nodeName: string | null;
  /** One sentence: why it is there, or what it waits for. */
  readonly reason: string;
  readonly sinceMs: number;
  readonly nodes: readonly {
    readonly nodeId: string;
    readonly nodeName: string;
    readonly fits: boolean;
    /** Which filter refused, and why; or the rank. */
    readonly filter: string | null;
    readonly reason: string;
  }[];
}
export interface TaskLogLine {
  readonly taskId: string;
  readonly serviceId: string;
  readonly nodeId: string;
  readonly stream: "stdout" | "stderr";
  /** RFC 3339 with nanoseconds. */
  readonly time: string;
  /** As written, with its line end. */
  readonly line: Uint8Array;
}
export interface LogsQuery {
  readonly follow: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** -1: all. */
  readonly tail: number;
  /** Unix nanoseconds; null: from the start. */
  readonly sinceNs: bigint | null;
  readonly untilNs: bigint | null;
  readonly signal: AbortSignal;
}
export interface ServiceBackend {
  list(): Promise<readonly Service[]>;
  get(reference: string): Promise<Service>;
  /** Per service id. */
  counts(serviceIds: readonly string[]): Promise<ReadonlyMap<string, ServiceCounts>>;
  create(spec: ServiceSpec): Promise<{ readonly id: string; readonly warnings: readonly string[] }>;
  /** `spec` null with rollback: back to the previous one. */
  update(
    reference: string,
    version: number,
    spec: ServiceSpec | null,
    options: { readonly rollback: boolean },
  ): Promise<{ readonly warnings: readonly string[] }>;
  remove(reference: string): Promise<void>;
  logs(reference: string, query: LogsQuery): AsyncIterable<TaskLogLine>;
  explain(reference: string): Promise<readonly TaskExplanation[]>;
}
export interface TaskBackend {
  list(): Promise<readonly Task[]>;
  /** Those of `tasks` that still are what their service wants, however it was changed since (swarmkit orchestrator.IsTaskDirty). */
  upToDate(tasks: readonly Task[]): Promise<readonly Task[]>;
  get(reference: string): Promise<Task>;
  logs(reference: string, query: LogsQuery): AsyncIterable<TaskLogLine>;
}
/** A network that exists on this node alone (`host`, `none`). */
export interface LocalNetwork {
  readonly id: string;
  readonly name: string;
  readonly driver: string;
  readonly createdAtMs: number;
}
export interface NetworkBackend {
  /** Swarm networks: all on a manager; on a worker those that its tasks use. */
  list(): Promise<readonly Network[]>;
  local(): Promise<readonly LocalNetwork[]>;
  get(reference: string): Promise<Network | LocalNetwork>;
  create(spec: NetworkSpec): Promise<{ readonly id: string; readonly warning: string }>;
  remove(reference: string): Promise<void>;
}

export interface ImageBackend {
  list(): Promise<readonly Image[]>;
  get(reference: string): Promise<Image>;
  /** docker-archive or OCI layout tar (maybe gzip). Yields a line for each image: "Loaded image: NAME". Throws on a broken archive; nothing of it stays. */
  load(archive: AsyncIterable<Uint8Array>): AsyncIterable<string>;
  /** A root file system tar. Answers the image id. `changes`: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR. */
  importRoot(
    archive: AsyncIterable<Uint8Array>,
    options: {
      readonly reference: string | null;
      readonly changes: readonly string[];
      readonly message: string;
      readonly platform: string | null;
    },
  ): Promise<string>;
  tag(reference: string, target: string): Promise<void>;
  remove(
    reference: string,
    options: { readonly force: boolean; readonly prune: boolean },
  ): Promise<readonly ({ readonly untagged: string } | { readonly deleted: string })[]>;
}

export interface ContainerBackend {
  list(): Promise<readonly Container[]>;
  get(reference: string): Promise<Container>;
  logs(reference: string, query: LogsQuery): AsyncIterable<TaskLogLine>;
  /** `ps` of its processes: docker's titles and rows. */
  top(
    reference: string,
    psArguments: string,
  ): Promise<{
    readonly titles: readonly string[];
    readonly processes: readonly (readonly string[])[];
  }>;
}
