/** A cluster of simulated machines, from founding until every manager votes and every node is ready. */
import { assert, present } from "../src/lib/assert.ts";
import { createCluster, joinNode } from "../src/manager/control/swarm.ts";
import { tickMs } from "../src/manager/limits.ts";
import {
  defaultAddressPool,
  defaultClusterSpec,
  defaultDataPathPort,
  defaultSubnetSize,
} from "../src/model/defaults.ts";
import { RowChecker } from "./checkers/rows.ts";
import { SafetyChecker } from "./checkers/safety.ts";
import type { FaultMix } from "./fault-mix.ts";
import { Machine, nodeIdOf } from "./machine.ts";
import type { SimManager } from "./manager-host.ts";
import { SimNetwork } from "./network.ts";
import type { SimRandom } from "./random.ts";
import { World } from "./world.ts";

/** How long founding and joining may take on a calm network, in ms. */
const setUpMsMax = 60_000;
const lookMs = 100;

export class Cluster {
  readonly world: World = new World();
  readonly rows: RowChecker;
  readonly safety: SafetyChecker;
  readonly network: SimNetwork;
  readonly machines: readonly Machine[];
  readonly random: SimRandom;
  readonly mix: FaultMix;
  nodeTicks = 0;

  constructor(random: SimRandom, mix: FaultMix) {
    this.random = random;
    this.mix = mix;
    this.rows = new RowChecker(this.world);
    this.safety = new SafetyChecker(this.world, this.rows);
    this.network = new SimNetwork(this.world, random.fork("network"), {
      lossPerMille: 0,
      duplicatePerMille: 0,
      delayMsMax: 2,
      encoded: mix.encoded,
    });
    this.network.onSend = (message) => this.safety.sent(message);
    const hosts = [
      ...Array.from({ length: mix.managers }, (_, at) => `192.0.2.${at + 1}`),
      ...Array.from({ length: mix.workers }, (_, at) => `192.0.2.${at + 101}`),
    ];
    this.machines = hosts.map(
      (host) =>
        new Machine({
          world: this.world,
          network: this.network,
          random: random.fork(host),
          safety: this.safety,
          host,
          nodeId: nodeIdOf(host),
          skewMs: mix.skewMsMax === 0 ? 0 : random.between(-mix.skewMsMax, mix.skewMsMax),
          snapshots: mix.snapshots,
        }),
    );
    this.safety.disksOf = () => this.machines;
    this.safety.statusOf = (raftId) =>
      this.managers()
        .find((manager) => manager.raftId === raftId)
        ?.raft.status() ?? null;
    this.safety.memberships = () =>
      this.managers().map((manager) => manager.raft.status().membership);
    this.rows.runsOn = (taskId) =>
      this.machines.find((machine) => machine.executor.isRunning(taskId))?.host ?? null;
  }

  /** Managers whose process lives, held up ones too. */
  managers(): readonly SimManager[] {
    return this.machines.flatMap((machine) => machine.manager ?? []);
  }

  /** The manager that leads for good, if there is one; of two that think so, the one of the later term. */
  leader(): SimManager | null {
    const leading = this.managers().filter((manager) => manager.raft.isLeader());
    return leading.sort((a, b) => b.raft.status().term - a.raft.status().term)[0] ?? null;
  }

  machineOf(manager: SimManager): Machine {
    return present(
      this.machines.find((machine) => machine.manager === manager),
      "a manager's machine",
    );
  }

  /** Lets `durationMs` pass. */
  async pass(durationMs: number): Promise<void> {
    this.nodeTicks += (this.managers().length * durationMs) / tickMs;
    await this.world.run(this.world.after(durationMs));
  }

  /** Lets time pass until `isSo`; false when it is not so within `limitMs`. */
  async until(isSo: () => boolean, limitMs: number): Promise<boolean> {
    const end = this.world.after(limitMs);
    while (!isSo()) {
      if (this.world.now() >= end) return false;
      await this.pass(lookMs);
    }
    return true;
  }

  /** Founds the cluster on the first machine; the others join one after the other. */
  async setUp(): Promise<void> {
    const [first, ...others] = this.machines;
    assert(first !== undefined, "a cluster has a machine");
    const { random } = this;
    const raftId = random.id();
    first.join(raftId, [first.clusterAddress], true);
    const founded = await this.until(() => first.manager?.raft.isLeader() === true, setUpMsMax);
    if (!founded) this.world.fail("the first manager does not lead");
    const member = (machine: Machine, id: string | null) => ({
      id: machine.nodeId,
      role: id === null ? ("worker" as const) : ("manager" as const),
      availability: "active" as const,
      address: machine.host,
      clusterAddress: machine.clusterAddress,
      raftId: id,
    });
    const group = createCluster(
      {
        id: "sim",
        spec: defaultClusterSpec,
        root: { certificatePem: "", keyPem: "", digest: "x".repeat(50) },
        addressPools: [defaultAddressPool],
        subnetSize: defaultSubnetSize,
        dataPathPort: defaultDataPathPort,
        ingressSubnet: { subnet: "10.0.0.0/24", gateway: "10.0.0.1" },
      },
      member(first, raftId),
      random,
    );
    await this.#write(first, group);
    for (const [at, machine] of others.entries()) {
      const id = at + 1 < this.mix.managers ? random.id() : null;
      await this.#write(first, joinNode(member(machine, id)));
      machine.join(id, [first.clusterAddress], false);
    }
    const isReady = (): boolean => {
      const leader = this.leader();
      if (leader === null) return false;
      const nodes = [...leader.store.view().table("nodes").all()];
      return (
        leader.raft.status().membership.voters.length === this.mix.managers &&
        nodes.length === this.machines.length &&
        nodes.every((node) => node.state === "ready")
      );
    };
    if (!(await this.until(isReady, setUpMsMax))) {
      this.world.fail(`the cluster is not whole in ${setUpMsMax} ms on a calm network`);
    }
    await this.pass(1);
  }

  async #write(machine: Machine, group: ReturnType<typeof joinNode>): Promise<void> {
    const { manager } = machine;
    assert(manager !== null, "the first machine has a manager");
    let done = false;
    manager.raft.propose([group]).then(
      () => {
        done = true;
      },
      (error: unknown) => this.world.fail(`setting up: ${String(error)}`),
    );
    if (!(await this.until(() => done, setUpMsMax))) this.world.fail("setting up: no answer");
  }
}
