/** One machine of the simulated cluster: its daemon (agent, and manager while it is one), and what outlives the daemon. */
import { assert } from "../src/lib/assert.ts";
import { messageOf } from "../src/lib/errors.ts";
import { silentLog } from "../src/lib/log.ts";
import type { NodeDescription } from "../src/model/node.ts";
import type { PeerId } from "../src/raft/types.ts";
import type { ToAgent, ToManager } from "../src/wire/session.ts";
import { type Agent, type AgentMembership, createAgent } from "../src/worker/agent.ts";
import type { SafetyChecker } from "./checkers/safety.ts";
import { createDisk, type SimDisk } from "./disk.ts";
import { SimMachineExecutor } from "./executor.ts";
import { openManager, type SimManager } from "./manager-host.ts";
import type { SimNetwork } from "./network.ts";
import { createSimNetworks } from "./networks.ts";
import type { SimRandom } from "./random.ts";
import { SimWorkerDb } from "./worker-db.ts";
import type { Process, World } from "./world.ts";

export interface MachineParts {
  readonly world: World;
  readonly network: SimNetwork;
  readonly random: SimRandom;
  readonly safety: SafetyChecker;
  readonly host: string;
  readonly nodeId: string;
  /** By how much the wall clock is ahead, in ms. */
  readonly skewMs: number;
  readonly snapshots: { readonly interval: number; readonly keep: number };
}

/** What the daemon remembers of its place in the swarm. */
interface Place {
  raftId: PeerId | null;
  managers: readonly string[];
  founding: boolean;
}
/** Port of every machine's cluster listener. */
const clusterPort = 2377;

export class Machine {
  readonly host: string;
  readonly nodeId: string;
  readonly clusterAddress: string;
  readonly disk: SimDisk;
  readonly executor: SimMachineExecutor;
  #powered = true;
  readonly #parts: MachineParts;
  readonly #db: SimWorkerDb;
  #place: Place | null = null;
  #process: Process | null = null;
  #manager: SimManager | null = null;
  #agent: Agent | null = null;
  #lives = 0;
  /** The daemon takes in one word of its managers after the other. */
  #turn: Promise<void> = Promise.resolve();

  constructor(parts: MachineParts) {
    const { world, random, host, safety } = parts;
    this.#parts = parts;
    this.host = host;
    this.nodeId = parts.nodeId;
    this.clusterAddress = `${host}:${clusterPort}`;
    this.disk = createDisk(`${host}:raft`, world, random.fork("disk"), (disk, change) =>
      safety.saved(disk, change),
    );
    this.executor = new SimMachineExecutor(world, random.fork("executor"), host);
    this.#db = new SimWorkerDb(world, random.fork("db"), host);
  }

  /** The daemon runs. */
  get isUp(): boolean {
    return this.#process !== null;
  }
  /** Set while this machine's daemon runs a manager. */
  get manager(): SimManager | null {
    return this.#manager;
  }
  get agent(): Agent | null {
    return this.#agent;
  }
  get raftId(): PeerId | null {
    return this.#place?.raftId ?? null;
  }
  get powered(): boolean {
    return this.#powered;
  }
  get process(): Process | null {
    return this.#process;
  }

  /** This machine founds the cluster or joins it, and starts. */
  join(raftId: PeerId | null, managers: readonly string[], founding: boolean): void {
    assert(this.#place === null, `${this.host} joins once`);
    this.#place = { raftId, managers, founding };
    this.start();
  }

  /** Power on, and the daemon with it; nothing when it runs. */
  start(): void {
    if (this.#process !== null || this.#place === null) return;
    this.#powered = true;
    this.#lives += 1;
    const { world, network, random, skewMs } = this.#parts;
    const process: Process = { name: this.host, alive: true, pausedUntil: 0, skewMs };
    this.#process = process;
    this.#turn = Promise.resolve();
    network.listen<ToAgent, ToManager>(this.host, process, (channel, from) => {
      const manager = this.#manager?.manager;
      if (manager === undefined) {
        // One that is no manager any more knows one that is: who only knows this machine is not left alone.
        const others = this.#place?.managers.filter((one) => one !== this.clusterAddress) ?? [];
        const leader = others.length === 0 ? null : random.pick(others);
        channel.send({ kind: "goodbye", reason: "not-leader", leader });
        channel.close("not a manager");
        return;
      }
      const identity = { nodeId: nodeIdOf(from), clusterId: "sim", role: "worker" } as const;
      manager.acceptSession(channel, identity, from);
    });
    this.#inTurn(process, async () => {
      if (this.#place?.raftId != null) await this.#startManager(process);
      if (process.alive) await this.#startAgent(process);
    });
    world.note(`start ${this.host}`);
  }

  /** kill -9 of the daemon: containers go on. */
  crash(): void {
    if (this.#process === null) return;
    const process = this.#process;
    process.alive = false;
    this.#process = null;
    this.#manager = null;
    this.#agent = null;
    this.disk.crash();
    this.#db.crash();
    this.#parts.network.crash(process, true);
    this.#parts.world.note(`crash ${this.host}`);
  }

  /** Power off: nothing runs any more, and nobody is told. */
  powerOff(): void {
    if (!this.#powered) return;
    const process = this.#process;
    this.#powered = false;
    if (process !== null) {
      process.alive = false;
      this.#process = null;
      this.#manager = null;
      this.#agent = null;
      this.disk.crash();
      this.#parts.network.crash(process, false);
    }
    this.#db.powerOff();
    this.executor.powerOff();
    this.#parts.world.note(`power off ${this.host}`);
  }

  /** SIGSTOP, or a long garbage collection: the daemon does nothing for a while. */
  pause(durationMs: number): void {
    if (this.#process === null) return;
    this.#process.pausedUntil = this.#parts.world.after(durationMs);
  }

  async #startManager(process: Process): Promise<void> {
    const place = this.#place;
    assert(place?.raftId != null, "a manager has a Raft id");
    const { world, network, random, safety, host, snapshots } = this.#parts;
    const opened = await openManager({
      world,
      network,
      random: random.fork(`manager ${this.#lives}`),
      disk: this.disk,
      safety,
      process,
      host,
      raftId: place.raftId,
      founding: place.founding,
      snapshots,
      onFatal: (error) => {
        if (!process.alive) return;
        if (!this.disk.syncFailed) {
          world.fail(`the manager of ${host} stopped: ${error.stack ?? error.message}`);
          return;
        }
        // As the daemon does: without its log a manager ends the process.
        world.schedule(world.now(), `${host}:fatal`, () => {
          if (process.alive) this.crash();
        });
      },
    });
    if (!process.alive) return;
    this.#manager = opened;
    opened.manager.start();
  }

  async #startAgent(process: Process): Promise<void> {
    const { world, network, random, host, nodeId } = this.#parts;
    const agent = createAgent({
      nodeId,
      clusterAddress: this.clusterAddress,
      managers: this.#place?.managers ?? [],
      connect: (address) =>
        network.connect<ToManager, ToAgent>(process, host, address.replace(/:\d+$/, "")),
      executor: this.executor.open(process),
      networks: createSimNetworks(world, random.fork("networks"), host, process),
      db: this.#db.open(process),
      clock: world.clock(process),
      random: random.fork(`agent ${this.#lives}`),
      log: silentLog,
      describe: async () => description(host),
      onMembership: (membership) => this.#inTurn(process, () => this.#follow(process, membership)),
    });
    this.#agent = agent;
    await agent.start();
  }

  /** Becomes what the managers say: manager under this Raft id, or worker. Mirrors node/swarm-node.ts. */
  async #follow(process: Process, membership: AgentMembership): Promise<void> {
    const place = this.#place;
    if (!process.alive || place === null) return;
    if (membership.managers.length > 0) place.managers = membership.managers;
    const raftId = membership.role === "manager" ? membership.raftId : null;
    if (raftId === place.raftId) return;
    const old = this.#manager;
    if (old !== null) {
      this.#manager = null;
      await old.manager.stop();
      if (!process.alive) return;
      this.#parts.network.leave(old.raftId, true);
    }
    // A Raft id never comes back to an empty disk: the new one is remembered together with the wipe.
    this.disk.wipe();
    place.raftId = raftId;
    place.founding = false;
    if (raftId !== null) await this.#startManager(process);
  }

  #inTurn(process: Process, work: () => Promise<void>): void {
    this.#turn = this.#turn
      .then(async () => {
        if (process.alive) await work();
      })
      .catch((error: unknown) => {
        const stack = error instanceof Error ? error.stack : undefined;
        this.#parts.world.fail(`the daemon of ${this.host}: ${stack ?? messageOf(error)}`);
      });
  }
}

/** Node ids follow hosts, so that a session's peer is known without a certificate. */
export function nodeIdOf(host: string): string {
  return `node-${host}`;
}

function description(host: string): NodeDescription {
  return {
    hostname: host,
    os: "linux",
    architecture: "x86_64",
    resources: { nanoCpus: 4_000_000_000, memoryBytes: 8_000_000_000 },
    engineVersion: "0.1.0",
    engineLabels: {},
    dataPathAddress: host,
    underlayMtu: 1500,
    routes: [],
  };
}
