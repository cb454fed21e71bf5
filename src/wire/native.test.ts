/** The TypeScript half of native/testdata: every frame there is one of these types, and these values are every frame there. The Rust half reads and writes the same files. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type {
  NativeCall,
  NativeContainer,
  NativeEvent,
  NativeExecExit,
  NativeFailure,
  NativeReply,
  NativeRequest,
  NativeResults,
  NetworkOp,
} from "./native.ts";

function fixture(name: string): readonly unknown[] {
  const url = new URL(`../../native/testdata/${name}`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8"));
}
/** What the other side would read of these values. */
function sent(values: readonly unknown[]): unknown {
  return JSON.parse(JSON.stringify(values));
}

const containerId = "web.1.k3j2";
const mac = "02:42:0a:00:01:06";
const remote = "192.168.0.3";

const create: Extract<NativeRequest, { call: "create" }> = {
  id: 2,
  call: "create",
  containerId,
  spec: {
    ociVersion: "1.2.0",
    process: {
      terminal: false,
      user: { uid: 1000, gid: 1000, additionalGids: [10] },
      args: ["nginx", "-g", "daemon off;"],
      env: ["PATH=/usr/bin:/bin", "GREETING=grüß"],
      cwd: "/srv",
      capabilities: {
        bounding: ["CAP_CHOWN"],
        effective: ["CAP_CHOWN"],
        permitted: ["CAP_CHOWN"],
        inheritable: [],
        ambient: [],
      },
      rlimits: [{ type: "RLIMIT_NOFILE", hard: 1_048_576, soft: 1024 }],
      noNewPrivileges: false,
      oomScoreAdj: null,
    },
    root: { path: "rootfs", readonly: true },
    hostname: "web",
    mounts: [
      {
        destination: "/proc",
        type: "proc",
        source: "proc",
        options: ["nosuid", "noexec", "nodev"],
      },
      { destination: "/data", type: "bind", source: "/var/lib/data", options: ["rbind", "ro"] },
    ],
    annotations: { "org.shoal.task": "k3j2" },
    linux: {
      namespaces: [
        { type: "mount", path: null },
        { type: "pid", path: null },
      ],
      resources: {
        memory: { limit: 67_108_864, reservation: null, swap: 134_217_728 },
        cpu: { shares: null, quota: 50_000, period: 100_000, cpus: null },
        pids: { limit: 100 },
      },
      cgroupsPath: `/shoal/${containerId}`,
      maskedPaths: ["/proc/kcore"],
      readonlyPaths: ["/proc/sys"],
      sysctl: { "net.core.somaxconn": "1024" },
    },
  },
  rootfs: {
    layers: ["/var/lib/shoal/layers/a", "/var/lib/shoal/layers/b"],
    directory: `/var/lib/shoal/containers/${containerId}`,
  },
  log: {
    path: `/var/lib/shoal/logs/${containerId}.log`,
    maxSizeBytes: 10_485_760,
    maxFiles: 3,
    mode: "non-blocking",
    maxBufferBytes: 4_194_304,
    compress: true,
  },
  stdin: "once",
  consoleSize: { rows: 24, columns: 80 },
  seccomp: "default",
  health: {
    test: ["CMD-SHELL", "wget -q -O- localhost || exit 1"],
    intervalMs: 30_000,
    timeoutMs: 30_000,
    startPeriodMs: 0,
    startIntervalMs: 5_000,
    retries: 3,
  },
};

/** One of each kind: a new kind does not compile until it is here. */
const ops: { readonly [Kind in NetworkOp["op"]]: Extract<NetworkOp, { op: Kind }> } = {
  "sandbox-add": { op: "sandbox-add", sandbox: "n1" },
  "sandbox-remove": { op: "sandbox-remove", sandbox: "n1" },
  "bridge-add": { op: "bridge-add", sandbox: "n1", address: "10.0.1.1/24", mtu: 1450 },
  "vxlan-add": {
    op: "vxlan-add",
    sandbox: "n1",
    vni: 4097,
    local: "192.168.0.2",
    port: 4789,
    mtu: 1450,
  },
  "endpoint-add": {
    op: "endpoint-add",
    sandbox: "n1",
    port: "v1",
    containerId,
    name: "eth0",
    address: "10.0.1.5/24",
    mac: "02:42:0a:00:01:05",
    mtu: 1450,
  },
  "endpoint-remove": { op: "endpoint-remove", sandbox: "n1", port: "v1" },
  "fdb-put": { op: "fdb-put", sandbox: "n1", mac, remote },
  "fdb-remove": { op: "fdb-remove", sandbox: "n1", mac, remote },
  "neighbour-put": { op: "neighbour-put", sandbox: "n1", address: "10.0.1.6", mac },
  "neighbour-remove": { op: "neighbour-remove", sandbox: "n1", address: "10.0.1.6" },
};

const requests: { readonly [Call in NativeCall]: Extract<NativeRequest, { call: Call }> } = {
  hello: { id: 1, call: "hello", version: 1 },
  create,
  start: { id: 3, call: "start", containerId },
  kill: { id: 4, call: "kill", containerId, signal: "SIGTERM", all: false },
  delete: { id: 5, call: "delete", containerId, force: true },
  state: { id: 6, call: "state", containerId },
  list: { id: 7, call: "list" },
  pids: { id: 8, call: "pids", containerId },
  network: { id: 9, call: "network", ops: Object.values(ops) },
  "network-dump": { id: 10, call: "network-dump" },
  resolver: {
    id: 11,
    call: "resolver",
    zones: [
      {
        networkId: "n1",
        networkName: "front",
        revision: 12,
        records: [{ name: "web", addresses: ["10.0.1.5", "10.0.1.6"], ttlSeconds: 5 }],
      },
    ],
    clients: [{ containerId, networkIds: ["n1"], upstreams: ["9.9.9.9"] }],
    removeZones: ["n2"],
    removeClients: ["web.2.x9"],
  },
  unpack: {
    id: 12,
    call: "unpack",
    archive: "/tmp/layer.tar.gz",
    digest: null,
    diffId: null,
    destination: "/var/lib/shoal/layers/a",
    devices: "make",
  },
  shutdown: { id: 13, call: "shutdown" },
  exec: {
    id: 14,
    call: "exec",
    containerId,
    execId: "e1",
    process: { ...create.spec.process, terminal: true, args: ["sh"] },
    consoleSize: { rows: 24, columns: 80 },
    stdin: true,
    stdout: true,
    stderr: false,
  },
  "exec-kill": { id: 15, call: "exec-kill", containerId, execId: "e1", signal: "SIGTERM" },
  execs: { id: 16, call: "execs", containerId },
  attach: { id: 17, call: "attach", containerId, stdin: true, stdout: true, stderr: true },
  resize: { id: 18, call: "resize", containerId, execId: null, rows: 24, columns: 80 },
  pause: { id: 19, call: "pause", containerId },
  resume: { id: 20, call: "resume", containerId },
  update: {
    id: 21,
    call: "update",
    containerId,
    resources: { memory: null, cpu: null, pids: { limit: 50 } },
  },
  stats: { id: 22, call: "stats", containerId },
  logs: {
    id: 23,
    call: "logs",
    containerId,
    stdout: true,
    stderr: true,
    follow: true,
    tail: 10,
    sinceNs: "1700000000123456789",
    untilNs: null,
    timestamps: true,
  },
  diff: {
    id: 24,
    call: "diff",
    upper: "/var/lib/shoal/containers/a/upper",
    compression: "gzip",
  },
  export: {
    id: 25,
    call: "export",
    layers: ["/var/lib/shoal/layers/a"],
    upper: "/var/lib/shoal/containers/a/upper",
    compression: "none",
  },
  commit: {
    id: 26,
    call: "commit",
    upper: "/var/lib/shoal/containers/a/upper",
    destination: "/var/lib/shoal/layers/b",
  },
  run: { ...create, id: 27, call: "run" },
};

const running: NativeContainer = {
  containerId,
  status: "running",
  pid: 4711,
  createdAtMs: 1_700_000_000_000,
  startedAtMs: 1_700_000_000_005,
  exit: null,
  health: {
    status: "unhealthy",
    failingStreak: 3,
    results: [
      { startedAtMs: 1_700_000_000_100, endedAtMs: 1_700_000_000_200, exitCode: 1, output: "no\n" },
    ],
  },
};
const execExit: NativeExecExit = {
  exitCode: 143,
  signal: "SIGTERM",
  finishedAtMs: 1_700_000_001_000,
};
const busy: NativeFailure = {
  code: "conflict",
  errno: 16,
  message: "Device or resource busy (os error 16)",
  doing: 'adding sandbox "n1"',
};
const tar = {
  diffId: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
  bytes: 10_240,
  files: 3,
};
const gzipDigest = "sha256:1d8f0b1b1f1a6a1b4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2";
const results: NativeResults = {
  hello: { version: 1, pid: 99, binary: "shoal-core 0.1.0", cgroup: "hybrid" },
  create: { pid: 4711 },
  run: { pid: 4711, startedAtMs: 1_700_000_000_005 },
  start: {},
  kill: {},
  delete: {},
  state: {
    ...running,
    health: null,
    status: "stopped",
    pid: 0,
    exit: {
      exitCode: 137,
      exitCodeKnown: true,
      signal: "SIGKILL",
      oomKilled: true,
      finishedAtMs: 1_700_000_001_000,
    },
  },
  list: { containers: [running] },
  pids: { pids: [4711, 4712] },
  network: { failures: [null, busy] },
  "network-dump": {
    sandboxes: [
      {
        sandbox: "n1",
        bridge: { address: "10.0.1.1/24", mtu: 1450 },
        vxlan: { vni: 4097, local: "192.168.0.2", port: 4789, mtu: 1450 },
        ports: ["v1"],
        fdb: [{ mac, remote }],
        neighbours: [{ address: "10.0.1.6", mac }],
      },
      { sandbox: "n2", bridge: null, vxlan: null, ports: [], fdb: [], neighbours: [] },
    ],
  },
  resolver: {},
  unpack: { digest: gzipDigest, ...tar },
  shutdown: {},
  exec: { pid: 4712 },
  "exec-kill": {},
  execs: {
    execs: [
      { execId: "e0", pid: 0, startedAtMs: 1_700_000_000_010, exit: execExit },
      { execId: "e1", pid: 4712, startedAtMs: 1_700_000_000_020, exit: null },
    ],
  },
  attach: { terminal: false },
  resize: {},
  pause: {},
  resume: {},
  update: {},
  stats: {
    readAtMs: 1_700_000_001_000,
    cpu: {
      totalNs: 3_000_000,
      userNs: 2_000_000,
      systemNs: 1_000_000,
      throttledNs: 0,
      periods: 0,
      throttledPeriods: 0,
    },
    systemCpuNs: 9_000_000_000,
    onlineCpus: 2,
    memory: { usageBytes: 2_097_152, inactiveFileBytes: 4096, limitBytes: 67_108_864 },
    pids: { current: 2, limit: 100 },
    block: { readBytes: 4096, writeBytes: 0, reads: 1, writes: 0 },
    networks: [
      {
        name: "eth0",
        rxBytes: 1500,
        rxPackets: 10,
        rxErrors: 0,
        rxDropped: 0,
        txBytes: 700,
        txPackets: 7,
        txErrors: 0,
        txDropped: 0,
      },
    ],
  },
  logs: {},
  diff: { digest: gzipDigest, size: 512, ...tar },
  export: { digest: tar.diffId, size: tar.bytes, ...tar },
  commit: tar,
};

const failures: readonly NativeReply[] = [
  {
    id: 3,
    ok: false,
    code: "invalid",
    errno: 2,
    message: 'exec: "nope": executable file not found in $PATH',
    doing: 'starting process "nope"',
  },
  {
    id: 8,
    ok: false,
    code: "not-found",
    errno: null,
    message: "No such container: x",
    doing: "looking for container x",
  },
];

const events: readonly NativeEvent[] = [
  {
    event: "exit",
    containerId,
    exitCode: 137,
    exitCodeKnown: false,
    signal: null,
    oomKilled: false,
    finishedAtMs: 1_700_000_001_000,
  },
  { event: "oom", containerId },
  { event: "exec-exit", containerId, execId: "e1", ...execExit },
  { event: "health", containerId, status: "unhealthy" },
];

function byId(frames: readonly unknown[]): readonly unknown[] {
  const key = (frame: unknown) => {
    const { id, ok } = frame as NativeReply;
    return id * 2 + (ok ? 0 : 1);
  };
  return [...frames].sort((a, b) => key(a) - key(b));
}

test("every request that this side can make is in requests.json, and nothing else is", () => {
  expect(sent(Object.values(requests))).toEqual(fixture("requests.json"));
});

test("every answer of every call is in replies.json as this side reads it", () => {
  const successes: readonly NativeReply[] = Object.values(requests).map((request) => ({
    id: request.id,
    ok: true,
    value: results[request.call],
  }));
  expect(byId(fixture("replies.json"))).toEqual(sent(byId([...successes, ...failures])));
});

test("every event is in events.json as this side reads it", () => {
  expect(fixture("events.json")).toEqual(sent(events));
});
