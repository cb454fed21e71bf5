/** Makes the kernel's networks and the resolver's names as assigned: one pass at a time, each from values to their difference. */
import type { NativeCore } from "../engine/native-core.ts";
import { after, type Clock } from "../lib/clock.ts";
import { failure, messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import { asDumped, diffNetworks } from "../overlay-net/diff.ts";
import { zoneOf } from "../overlay-net/names.ts";
import {
  type LocalTask,
  type NetworkState,
  planNetworks,
  sandboxName,
} from "../overlay-net/plan.ts";
import type {
  NativeFailure,
  NativeSandbox,
  NetworkOp,
  ResolverClient,
  ResolverZone,
} from "../wire/native.ts";
import type { AssignedTask } from "../wire/session.ts";
import { containerIdOf } from "./container-id.ts";
import { networkOpsMax, networkReconcileMs, retryMsMax, retryMsMin } from "./limits.ts";
import type { NetworkAssignment, Networks } from "./networks.ts";

export interface NetworkApplyOptions {
  readonly native: NativeCore;
  readonly clock: Clock;
  readonly log: Log;
  /** Where a container's resolver asks for names that are not ours: `a.b.c.d`. */
  readonly upstreams: () => Promise<readonly string[]>;
}

/** Networks in the kernel, by the native core. */
export function createNetworkApply(options: NetworkApplyOptions): Networks {
  return new KernelNetworks(options);
}

interface User {
  readonly task: AssignedTask;
  readonly local: LocalTask;
}
interface Waiter {
  readonly taskId: string;
  /** The first pass that may answer it. */
  readonly pass: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}
/** Why a sandbox (by name) or a container's port (by container id) is not as wanted. */
type Failures = ReadonlyMap<string, string>;

class KernelNetworks implements Networks {
  readonly #options: NetworkApplyOptions;
  #assignment: NetworkAssignment | null = null;
  readonly #users = new Map<string, User>();
  /** What the kernel has as far as we know; null: ask it. */
  #have: readonly NativeSandbox[] | null = null;
  /** What the resolver was told, as text, by id; null: unknown, tell all. */
  #zones: Map<string, string> | null = null;
  #clients: Map<string, string> | null = null;
  #waiters: Waiter[] = [];
  #appliedListeners: ((revision: number) => void)[] = [];
  #applied = -1;
  #started = false;
  #running = false;
  #wanted = false;
  #pass = 0;
  #retryMs = retryMsMin;
  #cancelRetry: () => void = () => {};
  #cancelReconcile: () => void = () => {};
  #forget: () => void = () => {};

  constructor(options: NetworkApplyOptions) {
    this.#options = options;
  }

  adopt(task: AssignedTask, containerId: string): void {
    this.#use(task, containerId);
  }

  start(): void {
    this.#started = true;
    this.#forget = this.#options.native.onConnected(() => {
      this.#have = null;
      this.#zones = null;
      this.#clients = null;
      this.#kick();
    });
    this.#reconcileLater();
  }

  stop(): void {
    this.#started = false;
    this.#forget();
    this.#cancelRetry();
    this.#cancelReconcile();
  }

  assign(assignment: NetworkAssignment): void {
    this.#assignment = assignment;
    // Told again even for the same revision: a manager of a new session has not heard it.
    this.#applied = -1;
    this.#kick();
  }

  prepare(task: AssignedTask): Promise<void> {
    return this.#need(task, null);
  }

  attach(task: AssignedTask, containerId: string): Promise<void> {
    return this.#need(task, containerId);
  }

  release(taskId: string): void {
    if (!this.#users.delete(taskId)) return;
    this.#kick();
  }

  onApplied(listener: (revision: number) => void): void {
    this.#appliedListeners.push(listener);
  }

  #need(task: AssignedTask, containerId: string | null): Promise<void> {
    if (task.attachments.length === 0) return Promise.resolve();
    this.#use(task, containerId);
    return new Promise((resolve, reject) => {
      this.#waiters.push({ taskId: task.id, pass: this.#pass + 1, resolve, reject });
      this.#kick();
    });
  }

  #use(task: AssignedTask, containerId: string | null): void {
    if (task.attachments.length === 0) return;
    const known = this.#users.get(task.id)?.local.containerId ?? null;
    this.#users.set(task.id, {
      task,
      local: {
        taskId: task.id,
        containerId: containerId ?? known,
        attachments: task.attachments,
      },
    });
  }

  #reconcileLater(): void {
    const { clock } = this.#options;
    this.#cancelReconcile = clock.wakeAt(after(clock.now(), networkReconcileMs), () => {
      this.#have = null;
      this.#kick();
      this.#reconcileLater();
    });
  }

  #kick(): void {
    this.#wanted = true;
    if (this.#running || !this.#started) return;
    this.#running = true;
    // One turn later, so that a burst of changes is one pass.
    queueMicrotask(() => {
      this.#passes().catch((error: unknown) => {
        queueMicrotask(() => {
          throw error;
        });
      });
    });
  }

  async #passes(): Promise<void> {
    try {
      while (this.#wanted && this.#started) {
        this.#wanted = false;
        await this.#onePass();
      }
    } finally {
      this.#running = false;
    }
  }

  async #onePass(): Promise<void> {
    const pass = ++this.#pass;
    const assignment = this.#assignment;
    if (assignment === null || !this.#options.native.connected) {
      // Both come with a kick of their own; who waits is told meanwhile.
      return this.#answer(pass, new Map(), "the node's networks are not known yet");
    }
    this.#cancelRetry();
    const users = [...this.#users.values()];
    const want = planNetworks({ ...assignment, tasks: users.map((user) => user.local) });
    try {
      const failures = await this.#applyNetworks(want);
      await this.#tellResolver(assignment, users, want);
      this.#answer(pass, failures, null);
      if (failures.size > 0) return this.#retryLater([...failures.values()].join("; "));
      this.#retryMs = retryMsMin;
      this.#tellApplied(assignment.revision);
    } catch (error) {
      this.#have = null;
      this.#answer(pass, new Map(), messageOf(error));
      this.#retryLater(messageOf(error));
    }
  }

  async #applyNetworks(want: NetworkState): Promise<Failures> {
    const { native } = this.#options;
    const have = this.#have ?? (await native.call("network-dump", {})).sandboxes;
    const ops = diffNetworks(have, want);
    const failures = new Map<string, string>();
    this.#have = null;
    for (let at = 0; at < ops.length; at += networkOpsMax) {
      const part = ops.slice(at, at + networkOpsMax);
      const answer = await native.call("network", { ops: part });
      for (const [index, failed] of answer.failures.entries()) {
        const op = part[index];
        if (failed !== null && op !== undefined) failures.set(...explain(op, failed));
      }
    }
    if (failures.size === 0) this.#have = [...foreign(have), ...asDumped(want)];
    return failures;
  }

  /** Tells the resolver what it does not have yet: zones of networks in use, and who asks. */
  async #tellResolver(
    assignment: NetworkAssignment,
    users: readonly User[],
    want: NetworkState,
  ): Promise<void> {
    const inUse = new Set([...want.values()].map((item) => item.networkId));
    const networks = new Map(assignment.networks.map((item) => [item.id, item]));
    const zones = new Map<string, ResolverZone>();
    for (const id of inUse) {
      const network = networks.get(id);
      if (network === undefined) continue;
      zones.set(
        id,
        zoneOf(network, assignment.peers, assignment.revision, (taskId) =>
          containerIdOf(taskId).slice(0, shortIdDigits),
        ),
      );
    }
    const own = await this.#options.upstreams();
    const clients = new Map<string, ResolverClient>();
    for (const { task, local } of users) {
      if (local.containerId === null) continue;
      const { dns } = task.spec.container;
      const internal = task.attachments.every(
        (item) => networks.get(item.networkId)?.spec.internal ?? false,
      );
      const given = dns !== null && dns.nameservers.length > 0 ? dns.nameservers : own;
      clients.set(local.containerId, {
        containerId: local.containerId,
        networkIds: task.attachments.map((item) => item.networkId),
        upstreams: internal ? [] : given,
      });
    }
    // A zone is told anew when its names differ: its revision alone is no news to anybody.
    const zoneText = (zone: ResolverZone) => JSON.stringify({ ...zone, revision: 0 });
    const knownZones = this.#zones ?? new Map<string, string>();
    const knownClients = this.#clients ?? new Map<string, string>();
    const update = {
      zones: [...zones.values()].filter(
        (zone) => knownZones.get(zone.networkId) !== zoneText(zone),
      ),
      clients: [...clients.values()].filter(
        (client) => knownClients.get(client.containerId) !== JSON.stringify(client),
      ),
      removeZones: [...knownZones.keys()].filter((id) => !zones.has(id)),
      removeClients: [...knownClients.keys()].filter((id) => !clients.has(id)),
    };
    if (Object.values(update).every((list) => list.length === 0)) return;
    this.#zones = null;
    this.#clients = null;
    await this.#options.native.call("resolver", update);
    this.#zones = new Map([...zones].map(([id, zone]) => [id, zoneText(zone)]));
    this.#clients = new Map([...clients].map(([id, client]) => [id, JSON.stringify(client)]));
  }

  /** Answers those who waited for this pass: `all` is why nothing could be done. */
  #answer(pass: number, failures: Failures, all: string | null): void {
    const due = this.#waiters.filter((waiter) => waiter.pass <= pass);
    this.#waiters = this.#waiters.filter((waiter) => waiter.pass > pass);
    for (const waiter of due) {
      const user = this.#users.get(waiter.taskId);
      const why = all ?? (user === undefined ? "the task was released" : this.#why(user, failures));
      if (why === null) waiter.resolve();
      else waiter.reject(failure("unavailable", `waiting for the task's networks: ${why}`));
    }
  }

  #why(user: User, failures: Failures): string | null {
    const networks = this.#assignment?.networks ?? [];
    for (const { networkId } of user.local.attachments) {
      const network = networks.find((item) => item.id === networkId);
      if (network === undefined) return `network ${networkId} is not known here yet`;
      const failed = failures.get(sandboxName(network.vni));
      if (failed !== undefined) return `network ${network.spec.name}: ${failed}`;
    }
    const { containerId } = user.local;
    return containerId === null ? null : (failures.get(containerId) ?? null);
  }

  #tellApplied(revision: number): void {
    if (revision === this.#applied) return;
    this.#applied = revision;
    for (const listener of this.#appliedListeners) listener(revision);
  }

  #retryLater(why: string): void {
    const { clock, log } = this.#options;
    log.warn({ error: why }, "networks are not as wanted yet");
    this.#cancelRetry = clock.wakeAt(after(clock.now(), this.#retryMs), () => this.#kick());
    this.#retryMs = Math.min(this.#retryMs * 2, retryMsMax);
  }
}

/** Digits of a container's id that answer as its name. */
const shortIdDigits = 12;

function explain(op: NetworkOp, failed: NativeFailure): readonly [string, string] {
  const text = `${failed.doing}: ${failed.message}`;
  return op.op === "endpoint-add" ? [op.containerId, text] : [op.sandbox, text];
}

/** Sandboxes of somebody else stay in what we have; ours are told by what is wanted. */
function foreign(have: readonly NativeSandbox[]): readonly NativeSandbox[] {
  return have.filter((item) => !item.sandbox.startsWith("ov-"));
}
