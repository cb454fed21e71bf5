/** The nodes of the swarm. */
import type { FastifyInstance } from "fastify";
import type { Node } from "../../model/node.ts";
import type { ManagerStatus } from "../backend.ts";
import type { ApiContext } from "../context.ts";
import { readNodeSpec, writeNode } from "../convert/node.ts";
import {
  type Filters,
  matchesExactly,
  matchesLabels,
  matchesPrefix,
  parseFilters,
  requireValues,
} from "../filters.ts";
import { sendJson, sendNothing } from "../reply.ts";
import { pathPart, queryOf, readJson, versionParameter } from "../request.ts";

const nodeFilters = ["id", "name", "label", "node.label", "role", "membership"];

export function nodeRoutes(app: FastifyInstance, { backend }: ApiContext): void {
  const write = (node: Node, managers: readonly ManagerStatus[]) =>
    writeNode(
      node,
      managers.find((manager) => manager.nodeId === node.id),
      backend.system.swarm().cluster,
    );

  app.get("/nodes", async (request, reply) => {
    const filters = parseFilters(queryOf(request).get("filters"), nodeFilters);
    requireValues(filters, "role", ["worker", "manager"]);
    requireValues(filters, "membership", ["accepted", "pending"]);
    const [nodes, managers] = await Promise.all([backend.nodes.list(), backend.nodes.managers()]);
    const found = nodes.filter((node) => nodeMatches(node, filters));
    return sendJson(
      reply,
      found.map((node) => write(node, managers)),
    );
  });

  app.get("/nodes/:id", async (request, reply) => {
    const node = await backend.nodes.get(pathPart(request, "id"));
    return sendJson(reply, write(node, await backend.nodes.managers()));
  });

  app.post("/nodes/:id/update", async (request, reply) => {
    const spec = readNodeSpec(await readJson(request));
    const version = versionParameter(queryOf(request), "node");
    await backend.nodes.update(pathPart(request, "id"), version, spec);
    return sendNothing(reply, 200);
  });

  app.delete("/nodes/:id", async (request, reply) => {
    await backend.nodes.remove(pathPart(request, "id"), queryOf(request).flag("force"));
    return sendNothing(reply, 200);
  });
}

/** `label` asks for the labels of the engine, `node.label` for those of the node, as in docker. */
function nodeMatches(node: Node, filters: Filters): boolean {
  return (
    matchesPrefix(filters, "id", node.id) &&
    matchesPrefix(filters, "name", node.description?.hostname ?? "") &&
    matchesLabels(filters, "label", node.description?.engineLabels ?? {}) &&
    matchesLabels(filters, "node.label", node.spec.labels) &&
    matchesExactly(filters, "role", node.role) &&
    // Whoever shows a token is accepted: there are no pending members.
    matchesExactly(filters, "membership", "accepted")
  );
}
