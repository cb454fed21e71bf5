/** The swarm's part of the Engine API: reads of this manager's store, writes through its Raft. */
import type {
  Backend,
  ManagerStatus,
  NetworkBackend,
  NodeBackend,
  ServiceBackend,
  ServiceCounts,
  SwarmBackend,
  TaskBackend,
  TaskExplanation,
} from "../../api/backend.ts";
import type { Clock, InstantMs } from "../../lib/clock.ts";
import { failure } from "../../lib/errors.ts";
import type { Random } from "../../lib/random.ts";
import { commit } from "../../manager/control/commit.ts";
import { lookUp } from "../../manager/control/lookup.ts";
import { createNetwork, removeNetwork } from "../../manager/control/networks.ts";
import { removeNode, updateNode } from "../../manager/control/nodes.ts";
import {
  createService,
  removeService,
  rollBackService,
  updateService,
} from "../../manager/control/services.ts";
import { theCluster, updateCluster } from "../../manager/control/swarm.ts";
import type { Manager } from "../../manager/manager.ts";
import { isDirty } from "../../manager/orchestrator/dirty.ts";
import { explainTask } from "../../manager/placement/explain-task.ts";
import type { Network } from "../../model/network.ts";
import { type Task, taskName } from "../../model/task.ts";
import type { ActionGroup, View } from "../../store/types.ts";
import type { SwarmNode } from "../swarm-node.ts";
import type { LocalNetworks } from "./local-networks.ts";
import type { SwarmLogs } from "./logs.ts";
import { decidedAgain } from "./retry.ts";

export interface ClusterBackendOptions {
  readonly swarm: SwarmNode;
  readonly clock: Clock;
  readonly random: Random;
  readonly logs: SwarmLogs;
  readonly localNetworks: LocalNetworks;
}

/** swarm, nodes, services, tasks and networks of the Backend. */
export function createClusterBackend(
  options: ClusterBackendOptions,
): Pick<Backend, "swarm" | "nodes" | "services" | "tasks" | "networks"> {
  const { swarm, clock, random, logs, localNetworks } = options;

  /** This manager with everything that was committed when it was asked. */
  async function current(): Promise<{ readonly manager: Manager; readonly view: View }> {
    const manager = swarm.manager();
    await manager.raft.linearize();
    return { manager, view: manager.store.view() };
  }

  /** Decides on the current view and commits; decides again when another write came between. */
  async function change<T extends { readonly group: ActionGroup }>(
    name: string,
    decide: (view: View, manager: Manager) => T,
  ): Promise<T> {
    return await decidedAgain(async () => {
      const { manager, view } = await current();
      const decision = decide(view, manager);
      await commit(manager.raft, decision.group, name);
      return decision;
    });
  }

  /** The same for a change of a version that the user named: it is stale once and for all. */
  async function changeVersion<T extends { readonly group: ActionGroup }>(
    name: string,
    decide: (view: View, manager: Manager) => T,
  ): Promise<T> {
    const { manager, view } = await current();
    const decision = decide(view, manager);
    await commit(manager.raft, decision.group, name);
    return decision;
  }

  const swarmBackend: SwarmBackend = {
    init: (request) => swarm.init(request),
    join: (request) => swarm.join(request),
    leave: (force) => swarm.leave(force),
    inspect: async () => theCluster((await current()).view),
    async update(version, spec, rotate) {
      if (rotate.unlockKey || spec.autoLockManagers) {
        throw failure("not-implemented", "swarm update: autolock is not supported yet");
      }
      await changeVersion("default", (view) => ({
        group: updateCluster(view, version, spec, rotate, random),
      }));
    },
    async unlockKey() {
      await current();
      return "";
    },
    async unlock() {
      if (swarm.local().state === "inactive")
        throw failure("unavailable", "This node is not part of a swarm");
      throw failure("failed-precondition", "swarm is not locked");
    },
  };

  const nodes: NodeBackend = {
    list: async () => [...(await current()).view.table("nodes").all()],
    get: async (reference) => lookUp((await current()).view, "nodes", reference),
    async managers() {
      const { manager, view } = await current();
      return managerStatuses(manager, view);
    },
    async update(reference, version, spec) {
      await changeVersion(reference, (view, manager) =>
        updateNode(view, reference, version, spec, manager.raft.status()),
      );
    },
    async remove(reference, force) {
      await change(reference, (view) => removeNode(view, reference, force));
    },
  };

  const services: ServiceBackend = {
    list: async () => [...(await current()).view.table("services").all()],
    get: async (reference) => lookUp((await current()).view, "services", reference),
    async counts(serviceIds) {
      const { view } = await current();
      return new Map(serviceIds.map((id) => [id, countTasks(view, id)]));
    },
    async create(spec) {
      const { id } = await change(spec.name, (view) => createService(view, spec, random));
      return { id, warnings: [] };
    },
    async update(reference, version, spec, { rollback }) {
      await changeVersion(reference, (view) => {
        if (rollback) return rollBackService(view, reference, version, clock.now());
        if (spec === null) throw failure("invalid", "service update: the spec is missing");
        return updateService(view, reference, version, spec);
      });
      return { warnings: [] };
    },
    async remove(reference) {
      await change(reference, (view) => removeService(view, reference));
    },
    async *logs(reference, query) {
      const service = lookUp((await current()).view, "services", reference);
      yield* logs.ofService(swarm.manager(), service.id, query);
    },
    async explain(reference) {
      const { view } = await current();
      const service = lookUp(view, "services", reference);
      return [...view.table("tasks").by("service", service.id)].map((task) =>
        explanationOf(view, task, clock.now()),
      );
    },
  };

  const tasks: TaskBackend = {
    list: async () => [...(await current()).view.table("tasks").all()],
    async upToDate(some) {
      const { view } = await current();
      return some.filter((task) => {
        const service = view.table("services").get(task.serviceId);
        return service !== undefined && !isDirty(task, service, view);
      });
    },
    get: async (reference) => lookUp((await current()).view, "tasks", reference),
    async *logs(reference, query) {
      const task = lookUp((await current()).view, "tasks", reference);
      yield* logs.ofTask(swarm.manager(), task.id, query);
    },
  };

  const networks: NetworkBackend = {
    async list() {
      if (swarm.managerOrNull() !== null)
        return [...(await current()).view.table("networks").all()];
      return await localNetworks.ofTasks();
    },
    local: async () => localNetworks.predefined(),
    async get(reference) {
      const local = localNetworks.find(reference);
      if (local !== null) return local;
      if (swarm.managerOrNull() !== null) {
        return lookUp((await current()).view, "networks", reference);
      }
      const found = (await localNetworks.ofTasks()).find((network) => isNamed(network, reference));
      if (found === undefined) throw failure("not-found", `network ${reference} not found`);
      return found;
    },
    async create(spec) {
      const { id } = await change(spec.name, (view) => createNetwork(view, spec, random));
      return { id, warning: "" };
    },
    async remove(reference) {
      const local = localNetworks.find(reference);
      if (local !== null) {
        throw failure("forbidden", `${local.name} is a pre-defined network and cannot be removed`);
      }
      await change(reference, (view) => removeNetwork(view, reference));
    },
  };

  return { swarm: swarmBackend, nodes, services, tasks, networks };
}

function explanationOf(view: View, task: Task, now: InstantMs): TaskExplanation {
  const { reason, since, nodes } = explainTask(view, task, now);
  const node = task.nodeId === null ? undefined : view.table("nodes").get(task.nodeId);
  return {
    taskId: task.id,
    taskName: taskName(task),
    state: task.status.state,
    desired: task.desired,
    nodeId: task.nodeId,
    nodeName: node?.description?.hostname ?? null,
    reason,
    sinceMs: since,
    nodes,
  };
}

function isNamed(network: Network, reference: string): boolean {
  return network.id.startsWith(reference) || network.spec.name === reference;
}

/** Running, wanted and completed tasks, as docker counts them (moby daemon/cluster/services.go). */
export function countTasks(view: View, serviceId: string): ServiceCounts {
  const service = view.table("services").get(serviceId);
  let running = 0;
  let wanted = 0;
  for (const task of view.table("tasks").by("service", serviceId)) {
    const node = task.nodeId === null ? undefined : view.table("nodes").get(task.nodeId);
    if (task.desired === "running" || task.desired === "ready") wanted += 1;
    if (task.status.state === "running" && task.desired === "running" && node?.state !== "down")
      running += 1;
  }
  const mode = service?.spec.mode;
  return { running, desired: mode?.kind === "replicated" ? mode.replicas : wanted, completed: 0 };
}

/** Which managers lead and answer. A follower hears of the leader alone, and of the others what their sessions show. */
function managerStatuses(manager: Manager, view: View): readonly ManagerStatus[] {
  const status = manager.raft.status();
  const found: ManagerStatus[] = [];
  for (const node of view.table("nodes").all()) {
    if (node.manager === null) continue;
    const { raftId, address } = node.manager;
    const progress = status.progress.find((peer) => peer.id === raftId);
    const reachable =
      raftId === status.id ||
      raftId === status.leader ||
      (progress?.active ?? node.state === "ready");
    found.push({
      nodeId: node.id,
      leader: raftId === status.leader,
      reachability: reachable ? "reachable" : "unreachable",
      address,
    });
  }
  return found;
}
