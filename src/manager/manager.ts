/** One manager: its Raft, its store, and, while it leads, the controllers and the sessions of all nodes. */
import { assert } from "../lib/assert.ts";
import { after, type Clock } from "../lib/clock.ts";
import { failure, messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { nsPerMs } from "../model/defaults.ts";
import type { Node, NodeRole } from "../model/node.ts";
import type { Store } from "../store/types.ts";
import type { Channel } from "../wire/channel.ts";
import type {
  JoinReply,
  JoinRequest,
  RenewReply,
  RenewRequest,
  ToAgent,
  ToManager,
} from "../wire/session.ts";
import { allocatorController } from "./allocator/allocator.ts";
import type { CertificateAuthority, Identity } from "./ca/authority.ts";
import { roleOfToken } from "./ca/join-token.ts";
import { commit, put, withoutMeta } from "./control/commit.ts";
import { joinNode, theCluster } from "./control/swarm.ts";
import type { Controller } from "./controller.ts";
import { type ControllerLoop, createControllerLoop } from "./controller-loop.ts";
import { createDispatcher, type Dispatcher } from "./dispatcher/dispatcher.ts";
import { membershipLookMs } from "./limits.ts";
import { orchestratorControllers } from "./orchestrator/controllers.ts";
import { placementController } from "./placement/placement.ts";
import { nextMembershipStep } from "./raft-membership.ts";
import type { RaftNode } from "./raft-node.ts";
import { createRolesController } from "./roles.ts";

export interface ManagerOptions {
  readonly store: Store;
  readonly raft: RaftNode;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly authority: CertificateAuthority;
}
export interface Manager {
  readonly store: Store;
  readonly raft: RaftNode;
  start(): void;
  stop(): Promise<void>;
  /** A node's agent called; a follower sends it on to the leader. */
  acceptSession(channel: Channel<ToAgent, ToManager>, peer: Identity, address: string): void;
  /** Takes a node in that shows a good token. Any manager can. */
  join(request: JoinRequest, seenAddress: string): Promise<JoinReply>;
  /** A new certificate with the role that the rows give the node now. */
  renew(request: RenewRequest, peer: Identity): Promise<RenewReply>;
  /** `host:port` of the leader as far as known here. */
  leaderAddress(): string | null;
  /** The dispatcher while this manager leads. */
  dispatcher(): Dispatcher | null;
}

/** What this node may be now: a demoted manager stays one until Raft let it go. */
export function effectiveRole(node: Pick<Node, "manager">): NodeRole {
  return node.manager === null ? "worker" : "manager";
}

/** Wires a manager; nothing happens before start(). */
export function createManager(options: ManagerOptions): Manager {
  const { store, raft, clock, random, log, authority } = options;
  let leadership: { readonly loop: ControllerLoop; readonly dispatcher: Dispatcher } | null = null;
  let forgetLook: () => void = () => {};
  let running = false;
  const subscriptions: (() => void)[] = [];

  const members = (): ReadonlySet<string> => {
    const { voters, outgoing, learners, learnersNext } = raft.status().membership;
    return new Set([...voters, ...outgoing, ...learners, ...learnersNext]);
  };
  const controllers: readonly Controller[] = [
    ...orchestratorControllers,
    allocatorController,
    placementController,
    createRolesController(members),
  ];

  function followLeadership(): void {
    const leads = running && raft.isLeader();
    if (leads && leadership === null) {
      const parts = { store, proposer: raft, clock, random, log };
      const loop = createControllerLoop({ ...parts, controllers });
      const dispatcher = createDispatcher(parts);
      leadership = { loop, dispatcher };
      loop.start();
      dispatcher.start();
      log.info({ term: raft.status().term }, "this manager leads");
    } else if (!leads && leadership !== null) {
      const { loop, dispatcher } = leadership;
      leadership = null;
      loop.stop();
      dispatcher.stop(leaderAddress());
    }
  }

  /** The leader looks at Raft's membership again and again: a learner catches up without any row changing. */
  function lookAtMembership(): void {
    if (!running) return;
    if (raft.isLeader()) {
      const step = nextMembershipStep(store.view(), raft.status());
      if (step.kind === "change") {
        const result = raft.proposeMembership(step.change);
        if (result.ok) log.info({ change: step.change }, "raft membership change proposed");
        else log.debug({ reason: result.reason }, "raft membership change waits");
      } else if (step.kind === "transfer") raft.transferLeadership(step.to);
    }
    forgetLook = clock.wakeAt(after(clock.now(), membershipLookMs), lookAtMembership);
  }

  function leaderAddress(): string | null {
    const leader = raft.status().leader;
    if (leader === null) return null;
    for (const node of store.view().table("nodes").all()) {
      if (node.manager?.raftId === leader) return node.manager.address;
    }
    return null;
  }

  function managerAddresses(): string[] {
    const found: string[] = [];
    for (const node of store.view().table("nodes").all()) {
      if (node.manager !== null) found.push(node.manager.address);
    }
    return found;
  }

  return {
    store,
    raft,
    start() {
      assert(!running, "a manager is started once");
      running = true;
      subscriptions.push(raft.onLeadership(followLeadership));
      raft.start();
      lookAtMembership();
    },
    async stop() {
      running = false;
      forgetLook();
      followLeadership();
      for (const unsubscribe of subscriptions) unsubscribe();
      await raft.stop();
    },
    acceptSession(channel, peer, address) {
      if (leadership !== null) {
        leadership.dispatcher.accept(channel, { nodeId: peer.nodeId, role: peer.role, address });
        return;
      }
      channel.send({ kind: "goodbye", reason: "not-leader", leader: leaderAddress() });
      channel.close("not the leader");
    },
    async join(request, seenAddress) {
      checkJoin(request);
      await raft.linearize();
      const cluster = theCluster(store.view());
      const role = roleOfToken(cluster, request.token);
      const nodeId = random.id();
      const raftId = role === "manager" ? random.id() : null;
      const clusterAddress = reachableAddress(request.clusterAddress, seenAddress);
      const certificatePem = await authority.sign(
        cluster.rootCa,
        request.csrPem,
        { nodeId, clusterId: cluster.id, role },
        cluster.spec.nodeCertExpiryNs / nsPerMs,
        clock.now(),
      );
      const address = clusterAddress.replace(/:\d+$/, "");
      const availability = request.availability;
      await commit(
        raft,
        joinNode({ id: nodeId, role, availability, address, clusterAddress, raftId }),
        nodeId,
      );
      log.info({ nodeId, role, clusterAddress }, "node joined");
      return {
        nodeId,
        clusterId: cluster.id,
        role,
        certificatePem,
        caPem: cluster.rootCa.certificatePem,
        managers: managerAddresses().filter((manager) => manager !== clusterAddress),
        seenAddress,
        raftId,
      };
    },
    async renew(request, peer) {
      if (typeof request?.csrPem !== "string")
        throw failure("invalid", "renewing: csrPem is missing");
      await raft.linearize();
      const view = store.view();
      const cluster = theCluster(view);
      const node = view.table("nodes").get(peer.nodeId);
      if (node === undefined)
        throw failure("forbidden", `node ${peer.nodeId} is not in the cluster`);
      const role = effectiveRole(node);
      const certificatePem = await authority.sign(
        cluster.rootCa,
        request.csrPem,
        { nodeId: node.id, clusterId: cluster.id, role },
        cluster.spec.nodeCertExpiryNs / nsPerMs,
        clock.now(),
      );
      const raftId = node.manager?.raftId ?? null;
      if (node.role !== role) {
        await commit(
          raft,
          [put("nodes", { ...withoutMeta(node), role }, node.meta.version)],
          node.id,
        ).catch((error: unknown) => {
          // Another write came first; the certificate is good, and the next renewal writes the role.
          log.info({ nodeId: node.id, error: messageOf(error) }, "role not written at renewal");
        });
      }
      return { certificatePem, role, raftId };
    },
    leaderAddress,
    dispatcher: () => leadership?.dispatcher ?? null,
  };
}

/** The joiner's listening address, with the host as it was seen where it did not say one. */
function reachableAddress(listening: string, seenHost: string): string {
  const colon = listening.lastIndexOf(":");
  const host = listening.slice(0, colon);
  return ["", "0.0.0.0", "[::]"].includes(host)
    ? `${seenHost}${listening.slice(colon)}`
    : listening;
}

function checkJoin(request: JoinRequest): void {
  const text = (value: unknown) => typeof value === "string" && value.length <= 16_384;
  const fields = [request?.token, request?.csrPem, request?.clusterAddress, request?.hostname];
  if (!fields.every(text)) throw failure("invalid", "joining: the request lacks a field");
  if (!["active", "pause", "drain"].includes(request.availability)) {
    throw failure("invalid", `joining: invalid availability "${String(request.availability)}"`);
  }
  if (!/^[^\s]*:\d{1,5}$/.test(request.clusterAddress)) {
    throw failure("invalid", `joining: invalid listen address "${request.clusterAddress}"`);
  }
}
