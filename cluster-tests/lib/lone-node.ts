/**
 * A `shoald` that a test starts, damages and starts again: its own network, mount and process namespaces, and no init that
 * would start it anew. When its keeper process ends, the kernel ends everything in it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { type IncomingMessage, request } from "node:http";
import { join } from "node:path";
import { checkout, must, type Outcome, run, until } from "./command.ts";
import { busyboxTar } from "./swarm.ts";

/** How long a daemon may take until its API answers, or until it says why not, in milliseconds. */
const startMsMax = 20_000;
/** Nodes of one test share a network; the first one has the bridge. */
const bridge = "lone0";

export interface ApiAnswer {
  readonly status: number;
  readonly text: string;
  /** docker's `message` of an error, or the text itself. */
  readonly message: string;
}
interface Task {
  readonly ID: string;
  readonly ServiceID: string;
  readonly DesiredState: string;
  readonly Status: { readonly State: string; readonly Err?: string; readonly Message?: string };
}

export class LoneNode {
  readonly name: string;
  readonly address: string;
  /** On a real file system, because overlayfs needs one. */
  readonly folder: string;
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly socket: string;
  readonly #keeper: ChildProcess;
  #daemon: ChildProcess | null = null;
  /** What the last daemon wrote to its error output, its log included. */
  output = "";
  /** Exit code of the last daemon; null while it runs. */
  exitCode: number | null = null;

  private constructor(name: string, address: string, folder: string, keeper: ChildProcess) {
    this.name = name;
    this.address = address;
    this.folder = folder;
    this.dataRoot = join(folder, "data");
    this.execRoot = join(folder, "exec");
    this.socket = join(folder, "docker.sock");
    this.#keeper = keeper;
  }

  /** Makes the namespaces; 10.199.0.NUMBER on the network of `first`, or on one of its own. No daemon yet. */
  static async create(name: string, number = 1, first: LoneNode | null = null): Promise<LoneNode> {
    const folder = await mkdtemp(`/var/tmp/shoal-lone-${name}-`);
    const address = `10.199.0.${number}`;
    // Ends when the test's process does, however it ends: its input is closed then.
    const keeper = spawn(
      "unshare",
      [
        ...["--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"],
        ...["--propagation", "private", "sh", "-c"],
        `hostname ${name}; ip link set lo up; echo up; exec cat`,
      ],
      { stdio: ["pipe", "pipe", "inherit"] },
    );
    await new Promise<void>((resolve, reject) => {
      keeper.stdout?.once("data", () => resolve());
      keeper.once("exit", (code) => reject(new Error(`the keeper of ${name} ended: ${code}`)));
    });
    const node = new LoneNode(name, address, folder, keeper);
    await Promise.all([mkdir(node.dataRoot), mkdir(node.execRoot)]);
    if (first === null) {
      await node.inside("ip", "link", "add", bridge, "type", "bridge");
      await node.inside("ip", "address", "add", `${address}/24`, "dev", bridge);
      await node.inside("ip", "link", "set", bridge, "up");
    } else {
      const port = `p${number}`;
      const pid = String(first.#initPid());
      await node.inside("ip", "link", "add", "eth0", "type", "veth", "peer", "name", port);
      await must("nsenter", [
        ...["-t", String(node.#initPid()), "-n", "ip", "link", "set", port, "netns", pid],
      ]);
      await first.inside("ip", "link", "set", port, "master", bridge, "up");
      await node.inside("ip", "address", "add", `${address}/24`, "dev", "eth0");
      await node.inside("ip", "link", "set", "eth0", "up");
    }
    return node;
  }

  get cgroupParent(): string {
    return `/shoal-lone-${this.folder.slice(-6)}`;
  }

  /** The process with number 1 of this node's process namespace, as this box numbers it. */
  #initPid(): number {
    const path = `/proc/${this.#keeper.pid}/task/${this.#keeper.pid}/children`;
    const [child = ""] = readFileSync(path, "utf8").split(" ");
    return Number(child);
  }

  /** Runs a program inside the node's namespaces, which must succeed; answers its trimmed output. */
  async inside(program: string, ...args: string[]): Promise<string> {
    return await must("nsenter", this.#enter(program, ...args));
  }

  async tryInside(program: string, ...args: string[]): Promise<Outcome> {
    return await run("nsenter", this.#enter(program, ...args));
  }

  #enter(...command: string[]): string[] {
    return ["-t", String(this.#initPid()), "-m", "-n", "-p", "-u", "--", ...command];
  }

  /** Starts a daemon. Resolves true when its API answers, false when it ended instead: see output and exitCode. */
  async tryStart(...flags: string[]): Promise<boolean> {
    const child = spawn(
      "nsenter",
      this.#enter(
        ...[join(checkout, "bin/shoald"), "--data-root", this.dataRoot],
        ...["--exec-root", this.execRoot, "-H", `unix://${this.socket}`],
        ...["--cgroup-parent", this.cgroupParent, "--node-name", this.name, ...flags],
      ),
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    this.#daemon = child;
    this.output = "";
    this.exitCode = null;
    const take = (chunk: unknown): void => {
      this.output += String(chunk);
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    const ended = new Promise<void>((resolve) => {
      child.once("close", (code) => {
        if (this.#daemon === child) this.exitCode = code ?? 1;
        resolve();
      });
    });
    return await until(
      `shoald of ${this.name} to answer or end`,
      async () => {
        if (this.exitCode !== null) {
          await ended;
          return { up: false };
        }
        if (!existsSync(this.socket)) return null;
        return (await this.call("GET", "/_ping")).status === 200 ? { up: true } : null;
      },
      startMsMax,
    ).then(({ up }) => up);
  }

  async start(...flags: string[]): Promise<void> {
    if (!(await this.tryStart(...flags)))
      throw new Error(`shoald of ${this.name} ended with ${this.exitCode}: ${this.output}`);
  }

  /** Ends the daemon with a signal and waits for its end; containers go on. */
  async stop(signal = "TERM"): Promise<void> {
    const child = this.#daemon;
    if (child === null || this.exitCode !== null) return;
    const { pid } = JSON.parse(await this.inside("cat", join(this.dataRoot, "lock"))) as {
      pid: number;
    };
    await this.inside("kill", `-${signal}`, String(pid));
    await until(`shoald of ${this.name} to end`, async () =>
      this.exitCode === null ? null : true,
    );
    await rm(this.socket, { force: true });
  }

  /** One request of the Engine API with a JSON body, or with bytes. */
  async call(
    method: string,
    path: string,
    body?: unknown,
    options: { readonly headers?: Readonly<Record<string, string>>; readonly raw?: boolean } = {},
  ): Promise<ApiAnswer> {
    const bytes =
      body === undefined
        ? null
        : Buffer.isBuffer(body) || typeof body === "string"
          ? body
          : JSON.stringify(body);
    return await new Promise((resolve, reject) => {
      const outgoing = request(
        {
          socketPath: this.socket,
          method,
          path: options.raw === true ? path : `/v1.41${path}`,
          timeout: 40_000,
          headers: {
            ...(bytes === null ? {} : { "Content-Type": "application/json" }),
            ...(bytes === null ? {} : { "Content-Length": String(Buffer.byteLength(bytes)) }),
            ...options.headers,
          },
        },
        (response: IncomingMessage) => {
          let text = "";
          response.on("data", (chunk) => {
            text += String(chunk);
          });
          response.on("end", () => {
            resolve({ status: response.statusCode ?? 0, text, message: messageIn(text) });
          });
        },
      );
      outgoing.once("timeout", () => outgoing.destroy(new Error(`${method} ${path}: no answer`)));
      outgoing.once("error", reject);
      outgoing.end(bytes ?? undefined);
    });
  }

  async get<T>(path: string): Promise<T> {
    const { status, text } = await this.call("GET", path);
    if (status !== 200) throw new Error(`GET ${path}: ${status} ${text}`);
    return JSON.parse(text) as T;
  }

  /** The docker command against this node. */
  async dockerRun(...args: string[]): Promise<Outcome> {
    const env = {
      DOCKER_HOST: `unix://${this.socket}`,
      DOCKER_CONFIG: join(this.folder, "docker-config"),
    };
    return await run("docker", args, { env });
  }

  async docker(...args: string[]): Promise<string> {
    const { code, out, err } = await this.dockerRun(...args);
    if (code !== 0) throw new Error(`docker ${args.join(" ")}: exit ${code}\n${out}${err}`);
    return out.trim();
  }

  /** `swarm init` on this node's address. */
  async init(...flags: string[]): Promise<void> {
    await this.docker("swarm", "init", "--advertise-addr", this.address, ...flags);
  }

  /** Waits until the swarm of this manager has `count` nodes, each with its session: a join answers a moment before. */
  async nodesReady(count: number): Promise<void> {
    await until(`${count} nodes to be ready`, async () => {
      const nodes =
        await this.get<readonly { readonly Status: { readonly State: string } }[]>("/nodes");
      const ready = nodes.filter(({ Status }) => Status.State === "ready");
      return ready.length === count && nodes.length === count ? true : null;
    });
  }

  async loadBusybox(): Promise<string> {
    const tar = await busyboxTar(this.folder);
    await this.docker("import", tar, "busybox:latest");
    return tar;
  }

  async tasks(service: string): Promise<readonly Task[]> {
    const filters = encodeURIComponent(JSON.stringify({ service: { [service]: true } }));
    return await this.get(`/tasks?filters=${filters}`);
  }

  /** Waits until exactly `count` tasks run. */
  async converged(service: string, count: number, timeoutMs = 20_000): Promise<void> {
    await until(
      `${count} tasks of ${service} running`,
      async () => {
        const tasks = await this.tasks(service);
        const running = tasks.filter(
          ({ DesiredState, Status }) => DesiredState === "running" && Status.State === "running",
        );
        return running.length === count ? true : null;
      },
      timeoutMs,
    );
  }

  /** Everything that the API shows of the cluster and of this engine, but for what moves by itself. */
  async everything(): Promise<string> {
    const paths = ["/swarm", "/nodes", "/services", "/networks", "/images/json?all=1"];
    const answers = await Promise.all(paths.map((path) => this.call("GET", path)));
    return answers.map(({ text }, at) => `${paths[at]} ${text}`).join("\n");
  }

  /** Numbers, in this node, of the processes that run `command` as their first argument words. */
  async processes(command: string): Promise<readonly string[]> {
    const { out } = await this.tryInside("pgrep", "-fx", command);
    return out.split("\n").filter(Boolean);
  }

  /** Cgroups of containers that are there, on any hierarchy; the core's parked sandboxes are no containers. */
  cgroups(): readonly string[] {
    return this.#cgroupFolders().flatMap((path) =>
      readdirSync(path, { withFileTypes: true })
        .filter((entry) => entry.isDirectory() && !entry.name.startsWith(".parked-"))
        .map((entry) => join(path, entry.name)),
    );
  }

  #cgroupFolders(): readonly string[] {
    const root = "/sys/fs/cgroup";
    return [root, ...readdirSync(root).map((name) => join(root, name))]
      .map((path) => join(path, this.cgroupParent))
      .filter((path) => existsSync(path));
  }

  /** Overlay sandboxes that are there. */
  async sandboxes(): Promise<readonly string[]> {
    return await readdir(join(this.execRoot, "netns")).catch(() => []);
  }

  /** Ends everything in the namespaces and removes what is on the disk and in the cgroup file systems. */
  async destroy(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.#keeper.once("exit", () => resolve()));
    if (this.#keeper.exitCode === null) {
      this.#keeper.stdin?.end();
      await ended;
    }
    await until(`the cgroups of ${this.name} to be empty`, async () => {
      for (const path of this.#cgroupFolders()) removeTree(path);
      return this.#cgroupFolders().length === 0 ? true : null;
    });
    await until(`${this.folder} to be removable`, async () => {
      await rm(this.folder, { recursive: true, force: true });
      return true;
    });
  }
}

function removeTree(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) removeTree(join(path, entry.name));
  }
  rmdirSync(path);
}

function messageIn(text: string): string {
  try {
    const body = JSON.parse(text) as { message?: unknown };
    return typeof body.message === "string" ? body.message : text;
  } catch (error) {
    // Not every answer is JSON: streams of it are not.
    if (error instanceof SyntaxError) return text;
    throw error;
  }
}
