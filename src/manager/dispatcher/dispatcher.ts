/** The leader's sessions with every node's agent: who is there, what each must know, and what each reports. */
import { assert } from "../../lib/assert.ts";
import { after, type Clock, type InstantMs } from "../../lib/clock.ts";
import type { Log } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import type { Cluster } from "../../model/cluster.ts";
import { nsPerMs } from "../../model/defaults.ts";
import type { NodeDescription, NodeRole } from "../../model/node.ts";
import type { Action, Change, Committed, Proposer, Store, View } from "../../store/types.ts";
import type { Channel } from "../../wire/channel.ts";
import { sessionVersion, type ToAgent, type ToManager } from "../../wire/session.ts";
import {
  assignmentsFor,
  diffAssignments,
  diffPeers,
  type MutableAssignments,
  patch,
  setOf,
  touchedBy,
} from "./assignments.ts";
import {
  assignWindowMs,
  heartbeatMsMax,
  heartbeatMsMin,
  heartbeatSpread,
  helloTimeoutMs,
  leaderGraceMs,
  missedHeartbeatsMax,
  reconnectGraceMs,
  statusesPerMessageMax,
} from "./limits.ts";
import { addressOf, clusterOf, managersOf, putNode } from "./node-rows.ts";
import { checkedReport, isDescription, storeStatus } from "./reports.ts";
import { createRowWriter, type RowWriter } from "./row-writer.ts";

export interface DispatcherParts {
  readonly store: Store;
  readonly proposer: Proposer;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Who is at the other end, by its certificate, and the address it is seen under. */
export interface SessionPeer {
  readonly nodeId: string;
  readonly role: NodeRole;
  /** IPv4, without port. */
  readonly address: string;
}

export interface SessionInfo {
  readonly nodeId: string;
  readonly session: string;
  /** Last revision of the assignments that was sent. */
  readonly revision: number;
  /** Last one the node said is in force there; 0 before the first. */
  readonly appliedRevision: number;
  readonly lastHeardAt: InstantMs;
}

export interface Dispatcher {
  /** Begins to lead. Nodes that are not heard of for a while are down. */
  start(): void;
  /** Stops leading: says goodbye to every node, with the new leader's `host:port` where it is known. */
  stop(leader: string | null): void;
  /** Takes a node's connection over; refuses with a goodbye what it cannot serve. */
  accept(channel: Channel<ToAgent, ToManager>, peer: SessionPeer): void;
  /** Every session, in no order. */
  sessions(): readonly SessionInfo[];
}

type AgentChannel = Channel<ToAgent, ToManager>;
type Hello = Extract<ToManager, { readonly kind: "hello" }>;
type Goodbye = Extract<ToAgent, { readonly kind: "goodbye" }>["reason"];

interface Session {
  readonly id: string;
  readonly nodeId: string;
  readonly channel: AgentChannel;
  readonly peer: SessionPeer;
  /** Where the node says it listens for managers. */
  readonly listening: string;
  readonly heartbeatMs: number;
  /** What the node was sent. */
  have: MutableAssignments;
  revision: number;
  appliedRevision: number;
  lastHeardAt: InstantMs;
  cancelDeadline: () => void;
  /** Its own tasks or networks may differ from `have`. */
  stale: boolean;
  /** Tasks whose endpoints may differ from `have`. */
  readonly stalePeers: Set<string>;
  /** The membership it was last told, as text. */
  membership: string;
  /** It was told that its node is on record. */
  registered: boolean;
}

/** A dispatcher that does nothing until it is started. */
export function createDispatcher(parts: DispatcherParts): Dispatcher {
  return new LeaderDispatcher(parts);
}

class LeaderDispatcher implements Dispatcher {
  readonly #parts: DispatcherParts;
  readonly #writer: RowWriter;
  readonly #sessions = new Map<string, Session>();
  /** Connections that have not said hello. */
  readonly #guests = new Set<AgentChannel>();
  /** Sessions that know a network. */
  readonly #byNetwork = new Map<string, Set<Session>>();
  /** Nodes without session that will be down: how to forget it. */
  readonly #absent = new Map<string, () => void>();
  readonly #stale = new Set<Session>();
  #membershipStale = false;
  #cancelFlush: (() => void) | null = null;
  #unwatch: (() => void) | null = null;
  #stopped = false;
  #leader: string | null = null;

  constructor(parts: DispatcherParts) {
    this.#parts = parts;
    this.#writer = createRowWriter(parts);
  }

  start(): void {
    assert(this.#unwatch === null && !this.#stopped, "a dispatcher is started once");
    this.#unwatch = this.#parts.store.watch((committed) => this.#observe(committed));
    for (const node of this.#parts.store.view().table("nodes").all()) {
      if (node.state === "ready" || node.state === "disconnected") {
        this.#expect(node.id, leaderGraceMs);
      }
    }
  }

  stop(leader: string | null): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#leader = leader;
    this.#unwatch?.();
    this.#cancelFlush?.();
    this.#writer.stop();
    for (const cancel of this.#absent.values()) cancel();
    this.#absent.clear();
    for (const session of [...this.#sessions.values()]) this.#end(session, "not-leader");
    for (const channel of this.#guests) this.#dismiss(channel, "not-leader");
    this.#guests.clear();
  }

  sessions(): readonly SessionInfo[] {
    return [...this.#sessions.values()].map(
      ({ id, nodeId, revision, appliedRevision, lastHeardAt }) => ({
        nodeId,
        session: id,
        revision,
        appliedRevision,
        lastHeardAt,
      }),
    );
  }

  accept(channel: AgentChannel, peer: SessionPeer): void {
    if (this.#stopped) {
      this.#dismiss(channel, "not-leader");
      return;
    }
    const { clock, log } = this.#parts;
    this.#guests.add(channel);
    const leave = (): void => {
      cancelTimeout();
      this.#guests.delete(channel);
    };
    const cancelTimeout = clock.wakeAt(after(clock.now(), helloTimeoutMs), () => {
      leave();
      channel.close(`no hello within ${helloTimeoutMs} ms`);
    });
    let session: Session | null = null;
    channel.onMessage((message) => {
      if (this.#stopped) return;
      if (!isMessage(message)) {
        channel.close("a message is an object with a kind");
        return;
      }
      if (session !== null) {
        if (this.#sessions.get(session.nodeId) === session) this.#receive(session, message);
        return;
      }
      if (!this.#guests.has(channel)) return;
      leave();
      if (message.kind !== "hello") {
        channel.close(`the first message is hello, not ${String(message.kind)}`);
        return;
      }
      session = this.#greet(channel, peer, message);
    });
    channel.onClose((reason) => {
      leave();
      if (session === null || this.#sessions.get(session.nodeId) !== session) return;
      log.info({ nodeId: peer.nodeId, reason }, "session closed");
      this.#drop(session);
      this.#expect(session.nodeId, reconnectGraceMs);
    });
  }

  /** Opens the session of a node that said hello, or refuses it. */
  #greet(channel: AgentChannel, peer: SessionPeer, hello: Hello): Session | null {
    const { store, clock, random, log } = this.#parts;
    const view = store.view();
    if (hello.version !== sessionVersion) return this.#dismiss(channel, "version");
    const cluster = clusterOf(view);
    const node = view.table("nodes").get(peer.nodeId);
    if (node === undefined || hello.nodeId !== peer.nodeId) {
      const removed = cluster?.removedNodes.includes(peer.nodeId) === true;
      return this.#dismiss(channel, removed ? "removed" : "unknown-node");
    }
    if (!isDescription(hello.description) || typeof hello.clusterAddress !== "string") {
      log.warn({ nodeId: node.id }, "a node's hello is malformed");
      channel.close("hello: the description or the address is malformed");
      return null;
    }
    const before = this.#sessions.get(node.id);
    if (before !== undefined) this.#end(before, "superseded");
    this.#absent.get(node.id)?.();
    this.#absent.delete(node.id);

    const session: Session = {
      id: random.id(),
      nodeId: node.id,
      channel,
      peer,
      listening: hello.clusterAddress,
      heartbeatMs: heartbeatMsOf(cluster, random),
      have: assignmentsFor(view, node.id),
      revision: 1,
      appliedRevision: 0,
      lastHeardAt: clock.now(),
      cancelDeadline: () => {},
      stale: false,
      stalePeers: new Set(),
      membership: "",
      registered: false,
    };
    this.#sessions.set(node.id, session);
    for (const id of session.have.networks.keys()) this.#joinNetwork(session, id);
    this.#watchHeartbeats(session, after(session.lastHeardAt, silenceMs(session)));
    channel.send({ kind: "welcome", session: session.id, heartbeatMs: session.heartbeatMs });
    this.#tellMembership(session, view, managersOf(view), cluster);
    channel.send({ kind: "assign-all", revision: session.revision, set: setOf(session.have) });
    this.#register(session, hello.description);
    this.#takeStatuses(session, hello.statuses);
    log.info({ nodeId: node.id, session: session.id }, "session opened");
    return session;
  }

  #receive(session: Session, message: ToManager): void {
    session.lastHeardAt = this.#parts.clock.now();
    switch (message.kind) {
      case "heartbeat":
        session.channel.send({ kind: "heartbeat-reply", sequence: message.sequence });
        return;
      case "status":
        this.#takeStatuses(session, message.updates);
        return;
      case "applied":
        if (Number.isSafeInteger(message.revision) && message.revision <= session.revision) {
          session.appliedRevision = Math.max(session.appliedRevision, message.revision);
        }
        return;
      case "describe":
        if (isDescription(message.description)) this.#register(session, message.description);
        return;
      case "hello":
        session.channel.close("hello is said once");
        return;
      default:
        // A newer agent may say more than this manager knows.
        message satisfies never;
    }
  }

  // Liveness.

  /** Gives a node without session `graceMs` to come; then it is down. */
  #expect(nodeId: string, graceMs: number): void {
    this.#absent.get(nodeId)?.();
    const { clock } = this.#parts;
    const cancel = clock.wakeAt(after(clock.now(), graceMs), () => {
      this.#absent.delete(nodeId);
      this.#declareDown(nodeId);
    });
    this.#absent.set(nodeId, cancel);
  }

  #watchHeartbeats(session: Session, at: InstantMs): void {
    const { clock, log } = this.#parts;
    session.cancelDeadline = clock.wakeAt(at, () => {
      const now = clock.now();
      const deadline = after(session.lastHeardAt, silenceMs(session));
      if (deadline > now) {
        this.#watchHeartbeats(session, deadline);
        return;
      }
      if (now - at >= session.heartbeatMs) {
        // This process itself was held up; what the node said meanwhile is still to be read.
        this.#watchHeartbeats(session, after(now, session.heartbeatMs));
        return;
      }
      log.warn(
        { nodeId: session.nodeId, silentMs: now - session.lastHeardAt },
        "heartbeats missed",
      );
      this.#drop(session);
      session.channel.close("heartbeats missed");
      this.#declareDown(session.nodeId);
    });
  }

  #declareDown(nodeId: string): void {
    this.#write(`node/${nodeId}`, (view) => {
      const node = view.table("nodes").get(nodeId);
      if (node === undefined || node.state === "down" || this.#sessions.has(nodeId)) return null;
      return putNode(node, {
        state: "down",
        stateMessage: `heartbeat failure for node in "${node.state}" state`,
      });
    });
  }

  #declareReady(nodeId: string): void {
    const session = this.#sessions.get(nodeId);
    if (session === undefined || this.#writer.isPending(`node/${nodeId}`)) return;
    const { description } = this.#parts.store.view().table("nodes").get(nodeId) ?? {};
    if (description != null) this.#register(session, description);
  }

  /** Writes that the node is here, and what it says of itself. */
  #register(session: Session, description: NodeDescription): void {
    const isCurrent = (): boolean => this.#sessions.get(session.nodeId) === session;
    const write = (view: View): Action | null => {
      const node = view.table("nodes").get(session.nodeId);
      if (node === undefined || !isCurrent()) return null;
      const seen = addressOf(session.listening, session.peer.address, node);
      return putNode(node, {
        ...seen,
        state: "ready",
        stateMessage: "",
        description,
        role: session.peer.role,
      });
    };
    this.#writer.write(`node/${session.nodeId}`, write, () => {
      if (!isCurrent() || session.registered) return;
      session.registered = true;
      session.channel.send({ kind: "registered" });
    });
  }

  // Statuses.

  #takeStatuses(session: Session, updates: readonly unknown[]): void {
    if (!Array.isArray(updates)) return;
    for (const update of updates.slice(0, statusesPerMessageMax)) {
      const report = checkedReport(update);
      if (report === null) {
        this.#parts.log.warn({ nodeId: session.nodeId }, "a status report is malformed; dropped");
        continue;
      }
      const { taskId, status } = report;
      this.#writer.write(
        `task/${taskId}`,
        (view) =>
          storeStatus(
            view.table("tasks").get(taskId),
            session.nodeId,
            status,
            this.#parts.clock.now(),
          ),
        () => this.#stored(session, taskId),
      );
    }
  }

  readonly #storedTasks = new Map<Session, string[]>();

  /** Collects what one batch stored, so that a node hears it in one message. */
  #stored(session: Session, taskId: string): void {
    const found = this.#storedTasks.get(session);
    if (found !== undefined) {
      found.push(taskId);
      return;
    }
    this.#storedTasks.set(session, [taskId]);
    if (this.#storedTasks.size > 1) return;
    queueMicrotask(() => {
      for (const [one, taskIds] of this.#storedTasks) {
        if (this.#sessions.get(one.nodeId) === one) {
          one.channel.send({ kind: "status-stored", taskIds });
        }
      }
      this.#storedTasks.clear();
    });
  }

  // Assignments and membership.

  #observe({ changes }: Committed): void {
    const view = this.#parts.store.view();
    for (const change of changes) {
      const touched = touchedBy(change, view);
      for (const nodeId of touched.nodes) this.#markStale(this.#sessions.get(nodeId));
      for (const networkId of touched.networks) {
        for (const session of this.#byNetwork.get(networkId) ?? []) this.#markStale(session);
      }
      for (const { taskId, networkIds } of touched.peers) {
        for (const networkId of networkIds) {
          for (const session of this.#byNetwork.get(networkId) ?? []) {
            session.stalePeers.add(taskId);
            this.#stale.add(session);
            this.#scheduleFlush();
          }
        }
      }
      if (change.table === "nodes") this.#observeNode(change);
    }
  }

  #observeNode({ before, after: now }: Extract<Change, { readonly table: "nodes" }>): void {
    if (now === null) {
      const id = before?.id ?? "";
      this.#absent.get(id)?.();
      this.#absent.delete(id);
      const session = this.#sessions.get(id);
      if (session !== undefined) this.#end(session, "removed");
    } else if (now.state !== "ready" && before !== null) {
      // An earlier leader's word of a node that is here, committed late: nobody else would take it back.
      this.#declareReady(now.id);
    }
    if (JSON.stringify(before?.manager ?? null) !== JSON.stringify(now?.manager ?? null)) {
      this.#membershipStale = true;
      this.#scheduleFlush();
    }
  }

  #markStale(session: Session | undefined): void {
    if (session === undefined) return;
    session.stale = true;
    this.#stale.add(session);
    this.#scheduleFlush();
  }

  #scheduleFlush(): void {
    if (this.#cancelFlush !== null || this.#stopped) return;
    const { clock } = this.#parts;
    this.#cancelFlush = clock.wakeAt(after(clock.now(), assignWindowMs), () => {
      this.#cancelFlush = null;
      this.#flush();
    });
  }

  #flush(): void {
    const view = this.#parts.store.view();
    const stale = [...this.#stale];
    this.#stale.clear();
    for (const session of stale) this.#assign(session, view);
    if (!this.#membershipStale) return;
    this.#membershipStale = false;
    const managers = managersOf(view);
    const cluster = clusterOf(view);
    for (const session of this.#sessions.values()) {
      this.#tellMembership(session, view, managers, cluster);
    }
  }

  #assign(session: Session, view: View): void {
    const { have, stalePeers } = session;
    const diff = session.stale
      ? diffAssignments(have, assignmentsFor(view, session.nodeId))
      : diffPeers(have, view, stalePeers);
    session.stale = false;
    stalePeers.clear();
    if (diff === null) return;
    for (const { id } of diff.put.networks) this.#joinNetwork(session, id);
    for (const id of diff.remove.networks) this.#leaveNetwork(session, id);
    patch(have, diff);
    const from = session.revision;
    session.revision += 1;
    session.channel.send({ kind: "assign-diff", from, revision: session.revision, ...diff });
  }

  #tellMembership(
    session: Session,
    view: View,
    managers: readonly string[],
    cluster: Cluster | null,
  ): void {
    const node = view.table("nodes").get(session.nodeId);
    if (node === undefined) return;
    // A node is a manager from the time it has its Raft id until Raft has let it go; its certificate follows that.
    const message: Extract<ToAgent, { readonly kind: "membership" }> = {
      kind: "membership",
      managers,
      role: node.manager === null ? "worker" : "manager",
      raftId: node.manager?.raftId ?? null,
      dataPathPort: cluster?.dataPathPort ?? 0,
    };
    const text = JSON.stringify(message);
    if (text === session.membership) return;
    session.membership = text;
    session.channel.send(message);
  }

  #joinNetwork(session: Session, networkId: string): void {
    const found = this.#byNetwork.get(networkId);
    if (found === undefined) this.#byNetwork.set(networkId, new Set([session]));
    else found.add(session);
  }

  #leaveNetwork(session: Session, networkId: string): void {
    const found = this.#byNetwork.get(networkId);
    found?.delete(session);
    if (found?.size === 0) this.#byNetwork.delete(networkId);
  }

  // Ends.

  #end(session: Session, reason: Goodbye): void {
    this.#drop(session);
    this.#dismiss(session.channel, reason);
  }

  #drop(session: Session): void {
    session.cancelDeadline();
    for (const id of session.have.networks.keys()) this.#leaveNetwork(session, id);
    this.#stale.delete(session);
    this.#storedTasks.delete(session);
    this.#sessions.delete(session.nodeId);
  }

  #dismiss(channel: AgentChannel, reason: Goodbye): null {
    channel.send({ kind: "goodbye", reason, leader: this.#leader });
    channel.close(reason);
    return null;
  }

  #write(key: string, write: (view: View) => Action | null): void {
    this.#writer.write(key, write, () => {});
  }
}

/** What comes from a channel was decoded, not checked: no worker may bring the leader down with it. */
function isMessage(message: unknown): message is ToManager {
  return typeof message === "object" && message !== null && "kind" in message;
}

/** How long a session may be silent. */
function silenceMs({ heartbeatMs }: Session): number {
  return missedHeartbeatsMax * heartbeatMs;
}

function heartbeatMsOf(cluster: Cluster | null, random: Random): number {
  const wanted = (cluster?.spec.heartbeatPeriodNs ?? Number.POSITIVE_INFINITY) / nsPerMs;
  const base = Math.min(heartbeatMsMax, Math.max(heartbeatMsMin, wanted));
  const steps = 1_000;
  const spread = ((2 * random.below(steps + 1)) / steps - 1) * heartbeatSpread;
  return Math.round(base * (1 + spread));
}
