/** Ping, version, info, events, disk usage. */
import type { FastifyInstance, FastifyReply } from "fastify";
import type { EngineEvent } from "../../model/event.ts";
import type { ApiContext } from "../context.ts";
import { writeContainerSummary } from "../convert/container.ts";
import { eventLine } from "../convert/event.ts";
import { writeImageSummary } from "../convert/image.ts";
import { swarmHeader, writeInfo, writeVersion } from "../convert/system.ts";
import { parseTimestamp } from "../convert/time.ts";
import { type Filters, matchesExactly, matchesLabels, parseFilters } from "../filters.ts";
import { clientSignal, openStream, sendJson } from "../reply.ts";
import { queryOf } from "../request.ts";

/** Filters that name an object of their type, by id or name. */
const objectFilters = [
  "config",
  "container",
  "daemon",
  "image",
  "network",
  "node",
  "plugin",
  "secret",
  "service",
  "volume",
] as const;
const eventFilters = ["event", "label", "scope", "type", ...objectFilters];

export function systemRoutes(app: FastifyInstance, context: ApiContext): void {
  const { backend, clock } = context;

  const ping = (reply: FastifyReply, body: string) =>
    reply
      .header("builder-version", "1")
      .header("swarm", swarmHeader(backend.system.swarm()))
      .header("cache-control", "no-cache, no-store, must-revalidate")
      .header("pragma", "no-cache")
      .header("content-type", "text/plain; charset=utf-8")
      .send(body);
  app.head("/_ping", async (_request, reply) => {
    reply.header("content-length", "0");
    return ping(reply, "");
  });
  app.get("/_ping", async (_request, reply) => ping(reply, "OK"));

  app.get("/version", async (_request, reply) =>
    sendJson(reply, writeVersion(await backend.system.info())),
  );

  app.get("/info", async (_request, reply) => {
    const [info, containers, images] = await Promise.all([
      backend.system.info(),
      backend.containers.list(),
      backend.images.list(),
    ]);
    const running = containers.filter((container) => container.state === "running").length;
    const counts = { running, stopped: containers.length - running, images: images.length };
    return sendJson(reply, writeInfo(info, backend.system.swarm(), counts, clock.now()));
  });

  app.get("/events", async (request, reply) => {
    const query = queryOf(request);
    const filters = parseFilters(query.get("filters"), eventFilters);
    const signal = clientSignal(request, reply, context.closing);
    const events = backend.system.events({
      sinceNs: parseTimestamp("since", query.get("since")),
      untilNs: parseTimestamp("until", query.get("until")),
      signal,
    });
    const stream = openStream(reply, "application/json", signal);
    try {
      for await (const event of events) {
        if (eventMatches(event, filters)) await stream.write(eventLine(event));
        if (signal.aborted) break;
      }
    } catch (error) {
      if (!signal.aborted) context.log.warn({ error }, "a stream of events ended early");
    } finally {
      stream.end();
    }
    return reply;
  });

  app.get("/system/df", async (_request, reply) => {
    const [usage, containers, images] = await Promise.all([
      backend.system.diskUsage(),
      backend.containers.list(),
      backend.images.list(),
    ]);
    return sendJson(reply, {
      LayersSize: usage.layersBytes,
      Images: images.map((image) => ({
        ...writeImageSummary(image),
        Containers: containers.filter(({ imageId }) => imageId === image.id).length,
      })),
      Containers: containers.map((container) => writeContainerSummary(container, clock.now())),
      Volumes: [],
      BuildCache: [],
    });
  });
}

function eventMatches(event: EngineEvent, filters: Filters): boolean {
  if (filters.size === 0) return true;
  const { actorId, attributes } = event;
  return (
    matchesExactly(filters, "type", event.type) &&
    matchesExactly(filters, "scope", event.scope) &&
    matchesExactly(filters, "event", event.action) &&
    matchesLabels(filters, "label", attributes) &&
    objectFilters.every((type) => {
      const wanted = filters.get(type);
      if (wanted === undefined || wanted.length === 0) return true;
      if (type === "image" && event.type === "container") {
        return wanted.includes(attributes["image"] ?? "");
      }
      const name = attributes["name"];
      return (
        event.type === type && wanted.some((value) => actorId.startsWith(value) || value === name)
      );
    })
  );
}
