/** Tasks. A waiting `docker service create` asks for them five times a second. */
import type { FastifyInstance } from "fastify";
import type { Network } from "../../model/network.ts";
import { type Task, taskName } from "../../model/task.ts";
import { taskStates } from "../../model/task-state.ts";
import type { Backend } from "../backend.ts";
import type { ApiContext } from "../context.ts";
import { taskText } from "../convert/task.ts";
import {
  booleanFilter,
  type Filters,
  matchesExactly,
  matchesLabels,
  matchesPrefix,
  parseFilters,
  requireValues,
} from "../filters.ts";
import { logsContentType, readLogsQuery, swarmDetails, writeLogs } from "../logs.ts";
import { clientSignal, openStream, sendJsonText } from "../reply.ts";
import { pathPart, queryOf } from "../request.ts";
import { versionOf } from "../version.ts";

const taskFilters = [
  "id",
  "name",
  "label",
  "service",
  "node",
  "desired-state",
  "runtime",
  "_up-to-date",
];

export function taskRoutes(app: FastifyInstance, { backend, closing }: ApiContext): void {
  app.get("/tasks", async (request, reply) => {
    const filters = parseFilters(queryOf(request).get("filters"), taskFilters);
    requireValues(filters, "desired-state", taskStates);
    const [serviceIds, nodeIds] = await Promise.all([
      idsOf(filters, "service", async (name) => (await backend.services.get(name)).id),
      idsOf(filters, "node", async (name) => (await nodeNamed(backend, name)).id),
    ]);
    const matching = (await backend.tasks.list()).filter(
      (task) =>
        (serviceIds === null || serviceIds.has(task.serviceId)) &&
        (nodeIds === null || (task.nodeId !== null && nodeIds.has(task.nodeId))) &&
        taskMatches(task, filters),
    );
    const tasks =
      booleanFilter(filters, "_up-to-date") === true
        ? await backend.tasks.upToDate(matching)
        : matching;
    const networks = await networksOf(backend, tasks);
    return sendJsonText(reply, `[${tasks.map((task) => taskText(task, networks)).join(",")}]`);
  });

  app.get("/tasks/:id", async (request, reply) => {
    const task = await backend.tasks.get(pathPart(request, "id"));
    return sendJsonText(reply, taskText(task, await networksOf(backend, [task])));
  });

  app.get("/tasks/:id/logs", async (request, reply) => {
    const signal = clientSignal(request, reply, closing);
    const { logs, format } = readLogsQuery(queryOf(request), signal);
    const task = await backend.tasks.get(pathPart(request, "id"));
    const lines = backend.tasks.logs(task.id, logs);
    const stream = openStream(reply, logsContentType(versionOf(request.originalUrl)), signal);
    await writeLogs(stream, lines, format, swarmDetails);
    return reply;
  });
}

function taskMatches(task: Task, filters: Filters): boolean {
  if (filters.size === 0) return true;
  return (
    matchesPrefix(filters, "id", task.id) &&
    (!filters.has("name") || matchesPrefix(filters, "name", taskName(task))) &&
    matchesLabels(filters, "label", task.serviceLabels) &&
    matchesExactly(filters, "desired-state", task.desired) &&
    matchesExactly(filters, "runtime", "container")
  );
}

/** The ids that a filter's names and ids stand for; null where it was not given. An unknown one is an error, as in docker. */
async function idsOf(
  filters: Filters,
  name: string,
  resolve: (reference: string) => Promise<string>,
): Promise<ReadonlySet<string> | null> {
  const wanted = filters.get(name);
  if (wanted === undefined || wanted.length === 0) return null;
  return new Set(await Promise.all(wanted.map(resolve)));
}

function nodeNamed(backend: Backend, name: string) {
  return backend.nodes.get(name === "self" ? backend.system.swarm().nodeId : name);
}

async function networksOf(
  backend: Backend,
  tasks: readonly Task[],
): Promise<ReadonlyMap<string, Network>> {
  if (tasks.every((task) => task.attachments.length === 0)) return new Map();
  const networks = await backend.networks.list();
  return new Map(networks.map((network) => [network.id, network]));
}
