/** Does to a cluster what its mix of faults says, one fault after another, each with an end of its own. */
import type { Cluster } from "./cluster.ts";
import { calmTasks } from "./executor.ts";
import type { Fault } from "./fault-mix.ts";
import type { Machine } from "./machine.ts";
import type { SimRandom } from "./random.ts";

/** Longest time that a cut, a pause or a death lasts, in ms. */
const cutMsMax = 12_000;
const pauseMsMax = 5_000;
const downMsMax = 10_000;

export interface FaultCounts {
  crashes: number;
  powerOffs: number;
  pauses: number;
  partitions: number;
  syncErrors: number;
  others: number;
}

export class Nemesis {
  readonly #cluster: Cluster;
  readonly #random: SimRandom;
  #active = false;
  readonly counts: FaultCounts = {
    crashes: 0,
    powerOffs: 0,
    pauses: 0,
    partitions: 0,
    syncErrors: 0,
    others: 0,
  };

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    this.#random = cluster.random.fork("nemesis");
  }

  /** Begins; faults come until heal(). */
  start(): void {
    this.#active = true;
    const { mix, machines } = this.#cluster;
    this.#drawWeather();
    for (const machine of machines) {
      machine.disk.slowMsMax = mix.diskMsMax;
      machine.executor.chaos = mix.tasks;
    }
    if (mix.everyMs > 0) this.#next();
  }

  /** Ends all faults: everything is up, connected and calm again. */
  heal(): void {
    this.#active = false;
    const { network, machines } = this.#cluster;
    network.heal();
    Object.assign(network.weather, { lossPerMille: 0, duplicatePerMille: 0, delayMsMax: 2 });
    for (const machine of machines) {
      machine.disk.slowMsMax = 2;
      machine.executor.chaos = calmTasks;
      machine.disk.forgive();
      if (machine.process !== null) machine.process.pausedUntil = 0;
      machine.start();
    }
  }

  /** Powers off for good what the cluster can spare: fewer than half of the voters, any workers. Returns how many. */
  loseMinority(): number {
    const { machines } = this.#cluster;
    const voters = this.#cluster.leader()?.raft.status().membership.voters ?? [];
    const managers = machines.filter((machine) => machine.raftId !== null);
    const rest = machines.filter((machine) => machine.raftId === null);
    const dying = [
      ...this.#some(managers, Math.floor((voters.length - 1) / 2)),
      ...this.#some(rest, rest.length - 1),
    ];
    for (const machine of dying) machine.powerOff();
    return dying.length;
  }

  #some(machines: readonly Machine[], atMost: number): readonly Machine[] {
    const count = atMost <= 0 ? 0 : this.#random.between(0, atMost);
    return this.#shuffled(machines).slice(0, count);
  }

  #shuffled<T>(items: readonly T[]): T[] {
    const rest = [...items];
    const mixed: T[] = [];
    while (rest.length > 0) mixed.push(...rest.splice(this.#random.below(rest.length), 1));
    return mixed;
  }

  #later(durationMs: number, what: string, work: () => void): void {
    const { world } = this.#cluster;
    world.schedule(world.after(durationMs), what, () => {
      if (this.#active) work();
    });
  }

  #next(): void {
    const { mix } = this.#cluster;
    this.#later(this.#random.between(1, 2 * mix.everyMs), "nemesis", () => {
      this.#strike(this.#random.pick(mix.faults));
      this.#next();
    });
  }

  #strike(fault: Fault): void {
    const { machines, world } = this.#cluster;
    const machine = this.#random.pick(machines);
    world.note(fault);
    switch (fault) {
      case "crash":
        this.#crash(machine);
        return;
      case "crash-leader":
        this.#crash(this.#leader() ?? machine);
        return;
      case "power-off":
        this.counts.powerOffs += 1;
        machine.powerOff();
        this.#later(this.#random.between(100, downMsMax), "power-on", () => machine.start());
        return;
      case "roll":
        this.#roll();
        return;
      case "pause":
        this.counts.pauses += 1;
        machine.pause(this.#random.between(50, pauseMsMax));
        return;
      case "sync-error":
        if (machine.manager === null) return;
        this.counts.syncErrors += 1;
        machine.disk.failNextSync();
        this.#later(this.#random.between(1_000, downMsMax), "restart", () => machine.start());
        return;
      case "slow-disk": {
        this.counts.others += 1;
        const before = machine.disk.slowMsMax;
        machine.disk.slowMsMax = this.#random.between(10, 500);
        this.#later(this.#random.between(100, cutMsMax), "fast-disk", () => {
          machine.disk.slowMsMax = before;
        });
        return;
      }
      case "split":
        this.#split(1_000);
        return;
      case "one-way":
        this.#split(500);
        return;
      case "bridge":
        this.#bridge();
        return;
      case "isolate-leader":
        this.#isolate(this.#leader() ?? machine, true, true);
        return;
      case "deaf-leader":
        this.#isolate(this.#leader() ?? machine, this.#random.chance(500), false);
        return;
      case "clog": {
        this.counts.others += 1;
        const { network } = this.#cluster;
        const until = world.after(this.#random.between(50, cutMsMax / 4));
        network.clog(machine.host, this.#random.pick(machines).host, until);
        return;
      }
      case "weather":
        this.counts.others += 1;
        this.#drawWeather();
        return;
      case "transfer": {
        const leader = this.#cluster.leader();
        const voters = leader?.raft.status().membership.voters ?? [];
        if (leader === null || voters.length === 0) return;
        this.counts.others += 1;
        leader.raft.transferLeadership(this.#random.pick(voters));
        return;
      }
      case "promote-demote":
        // The workload does it: it is a user's request.
        return;
      default:
        fault satisfies never;
    }
  }

  #leader(): Machine | null {
    const leader = this.#cluster.leader();
    return leader === null ? null : this.#cluster.machineOf(leader);
  }

  #crash(machine: Machine): void {
    this.counts.crashes += 1;
    machine.crash();
    this.#later(this.#random.between(20, downMsMax), "restart", () => machine.start());
  }

  /** Every daemon once, one after the other, as an upgrade does it. */
  #roll(): void {
    for (const [at, machine] of this.#cluster.machines.entries()) {
      this.#later(at * 1_500 + 1, "roll", () => {
        this.counts.crashes += 1;
        machine.crash();
        this.#later(this.#random.between(100, 1_000), "restart", () => machine.start());
      });
    }
  }

  /** Two sides at random; each direction between two machines is cut with this chance, per mille. */
  #split(perMille: number): void {
    const { machines } = this.#cluster;
    const mixed = this.#shuffled(machines);
    const count = this.#random.between(1, Math.max(1, mixed.length - 1));
    const pairs: [string, string][] = [];
    for (const one of mixed.slice(0, count)) {
      for (const other of mixed.slice(count)) {
        if (this.#random.chance(perMille)) pairs.push([one.host, other.host]);
        if (this.#random.chance(perMille)) pairs.push([other.host, one.host]);
      }
    }
    this.#cut(pairs);
  }

  /** Two halves that see each other only through one machine. */
  #bridge(): void {
    const mixed = this.#shuffled(this.#cluster.machines);
    mixed.pop();
    const half = Math.floor(mixed.length / 2);
    const pairs: [string, string][] = [];
    for (const one of mixed.slice(0, half)) {
      for (const other of mixed.slice(half)) {
        pairs.push([one.host, other.host], [other.host, one.host]);
      }
    }
    this.#cut(pairs);
  }

  #isolate(machine: Machine, outward: boolean, both: boolean): void {
    const pairs: [string, string][] = [];
    for (const other of this.#cluster.machines) {
      if (other === machine) continue;
      if (outward || both) pairs.push([machine.host, other.host]);
      if (!outward || both) pairs.push([other.host, machine.host]);
    }
    this.#cut(pairs);
  }

  #cut(pairs: readonly (readonly [string, string])[]): void {
    const { network } = this.#cluster;
    this.counts.partitions += 1;
    for (const [from, to] of pairs) network.cut(from, to);
    this.#later(this.#random.between(200, cutMsMax), "mend", () => {
      for (const [from, to] of pairs) network.mend(from, to);
    });
  }

  #drawWeather(): void {
    const { mix, network } = this.#cluster;
    Object.assign(network.weather, {
      lossPerMille: this.#random.between(0, mix.lossPerMilleMax),
      duplicatePerMille: this.#random.between(0, mix.duplicatePerMilleMax),
      delayMsMax: this.#random.between(1, mix.delayMsMax),
    });
  }
}
