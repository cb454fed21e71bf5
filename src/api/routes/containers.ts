/** Containers of this node: they are the swarm's, so they are only looked at here. */
import type { FastifyInstance } from "fastify";
import { failure } from "../../lib/errors.ts";
import type { Container } from "../../model/container.ts";
import type { Backend } from "../backend.ts";
import type { ApiContext } from "../context.ts";
import { writeContainer, writeContainerSummary } from "../convert/container.ts";
import {
  booleanFilter,
  type Filters,
  matchesExactly,
  matchesLabels,
  matchesPattern,
  parseFilters,
} from "../filters.ts";
import { logsContentType, readLogsQuery, writeLogs } from "../logs.ts";
import { clientSignal, openStream, sendJson } from "../reply.ts";
import { pathPart, queryOf } from "../request.ts";
import { versionOf } from "../version.ts";

/** Filters of docker that nothing here could answer yet. */
const missingFilters = ["expose", "health", "isolation", "publish"];
const containerFilters = [
  "ancestor",
  "before",
  "exited",
  "id",
  "is-task",
  "label",
  "name",
  "network",
  "since",
  "status",
  "volume",
  ...missingFilters,
];
const states = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
/** The label that every container of a task has. */
const taskLabel = "com.docker.swarm.task.id";

export function containerRoutes(app: FastifyInstance, context: ApiContext): void {
  const { backend, clock, closing } = context;

  app.get("/containers/json", async (request, reply) => {
    const query = queryOf(request);
    const filters = parseFilters(query.get("filters"), containerFilters);
    requireKnown(filters);
    const limit = readLimit(query.get("limit"));
    const containers = await matchingContainers(backend, filters);
    // A limit and a filter for states look at all, as in docker.
    const all = query.flag("all") || limit > 0 || filters.has("status") || filters.has("exited");
    const shown = containers
      .filter((container) => all || container.state === "running")
      .sort((a, b) => b.createdAt - a.createdAt);
    const now = clock.now();
    return sendJson(
      reply,
      (limit > 0 ? shown.slice(0, limit) : shown).map((one) => writeContainerSummary(one, now)),
    );
  });

  app.get("/containers/:id/json", async (request, reply) => {
    const container = await backend.containers.get(pathPart(request, "id"));
    const { storageDriver } = await backend.system.info();
    return sendJson(reply, writeContainer(container, storageDriver));
  });

  app.get("/containers/:id/logs", async (request, reply) => {
    const signal = clientSignal(request, reply, closing);
    const { logs, format } = readLogsQuery(queryOf(request), signal);
    const container = await backend.containers.get(pathPart(request, "id"));
    const lines = backend.containers.logs(container.id, logs);
    const stream = openStream(reply, logsContentType(versionOf(request.originalUrl)), signal);
    // A json-file log keeps no details of its lines; the space is docker's.
    await writeLogs(stream, lines, format, () => "");
    return reply;
  });

  app.get("/containers/:id/top", async (request, reply) => {
    const psArguments = queryOf(request).get("ps_args") || "-ef";
    const { titles, processes } = await backend.containers.top(
      pathPart(request, "id"),
      psArguments,
    );
    return sendJson(reply, { Titles: titles, Processes: processes });
  });
}

function requireKnown(filters: Filters): void {
  for (const name of missingFilters) {
    if (filters.has(name)) {
      throw failure("not-implemented", `container list: the filter ${name} is not supported yet`);
    }
  }
  for (const status of filters.get("status") ?? []) {
    if (!states.includes(status)) throw failure("invalid", `invalid filter 'status=${status}'`);
  }
  for (const code of filters.get("exited") ?? []) {
    if (!/^-?\d+$/.test(code)) throw failure("invalid", `invalid filter 'exited=${code}'`);
  }
}

function readLimit(text: string): number {
  if (text === "") return 0;
  if (!/^-?\d{1,9}$/.test(text)) {
    throw failure("invalid", `strconv.Atoi: parsing "${text}": invalid syntax`);
  }
  return Number(text);
}

async function matchingContainers(
  backend: Backend,
  filters: Filters,
): Promise<readonly Container[]> {
  const [beforeName] = filters.get("before") ?? [];
  const [sinceName] = filters.get("since") ?? [];
  const [containers, before, since] = await Promise.all([
    backend.containers.list(),
    beforeName === undefined ? null : backend.containers.get(beforeName),
    sinceName === undefined ? null : backend.containers.get(sinceName),
  ]);
  const isTask = booleanFilter(filters, "is-task");
  return containers.filter(
    (container) =>
      matchesPattern(filters, "id", container.id) &&
      matchesName(filters, container.name) &&
      matchesLabels(filters, "label", container.labels) &&
      matchesExactly(filters, "status", container.state) &&
      (isTask === null || Object.hasOwn(container.labels, taskLabel) === isTask) &&
      (!filters.has("exited") ||
        (container.state === "exited" &&
          matchesExactly(filters, "exited", String(container.exitCode)))) &&
      (before === null || container.createdAt < before.createdAt) &&
      (since === null || container.createdAt > since.createdAt) &&
      matchesNetwork(filters, container) &&
      matchesVolume(filters, container) &&
      matchesAncestor(filters, container),
  );
}

/** Docker's names begin with a slash; a pattern may say so or not. */
function matchesName(filters: Filters, name: string): boolean {
  return matchesPattern(filters, "name", name) || matchesPattern(filters, "name", `/${name}`);
}

function matchesNetwork(filters: Filters, container: Container): boolean {
  const wanted = filters.get("network");
  if (wanted === undefined || wanted.length === 0) return true;
  return container.networks.some(
    (network) =>
      wanted.includes(network.networkName) ||
      wanted.some((id) => id !== "" && network.networkId.startsWith(id)),
  );
}

function matchesVolume(filters: Filters, container: Container): boolean {
  const wanted = filters.get("volume");
  if (wanted === undefined || wanted.length === 0) return true;
  return container.mounts.some(
    (mount) => wanted.includes(mount.target) || wanted.includes(mount.source ?? mount.target),
  );
}

function matchesAncestor(filters: Filters, container: Container): boolean {
  const wanted = filters.get("ancestor");
  if (wanted === undefined || wanted.length === 0) return true;
  const hex = container.imageId.replace(/^sha256:/, "");
  const name = container.imageRef.replace(/@.*$/, "");
  return wanted.some(
    (image) =>
      container.imageRef === image ||
      name === image ||
      name === `${image}:latest` ||
      container.imageId === image ||
      (image.length >= 4 && hex.startsWith(image)),
  );
}
