/** An executor, networks and a database in memory, which a test can make fail. */
import type { InstantMs } from "../../lib/clock.ts";
import { failure } from "../../lib/errors.ts";
import { defaultDataPathPort } from "../../model/defaults.ts";
import type { Network } from "../../model/network.ts";
import type { TaskStatus } from "../../model/task.ts";
import { aTaskSpec } from "../../model/testing/rows.ts";
import type { AssignedTask, NetworkPeer, ToAgent, ToManager } from "../../wire/session.ts";
import { containerIdOf } from "../container-id.ts";
import type { ExecutedTask, Executor, TaskExit } from "../executor.ts";
import type { NetworkAssignment, Networks } from "../networks.ts";
import type { AgentChannel } from "../session.ts";
import type { WorkerDb, WorkerState } from "../worker-db.ts";

export function anAssigned(id: string, over: Partial<AssignedTask> = {}): AssignedTask {
  return {
    id,
    serviceId: "service",
    serviceName: "web",
    slot: 1,
    nodeId: "n1",
    spec: aTaskSpec(),
    desired: "running",
    attachments: [],
    serviceLabels: {},
    ...over,
  };
}

export function anExit(exitCode: number, over: Partial<TaskExit> = {}): TaskExit {
  return {
    exitCode,
    known: true,
    oomKilled: false,
    finishedAt: 0 as InstantMs,
    error: "",
    ...over,
  };
}

export interface FakeContainer {
  state: ExecutedTask["state"];
  exit: TaskExit | null;
  readonly waiters: ((exit: TaskExit) => void)[];
}

export class FakeExecutor implements Executor {
  readonly calls: string[] = [];
  readonly containers: Map<string, FakeContainer> = new Map();
  /** What a step answers with, once for each entry. */
  readonly failures: Map<string, Error[]> = new Map();
  /** Steps that wait until they are let go. */
  readonly held: Map<string, Promise<void>> = new Map();

  readonly #availableListeners = new Set<() => void>();

  onAvailable(listener: () => void): () => void {
    this.#availableListeners.add(listener);
    return () => this.#availableListeners.delete(listener);
  }

  /** What was away is there again. */
  available(): void {
    for (const listener of this.#availableListeners) listener();
  }

  async #step(name: string, taskId: string): Promise<void> {
    this.calls.push(`${name} ${taskId}`);
    await this.held.get(name);
    const error = this.failures.get(name)?.shift();
    if (error !== undefined) throw error;
  }

  async prepare(task: AssignedTask, signal: AbortSignal): Promise<void> {
    await this.#step("prepare", task.id);
    signal.throwIfAborted();
  }

  async create(task: AssignedTask): Promise<{ readonly containerId: string }> {
    await this.#step("create", task.id);
    if (!this.containers.has(task.id)) {
      this.containers.set(task.id, { state: "created", exit: null, waiters: [] });
    }
    return { containerId: containerIdOf(task.id) };
  }

  async start(taskId: string): Promise<{ readonly containerId: string; readonly pid: number }> {
    await this.#step("start", taskId);
    const container = this.#of(taskId);
    if (container.state === "created") container.state = "running";
    return { containerId: containerIdOf(taskId), pid: 42 };
  }

  async wait(taskId: string, signal: AbortSignal): Promise<TaskExit> {
    await this.#step("wait", taskId);
    const container = this.#of(taskId);
    if (container.exit !== null) return container.exit;
    return await new Promise((resolve, reject) => {
      container.waiters.push(resolve);
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }

  async shutdown(taskId: string): Promise<TaskExit | null> {
    await this.#step("shutdown", taskId);
    const container = this.containers.get(taskId);
    if (container?.state !== "running") return container?.exit ?? null;
    this.end(taskId, anExit(143));
    return anExit(143);
  }

  async remove(taskId: string): Promise<void> {
    await this.#step("remove", taskId);
    this.containers.delete(taskId);
  }

  list(): Promise<readonly ExecutedTask[]> {
    return Promise.resolve(
      [...this.containers].map(([taskId, { state }]) => ({
        taskId,
        containerId: containerIdOf(taskId),
        state,
      })),
    );
  }

  /** The task's process ends. */
  end(taskId: string, exit: TaskExit): void {
    const container = this.#of(taskId);
    container.state = "exited";
    container.exit = exit;
    for (const waiter of container.waiters.splice(0)) waiter(exit);
  }

  #of(taskId: string): FakeContainer {
    const container = this.containers.get(taskId);
    if (container === undefined) throw failure("not-found", `No such container: ${taskId}`);
    return container;
  }
}

export class FakeNetworks implements Networks {
  readonly calls: string[] = [];
  assignment: NetworkAssignment | null = null;
  #listener: (revision: number) => void = () => {};

  adopt(task: AssignedTask): void {
    this.calls.push(`adopt ${task.id}`);
  }
  start(): void {
    this.calls.push("start");
  }
  stop(): void {
    this.calls.push("stop");
  }
  assign(assignment: NetworkAssignment): void {
    this.assignment = assignment;
    this.#listener(assignment.revision);
  }
  prepare(task: AssignedTask): Promise<void> {
    this.calls.push(`prepare ${task.id}`);
    return Promise.resolve();
  }
  attach(task: AssignedTask): Promise<void> {
    this.calls.push(`attach ${task.id}`);
    return Promise.resolve();
  }
  release(taskId: string): void {
    this.calls.push(`release ${taskId}`);
  }
  onApplied(listener: (revision: number) => void): void {
    this.#listener = listener;
  }
}

export class MemoryWorkerDb implements WorkerDb {
  revision = 0;
  port: number = defaultDataPathPort;
  readonly tasks: Map<string, AssignedTask> = new Map();
  readonly statuses: Map<string, TaskStatus> = new Map();
  readonly networks: Map<string, Network> = new Map();
  readonly peers: Map<string, NetworkPeer> = new Map();

  load(): Promise<WorkerState> {
    return Promise.resolve({
      revision: this.revision,
      dataPathPort: this.port,
      tasks: [...this.tasks.values()],
      statuses: [...this.statuses].map(([taskId, status]) => ({ taskId, status })),
      networks: [...this.networks.values()],
      peers: [...this.peers.values()],
    });
  }
  saveAssignment(change: Parameters<WorkerDb["saveAssignment"]>[0]): Promise<void> {
    this.revision = change.revision;
    for (const item of change.putTasks) this.tasks.set(item.id, item);
    for (const item of change.putNetworks) this.networks.set(item.id, item);
    for (const id of change.removeNetworks) this.networks.delete(id);
    for (const item of change.putPeers) this.peers.set(item.key, item);
    for (const key of change.removePeers) this.peers.delete(key);
    return Promise.resolve();
  }
  saveDataPathPort(port: number): Promise<void> {
    this.port = port;
    return Promise.resolve();
  }
  saveStatus(taskId: string, status: TaskStatus): Promise<void> {
    this.statuses.set(taskId, status);
    return Promise.resolve();
  }
  forgetTask(taskId: string): Promise<void> {
    this.tasks.delete(taskId);
    this.statuses.delete(taskId);
    return Promise.resolve();
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** The manager's end of one session. */
export class FakeManager {
  readonly heard: ToManager[] = [];
  closedFor: string | null = null;
  #receive: (message: ToAgent) => void = () => {};
  #closed: (reason: string) => void = () => {};

  readonly channel: AgentChannel = {
    send: (message) => {
      this.heard.push(message);
      if (message.kind === "heartbeat") {
        this.say({ kind: "heartbeat-reply", sequence: message.sequence });
      }
    },
    onMessage: (receive) => {
      this.#receive = receive;
    },
    onClose: (closed) => {
      this.#closed = closed;
      if (this.closedFor !== null) closed(this.closedFor);
    },
    close: (reason) => this.hangUp(reason),
  };

  say(message: ToAgent): void {
    if (this.closedFor === null) this.#receive(message);
  }

  welcome(): void {
    this.say({ kind: "welcome", session: "s", heartbeatMs: 1_000 });
  }

  hangUp(reason: string): void {
    if (this.closedFor !== null) return;
    this.closedFor = reason;
    this.#closed(reason);
  }

  /** All statuses heard, hello's too, as `task state`. */
  get statuses(): readonly string[] {
    return this.heard.flatMap((message) =>
      message.kind === "hello"
        ? message.statuses.map((item) => `${item.taskId} ${item.status.state}`)
        : message.kind === "status"
          ? message.updates.map((item) => `${item.taskId} ${item.status.state}`)
          : [],
    );
  }
}
