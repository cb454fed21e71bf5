/** The node's part in the swarm: it takes assignments, runs them, tells what came of it, and goes on when no manager answers. */
import { after, type Clock } from "../lib/clock.ts";
import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { defaultDataPathPort } from "../model/defaults.ts";
import type { NodeDescription } from "../model/node.ts";
import type { TaskStatus } from "../model/task.ts";
import { type AssignedTask, sessionVersion, type ToAgent } from "../wire/session.ts";
import { type Held, heldFrom, type Taken, takeAll, takeDiff } from "./assignments.ts";
import type { Executor } from "./executor.ts";
import { describeMs, leaveNetworksMs, startsAtOnceMax } from "./limits.ts";
import type { Networks } from "./networks.ts";
import { type AgentChannel, type GoodbyeReason, Session } from "./session.ts";
import { StatusReports } from "./status-reports.ts";
import { TaskRunner } from "./task-runner.ts";
import { Turns } from "./turns.ts";
import type { WorkerDb } from "./worker-db.ts";

/** Revision of the assignment of nothing when a node leaves; managers count from 1. */
const leftRevision = 0;

export type AgentMembership = Omit<Extract<ToAgent, { readonly kind: "membership" }>, "kind">;

export interface AgentOptions {
  readonly nodeId: string;
  /** `host:port` where this node listens for managers. */
  readonly clusterAddress: string;
  /** `host:port` of managers, as known at the start; `membership` messages replace them. */
  readonly managers: readonly string[];
  readonly connect: (address: string) => Promise<AgentChannel>;
  readonly executor: Executor;
  readonly networks: Networks;
  readonly db: WorkerDb;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly describe: () => Promise<NodeDescription>;
  /** Where managers are and what this node is meant to be; to be kept for the next start. */
  readonly onMembership: (membership: AgentMembership) => void;
  /** The cluster has on record that this node is ready. Each session. */
  readonly onRegistered?: () => void;
  /** A manager refused this node: `removed` means that it is no member any more. */
  readonly onGoodbye?: (reason: GoodbyeReason) => void;
}

export interface Agent {
  /** Takes up what ran before, then looks for a manager. Rejects when the database is damaged. */
  start(): Promise<void>;
  /** This process ends: containers go on. */
  stop(): Promise<void>;
  /** This node leaves the swarm: every task is shut down and removed. Resolves when nothing is left. */
  leave(): Promise<void>;
  /** A manager said welcome and the session is open. */
  readonly connected: boolean;
  /** What this node is assigned. */
  readonly held: Held;
  statusOf(taskId: string): TaskStatus | null;
}

/** A worker's agent; call `start`. The executor is ready to use, the networks are not started. */
export function createAgent(options: AgentOptions): Agent {
  return new WorkerAgent(options);
}

class WorkerAgent implements Agent {
  readonly #options: AgentOptions;
  readonly #session: Session;
  readonly #reports: StatusReports;
  readonly #turns = new Turns(startsAtOnceMax);
  readonly #runners = new Map<string, TaskRunner>();
  #held: Held = { revision: 0, tasks: new Map(), networks: new Map(), peers: new Map() };
  #managers: readonly string[];
  #dataPathPort = defaultDataPathPort;
  #description: NodeDescription | null = null;
  /** Assignments are taken one after the other, each on disk before anything comes of it. */
  #last: Promise<void> = Promise.resolve();
  /** Writes under way; a failed one is told once and does not stop what runs. */
  #writes: Promise<void> = Promise.resolve();
  #orphansKnown = false;
  #stopped = false;
  #leaving: (() => void) | null = null;
  #cancelDescribe: () => void = () => {};
  #forgetAvailable: () => void = () => {};

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#managers = options.managers;
    this.#reports = new StatusReports(options.clock, (updates) =>
      this.#session.send({ kind: "status", updates }),
    );
    this.#session = new Session({
      connect: options.connect,
      managers: () => this.#managers,
      hello: () => ({
        kind: "hello",
        version: sessionVersion,
        nodeId: options.nodeId,
        description: this.#described(),
        clusterAddress: options.clusterAddress,
        statuses: this.#reports.all(),
      }),
      receive: (message) => this.#receive(message),
      onState: (connected) => {
        options.log.info({ connected }, "session");
        if (connected) this.#reports.restarted();
      },
      onGoodbye: (reason) => options.onGoodbye?.(reason),
      clock: options.clock,
      random: options.random,
      log: options.log,
    });
  }

  get connected(): boolean {
    return this.#session.connected;
  }

  get held(): Held {
    return this.#held;
  }

  statusOf(taskId: string): TaskStatus | null {
    return this.#reports.get(taskId);
  }

  async start(): Promise<void> {
    const { db, describe, executor, networks } = this.#options;
    const state = await db.load();
    this.#description = await describe();
    this.#held = heldFrom(state);
    this.#dataPathPort = state.dataPathPort;
    for (const { taskId, status } of state.statuses) {
      if (this.#held.tasks.has(taskId)) this.#reports.restore(taskId, status);
    }
    // The kernel's networks are compared with what is wanted only when all that runs is known.
    for (const item of await executor.list()) {
      const task = this.#held.tasks.get(item.taskId);
      if (task !== undefined && item.state === "running") networks.adopt(task, item.containerId);
    }
    this.#forgetAvailable = executor.onAvailable(() => {
      for (const runner of this.#runners.values()) runner.nudge();
    });
    networks.onApplied((revision) => this.#session.send({ kind: "applied", revision }));
    this.#assignNetworks();
    networks.start();
    for (const task of this.#held.tasks.values()) this.#run(task);
    this.#session.start();
    this.#describeLater();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#forgetAvailable();
    this.#cancelDescribe();
    this.#session.stop();
    this.#reports.stop();
    for (const runner of this.#runners.values()) runner.stop();
    this.#options.networks.stop();
    await this.#last;
    await this.#writes;
  }

  async leave(): Promise<void> {
    this.#session.stop();
    this.#cancelDescribe();
    await this.#last;
    if (this.#runners.size > 0) {
      const left = new Promise<void>((resolve) => {
        this.#leaving = resolve;
      });
      for (const runner of this.#runners.values()) runner.drop();
      await left;
    }
    this.#reports.stop();
    await this.#leaveNetworks();
    await this.#writes;
  }

  #receive(message: ToAgent): void {
    switch (message.kind) {
      case "membership": {
        const { kind: _, ...membership } = message;
        this.#managers = membership.managers;
        this.#options.onMembership(membership);
        if (membership.dataPathPort !== this.#dataPathPort) {
          this.#dataPathPort = membership.dataPathPort;
          this.#write("the data path port", this.#options.db.saveDataPathPort(this.#dataPathPort));
          this.#assignNetworks();
        }
        return;
      }
      case "registered":
        this.#options.onRegistered?.();
        return;
      case "status-stored":
        this.#reports.stored(message.taskIds);
        return;
      case "assign-all":
        this.#take(takeAll(this.#held, message), true);
        return;
      case "assign-diff": {
        const taken = takeDiff(this.#held, message);
        if (taken !== null) {
          this.#take(taken, false);
        } else {
          this.#session.restart(
            `assignments have a gap: ${message.from} follows ${this.#held.revision}`,
          );
        }
        return;
      }
      case "welcome":
      case "heartbeat-reply":
      case "goodbye":
        return;
      default:
        message satisfies never;
    }
  }

  /** What is held changes at once (the next message builds on it); it is on disk before tasks start. */
  #take(taken: Taken, all: boolean): void {
    this.#held = taken.held;
    const saved = this.#options.db.saveAssignment(taken.change);
    this.#last = this.#last
      .then(() => saved)
      .catch((error: unknown) => {
        // A full disk must not keep the node from doing what it is told; it is told again after a restart.
        this.#options.log.error({ error: messageOf(error) }, "keeping the assignments failed");
      })
      .then(async () => {
        if (this.#stopped) return;
        this.#assignNetworks(taken.held);
        for (const id of taken.removedTasks) this.#runners.get(id)?.drop();
        for (const task of taken.change.putTasks) this.#run(task);
        if (all) await this.#removeOrphans();
      });
  }

  #run(task: AssignedTask): void {
    const known = this.#runners.get(task.id);
    if (known !== undefined) {
      known.update(task);
      return;
    }
    const { clock, db, executor, log, networks } = this.#options;
    const runner = new TaskRunner(
      {
        executor,
        networks,
        clock,
        log,
        turns: this.#turns,
        networkRows: () => this.#held.networks,
        report: (taskId, status) => {
          this.#reports.put(taskId, status);
          this.#write(`the status of task ${taskId}`, db.saveStatus(taskId, status));
        },
        gone: (taskId) => this.#gone(taskId),
      },
      task,
      this.#reports.get(task.id),
    );
    this.#runners.set(task.id, runner);
    runner.start();
  }

  #gone(taskId: string): void {
    this.#runners.delete(taskId);
    this.#reports.forget(taskId);
    this.#write(`that task ${taskId} is gone`, this.#options.db.forgetTask(taskId));
    if (this.#runners.size === 0) this.#leaving?.();
  }

  /** Once, when a manager has told all: containers of tasks that nobody knows any more go. */
  async #removeOrphans(): Promise<void> {
    if (this.#orphansKnown) return;
    this.#orphansKnown = true;
    const { executor, log } = this.#options;
    try {
      for (const { taskId } of await executor.list()) {
        if (this.#held.tasks.has(taskId) || this.#runners.has(taskId)) continue;
        log.warn({ task: taskId }, "removing a container whose task is not known");
        await executor.remove(taskId);
      }
    } catch (error) {
      this.#orphansKnown = false;
      log.warn({ error: messageOf(error) }, "removing orphans was put off");
    }
  }

  #assignNetworks(held: Held = this.#held): void {
    this.#options.networks.assign({
      revision: held.revision,
      nodeId: this.#options.nodeId,
      localAddress: this.#described().dataPathAddress,
      dataPathPort: this.#dataPathPort,
      networks: [...held.networks.values()],
      peers: [...held.peers.values()],
    });
  }

  #described(): NodeDescription {
    const description = this.#description;
    if (description === null) throw new Error("the agent is started before it describes its node");
    return description;
  }

  /** Resolves when the kernel has none of our networks left, or after a bounded wait. */
  async #leaveNetworks(): Promise<void> {
    const { clock, networks } = this.#options;
    await new Promise<void>((resolve) => {
      const cancel = clock.wakeAt(after(clock.now(), leaveNetworksMs), resolve);
      networks.onApplied((revision) => {
        // A pass that was under way tells of what was assigned before.
        if (revision !== leftRevision) return;
        cancel();
        resolve();
      });
      this.#assignNetworks({
        revision: leftRevision,
        tasks: new Map(),
        networks: new Map(),
        peers: new Map(),
      });
    });
  }

  #describeLater(): void {
    const { clock, describe, log } = this.#options;
    this.#cancelDescribe = clock.wakeAt(after(clock.now(), describeMs), () => {
      describe()
        .then((description) => {
          if (this.#stopped || JSON.stringify(description) === JSON.stringify(this.#description)) {
            return;
          }
          this.#description = description;
          this.#session.send({ kind: "describe", description });
          this.#assignNetworks();
        })
        .catch((error: unknown) => {
          log.warn({ error: messageOf(error) }, "describing this node failed");
        })
        .finally(() => {
          if (!this.#stopped) this.#describeLater();
        });
    });
  }

  #write(what: string, write: Promise<void>): void {
    const done = write.catch((error: unknown) => {
      this.#options.log.error({ error: messageOf(error) }, `keeping ${what} failed`);
    });
    this.#writes = this.#writes.then(() => done);
  }
}
