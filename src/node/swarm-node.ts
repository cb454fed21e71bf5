/**
 * This node's place in a swarm: none, joining, worker or manager; and the ways between them.
 * One thing at a time: init, join, leave, promotion and demotion wait for each other.
 */
import type { InitRequest, JoinSwarmRequest, LocalSwarm } from "../api/backend.ts";
import { certificateAuthority, createNodeKey, expiryOf, identityOf } from "../io/certificates.ts";
import { openSession, openSocket, requestRenewal } from "../io/cluster-client.ts";
import {
  type ClusterListener,
  listenForCluster,
  type TlsIdentity,
} from "../io/cluster-listener.ts";
import { assert, present } from "../lib/assert.ts";
import { after, type Clock } from "../lib/clock.ts";
import { failure, messageOf, ShoalError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { digestOfToken } from "../manager/ca/join-token.ts";
import { firstSubnet, validatePools } from "../manager/control/pools.ts";
import { createCluster } from "../manager/control/swarm.ts";
import { certificateRenewFraction } from "../manager/limits.ts";
import type { Manager } from "../manager/manager.ts";
import {
  defaultAddressPool,
  defaultClusterSpec,
  defaultDataPathPort,
  defaultSubnetSize,
  nsPerMs,
} from "../model/defaults.ts";
import type { NodeDescription } from "../model/node.ts";
import type { Channel } from "../wire/channel.ts";
import { clusterPaths, type JoinRequest, type ToAgent, type ToManager } from "../wire/session.ts";
import { resolveAdvertise, resolveDataPath, resolveListen } from "./addresses.ts";
import { clusterHandlers } from "./cluster-handlers.ts";
import { joinThroughAny } from "./join.ts";
import { type ManagerParts, openManager } from "./manager-parts.ts";
import type { SwarmFiles, SwarmState } from "./swarm-state.ts";
import { alreadyText, leaveText, notManagerText, workerText } from "./texts.ts";

/** How long init and join wait for the node to be working before they say so. */
const readyTimeoutMs = 20_000;
/** Least wait before a failed renewal is tried again. */
const renewAgainMs = 5_000;

/** What the worker side of this node does for its swarm. */
export interface AgentHandle {
  /** Takes up what ran before, then looks for a manager. */
  start(): Promise<void>;
  /** Resolves once the cluster has on record that this node is ready. */
  readonly connected: Promise<void>;
  /** The process ends; containers go on. */
  stop(): Promise<void>;
  /** The node leaves the swarm: its tasks are ended and removed first. */
  leave(): Promise<void>;
}
export interface AgentOptions {
  readonly nodeId: string;
  readonly clusterAddress: string;
  readonly dataPathAddress: string;
  readonly databaseDirectory: string;
  /** Where managers may be, best first. */
  readonly managers: readonly string[];
  readonly connect: (address: string) => Promise<Channel<ToManager, ToAgent>>;
  readonly onMembership: (message: Extract<ToAgent, { kind: "membership" }>) => void;
  /** The cluster does not know this node any more. */
  readonly onRemoved: () => void;
}
export interface SwarmNodeOptions {
  readonly files: SwarmFiles;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly describe: (dataPathAddress: string) => Promise<NodeDescription>;
  /** Reads the worker's database and does nothing yet. Throws naming it when it is damaged. */
  readonly openAgent: (options: AgentOptions) => Promise<AgentHandle>;
  readonly taskLogs: (query: URLSearchParams, signal: AbortSignal) => AsyncIterable<string>;
  /** The manager's log cannot be written: the process must end. */
  readonly onFatal: (error: Error) => void;
}
export interface SwarmNode {
  /** Goes on with the swarm that this node was in. Throws naming the file when what it kept is damaged. */
  resume(): Promise<void>;
  init(request: InitRequest): Promise<string>;
  join(request: JoinSwarmRequest): Promise<void>;
  leave(force: boolean): Promise<void>;
  local(): LocalSwarm;
  /** This node's manager. Throws docker's "This node is not a swarm manager. …". */
  manager(): Manager;
  managerOrNull(): Manager | null;
  /** For calls to other nodes. */
  identity(): TlsIdentity;
  state(): SwarmState | null;
  /** Told when a manager was opened or closed here. */
  onManager(observe: (manager: Manager | null) => void): void;
  stop(): Promise<void>;
}

interface Active {
  state: SwarmState;
  identity: TlsIdentity;
  listener: ClusterListener | null;
  parts: ManagerParts | null;
  agent: AgentHandle | null;
  forgetRenewal: () => void;
}

/** The node's swarm side; resume() or init() or join() sets it going. */
export function createSwarmNode(options: SwarmNodeOptions): SwarmNode {
  const { files, clock, random, log } = options;
  let active: Active | null = null;
  let joining = false;
  let queue: Promise<unknown> = Promise.resolve();
  let stopping = false;
  const managerObservers: ((manager: Manager | null) => void)[] = [];

  /** Runs one change of this node's place after the others. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = queue.then(work);
    queue = turn.catch(() => {});
    return turn;
  }

  const handlers = clusterHandlers({
    caPem: () => present(active, "a swarm").identity.caPem,
    parts: () => active?.parts ?? null,
    anyManager: () => {
      const state = active?.state;
      return state?.managers.find((address) => address !== state.clusterAddress) ?? null;
    },
    taskLogs: options.taskLogs,
  });

  async function startListener(node: Active): Promise<void> {
    const { listenHost, listenPort, clusterId } = node.state;
    node.listener = await listenForCluster(
      listenHost,
      listenPort,
      node.identity,
      clusterId,
      handlers,
      log,
    );
  }

  async function startManager(node: Active, founding: boolean): Promise<Manager> {
    await openParts(node, founding);
    return runManager(node);
  }

  /** Reads the manager's log; nothing runs yet. */
  async function openParts(node: Active, founding: boolean): Promise<void> {
    assert(node.parts === null, "a node has one manager");
    const raftId = present(node.state.raftId, "a manager's raft id");
    node.parts = await openManager({
      directory: files.raftDirectory(raftId),
      keyFile: files.keyFile,
      raftId,
      founding,
      begun: node.state.raftBegun,
      dial: (address) => openSocket(address, clusterPaths.raft, node.identity),
      clock,
      random,
      log,
      onFatal: options.onFatal,
    });
    if (founding) return;
    // Durable before it votes for the first time.
    if (!node.state.raftBegun) await remember(node, { ...node.state, raftBegun: true });
  }

  function runManager(node: Active): Manager {
    const { manager } = present(node.parts, "an opened manager");
    for (const observe of managerObservers) observe(manager);
    manager.start();
    return manager;
  }

  async function startAgent(node: Active): Promise<void> {
    await openAgent(node);
    await node.agent?.start();
  }

  async function openAgent(node: Active): Promise<void> {
    node.agent = await options.openAgent({
      nodeId: node.state.nodeId,
      clusterAddress: node.state.clusterAddress,
      dataPathAddress: node.state.dataPathAddress,
      databaseDirectory: files.workerDirectory,
      managers: node.state.managers,
      connect: (address) => openSession(nearest(node.state, address), node.identity),
      onMembership: (message) => {
        inTurn(() => follow(node, message)).catch((error: unknown) =>
          log.warn({ error: messageOf(error) }, "following the cluster's membership failed"),
        );
      },
      onRemoved: () =>
        log.error(
          {},
          "this node was removed from the swarm; `docker swarm leave` clears what is left of it",
        ),
    });
  }

  /** Takes in what the managers say: where they are, and what this node is to be. */
  async function follow(
    node: Active,
    message: Extract<ToAgent, { kind: "membership" }>,
  ): Promise<void> {
    if (active !== node || stopping) return;
    const managers = message.managers.length > 0 ? message.managers : node.state.managers;
    if (managers.join() !== node.state.managers.join()) {
      await remember(node, { ...node.state, managers });
    }
    const { role, raftId } = message;
    if (role !== node.state.role || raftId !== node.state.raftId) {
      log.info({ role, raftId }, role === "manager" ? "promoted to manager" : "demoted to worker");
      await stopManager(node);
      // Durable before anything is undone: under its old Raft id this node must never run again.
      await remember(node, { ...node.state, role, raftId, raftBegun: false });
      await files.removeOtherLogs(raftId);
    }
    await settleRole(node);
  }

  /** Makes certificate and manager what the role says; tried again until a manager has given the certificate. */
  async function settleRole(node: Active): Promise<void> {
    try {
      if (identityOf(node.identity.certificatePem)?.role !== node.state.role) await renew(node);
      if (node.state.role === "manager" && node.parts === null) await startManager(node, false);
    } catch (error) {
      if (!(error instanceof ShoalError && error.code === "unavailable")) throw error;
      log.warn({ error: error.message }, "taking up this node's role is tried again");
      node.forgetRenewal();
      node.forgetRenewal = clock.wakeAt(after(clock.now(), renewAgainMs), () => {
        inTurn(() => (active === node ? settleRole(node) : Promise.resolve())).catch(
          options.onFatal,
        );
      });
    }
  }

  async function stopManager(node: Active): Promise<void> {
    const parts = node.parts;
    if (parts === null) return;
    node.parts = null;
    for (const observe of managerObservers) observe(null);
    await parts.stop();
  }

  async function remember(node: Active, state: SwarmState): Promise<void> {
    await files.saveState(state);
    node.state = state;
  }

  /** Gets a certificate for a new key, from any manager that answers. */
  async function renew(node: Active): Promise<void> {
    const key = await createNodeKey();
    const failures: string[] = [];
    for (const address of node.state.managers) {
      try {
        const reply = await requestRenewal(nearest(node.state, address), node.identity, key.csrPem);
        const identity = {
          ...node.identity,
          certificatePem: reply.certificatePem,
          keyPem: key.keyPem,
        };
        await files.saveIdentity(identity);
        node.identity = identity;
        node.listener?.setIdentity(identity);
        scheduleRenewal(node);
        return;
      } catch (error) {
        failures.push(messageOf(error));
      }
    }
    throw failure(
      "unavailable",
      `no manager renewed this node's certificate: ${failures.join("; ")}`,
    );
  }

  function scheduleRenewal(node: Active): void {
    node.forgetRenewal();
    const left = expiryOf(node.identity.certificatePem) - clock.now();
    const wait = Math.max(left * certificateRenewFraction, renewAgainMs);
    node.forgetRenewal = clock.wakeAt(after(clock.now(), wait), () => {
      inTurn(() => renew(node)).catch((error: unknown) => {
        log.warn({ error: messageOf(error) }, "renewing this node's certificate failed");
        scheduleRenewal(node);
      });
    });
  }

  async function close(node: Active): Promise<void> {
    node.forgetRenewal();
    await node.agent?.stop();
    await stopManager(node);
    await node.listener?.close();
  }

  function blank(state: SwarmState, identity: TlsIdentity): Active {
    return { state, identity, listener: null, parts: null, agent: null, forgetRenewal: () => {} };
  }

  /** Starts everything for a node whose state is saved; takes it back when a part cannot start. */
  async function begin(node: Active, start: () => Promise<void>): Promise<void> {
    active = node;
    try {
      await start();
      scheduleRenewal(node);
    } catch (error) {
      active = null;
      await close(node);
      await files.erase();
      throw error;
    }
  }

  return {
    resume: () =>
      inTurn(async () => {
        const saved = await files.load();
        if (saved === null) return;
        const node = blank(saved.state, saved.identity);
        const certified = identityOf(node.identity.certificatePem)?.role === node.state.role;
        active = node;
        try {
          await files.removeOtherLogs(node.state.raftId);
          // All that may be damaged is read before anything runs: a node never starts by half.
          if (certified && node.state.role === "manager") await openParts(node, false);
          await openAgent(node);
          await startListener(node);
        } catch (error) {
          active = null;
          await close(node);
          throw error;
        }
        if (node.parts !== null) runManager(node);
        await node.agent?.start();
        scheduleRenewal(node);
        if (!certified) await settleRole(node);
      }),

    init: (request) =>
      inTurn(async () => {
        if (active !== null) throw failure("unavailable", alreadyText);
        refuseUnsupported(request);
        const listen = resolveListen(request.listenAddress);
        const advertise = resolveAdvertise(request.advertiseAddress, listen);
        const dataPathAddress = resolveDataPath(request.dataPathAddress, advertise);
        const description = await options.describe(dataPathAddress);
        const pools = request.addressPools.length > 0 ? request.addressPools : [defaultAddressPool];
        const subnetSize = request.subnetSize || defaultSubnetSize;
        validatePools(request.addressPools, subnetSize, description.routes);
        const now = clock.now();
        const root = await certificateAuthority.createRoot(now);
        const key = await createNodeKey();
        const nodeId = random.id();
        const clusterId = random.id();
        const spec = { ...defaultClusterSpec, ...request.spec };
        const certificatePem = await certificateAuthority.sign(
          root,
          key.csrPem,
          { nodeId, clusterId, role: "manager" },
          spec.nodeCertExpiryNs / nsPerMs,
          now,
        );
        const clusterAddress = `${advertise.host}:${advertise.port}`;
        const dataPathPort = request.dataPathPort || defaultDataPathPort;
        const state: SwarmState = {
          version: 1,
          nodeId,
          clusterId,
          role: "manager",
          raftId: random.id(),
          raftBegun: true,
          managers: [clusterAddress],
          listenHost: listen.host,
          listenPort: listen.port,
          clusterAddress,
          dataPathAddress,
          dataPathPort,
        };
        const node = blank(state, {
          caPem: root.certificatePem,
          certificatePem,
          keyPem: key.keyPem,
        });
        await begin(node, async () => {
          await startListener(node);
          await files.erase();
          await files.saveIdentity(node.identity);
          const manager = await startManager(node, true);
          const ingressSubnet = firstSubnet(pools, subnetSize, description.routes);
          const { availability } = request;
          const joiner = {
            id: nodeId,
            role: "manager" as const,
            availability,
            address: advertise.host,
            clusterAddress,
            raftId: state.raftId,
          };
          const cluster = {
            id: clusterId,
            spec,
            root,
            addressPools: pools,
            subnetSize,
            dataPathPort,
            ingressSubnet,
          };
          await manager.raft.propose([createCluster(cluster, joiner, random)]);
          await files.saveState(state);
          await startAgent(node);
          await ready(node, clock);
        });
        return nodeId;
      }),

    join: (request) =>
      inTurn(async () => {
        if (active !== null) throw failure("unavailable", alreadyText);
        if (request.remoteAddresses.length === 0) {
          throw failure("invalid", "at least 1 RemoteAddr is required to join");
        }
        if (request.joinToken === "")
          throw failure("invalid", "join token is required to join a swarm");
        const digest = digestOfToken(request.joinToken);
        const listen = resolveListen(request.listenAddress);
        const key = await createNodeKey();
        joining = true;
        try {
          const advertised =
            request.advertiseAddress === ""
              ? { host: listen.host, port: listen.port }
              : resolveAdvertise(request.advertiseAddress, listen);
          const body: JoinRequest = {
            token: request.joinToken.trim(),
            csrPem: key.csrPem,
            availability: request.availability,
            clusterAddress: `${advertised.host}:${advertised.port}`,
            hostname: "",
          };
          const reply = await joinThroughAny(request.remoteAddresses, digest, body);
          const host = advertised.host === "0.0.0.0" ? reply.seenAddress : advertised.host;
          const state: SwarmState = {
            version: 1,
            nodeId: reply.nodeId,
            clusterId: reply.clusterId,
            role: reply.role,
            raftId: reply.raftId,
            raftBegun: false,
            managers: reply.managers,
            listenHost: listen.host,
            listenPort: listen.port,
            clusterAddress: `${host}:${advertised.port}`,
            dataPathAddress: resolveDataPath(request.dataPathAddress, {
              host,
              port: advertised.port,
            }),
            dataPathPort: defaultDataPathPort,
          };
          const identity = {
            caPem: reply.caPem,
            certificatePem: reply.certificatePem,
            keyPem: key.keyPem,
          };
          const node = blank(state, identity);
          await begin(node, async () => {
            await startListener(node);
            await files.erase();
            await files.saveIdentity(identity);
            await files.saveState(state);
            if (state.role === "manager") await startManager(node, false);
            await startAgent(node);
            await ready(node, clock);
          });
        } finally {
          joining = false;
        }
      }),

    leave: (force) =>
      inTurn(async () => {
        const node = active;
        if (node === null) throw failure("unavailable", "This node is not part of a swarm");
        if (node.parts !== null && !force)
          throw failure("unavailable", leaveText(node.parts.manager));
        active = null;
        await node.agent?.leave();
        node.agent = null;
        await close(node);
        await files.erase();
        log.info({ nodeId: node.state.nodeId }, "left the swarm");
      }),

    local(): LocalSwarm {
      const node = active;
      const manager = node?.parts?.manager ?? null;
      const rows = manager === null ? [] : [...manager.store.view().table("nodes").all()];
      const [cluster] = manager === null ? [] : manager.store.view().table("clusters").all();
      return {
        state: joining ? "pending" : node === null ? "inactive" : "active",
        nodeId: node?.state.nodeId ?? "",
        nodeAddress: node?.state.clusterAddress.replace(/:\d+$/, "") ?? "",
        error: "",
        controlAvailable: manager !== null,
        managers:
          manager === null
            ? (node?.state.managers ?? []).map((address) => ({ nodeId: "", address }))
            : rows.flatMap((row) =>
                row.manager === null ? [] : [{ nodeId: row.id, address: row.manager.address }],
              ),
        nodeCount: rows.length,
        managerCount: rows.filter((row) => row.manager !== null).length,
        cluster: cluster ?? null,
      };
    },
    manager() {
      const manager = active?.parts?.manager;
      if (manager !== undefined) return manager;
      throw failure("unavailable", active === null ? notManagerText : workerText);
    },
    managerOrNull: () => active?.parts?.manager ?? null,
    identity: () => present(active, "a swarm").identity,
    state: () => active?.state ?? null,
    onManager(observe) {
      managerObservers.push(observe);
    },
    stop: () =>
      inTurn(async () => {
        stopping = true;
        const node = active;
        active = null;
        if (node !== null) await close(node);
      }),
  };
}

/** Where to reach `address` from here: this node itself at its own socket, for its advertised address may be known only outside. */
function nearest(state: SwarmState, address: string): string {
  if (address !== state.clusterAddress) return address;
  const host = state.listenHost === "0.0.0.0" ? "127.0.0.1" : state.listenHost;
  return `${host}:${state.listenPort}`;
}

/** Waits until the cluster has on record that this node is ready, and, on a manager, until the cluster's state is here. */
async function ready(node: Active, clock: Clock): Promise<void> {
  const manager = node.parts?.manager;
  const state =
    manager === undefined
      ? Promise.resolve()
      : new Promise<void>((resolve) => {
          const look = () => [...manager.store.view().table("clusters").all()].length > 0;
          if (look()) return resolve();
          const unwatch = manager.store.watch(() => {
            if (!look()) return;
            unwatch();
            resolve();
          });
        });
  let forget: () => void = () => {};
  const timeout = new Promise<never>((_, reject) => {
    forget = clock.wakeAt(after(clock.now(), readyTimeoutMs), () =>
      reject(
        failure(
          "unavailable",
          `Timeout was reached before node joined: no manager answered at ${node.state.managers.join(", ")} in ${readyTimeoutMs / 1000} s; check that TCP port 2377 is open between the nodes`,
        ),
      ),
    );
  });
  try {
    await Promise.race([Promise.all([node.agent?.connected, state]), timeout]);
  } finally {
    forget();
  }
}

function refuseUnsupported(request: InitRequest): void {
  if (request.autoLockManagers) {
    throw failure("not-implemented", "swarm init: --autolock is not supported yet");
  }
  if (request.forceNewCluster) {
    throw failure("not-implemented", "swarm init: --force-new-cluster is not supported yet");
  }
}
