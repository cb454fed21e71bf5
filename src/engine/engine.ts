/** Containers of one machine: made from images, run by the native core, found again after any crash. */
import type { ImageStore } from "../image/image-store.ts";
import { after, type Clock, type InstantMs } from "../lib/clock.ts";
import { failure, messageOf, ShoalError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Container } from "../model/container.ts";
import type { NativeContainer, NativeExit } from "../wire/native.ts";
import type { ContainerLogs } from "./container-logs.ts";
import { findByReference } from "./container-lookup.ts";
import type { ContainerRecords, HostFacts } from "./container-records.ts";
import {
  type ContainerRequest,
  containerOf,
  prepareContainer,
  shortIdDigits,
  writeEtcFiles,
} from "./container-request.ts";
import { createEventLog, type EventLog } from "./event-log.ts";
import { logOptionsOf } from "./log-options.ts";
import { isNative, type NativeCore } from "./native-core.ts";
import { ociSpec } from "./oci-spec.ts";
import { type Top, topOf } from "./top.ts";

/** How long a container may take to end after SIGKILL, in milliseconds. */
const killTimeoutMs = 10_000;
/** Bytes that must be free on the data root's disk for a new container: what runs needs room for its records and logs. */
const freeBytesMin: number = 16 * 1024 * 1024;

export interface EngineOptions {
  readonly native: NativeCore;
  readonly images: ImageStore;
  readonly records: ContainerRecords;
  readonly logs: ContainerLogs;
  readonly host: HostFacts;
  readonly clock: Clock;
  readonly log: Log;
  /** `/NAME` under each cgroup hierarchy. */
  readonly cgroupParent: string;
  /** Go's name: amd64. */
  readonly architecture: string;
}
export interface ContainerExit {
  readonly exitCode: number;
  /** False when nobody could know the code. */
  readonly known: boolean;
  readonly oomKilled: boolean;
  readonly finishedAt: InstantMs;
  /** Why it never started; empty otherwise. */
  readonly error: string;
}
export interface ContainerLogsQuery {
  readonly follow: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tail: number;
  readonly sinceNs: bigint | null;
  readonly untilNs: bigint | null;
  readonly signal: AbortSignal;
}
/** A line of a container's log, with the labels' ids of its task. */
export interface EngineLogLine {
  readonly taskId: string;
  readonly serviceId: string;
  readonly nodeId: string;
  readonly stream: "stdout" | "stderr";
  readonly time: string;
  readonly line: Uint8Array;
}

/** Errors are ShoalErrors; "unavailable" while the core is away: the same call again is right. */
export interface Engine {
  readonly events: EventLog;
  /** Reads the records and meets the core's; then every container is known. Waits until the core answers. */
  open(): Promise<void>;
  /** Told each time the core is there and what it has is known. The returned function ends it. */
  onReady(listener: () => void): () => void;
  close(): void;
  /** All that can be refused without making anything: image, platform, user, mounts, log driver. */
  check(request: ContainerRequest): Promise<void>;
  create(request: ContainerRequest): Promise<Container>;
  /** Runs it; one that runs, or ran, stays as it is. */
  start(id: string): Promise<Container>;
  /** Asks with its stop signal, kills after `graceMs`, and waits for the end. Null: the container's own grace. */
  stop(id: string, graceMs: number | null): Promise<void>;
  /** Resolves when it ended. Rejects not-found when there is no such container, or it is removed before. */
  wait(id: string, signal: AbortSignal): Promise<ContainerExit>;
  /** Nothing there is fine. Running ones are refused without `force`. */
  remove(id: string, force: boolean): Promise<void>;
  list(): Promise<readonly Container[]>;
  get(reference: string): Promise<Container>;
  logs(reference: string, query: ContainerLogsQuery): AsyncIterable<EngineLogLine>;
  top(reference: string, psArguments: string): Promise<Top>;
}

/** The engine; call `open` first. */
export function createEngine(options: EngineOptions): Engine {
  return new NativeEngine(options);
}

interface Entry {
  container: Container;
  /** The core has it. */
  made: boolean;
  /** Steps under way; the core's list may not know of them yet. */
  busy: number;
  exit: ContainerExit | null;
  /** Its record is going: nothing is written to it any more. */
  removing: boolean;
  readonly waiters: Set<(exit: ContainerExit | null) => void>;
}
class NativeEngine implements Engine {
  readonly events: EventLog;
  readonly #options: EngineOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #forget: (() => void)[] = [];
  /** While we learn what a core that just connected has: nothing new is made before that is known. */
  #meeting: Promise<void> = Promise.resolve();
  readonly #readyListeners = new Set<() => void>();

  constructor(options: EngineOptions) {
    this.#options = options;
    this.events = createEventLog(options.clock);
  }

  async open(): Promise<void> {
    for (const container of await this.#options.records.load()) {
      this.#entries.set(container.id, entryOf(container));
    }
    this.#options.images.setUses((imageId) =>
      [...this.#entries.values()]
        .filter((entry) => entry.container.imageId === imageId)
        .map((entry) => ({
          containerId: entry.container.id,
          running: entry.container.state === "running",
        })),
    );
    this.#options.images.setListener((event) =>
      this.events.publish({
        type: "image",
        action: event.action,
        actorId: event.imageId,
        attributes: { name: event.name },
        scope: "local",
      }),
    );
    const { native } = this.#options;
    this.#forget.push(
      native.onEvent((event) => {
        const { containerId } = event;
        switch (event.event) {
          case "oom":
            return this.#publish(containerId, "oom", {});
          case "exit":
            return this.#background(this.#exited(containerId, event));
          case "exec-exit":
            return this.#publish(containerId, "exec_die", {
              execID: event.execId,
              exitCode: String(event.exitCode),
            });
          case "health":
            return this.#publish(containerId, `health_status: ${event.status}`, {});
          default:
            return event satisfies never;
        }
      }),
    );
    await new Promise<void>((resolve) => {
      this.#forget.push(
        native.onConnected(() => {
          const met = this.#meetCore();
          this.#meeting = met.catch(() => {});
          this.#background(
            met.then(() => {
              resolve();
              for (const listener of [...this.#readyListeners]) listener();
            }),
          );
        }),
      );
    });
  }

  onReady(listener: () => void): () => void {
    this.#readyListeners.add(listener);
    return () => this.#readyListeners.delete(listener);
  }

  close(): void {
    for (const forget of this.#forget) forget();
  }

  async check(request: ContainerRequest): Promise<void> {
    await prepareContainer(this.#options, request);
    const freeBytes = await this.#options.records.freeBytes();
    if (freeBytes < freeBytesMin) {
      throw failure(
        "failed-precondition",
        `no space left on device: ${freeBytes} bytes are free under the data root, and ${freeBytesMin} are kept for what runs already; free some space`,
      );
    }
    if (!this.#options.native.connected) {
      throw failure(
        "unavailable",
        "the native core does not answer; it is started again by itself",
      );
    }
  }

  async create(request: ContainerRequest): Promise<Container> {
    const { native, records } = this.#options;
    await this.#meeting;
    const known = this.#entries.get(request.id);
    if (known?.made) return known.container;
    const { image, user } = await prepareContainer(this.#options, request);
    const entry = entryOf(containerOf(this.#options, request, image));
    // In the same turn as the last look at the image: from here on it is held.
    if (this.#options.images.find(image.id) === null) {
      throw failure("not-found", `No such image: ${request.spec.image}`);
    }
    this.#entries.set(request.id, entry);
    entry.busy++;
    try {
      const etc = await writeEtcFiles(this.#options, entry.container, request);
      await records.save(entry.container, true);
      const directory = records.directoryOf(request.id);
      const log = logOptionsOf(request.logDriver);
      const created = await native
        .call("create", {
          containerId: request.id,
          spec: ociSpec({
            containerId: request.id,
            image: image.config,
            spec: request.spec,
            limits: request.limits,
            user,
            hostname: entry.container.hostname,
            cgroupParent: this.#options.cgroupParent,
            etc,
          }),
          rootfs: {
            layers: this.#options.images.layerDirectories(image),
            directory: `${directory}/rootfs`,
          },
          log: log === null ? null : { path: entry.container.logPath, ...log },
          stdin: "closed",
          consoleSize: null,
          seccomp: "default",
          health: null,
        })
        .catch(async (error: unknown) => {
          // Made before a crash that lost the answer: it is ours, the id says so.
          if (!isNative(error, "already-exists")) throw error;
          return await native.call("state", { containerId: request.id });
        });
      entry.made = true;
      entry.container = { ...entry.container, pid: created.pid };
      if ("status" in created) await this.#take(entry, created);
      this.#publish(request.id, "create", {});
      return entry.container;
    } catch (error) {
      // While the core is away nobody knows whether it was made; asking again tells.
      if (!(error instanceof ShoalError && error.code === "unavailable")) {
        this.#drop(entry);
        await records.remove(request.id);
      }
      throw error;
    } finally {
      entry.busy--;
    }
  }

  async start(id: string): Promise<Container> {
    const entry = this.#entry(id);
    if (entry.container.state !== "created") return entry.container;
    entry.busy++;
    try {
      await this.#options.native.call("start", { containerId: id });
      if (entry.container.state === "created") {
        entry.container = {
          ...entry.container,
          state: "running",
          startedAt: this.#options.clock.now(),
        };
        await this.#options.records.save(entry.container, false);
      }
      this.#publish(id, "start", {});
      return entry.container;
    } catch (error) {
      if (isNative(error, "conflict")) {
        await this.#take(entry, await this.#options.native.call("state", { containerId: id }));
        if (entry.container.state !== "created") return entry.container;
      }
      if (!(error instanceof ShoalError && error.code === "unavailable")) {
        entry.container = { ...entry.container, error: messageOf(error) };
      }
      throw error;
    } finally {
      entry.busy--;
    }
  }

  async stop(id: string, graceMs: number | null): Promise<void> {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.exit !== null || entry.container.state !== "running") return;
    const grace = graceMs ?? entry.container.stopTimeoutSeconds * 1_000;
    await this.#signal(entry, entry.container.stopSignal, false);
    if (grace > 0 && (await this.#endsWithin(entry, grace))) return this.#stopped(id);
    await this.#signal(entry, "SIGKILL", true);
    if (!(await this.#endsWithin(entry, killTimeoutMs))) {
      throw failure(
        "unavailable",
        `stopping container ${id.slice(0, shortIdDigits)}: it did not end ${killTimeoutMs} ms after SIGKILL; a process may hang in the kernel`,
      );
    }
    this.#stopped(id);
  }

  async wait(id: string, signal: AbortSignal): Promise<ContainerExit> {
    const entry = this.#entry(id);
    signal.throwIfAborted();
    if (entry.exit !== null) return entry.exit;
    const exit = await new Promise<ContainerExit | null>((resolve, reject) => {
      const done = (value: ContainerExit | null) => {
        signal.removeEventListener("abort", aborted);
        resolve(value);
      };
      const aborted = () => {
        entry.waiters.delete(done);
        reject(signal.reason);
      };
      entry.waiters.add(done);
      signal.addEventListener("abort", aborted, { once: true });
    });
    if (exit === null) throw noSuchContainer(id);
    return exit;
  }

  async remove(id: string, force: boolean): Promise<void> {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    if (entry.container.state === "running" && !force) {
      throw failure(
        "conflict",
        `cannot remove container "/${entry.container.name}": container is running: stop the container before removing or force remove`,
      );
    }
    entry.busy++;
    entry.removing = true;
    try {
      await this.#options.native
        .call("delete", { containerId: id, force: true })
        .catch((error: unknown) => {
          if (!isNative(error, "not-found")) throw error;
        });
      await this.#options.records.remove(id);
      this.#publish(id, "destroy", {});
      this.#drop(entry);
    } finally {
      entry.removing = false;
      entry.busy--;
    }
  }

  list(): Promise<readonly Container[]> {
    return Promise.resolve([...this.#entries.values()].map((entry) => entry.container));
  }

  async get(reference: string): Promise<Container> {
    const containers = [...this.#entries.values()].map((entry) => entry.container);
    return findByReference(containers, reference);
  }

  async *logs(reference: string, query: ContainerLogsQuery): AsyncIterable<EngineLogLine> {
    const container = await this.get(reference);
    if (container.logPath === "") {
      throw failure("not-implemented", "configured logging driver does not support reading");
    }
    const ended = new AbortController();
    const stop = () => ended.abort();
    query.signal.addEventListener("abort", stop, { once: true });
    if (query.signal.aborted) stop();
    const label = (key: string) => container.labels[`com.docker.swarm.${key}`] ?? "";
    const ids = {
      taskId: label("task.id"),
      serviceId: label("service.id"),
      nodeId: label("node.id"),
    };
    try {
      const follow = query.follow
        ? this.wait(container.id, ended.signal).then(
            () => {},
            // Gone, or nobody listens any more: either way the log ends.
            () => {},
          )
        : null;
      const lines = this.#options.logs.read(container.logPath, { ...query, follow });
      for await (const line of lines) yield { ...ids, ...line };
    } finally {
      query.signal.removeEventListener("abort", stop);
      stop();
    }
  }

  async top(reference: string, psArguments: string): Promise<Top> {
    const container = await this.get(reference);
    if (container.state !== "running") {
      throw failure("conflict", `container ${container.id} is not running`);
    }
    const { pids } = await this.#options.native.call("pids", { containerId: container.id });
    return await topOf(psArguments, pids, this.#options.host);
  }

  /** Makes what we know and what the core has the same. */
  async #meetCore(): Promise<void> {
    const { native, records, log } = this.#options;
    // Before asking: what is made while the core answers is not in its list.
    const idle = [...this.#entries.values()].filter((entry) => entry.busy === 0);
    const { containers } = await native.call("list", {});
    const there = new Map(containers.map((item) => [item.containerId, item]));
    for (const item of containers) {
      const entry = this.#entries.get(item.containerId);
      if (entry !== undefined) {
        await this.#take(entry, item);
        continue;
      }
      // Its record went first, or never came: nobody will ever ask for it.
      log.warn({ containerId: item.containerId }, "removing a container without a record");
      await native.call("delete", { containerId: item.containerId, force: true });
    }
    for (const entry of idle) {
      const { id, state } = entry.container;
      if (there.has(id) || entry.busy > 0 || this.#entries.get(id) !== entry) continue;
      if (state === "created") {
        // A crash came between its record and its making; whoever wanted it asks again.
        this.#drop(entry);
        await records.remove(id);
      } else if (entry.exit === null) {
        await this.#exited(id, lostExit(this.#options.clock.now()));
      }
    }
  }

  /** Takes over what the core says of a container; never back from its end. */
  async #take(entry: Entry, item: NativeContainer): Promise<void> {
    entry.made = true;
    if (entry.exit !== null) return;
    if (item.status === "stopped") {
      await this.#exited(entry.container.id, item.exit ?? lostExit(this.#options.clock.now()));
    } else if (item.status === "running") {
      entry.container = {
        ...entry.container,
        state: "running",
        pid: item.pid,
        startedAt: (item.startedAtMs ?? item.createdAtMs) as InstantMs,
      };
    }
  }

  /** Records an end, durably, before anybody hears of it; the core keeps its own record until `delete`. */
  async #exited(id: string, exit: NativeExit): Promise<void> {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.exit !== null) return;
    entry.exit = {
      exitCode: exit.exitCode,
      known: exit.exitCodeKnown,
      oomKilled: exit.oomKilled,
      finishedAt: exit.finishedAtMs as InstantMs,
      error: entry.container.error,
    };
    entry.container = {
      ...entry.container,
      state: "exited",
      pid: 0,
      exitCode: exit.exitCode,
      oomKilled: exit.oomKilled,
      finishedAt: exit.finishedAtMs as InstantMs,
    };
    try {
      if (!entry.removing) await this.#options.records.save(entry.container, true);
    } catch (error) {
      // A full disk must not hide an end; the code stays with the core until the container is removed.
      this.#options.log.error({ id, error: messageOf(error) }, "recording an exit failed");
    }
    this.#publish(id, "die", { exitCode: String(exit.exitCode) });
    const waiters = [...entry.waiters];
    entry.waiters.clear();
    for (const waiter of waiters) waiter(entry.exit);
  }

  async #signal(entry: Entry, signal: string, all: boolean): Promise<void> {
    const containerId = entry.container.id;
    try {
      await this.#options.native.call("kill", { containerId, signal, all });
      this.#publish(containerId, "kill", { signal });
    } catch (error) {
      // Ended in the meantime: its exit is told in its own event.
      if (!isNative(error, "not-found") && !isNative(error, "conflict")) throw error;
    }
  }

  async #endsWithin(entry: Entry, durationMs: number): Promise<boolean> {
    if (entry.exit !== null) return true;
    return await new Promise<boolean>((resolve) => {
      const done = () => {
        cancel();
        resolve(true);
      };
      const cancel = this.#options.clock.wakeAt(
        after(this.#options.clock.now(), durationMs),
        () => {
          entry.waiters.delete(done);
          resolve(false);
        },
      );
      entry.waiters.add(done);
    });
  }

  #stopped(id: string): void {
    this.#publish(id, "stop", {});
  }

  #drop(entry: Entry): void {
    const { id } = entry.container;
    if (this.#entries.get(id) === entry) this.#entries.delete(id);
    const waiters = [...entry.waiters];
    entry.waiters.clear();
    for (const waiter of waiters) waiter(entry.exit);
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw noSuchContainer(id);
    return entry;
  }

  #publish(id: string, action: string, more: Readonly<Record<string, string>>): void {
    const container = this.#entries.get(id)?.container;
    if (container === undefined) return;
    this.events.publish({
      type: "container",
      action,
      actorId: id,
      attributes: {
        ...container.labels,
        image: container.imageRef,
        name: container.name,
        ...more,
      },
      scope: "local",
    });
  }

  #background(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      // The core went away in the middle; the next connection begins anew.
      this.#options.log.warn({ error: messageOf(error) }, "meeting the native core failed");
    });
  }
}

function entryOf(container: Container): Entry {
  const exit: ContainerExit | null =
    container.state === "exited"
      ? {
          exitCode: container.exitCode,
          known: true,
          oomKilled: container.oomKilled,
          finishedAt: container.finishedAt ?? container.createdAt,
          error: container.error,
        }
      : null;
  return { container, made: exit !== null, busy: 0, exit, removing: false, waiters: new Set() };
}

/** The end of a container that ran and is gone: with the machine, or with the core's own records. */
function lostExit(now: InstantMs): NativeExit {
  return {
    exitCode: 137,
    exitCodeKnown: false,
    signal: null,
    oomKilled: false,
    finishedAtMs: now,
  };
}

function noSuchContainer(id: string): Error {
  return failure("not-found", `No such container: ${id}`);
}
