/** Kinds of things that do not exist yet: their lists are empty, so that clients that look everywhere go on. */
import type { FastifyInstance } from "fastify";
import { failure } from "../../lib/errors.ts";
import { type ApiContext, requireManager } from "../context.ts";
import { parseFilters } from "../filters.ts";
import { sendJson } from "../reply.ts";
import { pathPart, queryOf } from "../request.ts";

export function otherRoutes(app: FastifyInstance, { backend }: ApiContext): void {
  app.get("/plugins", async (request, reply) => {
    parseFilters(queryOf(request).get("filters"), ["capability", "enabled"]);
    return sendJson(reply, []);
  });
  app.get("/plugins/*", async (request, reply) => {
    const path = pathPart(request, "*");
    if (!path.endsWith("/json")) return reply.callNotFound();
    throw failure("not-found", `plugin "${path.slice(0, -"/json".length)}" not found`);
  });

  app.get("/volumes", async (request, reply) => {
    parseFilters(queryOf(request).get("filters"), ["dangling", "driver", "label", "name"]);
    return sendJson(reply, { Volumes: [], Warnings: [] });
  });
  app.get("/volumes/:name", async (request) => {
    throw failure("not-found", `get ${pathPart(request, "name")}: no such volume`);
  });

  for (const noun of ["secret", "config"] as const) {
    app.get(`/${noun}s`, async (request, reply) => {
      parseFilters(queryOf(request).get("filters"), ["id", "label", "name", "names"]);
      requireManager(backend);
      return sendJson(reply, []);
    });
    app.get(`/${noun}s/:id`, async (request) => {
      requireManager(backend);
      throw failure("not-found", `${noun} ${pathPart(request, "id")} not found`);
    });
  }

  // Asked before every service create and update; docker's command warns and goes on without a digest.
  app.get("/distribution/*", async (request, reply) => {
    const path = pathPart(request, "*");
    if (!path.endsWith("/json")) return reply.callNotFound();
    const name = path.slice(0, -"/json".length);
    throw failure(
      "not-found",
      `${name} was not looked up: this version of shoal asks no registry; load the image on each node with \`docker load\``,
    );
  });
}
