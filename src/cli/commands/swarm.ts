/** `shoal swarm`: init, join, join-token, leave, update, ca, unlock-key, unlock. */
import { failure } from "../../lib/errors.ts";
import { type Cli, say } from "../cli.ts";
import type { CommandSpec, GroupSpec } from "../command.ts";
import type { ClusterSpecJson, InfoJson, NodeJson, SwarmJson } from "../engine-types.ts";
import type { FlagSpec, Flags } from "../flag.ts";

const advertiseFlag: FlagSpec = {
  name: "advertise-addr",
  kind: "string",
  help: 'Advertised address (format: "<ip|interface>[:port]")',
};
const listenFlag: FlagSpec = {
  name: "listen-addr",
  kind: "string",
  shown: "node-addr",
  help: 'Listen address (format: "<ip|interface>[:port]") (default 0.0.0.0:2377)',
};
const dataPathFlag: FlagSpec = {
  name: "data-path-addr",
  kind: "string",
  help: 'Address or interface to use for data path traffic (format: "<ip|interface>")',
};
const availabilityFlag: FlagSpec = {
  name: "availability",
  kind: "string",
  help: 'Availability of the node ("active", "pause", "drain")',
  default: "active",
};
const specFlags: readonly FlagSpec[] = [
  {
    name: "cert-expiry",
    kind: "duration",
    help: "Validity period for node certificates (ns|us|ms|s|m|h)",
    default: "2160h0m0s",
  },
  {
    name: "dispatcher-heartbeat",
    kind: "duration",
    help: "Dispatcher heartbeat period (ns|us|ms|s|m|h)",
    default: "5s",
  },
  {
    name: "external-ca",
    kind: "list",
    shown: "external-ca",
    help: "Specifications of one or more certificate signing endpoints",
  },
  { name: "max-snapshots", kind: "uint", help: "Number of additional Raft snapshots to retain" },
  {
    name: "snapshot-interval",
    kind: "uint",
    help: "Number of log entries between Raft snapshots",
    default: "10000",
  },
  { name: "task-history-limit", kind: "int", help: "Task history retention limit", default: "5" },
];
const defaultListen = "0.0.0.0:2377";

const init: CommandSpec = {
  name: "init",
  usage: "[OPTIONS]",
  summary: "Initialize a swarm",
  arguments: [0, 0],
  flags: [
    advertiseFlag,
    {
      name: "autolock",
      kind: "bool",
      help: "Enable manager autolocking (requiring an unlock key to start a stopped manager)",
    },
    availabilityFlag,
    dataPathFlag,
    {
      name: "data-path-port",
      kind: "uint",
      shown: "uint32",
      help: "Port number to use for data path traffic (1024 - 49151). If no value is set or is set to 0, the default port (4789) is used.",
    },
    {
      name: "default-addr-pool",
      kind: "list",
      shown: "ipNetSlice",
      help: "default address pool in CIDR format (default [])",
    },
    {
      name: "default-addr-pool-mask-length",
      kind: "uint",
      shown: "uint32",
      help: "default address pool subnet mask length",
      default: "24",
    },
    {
      name: "force-new-cluster",
      kind: "bool",
      help: "Force create a new cluster from current state",
    },
    listenFlag,
    ...specFlags,
  ],
  run: async ({ cli, flags }) => {
    const engine = cli.engine();
    const spec: ClusterSpecJson = {
      Labels: null,
      Orchestration: {},
      Raft: { ElectionTick: 0, HeartbeatTick: 0 },
      Dispatcher: {},
      CAConfig: {},
      TaskDefaults: {},
      EncryptionConfig: { AutoLockManagers: flags.on("autolock") },
    };
    changeSpec(spec, flags);
    const nodeId = await engine.json<string>("POST", "/swarm/init", {
      body: {
        ListenAddr: flags.text("listen-addr") ?? defaultListen,
        AdvertiseAddr: flags.text("advertise-addr") ?? "",
        DataPathAddr: flags.text("data-path-addr") ?? "",
        DataPathPort: flags.number("data-path-port") ?? 0,
        ForceNewCluster: flags.on("force-new-cluster"),
        Spec: spec,
        AutoLockManagers: flags.on("autolock"),
        Availability: availability(flags),
        DefaultAddrPool: flags.list("default-addr-pool").flatMap((pools) => pools.split(",")),
        SubnetSize: flags.number("default-addr-pool-mask-length") ?? 24,
      },
    });
    say(cli, `Swarm initialized: current node (${nodeId}) is now a manager.\n`);
    await sayJoinCommand(cli, nodeId, "worker");
    say(
      cli,
      "To add a manager to this swarm, run 'docker swarm join-token manager' and follow the instructions.",
    );
    if (flags.on("autolock")) await sayUnlockKey(cli);
    return 0;
  },
};

const join: CommandSpec = {
  name: "join",
  usage: "[OPTIONS] HOST:PORT",
  summary: "Join a swarm as a node and/or manager",
  arguments: [1, 1],
  flags: [
    advertiseFlag,
    availabilityFlag,
    dataPathFlag,
    listenFlag,
    { name: "token", kind: "string", help: "Token for entry into the swarm" },
  ],
  run: async ({ cli, args, flags }) => {
    const engine = cli.engine();
    await engine.json("POST", "/swarm/join", {
      body: {
        ListenAddr: flags.text("listen-addr") ?? defaultListen,
        AdvertiseAddr: flags.text("advertise-addr") ?? "",
        DataPathAddr: flags.text("data-path-addr") ?? "",
        RemoteAddrs: [args[0] ?? ""],
        JoinToken: flags.text("token") ?? "",
        Availability: availability(flags),
      },
    });
    const info = await engine.json<InfoJson>("GET", "/info");
    const role = info.Swarm?.ControlAvailable === true ? "manager" : "worker";
    say(cli, `This node joined a swarm as a ${role}.`);
    return 0;
  },
};

const joinToken: CommandSpec = {
  name: "join-token",
  usage: "[OPTIONS] (worker|manager)",
  summary: "Manage join tokens",
  arguments: [1, 1],
  flags: [
    { name: "quiet", short: "q", kind: "bool", help: "Only display token" },
    { name: "rotate", kind: "bool", help: "Rotate join token" },
  ],
  run: async ({ cli, args, flags }) => {
    const role = args[0] ?? "";
    if (role !== "worker" && role !== "manager") throw failure("invalid", `unknown role ${role}`);
    const engine = cli.engine();
    if (flags.on("rotate")) {
      const swarm = await engine.json<SwarmJson>("GET", "/swarm");
      await postSpec(cli, swarm, swarm.Spec, {
        worker: role === "worker",
        manager: role === "manager",
      });
      if (!flags.on("quiet")) say(cli, `Successfully rotated ${role} join token.\n`);
    }
    if (flags.on("quiet")) {
      say(cli, tokenOf(await engine.json<SwarmJson>("GET", "/swarm"), role));
      return 0;
    }
    const info = await engine.json<InfoJson>("GET", "/info");
    await sayJoinCommand(cli, info.Swarm?.NodeID ?? "", role);
    return 0;
  },
};

const leave: CommandSpec = {
  name: "leave",
  usage: "[OPTIONS]",
  summary: "Leave the swarm",
  arguments: [0, 0],
  flags: [
    {
      name: "force",
      short: "f",
      kind: "bool",
      help: "Force this node to leave the swarm, ignoring warnings",
    },
  ],
  run: async ({ cli, flags }) => {
    await cli
      .engine()
      .json("POST", "/swarm/leave", { query: { force: flags.on("force") ? "1" : null } });
    say(cli, "Node left the swarm.");
    return 0;
  },
};

const update: CommandSpec = {
  name: "update",
  usage: "[OPTIONS]",
  summary: "Update the swarm",
  arguments: [0, 0],
  flags: [
    { name: "autolock", kind: "bool", help: "Change manager autolocking setting (true|false)" },
    ...specFlags,
  ],
  run: async ({ cli, flags }) => {
    const swarm = await cli.engine().json<SwarmJson>("GET", "/swarm");
    const wasLocked = swarm.Spec.EncryptionConfig.AutoLockManagers;
    const spec = structuredClone(swarm.Spec);
    changeSpec(spec, flags);
    if (flags.has("autolock")) spec.EncryptionConfig = { AutoLockManagers: flags.on("autolock") };
    await postSpec(cli, swarm, spec, { worker: false, manager: false });
    say(cli, "Swarm updated.");
    if (flags.on("autolock") && !wasLocked) await sayUnlockKey(cli);
    return 0;
  },
};

const ca: CommandSpec = {
  name: "ca",
  usage: "[OPTIONS]",
  summary: "Display and rotate the root CA",
  arguments: [0, 0],
  flags: [
    {
      name: "rotate",
      kind: "bool",
      help: "Rotate the swarm CA - if no certificate or key are provided, new ones will be generated",
    },
  ],
  run: async ({ cli, flags }) => {
    if (flags.on("rotate")) {
      throw failure(
        "not-implemented",
        "swarm ca: --rotate is not supported by this version of shoal",
      );
    }
    const swarm = await cli.engine().json<SwarmJson>("GET", "/swarm");
    const root = swarm.TLSInfo?.TrustRoot ?? "";
    if (root === "") throw failure("not-found", "No CA information available");
    say(cli, root.trimEnd());
    return 0;
  },
};

const unlockKey: CommandSpec = {
  name: "unlock-key",
  usage: "[OPTIONS]",
  summary: "Manage the unlock key",
  arguments: [0, 0],
  flags: [{ name: "quiet", short: "q", kind: "bool", help: "Only display token" }],
  run: async ({ cli, flags }) => {
    const { UnlockKey } = await cli.engine().json<{ UnlockKey: string }>("GET", "/swarm/unlockkey");
    if (UnlockKey === "") throw failure("not-found", "no unlock key is set");
    if (flags.on("quiet")) say(cli, UnlockKey);
    else cli.out.write(unlockText(UnlockKey));
    return 0;
  },
};

export const swarmGroup: GroupSpec = {
  name: "swarm",
  summary: "Manage Swarm",
  commands: [ca, init, join, joinToken, leave, unlockKey, update],
};

function availability(flags: Flags): string {
  const text = flags.text("availability") ?? "";
  if (text !== "" && !["active", "pause", "drain"].includes(text)) {
    throw failure(
      "invalid",
      `invalid availability ${JSON.stringify(text)}, only active, pause and drain are supported`,
    );
  }
  return text;
}

/** Puts into the spec what the flags say. */
function changeSpec(spec: ClusterSpecJson, flags: Flags): void {
  if (flags.has("external-ca")) {
    throw failure(
      "not-implemented",
      "swarm: --external-ca is not supported by this version of shoal",
    );
  }
  const history = flags.number("task-history-limit");
  if (history !== null)
    spec.Orchestration = { ...spec.Orchestration, TaskHistoryRetentionLimit: history };
  const heartbeat = flags.ns("dispatcher-heartbeat");
  if (heartbeat !== null) spec.Dispatcher = { ...spec.Dispatcher, HeartbeatPeriod: heartbeat };
  const expiry = flags.ns("cert-expiry");
  if (expiry !== null) spec.CAConfig = { ...spec.CAConfig, NodeCertExpiry: expiry };
  const interval = flags.number("snapshot-interval");
  if (interval !== null) spec.Raft = { ...spec.Raft, SnapshotInterval: interval };
  const snapshots = flags.number("max-snapshots");
  if (snapshots !== null) spec.Raft = { ...spec.Raft, KeepOldSnapshots: snapshots };
}

async function postSpec(
  cli: Cli,
  swarm: SwarmJson,
  spec: ClusterSpecJson,
  rotate: { readonly worker: boolean; readonly manager: boolean },
): Promise<void> {
  await cli.engine().json("POST", "/swarm/update", {
    query: {
      version: String(swarm.Version.Index),
      rotateWorkerToken: String(rotate.worker),
      rotateManagerToken: String(rotate.manager),
      rotateManagerUnlockKey: "false",
    },
    body: spec,
  });
}

async function sayJoinCommand(cli: Cli, nodeId: string, role: "worker" | "manager"): Promise<void> {
  const node = await cli.engine().json<NodeJson>("GET", `/nodes/${nodeId}`);
  const swarm = await cli.engine().json<SwarmJson>("GET", "/swarm");
  if (!node.ManagerStatus) return;
  say(cli, `To add a ${role} to this swarm, run the following command:\n`);
  say(
    cli,
    `    docker swarm join --token ${tokenOf(swarm, role)} ${node.ManagerStatus.Addr ?? ""}\n`,
  );
}
function tokenOf(swarm: SwarmJson, role: "worker" | "manager"): string {
  return role === "worker" ? swarm.JoinTokens.Worker : swarm.JoinTokens.Manager;
}

async function sayUnlockKey(cli: Cli): Promise<void> {
  const { UnlockKey } = await cli.engine().json<{ UnlockKey: string }>("GET", "/swarm/unlockkey");
  cli.out.write(unlockText(UnlockKey));
}
function unlockText(key: string): string {
  return `To unlock a swarm manager after it restarts, run the \`docker swarm unlock\`\ncommand and provide the following key:\n\n    ${key}\n\nPlease remember to store this key in a password manager, since without it you\nwill not be able to restart the manager.\n`;
}
