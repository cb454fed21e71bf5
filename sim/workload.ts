/** Clients at random managers: they create, change and remove what a swarm holds, try again as the daemon's backend does, and keep what was acknowledged. */
import { messageOf, ShoalError } from "../src/lib/errors.ts";
import { commit } from "../src/manager/control/commit.ts";
import { createNetwork, removeNetwork } from "../src/manager/control/networks.ts";
import { updateNode } from "../src/manager/control/nodes.ts";
import {
  createService,
  removeService,
  rollBackService,
  updateService,
} from "../src/manager/control/services.ts";
import { testServiceSpec, testTaskSpec } from "../src/manager/testing/rows.ts";
import { defaultUpdate, nsPerMs } from "../src/model/defaults.ts";
import type { NetworkSpec } from "../src/model/network.ts";
import type { NodeSpec } from "../src/model/node.ts";
import type { Service, ServiceMode, ServiceSpec, UpdateConfig } from "../src/model/service.ts";
import type { ActionGroup, Tables, View } from "../src/store/types.ts";
import type { Cluster } from "./cluster.ts";
import type { SimManager } from "./manager-host.ts";
import type { SimRandom } from "./random.ts";

/** A client that heard nothing for so long asks for something else, in ms; what became of its request is unknown. */
const patienceMs = 20_000;
/** Decisions that may lose to other writes before a client gives up. */
const attemptsMax = 8;
const servicesMax = 6;
const networksMax = 3;
const replicasMax = 6;

type Decide = (view: View, manager: SimManager) => ActionGroup | null;
interface Request {
  readonly name: string;
  readonly decide: Decide;
}

export class Workload {
  readonly #cluster: Cluster;
  readonly #random: SimRandom;
  #active = false;
  #names = 0;
  requests = 0;
  refused = 0;
  unknown = 0;
  reads = 0;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    this.#random = cluster.random.fork("workload");
  }

  start(): void {
    this.#active = true;
    for (let client = 0; client < this.#cluster.mix.clients; client += 1) this.#think(client);
  }

  /** No new requests. */
  stop(): void {
    this.#active = false;
  }

  /** Makes what was wanted reachable again: nodes active, but for some that stay drained; as many managers as at first, if a request gets through. */
  async settle(): Promise<void> {
    this.stop();
    const { machines } = this.#cluster;
    const keepDrained = this.#random.chance(300) && machines.length > 1 ? machines.at(-1) : null;
    for (const machine of machines) {
      const availability = machine === keepDrained ? "drain" : "active";
      let done = false;
      for (let tries = 0; !done && tries < attemptsMax; tries += 1) {
        let answered = false;
        const request = {
          name: "settle",
          decide: this.#nodeChange(machine.nodeId, (spec) =>
            spec.availability === availability ? null : { ...spec, availability },
          ),
        };
        this.#ask(request).then((ok) => {
          done = ok;
          answered = true;
        }, this.#bug);
        await this.#cluster.until(() => answered, patienceMs);
      }
    }
  }

  readonly #bug = (error: unknown): void => {
    const stack = error instanceof Error ? error.stack : undefined;
    this.#cluster.world.fail(`a request: ${stack ?? messageOf(error)}`);
  };

  #think(client: number): void {
    const { world, mix } = this.#cluster;
    const at = world.after(this.#random.between(1, 2 * mix.thinkMs));
    world.schedule(at, `client ${client}`, () => {
      if (!this.#active) return;
      let next = (): void => {
        next = () => {};
        this.#think(client);
      };
      const forget = world.schedule(world.after(patienceMs), `client ${client} gives up`, () => {
        this.unknown += 1;
        next();
      });
      const answered = (): void => {
        forget();
        next();
      };
      this.#ask(this.#draw()).then(answered, (error: unknown) => {
        this.#bug(error);
        answered();
      });
    });
  }

  /** Asks a random manager, deciding again when another write came first. False when it was refused or not answered. */
  async #ask(request: Request): Promise<boolean> {
    this.requests += 1;
    const managers = this.#cluster.managers();
    if (managers.length === 0) return false;
    const manager = this.#random.pick(managers);
    try {
      for (let tries = 1; ; tries += 1) {
        try {
          await this.#read(manager);
          const group = request.decide(manager.store.view(), manager);
          if (group === null) return true;
          const committed = await commit(manager.raft, group, request.name);
          this.#cluster.safety.acknowledge(committed.proposalId, committed.index);
          return true;
        } catch (error) {
          const stale = error instanceof ShoalError && error.code === "out-of-sequence";
          if (!stale || tries >= attemptsMax) throw error;
        }
      }
    } catch (error) {
      if (!(error instanceof ShoalError)) throw error;
      this.refused += 1;
      return false;
    }
  }

  /** A linearizable read sees every write that was acknowledged before it was asked. */
  async #read(manager: SimManager): Promise<void> {
    const { safety, world } = this.#cluster;
    const known = safety.acknowledgedIndex;
    await manager.raft.linearize();
    this.reads += 1;
    const seen = manager.store.view().index;
    if (seen < known) {
      world.fail(`a read saw index ${seen}, but ${known} was acknowledged before it was asked`);
    }
  }

  #draw(): Request {
    const promotes = this.#cluster.mix.faults.includes("promote-demote");
    const kinds = [
      ...["create", "create", "create", "scale", "scale", "update", "update", "rollback"],
      ...["remove", "network", "remove-network", "availability", "read"],
      ...(promotes ? ["role", "role", "role"] : []),
    ];
    const kind = this.#random.pick(kinds);
    this.#names += 1;
    const name = `${kind}${this.#names}`;
    return { name, decide: this.#decider(kind, name) };
  }

  #decider(kind: string, name: string): Decide {
    const random = this.#random;
    switch (kind) {
      case "create":
        return (view) => {
          if (view.table("services").size >= servicesMax) return null;
          return createService(view, this.#serviceSpec(view, name), random).group;
        };
      case "scale":
        return this.#serviceChange((service) => {
          if (service.spec.mode.kind !== "replicated") return null;
          const mode: ServiceMode = {
            kind: "replicated",
            replicas: random.between(0, replicasMax),
          };
          return { ...service.spec, mode };
        });
      case "update":
        return this.#serviceChange(({ spec }) => ({
          ...spec,
          update: this.#updateConfig(),
          task: {
            ...spec.task,
            container: { ...spec.task.container, env: [`VERSION=${name}`] },
          },
        }));
      case "rollback":
        return (view) => {
          const service = this.#any(view, "services");
          if (service === null || service.previousSpec === null) return null;
          const at = this.#cluster.world.now();
          return rollBackService(view, service.id, service.meta.version, at).group;
        };
      case "remove":
        return (view) => {
          const service = this.#any(view, "services");
          return service === null ? null : removeService(view, service.id).group;
        };
      case "network":
        return (view) =>
          view.table("networks").size > networksMax
            ? null
            : createNetwork(view, networkSpec(name), random).group;
      case "remove-network":
        return (view) => {
          const network = this.#any(view, "networks");
          return network === null || network.spec.ingress
            ? null
            : removeNetwork(view, network.id).group;
        };
      case "availability": {
        const machine = random.pick(this.#cluster.machines);
        const availability = random.pick(["active", "active", "pause", "drain"] as const);
        return this.#nodeChange(machine.nodeId, (spec) => ({ ...spec, availability }));
      }
      case "role": {
        const machine = random.pick(this.#cluster.machines);
        return this.#nodeChange(machine.nodeId, (spec) => ({
          ...spec,
          role: spec.role === "manager" ? "worker" : "manager",
        }));
      }
      default:
        return () => null;
    }
  }

  #serviceChange(change: (service: Service) => ServiceSpec | null): Decide {
    return (view) => {
      const service = this.#any(view, "services");
      const spec = service === null ? null : change(service);
      if (service === null || spec === null) return null;
      return updateService(view, service.id, service.meta.version, spec).group;
    };
  }

  #nodeChange(nodeId: string, change: (spec: NodeSpec) => NodeSpec | null): Decide {
    return (view, manager) => {
      const node = view.table("nodes").get(nodeId);
      const spec = node === undefined ? null : change(node.spec);
      if (node === undefined || spec === null) return null;
      return updateNode(view, nodeId, node.meta.version, spec, manager.raft.status()).group;
    };
  }

  #any<T extends "services" | "networks">(view: View, table: T): Tables[T] | null {
    const rows = [...view.table(table).all()];
    return rows.length === 0 ? null : this.#random.pick(rows);
  }

  #serviceSpec(view: View, name: string): ServiceSpec {
    const random = this.#random;
    const networks = [...view.table("networks").all()].filter(
      (network) => !network.spec.ingress && random.chance(400),
    );
    const task = testTaskSpec({
      networks: networks.map(({ id }) => ({ target: id, aliases: [] })),
      restart: {
        condition: random.pick(["any", "any", "any", "on-failure", "none"] as const),
        delayNs: random.pick([0, 100, 1_000, 5_000]) * nsPerMs,
        maxAttempts: 0,
        windowNs: 0,
      },
    });
    return testServiceSpec({
      name,
      mode: random.chance(250)
        ? { kind: "global" }
        : { kind: "replicated", replicas: random.between(0, replicasMax) },
      task,
      update: this.#updateConfig(),
      rollback: this.#updateConfig(),
    });
  }

  #updateConfig(): UpdateConfig | null {
    const random = this.#random;
    if (random.chance(300)) return null;
    return {
      ...defaultUpdate,
      parallelism: random.between(0, 2),
      delayNs: random.pick([0, 0, 100, 1_000]) * nsPerMs,
      monitorNs: random.pick([100, 1_000, 5_000]) * nsPerMs,
      failureAction: random.pick(["pause", "continue", "rollback"] as const),
      order: random.pick(["stop-first", "start-first"] as const),
    };
  }
}

function networkSpec(name: string): NetworkSpec {
  return {
    name,
    labels: {},
    driver: "overlay",
    driverOptions: {},
    internal: false,
    attachable: false,
    ingress: false,
    subnet: null,
    gateway: null,
  };
}
