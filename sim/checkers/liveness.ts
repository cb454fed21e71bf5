/** What must come true once faults are over: a leader, one state, and exactly what was wanted runs, by the machines' own truth. */
import type { Service } from "../../src/model/service.ts";
import { slotKey, type Task } from "../../src/model/task.ts";
import type { View } from "../../src/store/types.ts";
import type { Cluster } from "../cluster.ts";

/** How long the cluster has, in ms; updates with their monitoring and stops with their grace are in it. */
export const convergeMsMax = 300_000;
/** How long nothing must be written for the cluster to count as quiet, in ms. */
const quietMs = 12_000;

/** Waits until the cluster is as it should be and has been quiet; fails with what is missing. Returns how long it took, in ms. */
export async function converges(cluster: Cluster): Promise<number> {
  const { world } = cluster;
  const start = world.now();
  let quietSince = world.now();
  let index = -1;
  let missing = "";
  while (world.now() - start < convergeMsMax) {
    await cluster.pass(500);
    missing = whatIsMissing(cluster) ?? "";
    const now = cluster.safety.highest;
    if (missing !== "" || now !== index) quietSince = world.now();
    index = now;
    if (world.now() - quietSince >= quietMs) {
      for (const machine of cluster.machines) {
        if (machine.manager !== null) cluster.safety.digest(machine.host, machine.manager.store);
      }
      cluster.safety.acknowledgedAreThere();
      await cluster.pass(1);
      return quietSince - start;
    }
  }
  world.fail(
    `no progress in ${convergeMsMax} ms without faults: ${missing || `writes go on, index ${index}`}`,
  );
  await cluster.pass(1);
  return convergeMsMax;
}

/** What is not yet as it should be; null when all is. */
export function whatIsMissing(cluster: Cluster): string | null {
  const leader = cluster.leader();
  if (leader === null) return "nobody leads";
  const view = leader.store.view();
  for (const manager of cluster.managers()) {
    const { index } = manager.store.view();
    if (index !== view.index) return `a manager is at index ${index}, the leader at ${view.index}`;
  }
  return (
    membershipMissing(cluster, view) ?? nodesMissing(cluster, view) ?? tasksMissing(cluster, view)
  );
}

/** Raft's membership is what the rows say, and each manager's machine knows. */
function membershipMissing(cluster: Cluster, view: View): string | null {
  const voters = new Set(cluster.leader()?.raft.status().membership.voters ?? []);
  for (const machine of cluster.machines) {
    const node = view.table("nodes").get(machine.nodeId);
    if (node === undefined) return `node ${machine.nodeId} is gone`;
    if (!machine.powered) continue;
    const wanted = node.spec.role === "manager";
    if (wanted !== (node.manager !== null)) return `${machine.host} has no role ${node.spec.role}`;
    if ((machine.manager !== null) !== wanted) return `${machine.host} is not a ${node.spec.role}`;
    if (node.manager === null) continue;
    if (machine.raftId !== node.manager.raftId) return `${machine.host} has another Raft id`;
    if (!voters.has(node.manager.raftId)) return `${machine.host} does not vote`;
  }
  return null;
}

function nodesMissing(cluster: Cluster, view: View): string | null {
  for (const machine of cluster.machines) {
    const state = view.table("nodes").get(machine.nodeId)?.state ?? "gone";
    const wanted = machine.powered ? "ready" : "down";
    if (state !== wanted) return `node ${machine.host} is ${state}, not ${wanted}`;
    if (machine.powered && machine.agent?.connected !== true)
      return `${machine.host} has no session`;
  }
  return null;
}

/** The machines run exactly what the services want. */
function tasksMissing(cluster: Cluster, view: View): string | null {
  const running = new Map<string, string>();
  const byService = new Map<string, Task[]>();
  for (const machine of cluster.machines) {
    for (const taskId of machine.executor.running()) {
      const task = view.table("tasks").get(taskId);
      if (task === undefined) return `${machine.host} runs task ${taskId}, which no row names`;
      if (task.nodeId !== machine.nodeId) return `${machine.host} runs task ${taskId} of another`;
      if (task.status.state !== "running" || task.desired !== "running") {
        return `${machine.host} runs task ${taskId}, which is ${task.status.state} and desired ${task.desired}`;
      }
      running.set(taskId, machine.host);
      byService.set(task.serviceId, [...(byService.get(task.serviceId) ?? []), task]);
    }
  }
  for (const service of view.table("services").all()) {
    const missing = serviceMissing(cluster, view, service, byService.get(service.id) ?? []);
    if (missing !== null) return `service ${service.spec.name}: ${missing}`;
    byService.delete(service.id);
  }
  for (const id of byService.keys()) return `tasks of service ${id} run, which is gone`;
  for (const task of view.table("tasks").all()) {
    if (task.status.state !== "running" || running.has(task.id)) continue;
    const up = cluster.machines.some((one) => one.powered && one.nodeId === task.nodeId);
    if (up) return `task ${task.id} is said to run on ${task.nodeId}, and does not`;
  }
  return null;
}

function serviceMissing(
  cluster: Cluster,
  view: View,
  service: Service,
  running: readonly Task[],
): string | null {
  const eligible = cluster.machines.filter(
    (machine) =>
      machine.powered && view.table("nodes").get(machine.nodeId)?.spec.availability === "active",
  );
  const { mode, task } = service.spec;
  const wanted =
    mode.kind === "global" ? eligible.length : eligible.length === 0 ? 0 : mode.replicas;
  const slots = new Set(running.map(slotKey));
  if (slots.size !== running.length) return "two tasks of one slot run";
  if (running.length > wanted) return `${running.length} run, ${wanted} are wanted`;
  const condition = task.restart?.condition ?? "any";
  const state = service.updateStatus?.state;
  // A task that ended and is not to be started again is as it should be.
  if (running.length < wanted && condition === "any") {
    return `${running.length} run, ${wanted} are wanted (update ${state ?? "none"})`;
  }
  if (state === "updating" || state === "rollback_started") return `its update is ${state}`;
  if (state === "paused" || state === "rollback_paused") return null;
  // Start-first keeps the old task where the new one failed and is not to be started again.
  if (condition !== "any") return null;
  const old = running.find((one) => JSON.stringify(one.spec) !== JSON.stringify(service.spec.task));
  return old === undefined ? null : `task ${old.id} runs an older spec (update ${state ?? "none"})`;
}
