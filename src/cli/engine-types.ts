/** The parts of the Engine API's JSON that the commands read; the daemon may leave any optional one away. */

export interface Version {
  readonly Index: number;
}
export interface PortConfig {
  readonly Protocol?: string;
  readonly TargetPort?: number;
  readonly PublishedPort?: number;
  readonly PublishMode?: string;
}
export interface Platform {
  readonly OS?: string;
  readonly Architecture?: string;
}
export interface UpdateConfigJson {
  Parallelism: number;
  Delay?: number;
  FailureAction?: string;
  Monitor?: number;
  MaxFailureRatio: number;
  Order?: string;
}
export interface MountJson {
  Type?: string;
  Source?: string;
  Target?: string;
  ReadOnly?: boolean;
  BindOptions?: { Propagation?: string; NonRecursive?: boolean };
  VolumeOptions?: {
    NoCopy?: boolean;
    Labels?: Record<string, string>;
    DriverConfig?: { Name?: string; Options?: Record<string, string> };
  };
  TmpfsOptions?: { SizeBytes?: number; Mode?: number };
}
export interface ContainerSpecJson {
  Image?: string;
  Labels?: Record<string, string>;
  Command?: string[];
  Args?: string[];
  Hostname?: string;
  Env?: string[];
  Dir?: string;
  User?: string;
  Groups?: string[];
  Privileges?: unknown;
  Init?: boolean;
  StopSignal?: string;
  TTY?: boolean;
  ReadOnly?: boolean;
  Mounts?: MountJson[];
  StopGracePeriod?: number;
  Healthcheck?: {
    Test?: string[];
    Interval?: number;
    Timeout?: number;
    Retries?: number;
    StartPeriod?: number;
    StartInterval?: number;
  };
  Hosts?: string[];
  DNSConfig?: { Nameservers?: string[]; Search?: string[]; Options?: string[] };
  Secrets?: unknown[];
  Configs?: unknown[];
  Isolation?: string;
  Sysctls?: Record<string, string>;
  CapabilityAdd?: string[];
  CapabilityDrop?: string[];
  Ulimits?: { Name: string; Hard: number; Soft: number }[];
  OomScoreAdj?: number;
}
export interface PlacementJson {
  Constraints?: string[];
  Preferences?: { Spread?: { SpreadDescriptor?: string } }[];
  MaxReplicas?: number;
  Platforms?: Platform[];
}
export interface TaskTemplateJson {
  ContainerSpec?: ContainerSpecJson;
  Resources?: {
    Limits?: { NanoCPUs?: number; MemoryBytes?: number; Pids?: number };
    Reservations?: { NanoCPUs?: number; MemoryBytes?: number; GenericResources?: unknown[] };
  };
  RestartPolicy?: { Condition?: string; Delay?: number; MaxAttempts?: number; Window?: number };
  Placement?: PlacementJson;
  Networks?: { Target?: string; Aliases?: string[]; DriverOpts?: Record<string, string> }[];
  LogDriver?: { Name?: string; Options?: Record<string, string> };
  ForceUpdate: number;
  Runtime?: string;
}
export interface ServiceModeJson {
  Replicated?: { Replicas?: number };
  Global?: Record<string, never>;
  ReplicatedJob?: { MaxConcurrent?: number; TotalCompletions?: number };
  GlobalJob?: Record<string, never>;
}
export interface ServiceSpecJson {
  Name?: string;
  Labels: Record<string, string> | null;
  TaskTemplate: TaskTemplateJson;
  Mode: ServiceModeJson;
  UpdateConfig?: UpdateConfigJson;
  RollbackConfig?: UpdateConfigJson;
  EndpointSpec?: { Mode?: string; Ports?: PortConfig[] };
}
export interface ServiceJson {
  readonly ID: string;
  readonly Version: Version;
  readonly CreatedAt?: string;
  readonly UpdatedAt?: string;
  readonly Spec: ServiceSpecJson;
  readonly PreviousSpec?: ServiceSpecJson;
  readonly Endpoint?: { readonly Ports?: readonly PortConfig[] | null };
  readonly UpdateStatus?: {
    readonly State?: string;
    readonly StartedAt?: string;
    readonly CompletedAt?: string;
    readonly Message?: string;
  } | null;
  readonly ServiceStatus?: {
    readonly RunningTasks: number;
    readonly DesiredTasks: number;
    readonly CompletedTasks?: number;
  } | null;
}
export interface TaskJson {
  readonly ID: string;
  readonly Name?: string;
  readonly Version?: Version;
  readonly CreatedAt?: string;
  readonly ServiceID: string;
  readonly NodeID?: string;
  readonly Slot?: number;
  readonly Spec: TaskTemplateJson;
  readonly DesiredState: string;
  readonly Status: {
    readonly State: string;
    readonly Timestamp: string;
    readonly Message?: string;
    readonly Err?: string;
    readonly ContainerStatus?: {
      readonly ContainerID?: string;
      readonly PID?: number;
      readonly ExitCode?: number;
    };
    readonly PortStatus?: { readonly Ports?: readonly PortConfig[] | null };
  };
}
export interface NodeSpecJson {
  Name?: string;
  Labels: Record<string, string> | null;
  Role: string;
  Availability: string;
}
export interface NodeJson {
  readonly ID: string;
  readonly Version: Version;
  readonly CreatedAt: string;
  readonly Spec: NodeSpecJson;
  readonly Description?: {
    readonly Hostname?: string;
    readonly Platform?: Platform;
    readonly Resources?: { readonly NanoCPUs?: number; readonly MemoryBytes?: number };
    readonly Engine?: {
      readonly EngineVersion?: string;
      readonly Labels?: Readonly<Record<string, string>>;
      readonly Plugins?: readonly { readonly Type: string; readonly Name: string }[] | null;
    };
    readonly TLSInfo?: {
      readonly TrustRoot?: string;
      readonly CertIssuerSubject?: string;
      readonly CertIssuerPublicKey?: string;
    };
  };
  readonly Status: { readonly State: string; readonly Addr?: string; readonly Message?: string };
  readonly ManagerStatus?: {
    readonly Leader?: boolean;
    readonly Reachability?: string;
    readonly Addr?: string;
  } | null;
}
export interface ClusterSpecJson {
  Name?: string;
  Labels?: Record<string, string> | null;
  Orchestration: { TaskHistoryRetentionLimit?: number };
  Raft: {
    SnapshotInterval?: number;
    KeepOldSnapshots?: number;
    LogEntriesForSlowFollowers?: number;
    ElectionTick: number;
    HeartbeatTick: number;
  };
  Dispatcher: { HeartbeatPeriod?: number };
  CAConfig: { NodeCertExpiry?: number; [more: string]: unknown };
  TaskDefaults: Record<string, unknown>;
  EncryptionConfig: { AutoLockManagers: boolean };
}
export interface SwarmJson {
  readonly ID: string;
  readonly Version: Version;
  readonly Spec: ClusterSpecJson;
  readonly TLSInfo?: { readonly TrustRoot?: string };
  readonly JoinTokens: { readonly Worker: string; readonly Manager: string };
}
export interface NetworkJson {
  readonly Name: string;
  readonly Id: string;
  readonly Created: string;
  readonly Scope: string;
  readonly Driver: string;
  readonly EnableIPv4?: boolean;
  readonly EnableIPv6?: boolean;
  readonly Internal?: boolean;
  readonly Labels?: Readonly<Record<string, string>> | null;
}
export interface ImageSummaryJson {
  readonly Id: string;
  readonly RepoTags?: readonly string[] | null;
  readonly RepoDigests?: readonly string[] | null;
  readonly Created: number;
  readonly Size: number;
  readonly Containers?: number;
}
export interface ContainerSummaryJson {
  readonly Id: string;
  readonly Names: readonly string[];
  readonly Image: string;
  readonly ImageID?: string;
  readonly Command: string;
  readonly Created: number;
  readonly Status: string;
  readonly State: string;
  readonly Ports?:
    | readonly {
        readonly IP?: string;
        readonly PrivatePort: number;
        readonly PublicPort?: number;
        readonly Type: string;
      }[]
    | null;
  readonly Labels?: Readonly<Record<string, string>> | null;
  readonly SizeRw?: number;
  readonly SizeRootFs?: number;
  readonly Mounts?: readonly { readonly Name?: string; readonly Source?: string }[] | null;
  readonly NetworkSettings?: { readonly Networks?: Readonly<Record<string, unknown>> | null };
}
export interface SwarmInfoJson {
  readonly NodeID?: string;
  readonly NodeAddr?: string;
  readonly LocalNodeState?: string;
  readonly ControlAvailable?: boolean;
  readonly Error?: string;
  readonly RemoteManagers?: readonly { readonly NodeID: string; readonly Addr: string }[] | null;
  readonly Nodes?: number;
  readonly Managers?: number;
  readonly Cluster?: {
    readonly ID: string;
    readonly Spec: ClusterSpecJson;
    readonly DefaultAddrPool?: readonly string[] | null;
    readonly SubnetSize?: number;
    readonly DataPathPort?: number;
    readonly RootRotationInProgress?: boolean;
  };
}
export interface InfoJson {
  readonly ID?: string;
  readonly Name?: string;
  readonly Swarm?: SwarmInfoJson;
  readonly [more: string]: unknown;
}
export interface ExplanationJson {
  readonly TaskID: string;
  readonly TaskName: string;
  readonly State: string;
  readonly DesiredState: string;
  readonly NodeID: string | null;
  readonly NodeName: string | null;
  readonly Reason: string;
  readonly Since: string | null;
  readonly Nodes?:
    | readonly {
        readonly NodeID: string;
        readonly NodeName: string;
        readonly Fits: boolean;
        readonly Filter: string | null;
        readonly Reason: string;
      }[]
    | null;
}
