/** What the behaviour tests say often: busybox services on a manager, their task rows in order, what a task printed. */
import { until } from "./command.ts";
import type { ApiTask, Swarm } from "./swarm.ts";

export interface TaskRow extends ApiTask {
  readonly CreatedAt: string;
  readonly Spec: { readonly ContainerSpec: { readonly Image: string } };
  readonly Status: ApiTask["Status"] & { readonly Timestamp: string; readonly Message: string };
}
export interface ServiceRow {
  readonly ID: string;
  readonly Spec: { readonly Labels?: Readonly<Record<string, string>> };
  readonly UpdateStatus?: {
    readonly State: string;
    readonly Message: string;
    readonly CompletedAt?: string;
  };
}
export interface ContainerRow {
  readonly Id: string;
  readonly Names: readonly string[];
  readonly State: string;
  readonly Labels: Readonly<Record<string, string>>;
}

/** One look at the tasks of a service. */
export type Look = readonly TaskRow[];

export class Services {
  readonly swarm: Swarm;
  /** The machine that everything is asked of. */
  readonly manager: string;

  constructor(swarm: Swarm, manager: string = swarm.managers[0] ?? "") {
    this.swarm = swarm;
    this.manager = manager;
  }

  async docker(...args: string[]): Promise<string> {
    return await this.swarm.docker(this.manager, ...args);
  }

  /** Creates a service of busybox that stops at once, unless the flags say otherwise. */
  async create(name: string, flags: readonly string[], ...command: string[]): Promise<string> {
    const stops = flags.some((flag) => flag.startsWith("--stop-")) ? [] : ["--stop-signal", "KILL"];
    const head = ["service", "create", "-d", "--no-resolve-image", "--name", name, ...stops];
    const what = command.length === 0 ? ["sleep", "1d"] : command;
    return await this.docker(...head, ...flags, "busybox", ...what);
  }

  async update(name: string, ...flags: string[]): Promise<void> {
    await this.docker("service", "update", "-d", "--no-resolve-image", ...flags, name);
  }

  async remove(...names: string[]): Promise<void> {
    await this.docker("service", "rm", ...names);
  }

  /** All task rows, by slot, the youngest of a slot first. */
  async rows(name: string): Promise<Look> {
    const rows = (await this.swarm.tasks(this.manager, name)) as readonly TaskRow[];
    return [...rows].sort(
      (a, b) =>
        (a.Slot ?? 0) - (b.Slot ?? 0) ||
        (a.CreatedAt < b.CreatedAt ? 1 : a.CreatedAt > b.CreatedAt ? -1 : 0),
    );
  }

  async inspect(name: string): Promise<ServiceRow> {
    return await this.swarm.api<ServiceRow>(this.manager, `/services/${name}`);
  }

  /** Waits until the tasks that are to run are `count`, and all do. */
  async settled(name: string, count: number, timeoutMs = 20_000): Promise<Look> {
    return await this.until(
      name,
      `${count} tasks, all running`,
      (rows) => {
        const wanted = rows.filter((row) => row.DesiredState === "running");
        return wanted.length === count && wanted.every(isRunning) ? wanted : null;
      },
      timeoutMs,
    );
  }

  /** Waits until `look` finds something in the rows of a service. */
  async until<T>(
    name: string,
    what: string,
    look: (rows: Look) => T | null,
    timeoutMs = 20_000,
  ): Promise<T> {
    let last: Look = [];
    try {
      return await until(
        `${name}: ${what}`,
        async () => {
          last = await this.rows(name);
          return look(last);
        },
        timeoutMs,
      );
    } catch (error) {
      throw new Error(`${String(error)}\n${last.map(inWords).join("\n")}`);
    }
  }

  /** Waits until the update of a service is in `state`; answers its message. */
  async updated(name: string, state: string, timeoutMs = 30_000): Promise<string> {
    let last = "";
    try {
      return await until(
        `${name} to be ${state}`,
        async () => {
          const status = (await this.inspect(name)).UpdateStatus;
          last = JSON.stringify(status);
          return status?.State === state ? status.Message : null;
        },
        timeoutMs,
      );
    } catch (error) {
      throw new Error(`${String(error)}; last: ${last}`);
    }
  }

  /** Looks at the tasks of a service again and again, until asked for what it saw. */
  watch(name: string): () => Promise<readonly Look[]> {
    const looks: Look[] = [];
    let on = true;
    const watching = (async () => {
      while (on) looks.push(await this.rows(name));
    })();
    return async () => {
      on = false;
      await watching;
      return looks;
    };
  }

  /** Host names of nodes by id. */
  async hosts(): Promise<ReadonlyMap<string, string>> {
    const nodes = await this.swarm.nodes(this.manager);
    return new Map(nodes.map((node) => [node.ID, node.Description.Hostname]));
  }

  /** Sorted host names of the nodes that run a task of the service. */
  async runsOn(name: string): Promise<readonly string[]> {
    const hosts = await this.hosts();
    return (await this.rows(name))
      .filter((row) => row.DesiredState === "running" && isRunning(row))
      .map((row) => hosts.get(row.NodeID ?? "") ?? "")
      .sort();
  }

  /** Waits until exactly these hosts run a task each, in any order. */
  async placedOn(name: string, hosts: readonly string[], timeoutMs = 20_000): Promise<void> {
    const wanted = [...hosts].sort().join(" ");
    await until(
      `${name} on ${wanted}`,
      async () => ((await this.runsOn(name)).join(" ") === wanted ? true : null),
      timeoutMs,
    );
  }

  /** Waits until the service has printed a line that matches; answers everything it printed, what went to stderr last. */
  async printed(name: string, pattern: RegExp, timeoutMs = 15_000): Promise<string> {
    let last = "";
    try {
      return await until(
        `${name} to print ${pattern}`,
        async () => {
          const { out, err } = await this.swarm.dockerRun(this.manager, [
            "service",
            "logs",
            "--raw",
            name,
          ]);
          last = (out + err).trimEnd();
          return pattern.test(last) ? last : null;
        },
        timeoutMs,
      );
    } catch (error) {
      throw new Error(`${String(error)}\nit printed:\n${last}`);
    }
  }

  /** The containers of a machine, stopped ones too. */
  async containers(machine: string): Promise<readonly ContainerRow[]> {
    return await this.swarm.api(machine, "/containers/json?all=true");
  }

  /** Waits until no machine has a container of the service, not even a stopped one. */
  async containersGone(
    name: string,
    machines: readonly string[] = this.swarm.machines,
  ): Promise<void> {
    let left: readonly string[] = [];
    try {
      await until(
        `no container of ${name}`,
        async () => {
          const all = await Promise.all(machines.map((machine) => this.containers(machine)));
          left = all
            .flat()
            .filter((row) => row.Labels["com.docker.swarm.service.name"] === name)
            .map((row) => `${row.Names[0]} ${row.State}`);
          return left.length === 0 ? true : null;
        },
        10_000,
      );
    } catch (error) {
      throw new Error(`${String(error)}; left: ${left.join(", ")}`);
    }
  }
}

export function isRunning(row: ApiTask): boolean {
  return row.Status.State === "running";
}

/** Milliseconds of an API time. */
export function at(time: string): number {
  return Date.parse(time);
}

/** A row in one line, for the text of a failure. */
export function inWords(row: TaskRow): string {
  const { Status } = row;
  return `${row.Slot ?? "-"} ${row.ID} ${row.NodeID ?? "-"} ${row.DesiredState} ${Status.State} ${Status.Timestamp} ${Status.Err ?? ""}`;
}

/** The addresses of a task, without prefix lengths. */
export function addressesOf(row: ApiTask): readonly string[] {
  return (row.NetworksAttachments ?? []).flatMap(({ Addresses }) =>
    Addresses.map((address) => address.split("/")[0] ?? ""),
  );
}
