/** A swarm of netns machines for one test: made by `shoal machine`, driven by the docker command and the API, removed whatever happens. */

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { MachineStore } from "../../src/machine/store.ts";
import { checkout, must, type Outcome, run, until } from "./command.ts";

export interface ApiTask {
  readonly ID: string;
  readonly ServiceID: string;
  readonly NodeID?: string;
  readonly Slot?: number;
  readonly DesiredState: string;
  readonly Status: {
    readonly State: string;
    readonly Err?: string;
    readonly ContainerStatus?: {
      readonly ContainerID?: string;
      readonly PID?: number;
      readonly ExitCode?: number;
    };
  };
  readonly NetworksAttachments?: readonly { readonly Addresses: readonly string[] }[];
}
export interface ApiNode {
  readonly ID: string;
  readonly Description: { readonly Hostname: string };
  readonly Spec: { readonly Role: string; readonly Availability: string };
  readonly Status: { readonly State: string };
  readonly ManagerStatus?: { readonly Leader?: boolean; readonly Reachability: string };
}

export class Swarm {
  readonly name: string;
  /** Folder of the machines' state; on a real file system, because overlayfs needs one. */
  readonly storage: string;
  /** What the names of this swarm's namespaces, cgroups and processes carry. */
  readonly marks: readonly string[];
  readonly managers: readonly string[];
  readonly workers: readonly string[];

  private constructor(name: string, storage: string, managers: number, workers: number) {
    this.name = name;
    this.storage = storage;
    this.marks = [storage, new MachineStore(storage).hash];
    const names = (letter: string, count: number) =>
      Array.from({ length: count }, (_, index) => `${name}-${letter}${index + 1}`);
    this.managers = names("m", managers);
    this.workers = names("w", workers);
  }

  /** Makes the machines and joins them. */
  static async create(name: string, managers: number, workers: number): Promise<Swarm> {
    await mkdir("/var/tmp", { recursive: true });
    const storage = await mkdtemp(`/var/tmp/shoal-${name}-`);
    const swarm = new Swarm(name, storage, managers, workers);
    try {
      await swarm.machine(
        "cluster",
        "create",
        name,
        "--managers",
        String(managers),
        "--workers",
        String(workers),
      );
    } catch (error) {
      await swarm.destroy();
      throw error;
    }
    return swarm;
  }

  get machines(): readonly string[] {
    return [...this.managers, ...this.workers];
  }

  /** `shoal machine …`, which must succeed. */
  async machine(...args: string[]): Promise<string> {
    return await must(join(checkout, "bin/shoal"), ["machine", ...args], {
      env: { MACHINE_STORAGE_PATH: this.storage },
      timeoutMs: 120_000,
    });
  }

  socket(machine: string): string {
    return join(this.storage, "machines", machine, "docker.sock");
  }

  /** The docker command against a machine's socket. */
  async dockerRun(machine: string, args: readonly string[], input?: string): Promise<Outcome> {
    const env = {
      DOCKER_HOST: `unix://${this.socket(machine)}`,
      DOCKER_CONFIG: join(this.storage, "docker-config"),
    };
    return await run("docker", args, { env, ...(input === undefined ? {} : { input }) });
  }

  /** The docker command, which must succeed; answers its trimmed output. */
  async docker(machine: string, ...args: string[]): Promise<string> {
    const { code, out, err } = await this.dockerRun(machine, args);
    if (code !== 0)
      throw new Error(`docker ${args.join(" ")} on ${machine}: exit ${code}\n${out}${err}`);
    return out.trim();
  }

  /** The Engine API of a machine; the body as JSON. */
  async api<T>(machine: string, path: string, timeoutMs = 3_000): Promise<T> {
    return await new Promise<T>((resolve, reject) => {
      const outgoing = request(
        { socketPath: this.socket(machine), path: `/v1.50${path}`, timeout: timeoutMs },
        (response) => {
          let text = "";
          response.on("data", (chunk) => {
            text += String(chunk);
          });
          response.on("end", () =>
            response.statusCode === 200
              ? resolve(JSON.parse(text) as T)
              : reject(new Error(`GET ${path} on ${machine}: ${response.statusCode} ${text}`)),
          );
        },
      );
      outgoing.once("timeout", () =>
        outgoing.destroy(new Error(`GET ${path} on ${machine}: no answer`)),
      );
      outgoing.once("error", reject);
      outgoing.end();
    });
  }

  async nodes(machine: string): Promise<readonly ApiNode[]> {
    return await this.api(machine, "/nodes");
  }

  /** The machine that leads, as `machine` sees it; null while there is none. */
  async leader(machine: string): Promise<string | null> {
    const nodes = await this.nodes(machine);
    return nodes.find((node) => node.ManagerStatus?.Leader === true)?.Description.Hostname ?? null;
  }

  async tasks(machine: string, service: string): Promise<readonly ApiTask[]> {
    const filters = encodeURIComponent(JSON.stringify({ service: { [service]: true } }));
    return await this.api(machine, `/tasks?filters=${filters}`);
  }

  /** Tasks that are to run and do. */
  async running(machine: string, service: string): Promise<readonly ApiTask[]> {
    const tasks = await this.tasks(machine, service);
    return tasks.filter(
      (task) => task.DesiredState === "running" && task.Status.State === "running",
    );
  }

  /** Waits until exactly `count` tasks run, none of them on the nodes named. */
  async converged(
    machine: string,
    service: string,
    count: number,
    options: { readonly notOn?: readonly string[]; readonly timeoutMs?: number } = {},
  ): Promise<readonly ApiTask[]> {
    const lost = new Set(options.notOn ?? []);
    return await until(
      `${count} tasks of ${service} running`,
      async () => {
        const [tasks, nodes] = [await this.running(machine, service), await this.nodes(machine)];
        const names = new Map(nodes.map((node) => [node.ID, node.Description.Hostname]));
        const there = tasks.filter((task) => !lost.has(names.get(task.NodeID ?? "") ?? ""));
        return there.length === count ? there : null;
      },
      options.timeoutMs ?? 30_000,
    );
  }

  /** Imports a busybox image as `busybox:latest` on every machine; its web server answers with the task's host name. */
  async loadBusybox(): Promise<void> {
    const tar = await busyboxTar(this.storage);
    for (const machine of this.machines)
      await this.docker(machine, "import", tar, "busybox:latest");
  }

  /** The last lines of what the daemons and cores of all machines said: for whoever reads a failure. */
  async logs(lines = 25): Promise<string> {
    const files = this.machines.flatMap((machine) => [
      join(this.storage, "machines", machine, "*.log"),
      join(this.storage, "machines", machine, "run", "*.log"),
    ]);
    const { out } = await run("sh", ["-c", `tail -n ${lines} ${files.join(" ")} 2>/dev/null`]);
    return out;
  }

  /** Runs a part of a test; a failure carries the logs. */
  async explained<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw new Error(`${String(error)}\n${await this.logs()}`, { cause: error });
    }
  }

  /** Removes everything, also after a failure; tells what it could not. */
  async destroy(): Promise<void> {
    const shoal = join(checkout, "bin/shoal");
    const env = { MACHINE_STORAGE_PATH: this.storage };
    const { out } = await run(shoal, ["machine", "ls", "-q"], { env });
    const names = out.split("\n").filter(Boolean);
    if (names.length > 0) {
      const removal = await run(shoal, ["machine", "rm", "-f", ...names], {
        env,
        timeoutMs: 120_000,
      });
      if (removal.code !== 0)
        throw new Error(`machines were left behind: ${removal.out}${removal.err}`);
    }
    await rm(this.storage, { recursive: true, force: true });
  }
}

/** A root file system of busybox as a tar file in `folder`; answers its path. */
export async function busyboxTar(folder: string): Promise<string> {
  const root = join(folder, "busybox-root");
  const tar = join(folder, "busybox.tar");
  for (const directory of ["bin", "etc", "tmp", "root", "www", "proc", "sys", "dev"]) {
    await mkdir(join(root, directory), { recursive: true });
  }
  await must("cp", ["/bin/busybox", join(root, "bin/busybox")]);
  const applets = (await must("/bin/busybox", ["--list"])).split("\n");
  for (const applet of applets) {
    if (applet !== "busybox") await must("ln", ["-sf", "busybox", join(root, "bin", applet)]);
  }
  await writeFile(
    join(root, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
  );
  await writeFile(join(root, "etc/group"), "root:x:0:\nnogroup:x:65534:\n");
  await must("tar", ["-C", root, "-cf", tar, "."]);
  await rm(root, { recursive: true, force: true });
  return tar;
}

/** The command of a task that answers HTTP on port 80 with its own host name. */
export const webCommand: readonly string[] = [
  "sh",
  "-c",
  "hostname > /www/index.html && exec httpd -f -p 80 -h /www",
];
