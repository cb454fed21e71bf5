/** A simulated worker database: writes in order, each whole or not there; a power cut loses those that were not synced. */

import { defaultDataPathPort } from "../src/model/defaults.ts";
import type { Network } from "../src/model/network.ts";
import type { TaskStatus } from "../src/model/task.ts";
import { isTerminal } from "../src/model/task-state.ts";
import type { AssignedTask, NetworkPeer } from "../src/wire/session.ts";
import type { WorkerDb } from "../src/worker/worker-db.ts";
import type { SimRandom } from "./random.ts";
import type { Process, World } from "./world.ts";

interface Rows {
  revision: number;
  dataPathPort: number;
  readonly tasks: Map<string, AssignedTask>;
  readonly statuses: Map<string, TaskStatus>;
  readonly networks: Map<string, Network>;
  readonly peers: Map<string, NetworkPeer>;
}
type Write = (rows: Rows) => void;

/** Longest time that a write takes, in ms. */
const writeMsMax = 5;

export class SimWorkerDb {
  readonly #world: World;
  readonly #random: SimRandom;
  readonly #host: string;
  #synced: Rows = emptyRows();
  #unsynced: Write[] = [];
  /** Handed over and not written yet. */
  #pending: { readonly write: Write; readonly synced: boolean; readonly done: () => void }[] = [];
  #busy = false;

  constructor(world: World, random: SimRandom, host: string) {
    this.#world = world;
    this.#random = random;
    this.#host = host;
  }

  /** The daemon died: what it had not handed to the kernel is gone. */
  crash(): void {
    const reached = this.#random.below(this.#pending.length + 1);
    for (const one of this.#pending.slice(0, reached)) this.#unsynced.push(one.write);
    this.#pending = [];
    this.#busy = false;
  }

  /** The machine lost power: of what was not synced, any prefix is there. */
  powerOff(): void {
    this.crash();
    this.#unsynced.length = this.#random.below(this.#unsynced.length + 1);
  }

  /** The database of one life of the daemon. */
  open(process: Process): WorkerDb {
    const put = (write: Write, synced: boolean): Promise<void> =>
      new Promise((resolve) => {
        if (!process.alive) return;
        const done = (): void => {
          this.#world.schedule(this.#world.now(), `${this.#host}:db`, resolve, process);
        };
        this.#pending.push({ write, synced, done });
        this.#work(process);
      });
    return {
      load: async () => {
        const rows = this.#rows();
        return {
          revision: rows.revision,
          dataPathPort: rows.dataPathPort,
          tasks: [...rows.tasks.values()],
          statuses: [...rows.statuses].map(([taskId, status]) => ({ taskId, status })),
          networks: [...rows.networks.values()],
          peers: [...rows.peers.values()],
        };
      },
      saveAssignment: (change) =>
        put((rows) => {
          rows.revision = change.revision;
          for (const task of change.putTasks) rows.tasks.set(task.id, task);
          for (const network of change.putNetworks) rows.networks.set(network.id, network);
          for (const id of change.removeNetworks) rows.networks.delete(id);
          for (const peer of change.putPeers) rows.peers.set(peer.key, peer);
          for (const key of change.removePeers) rows.peers.delete(key);
        }, true),
      saveDataPathPort: (port) =>
        put((rows) => {
          rows.dataPathPort = port;
        }, true),
      saveStatus: (taskId, status) =>
        put((rows) => rows.statuses.set(taskId, status), isTerminal(status.state)),
      forgetTask: (taskId) =>
        put((rows) => {
          rows.tasks.delete(taskId);
          rows.statuses.delete(taskId);
        }, false),
      close: async () => {},
    };
  }

  #work(process: Process): void {
    if (this.#busy || this.#pending.length === 0) return;
    this.#busy = true;
    const due = this.#world.after(this.#random.between(0, writeMsMax));
    this.#world.schedule(due, `${this.#host}:db`, () => {
      if (!process.alive) return;
      this.#busy = false;
      const next = this.#pending.shift();
      if (next === undefined) return;
      this.#unsynced.push(next.write);
      if (next.synced) {
        this.#synced = this.#rows();
        this.#unsynced = [];
      }
      next.done();
      this.#work(process);
    });
  }

  #rows(): Rows {
    const { tasks, statuses, networks, peers, revision, dataPathPort } = this.#synced;
    const rows: Rows = {
      revision,
      dataPathPort,
      tasks: new Map(tasks),
      statuses: new Map(statuses),
      networks: new Map(networks),
      peers: new Map(peers),
    };
    for (const write of this.#unsynced) write(rows);
    return rows;
  }
}

function emptyRows(): Rows {
  return {
    revision: 0,
    dataPathPort: defaultDataPathPort,
    tasks: new Map(),
    statuses: new Map(),
    networks: new Map(),
    peers: new Map(),
  };
}
