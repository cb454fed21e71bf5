/** Services, and why their tasks are where they are. */
import type { FastifyInstance } from "fastify";
import { failure } from "../../lib/errors.ts";
import type { Service } from "../../model/service.ts";
import type { TaskExplanation } from "../backend.ts";
import type { ApiContext } from "../context.ts";
import { writeService } from "../convert/service.ts";
import { readServiceSpec } from "../convert/service-spec.ts";
import { timeText } from "../convert/time.ts";
import {
  type Filters,
  matchesExactly,
  matchesLabels,
  matchesPrefix,
  parseFilters,
} from "../filters.ts";
import { logsContentType, readLogsQuery, swarmDetails, writeLogs } from "../logs.ts";
import { clientSignal, openStream, sendJson, sendNothing } from "../reply.ts";
import { pathPart, queryOf, readJson, versionParameter } from "../request.ts";
import { versionOf } from "../version.ts";

const serviceFilters = ["id", "name", "label", "mode", "runtime"];

export function serviceRoutes(app: FastifyInstance, { backend, closing }: ApiContext): void {
  app.get("/services", async (request, reply) => {
    const query = queryOf(request);
    const filters = parseFilters(query.get("filters"), serviceFilters);
    const services = (await backend.services.list()).filter((service) =>
      serviceMatches(service, filters),
    );
    const counts = query.flag("status")
      ? await backend.services.counts(services.map(({ id }) => id))
      : null;
    const none = { running: 0, desired: 0, completed: 0 };
    const defaults = query.flag("insertDefaults");
    return sendJson(
      reply,
      services.map((service) =>
        writeService(service, {
          counts: counts === null ? null : (counts.get(service.id) ?? none),
          defaults,
        }),
      ),
    );
  });

  app.post("/services/create", async (request, reply) => {
    const spec = readServiceSpec(await readJson(request), "service create");
    const { id, warnings } = await backend.services.create(spec);
    return sendJson(reply, { ID: id, Warnings: warnings }, 201);
  });

  app.get("/services/:id", async (request, reply) => {
    const service = await backend.services.get(pathPart(request, "id"));
    const defaults = queryOf(request).flag("insertDefaults");
    return sendJson(reply, writeService(service, { defaults }));
  });

  app.post("/services/:id/update", async (request, reply) => {
    const query = queryOf(request);
    const body = await readJson(request);
    const version = versionParameter(query, "service");
    const rollback = readRollback(query.get("rollback"));
    // With a rollback docker's command sends the present spec along; it counts for nothing.
    const spec = rollback ? null : readServiceSpec(body, "service update");
    const answer = await backend.services.update(pathPart(request, "id"), version, spec, {
      rollback,
    });
    return sendJson(reply, { Warnings: answer.warnings });
  });

  app.delete("/services/:id", async (request, reply) => {
    await backend.services.remove(pathPart(request, "id"));
    return sendNothing(reply, 200);
  });

  app.get("/services/:id/logs", async (request, reply) => {
    const signal = clientSignal(request, reply, closing);
    const { logs, format } = readLogsQuery(queryOf(request), signal);
    const service = await backend.services.get(pathPart(request, "id"));
    const lines = backend.services.logs(service.id, logs);
    const stream = openStream(reply, logsContentType(versionOf(request.originalUrl)), signal);
    await writeLogs(stream, lines, format, swarmDetails);
    return reply;
  });

  app.get("/shoal/v1/services/:id/explain", async (request, reply) => {
    const tasks = await backend.services.explain(pathPart(request, "id"));
    return sendJson(reply, { Tasks: tasks.map(writeExplanation) });
  });
}

function serviceMatches(service: Service, filters: Filters): boolean {
  return (
    matchesPrefix(filters, "id", service.id) &&
    matchesPrefix(filters, "name", service.spec.name) &&
    matchesLabels(filters, "label", service.spec.labels) &&
    matchesExactly(filters, "mode", service.spec.mode.kind) &&
    matchesExactly(filters, "runtime", "container")
  );
}

function readRollback(text: string): boolean {
  if (text === "" || text === "none") return false;
  if (text === "previous") return true;
  throw failure("invalid", `unrecognized rollback option ${text}`);
}

function writeExplanation(task: TaskExplanation): object {
  return {
    TaskID: task.taskId,
    TaskName: task.taskName,
    State: task.state,
    DesiredState: task.desired,
    NodeID: task.nodeId,
    NodeName: task.nodeName,
    Reason: task.reason,
    Since: timeText(task.sinceMs as Parameters<typeof timeText>[0]),
    Nodes: task.nodes.map((node) => ({
      NodeID: node.nodeId,
      NodeName: node.nodeName,
      Fits: node.fits,
      Filter: node.filter,
      Reason: node.reason,
    })),
  };
}
