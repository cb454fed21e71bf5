/**
 * What shoald and the native core (`shoal-core serve`) say to each other over a unix stream socket.
 * One frame = u32 big-endian length + UTF-8 JSON. Every field is always present; absence is null.
 * native/crates/protocol is the Rust half; native/testdata/*.json are checked from both sides.
 */
export const nativeVersion = 1;
/** Longest frame either side accepts. */
export const nativeFrameBytesMax: number = 16 * 1024 * 1024;

/** A process of the OCI runtime-spec (config.md, "Process"), the fields that we set. */
export interface OciProcess {
  readonly terminal: boolean;
  readonly user: {
    readonly uid: number;
    readonly gid: number;
    readonly additionalGids: readonly number[];
  };
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly capabilities: {
    readonly bounding: readonly string[];
    readonly effective: readonly string[];
    readonly permitted: readonly string[];
    readonly inheritable: readonly string[];
    readonly ambient: readonly string[];
  };
  readonly rlimits: readonly {
    readonly type: string;
    readonly hard: number;
    readonly soft: number;
  }[];
  readonly noNewPrivileges: boolean;
  readonly oomScoreAdj: number | null;
}
export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}
/** An OCI runtime-spec 1.2 configuration, the part that we set. The core reads it like every OCI config.json. */
export interface OciSpec {
  readonly ociVersion: string;
  readonly process: OciProcess;
  readonly root: { readonly path: string; readonly readonly: boolean };
  readonly hostname: string;
  readonly mounts: readonly OciMount[];
  readonly annotations: Readonly<Record<string, string>>;
  readonly linux: {
    readonly namespaces: readonly { readonly type: string; readonly path: string | null }[];
    readonly resources: {
      readonly memory: {
        readonly limit: number | null;
        readonly reservation: number | null;
        readonly swap: number | null;
      } | null;
      readonly cpu: {
        readonly shares: number | null;
        readonly quota: number | null;
        readonly period: number | null;
        readonly cpus: string | null;
      } | null;
      readonly pids: { readonly limit: number } | null;
    };
    /** Absolute from each hierarchy's mount: `/PARENT/ID`. */
    readonly cgroupsPath: string;
    readonly maskedPaths: readonly string[];
    readonly readonlyPaths: readonly string[];
    readonly sysctl: Readonly<Record<string, string>>;
  };
}

/** Where a container's root comes from: overlayfs made by the core inside the container's own mount namespace. */
export interface NativeRootfs {
  /** Unpacked layer directories, lowest first. */
  readonly layers: readonly string[];
  /** Holds `upper` and `work`; made by the core, removed by `delete`. */
  readonly directory: string;
}
export interface NativeLog {
  /** json-file, exactly as docker's: one {"log","stream","time"} object a line. */
  readonly path: string;
  readonly maxSizeBytes: number | null;
  readonly maxFiles: number;
  /** What a full buffer does: the program waits, or records are dropped and counted. */
  readonly mode: "blocking" | "non-blocking";
  /** Room between the program and a slow disk when non-blocking. */
  readonly maxBufferBytes: number;
  /** Rotated files become `PATH.N.gz`. */
  readonly compress: boolean;
}
/** Character cells of a terminal. */
export interface NativeConsoleSize {
  readonly rows: number;
  readonly columns: number;
}
/** Which system calls a container may make: docker's default profile, all, or an own profile as the text of docker's format. */
export type NativeSeccomp = "default" | "unconfined" | { readonly profile: string };
/** Docker's health check; a number of 0 is docker's default. */
export interface NativeHealthcheck {
  /** `["CMD", ARG...]`, `["CMD-SHELL", COMMAND]` or `["NONE"]`. */
  readonly test: readonly string[];
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly startPeriodMs: number;
  readonly startIntervalMs: number;
  readonly retries: number;
}
export interface NativeHealth {
  readonly status: "starting" | "healthy" | "unhealthy";
  /** Failures in a row. */
  readonly failingStreak: number;
  /** The last 5, oldest first. */
  readonly results: readonly {
    readonly startedAtMs: number;
    readonly endedAtMs: number;
    /** -1 when it took too long or could not be started. */
    readonly exitCode: number;
    /** At most 4096 bytes of both streams. */
    readonly output: string;
  }[];
}

export type NativeContainerStatus = "created" | "running" | "paused" | "stopped";
export interface NativeContainer {
  readonly containerId: string;
  readonly status: NativeContainerStatus;
  /** Init's pid in the core's pid namespace; 0 once stopped. */
  readonly pid: number;
  readonly createdAtMs: number;
  readonly startedAtMs: number | null;
  readonly exit: NativeExit | null;
  /** Null without a health check. */
  readonly health: NativeHealth | null;
}
export interface NativeExit {
  /** 0..255; 128+signal when killed by one. */
  readonly exitCode: number;
  /** False when the monitor itself died and nobody could know. */
  readonly exitCodeKnown: boolean;
  readonly signal: string | null;
  readonly oomKilled: boolean;
  readonly finishedAtMs: number;
}

/** A further process in a container. With a stream the connection becomes that stream (NativeClient.stream). */
export interface NativeExec {
  readonly containerId: string;
  /** The caller's name for it; unique in the container. */
  readonly execId: string;
  readonly process: OciProcess;
  readonly consoleSize: NativeConsoleSize | null;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}
export interface NativeExecState {
  readonly execId: string;
  /** In the core's pid namespace; 0 once it has ended. */
  readonly pid: number;
  readonly startedAtMs: number;
  /** Null while it runs. */
  readonly exit: NativeExecExit | null;
}
/** What a container uses; counters count from its start. */
export interface NativeStats {
  readonly readAtMs: number;
  readonly cpu: {
    readonly totalNs: number;
    readonly userNs: number;
    readonly systemNs: number;
    readonly throttledNs: number;
    readonly periods: number;
    readonly throttledPeriods: number;
  };
  /** Time of all processors of the machine together, idle or not. */
  readonly systemCpuNs: number;
  readonly onlineCpus: number;
  /** What docker shows as used is `usageBytes` less `inactiveFileBytes`. */
  readonly memory: {
    readonly usageBytes: number;
    readonly inactiveFileBytes: number;
    readonly limitBytes: number;
  };
  readonly pids: { readonly current: number; readonly limit: number | null };
  readonly block: {
    readonly readBytes: number;
    readonly writeBytes: number;
    readonly reads: number;
    readonly writes: number;
  };
  /** Devices of the container's own network namespace, without `lo`. */
  readonly networks: readonly {
    readonly name: string;
    readonly rxBytes: number;
    readonly rxPackets: number;
    readonly rxErrors: number;
    readonly rxDropped: number;
    readonly txBytes: number;
    readonly txPackets: number;
    readonly txErrors: number;
    readonly txDropped: number;
  }[];
}
export interface NativeExecExit {
  /** 0..255; 128+signal when killed by one. */
  readonly exitCode: number;
  readonly signal: string | null;
  readonly finishedAtMs: number;
}

/** One step on the node's networks. All are idempotent: adding what is there as wanted, or removing what is gone, succeeds. */
export type NetworkOp =
  /** A network namespace of its own, pinned at EXEC_ROOT/netns/NAME. */
  | { readonly op: "sandbox-add"; readonly sandbox: string }
  | { readonly op: "sandbox-remove"; readonly sandbox: string }
  /** Bridge `br0` in the sandbox, with the gateway address `a.b.c.d/len`. */
  | {
      readonly op: "bridge-add";
      readonly sandbox: string;
      readonly address: string;
      readonly mtu: number;
    }
  /** VXLAN device `vxlan0`, made in the host namespace and moved, a port of br0, no learning. */
  | {
      readonly op: "vxlan-add";
      readonly sandbox: string;
      readonly vni: number;
      readonly local: string;
      readonly port: number;
      readonly mtu: number;
    }
  /** veth pair: `port` on br0 of the sandbox, `name` in the container's namespace, up, addressed, with `mac`. */
  | {
      readonly op: "endpoint-add";
      readonly sandbox: string;
      readonly port: string;
      readonly containerId: string;
      readonly name: string;
      readonly address: string;
      readonly mac: string;
      readonly mtu: number;
    }
  | { readonly op: "endpoint-remove"; readonly sandbox: string; readonly port: string }
  /** Static, permanent, REPLACE: `mac` is behind the node at `remote`. */
  | {
      readonly op: "fdb-put";
      readonly sandbox: string;
      readonly mac: string;
      readonly remote: string;
    }
  | {
      readonly op: "fdb-remove";
      readonly sandbox: string;
      readonly mac: string;
      readonly remote: string;
    }
  | {
      readonly op: "neighbour-put";
      readonly sandbox: string;
      readonly address: string;
      readonly mac: string;
    }
  | { readonly op: "neighbour-remove"; readonly sandbox: string; readonly address: string };

/** What the kernel has, read back by dump, in the words of NetworkOp. */
export interface NativeSandbox {
  readonly sandbox: string;
  readonly bridge: { readonly address: string; readonly mtu: number } | null;
  readonly vxlan: {
    readonly vni: number;
    readonly local: string;
    readonly port: number;
    readonly mtu: number;
  } | null;
  /** Names of the veth ports on br0. */
  readonly ports: readonly string[];
  readonly fdb: readonly { readonly mac: string; readonly remote: string }[];
  readonly neighbours: readonly { readonly address: string; readonly mac: string }[];
}

/** Names of one network, as of one revision of the cluster's state. */
export interface ResolverZone {
  readonly networkId: string;
  /** The network's name, so that NAME.NETWORK answers. */
  readonly networkName: string;
  readonly revision: number;
  /** Lower-cased name -> IPv4 addresses. */
  readonly records: readonly {
    readonly name: string;
    readonly addresses: readonly string[];
    readonly ttlSeconds: number;
  }[];
}
/** One container that asks at 127.0.0.11:53 in its own network namespace. */
export interface ResolverClient {
  readonly containerId: string;
  /** Searched in this order. */
  readonly networkIds: readonly string[];
  /** Where other names are asked, from the host's namespace; `a.b.c.d` or `a.b.c.d:port`. Empty: other names are refused. */
  readonly upstreams: readonly string[];
}

/** How an archive that the core writes is compressed. */
export type NativePacking = "none" | "gzip";
export interface NativeUnpacked {
  /** Of the archive as it came. */
  readonly digest: string;
  /** Of the uncompressed tar, as its length. */
  readonly diffId: string;
  readonly bytes: number;
  readonly files: number;
}
export interface NativePacked extends NativeUnpacked {
  /** Length of the archive as it was written. */
  readonly size: number;
}
/** Everything that a container is made from. */
export interface NativeCreate {
  readonly containerId: string;
  readonly spec: OciSpec;
  readonly rootfs: NativeRootfs;
  readonly log: NativeLog | null;
  /** /dev/null, a pipe that stays open when a client goes, or one that is closed when the first attached client's input ends. */
  readonly stdin: "closed" | "open" | "once";
  /** Size of the terminal at the start, when `spec.process.terminal`. */
  readonly consoleSize: NativeConsoleSize | null;
  readonly seccomp: NativeSeccomp;
  readonly health: NativeHealthcheck | null;
}

export type NativeRequest = {
  readonly id: number;
} /** First frame of a connection; from then on this connection gets events. */ & (
  | { readonly call: "hello"; readonly version: number }
  /** Everything but the exec: namespaces, cgroup, root, parked init. The id stays taken until `delete`. */
  | ({ readonly call: "create" } & NativeCreate)
  /** Create and start in one, for what needs nothing done in between (no network). When it fails nothing is left, though an exit may have been told. */
  | ({ readonly call: "run" } & NativeCreate)
  | { readonly call: "start"; readonly containerId: string }
  /** `all`: every process of the container, not only its init. */
  | {
      readonly call: "kill";
      readonly containerId: string;
      readonly signal: string;
      readonly all: boolean;
    }
  /** Also takes the exit record back: what was deleted is acknowledged. `force` kills first. */
  | { readonly call: "delete"; readonly containerId: string; readonly force: boolean }
  | { readonly call: "state"; readonly containerId: string }
  | { readonly call: "list" }
  | { readonly call: "pids"; readonly containerId: string }
  /** Detached on a connection that said hello; with a stream the only request of its own connection. */
  | ({ readonly call: "exec" } & NativeExec)
  | {
      readonly call: "exec-kill";
      readonly containerId: string;
      readonly execId: string;
      readonly signal: string;
    }
  | { readonly call: "execs"; readonly containerId: string }
  /** The only request of its connection, which then carries docker's 8-byte frames (raw bytes with a terminal), and stdin the other way. */
  | {
      readonly call: "attach";
      readonly containerId: string;
      readonly stdin: boolean;
      readonly stdout: boolean;
      readonly stderr: boolean;
    }
  /** Without `execId` the container's own terminal. */
  | {
      readonly call: "resize";
      readonly containerId: string;
      readonly execId: string | null;
      readonly rows: number;
      readonly columns: number;
    }
  | { readonly call: "pause"; readonly containerId: string }
  | { readonly call: "resume"; readonly containerId: string }
  /** What is null stays as it is. */
  | {
      readonly call: "update";
      readonly containerId: string;
      readonly resources: OciSpec["linux"]["resources"];
    }
  | { readonly call: "stats"; readonly containerId: string }
  /** The only request of its connection, which then carries docker's 8-byte frames, one a record. */
  | {
      readonly call: "logs";
      readonly containerId: string;
      readonly stdout: boolean;
      readonly stderr: boolean;
      /** On after the end of the file, until the container has ended. */
      readonly follow: boolean;
      /** Records from the end, before any other filter; null: all. */
      readonly tail: number | null;
      /** Decimal nanoseconds since the epoch. */
      readonly sinceNs: string | null;
      readonly untilNs: string | null;
      /** Each record begins with its time (RFC 3339) and a space. */
      readonly timestamps: boolean;
    }
  /** Applied in order; goes on after a failure and tells each one. */
  | { readonly call: "network"; readonly ops: readonly NetworkOp[] }
  | { readonly call: "network-dump" }
  /** Upserts zones and clients, then removes; kept on disk so that a restarted core answers at once. */
  | {
      readonly call: "resolver";
      readonly zones: readonly ResolverZone[];
      readonly clients: readonly ResolverClient[];
      readonly removeZones: readonly string[];
      readonly removeClients: readonly string[];
    }
  /**
   * Unpacks a layer (tar, gzip or zstd, told from its bytes) atomically into `destination`, which must not exist, checking sha256 of the
   * archive and of the tar. `archive: null`: the only request of its connection, which then carries the archive until its end; a frame
   * with the result comes last.
   */
  | {
      readonly call: "unpack";
      readonly archive: string | null;
      readonly digest: string | null;
      readonly diffId: string | null;
      readonly destination: string;
      /** What becomes of device nodes in the layer. */
      readonly devices: "refuse" | "skip" | "make";
    }
  /** An upper directory as a layer. The only request of its connection, which then carries pieces behind u32 lengths, a length of 0, and a frame with the result. */
  | {
      readonly call: "diff";
      readonly upper: string;
      readonly compression: NativePacking;
    }
  /** Layers, lowest first, and an upper directory as the tree that they show; a stream as of `diff`. */
  | {
      readonly call: "export";
      readonly layers: readonly string[];
      readonly upper: string | null;
      readonly compression: NativePacking;
    }
  /** Makes what `diff` would write a layer at `destination`, which must not exist. */
  | {
      readonly call: "commit";
      readonly upper: string;
      readonly destination: string;
    }
  | { readonly call: "shutdown" }
);
export type NativeCall = NativeRequest["call"];

/** What each call answers; those that send or take an archive answer `{}` before it, and this after it. */
export interface NativeResults {
  readonly hello: {
    readonly version: number;
    readonly pid: number;
    /** Name and version: `shoal-core 0.1.0`. */
    readonly binary: string;
    readonly cgroup: "v1" | "hybrid" | "v2";
  };
  readonly create: { readonly pid: number };
  readonly run: { readonly pid: number; readonly startedAtMs: number };
  readonly start: Record<string, never>;
  readonly kill: Record<string, never>;
  readonly delete: Record<string, never>;
  readonly state: NativeContainer;
  readonly list: { readonly containers: readonly NativeContainer[] };
  readonly pids: { readonly pids: readonly number[] };
  readonly exec: { readonly pid: number };
  readonly "exec-kill": Record<string, never>;
  readonly execs: { readonly execs: readonly NativeExecState[] };
  readonly attach: { readonly terminal: boolean };
  readonly resize: Record<string, never>;
  readonly pause: Record<string, never>;
  readonly resume: Record<string, never>;
  readonly update: Record<string, never>;
  readonly stats: NativeStats;
  readonly logs: Record<string, never>;
  /** One for each op, in order; null is success. */
  readonly network: { readonly failures: readonly (NativeFailure | null)[] };
  readonly "network-dump": { readonly sandboxes: readonly NativeSandbox[] };
  readonly resolver: Record<string, never>;
  readonly unpack: NativeUnpacked;
  readonly diff: NativePacked;
  readonly export: NativePacked;
  readonly commit: {
    readonly diffId: string;
    readonly bytes: number;
    readonly files: number;
  };
  readonly shutdown: Record<string, never>;
}
export interface NativeFailure {
  readonly code: "not-found" | "already-exists" | "invalid" | "conflict" | "full" | "system";
  readonly errno: number | null;
  readonly message: string;
  /** What was being done, on which value. */
  readonly doing: string;
}
export type NativeReply =
  | { readonly id: number; readonly ok: true; readonly value: NativeResults[NativeCall] }
  | ({ readonly id: number; readonly ok: false } & NativeFailure);
export type NativeEvent =
  /** The record is on disk before this is said. Said again on each new connection until `delete`. */
  | ({ readonly event: "exit"; readonly containerId: string } & NativeExit)
  | { readonly event: "oom"; readonly containerId: string }
  /** `execs` has it too, for those who were away. */
  | ({
      readonly event: "exec-exit";
      readonly containerId: string;
      readonly execId: string;
    } & NativeExecExit)
  /** The status has changed; `state` has the results. */
  | {
      readonly event: "health";
      readonly containerId: string;
      readonly status: NativeHealth["status"];
    };
