/** Tasks as containers of this machine's engine. */
import type { ContainerRequest } from "../engine/container-request.ts";
import type { Engine } from "../engine/engine.ts";
import type { Network } from "../model/network.ts";
import { taskName } from "../model/task.ts";
import type { AssignedTask } from "../wire/session.ts";
import { containerIdOf } from "./container-id.ts";
import type { Executor } from "./executor.ts";

const taskIdLabel = "com.docker.swarm.task.id";

/** An executor over `engine`, which is open. */
export function createEngineExecutor(engine: Engine): Executor {
  return {
    async prepare(task, signal) {
      signal.throwIfAborted();
      await engine.check(requestOf(task, []));
    },
    async create(task, networks) {
      const container = await engine.create(requestOf(task, networks));
      return { containerId: container.id };
    },
    async start(taskId) {
      const container = await engine.start(containerIdOf(taskId));
      return { containerId: container.id, pid: container.pid };
    },
    async wait(taskId, signal) {
      return await engine.wait(containerIdOf(taskId), signal);
    },
    async shutdown(taskId, graceMs) {
      const id = containerIdOf(taskId);
      await engine.stop(id, graceMs);
      const container = (await engine.list()).find((item) => item.id === id);
      if (container === undefined) return null;
      if (container.state === "created") {
        // Parked and never to run: it would keep its namespaces for nothing.
        await engine.remove(id, true);
        return null;
      }
      return await engine.wait(id, new AbortController().signal);
    },
    async remove(taskId) {
      await engine.remove(containerIdOf(taskId), true);
    },
    onAvailable: (listener) => engine.onReady(listener),
    async list() {
      return (await engine.list()).flatMap((container) => {
        const taskId = container.labels[taskIdLabel];
        if (taskId === undefined || containerIdOf(taskId) !== container.id) return [];
        const state = container.state === "dead" ? "exited" : container.state;
        return [{ taskId, containerId: container.id, state }];
      });
    },
  };
}

function requestOf(task: AssignedTask, networks: readonly Network[]): ContainerRequest {
  const rows = new Map(networks.map((network) => [network.id, network]));
  const name = taskName(task);
  return {
    id: containerIdOf(task.id),
    name,
    spec: task.spec.container,
    labels: {
      "com.docker.swarm.node.id": task.nodeId,
      "com.docker.swarm.service.id": task.serviceId,
      "com.docker.swarm.service.name": task.serviceName,
      "com.docker.swarm.task": "",
      [taskIdLabel]: task.id,
      "com.docker.swarm.task.name": name,
    },
    limits: task.spec.limits,
    logDriver: task.spec.logDriver,
    networks: task.attachments.map((attachment) => {
      const row = rows.get(attachment.networkId);
      return {
        networkId: attachment.networkId,
        networkName: row?.spec.name ?? attachment.networkId,
        address: attachment.address,
        prefixLength: attachment.prefixLength,
        gateway: row?.gateway ?? "",
        mac: attachment.mac,
        aliases: attachment.aliases,
      };
    }),
  };
}
