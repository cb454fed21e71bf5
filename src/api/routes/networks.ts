/** Networks of the swarm, and those of this node. */
import type { FastifyInstance } from "fastify";
import { failure } from "../../lib/errors.ts";
import type { Network } from "../../model/network.ts";
import type { Backend, LocalNetwork } from "../backend.ts";
import type { ApiContext } from "../context.ts";
import {
  isSwarmNetwork,
  readNetworkSpec,
  writeLocalNetwork,
  writeNetwork,
} from "../convert/network.ts";
import {
  booleanFilter,
  type Filters,
  matchesExactly,
  matchesLabels,
  matchesPattern,
  parseFilters,
  requireValues,
} from "../filters.ts";
import { sendJson, sendNothing } from "../reply.ts";
import { pathPart, queryOf, readJson } from "../request.ts";

const networkFilters = ["driver", "id", "label", "name", "scope", "type", "dangling"];

export function networkRoutes(app: FastifyInstance, { backend }: ApiContext): void {
  app.get("/networks", async (request, reply) => {
    const filters = parseFilters(queryOf(request).get("filters"), networkFilters);
    requireValues(filters, "type", ["builtin", "custom"]);
    const [swarm, local] = await Promise.all([backend.networks.list(), backend.networks.local()]);
    const dangling = booleanFilter(filters, "dangling");
    const used = dangling === null ? null : await networksInUse(backend);
    const found = [...swarm, ...local].filter(
      (network) =>
        networkMatches(network, filters) && (used === null || used.has(network.id) !== dangling),
    );
    return sendJson(
      reply,
      found.map((network) =>
        isSwarmNetwork(network) ? writeNetwork(network, null) : writeLocalNetwork(network, null),
      ),
    );
  });

  app.get("/networks/:id", async (request, reply) => {
    const query = queryOf(request);
    const reference = pathPart(request, "id");
    const network = await backend.networks.get(reference);
    const swarm = isSwarmNetwork(network);
    const scope = query.get("scope");
    if (scope !== "" && scope !== (swarm ? "swarm" : "local")) {
      throw failure("not-found", `network ${reference} not found`);
    }
    const containers = await backend.containers.list();
    if (!swarm) return sendJson(reply, writeLocalNetwork(network, { containers, verbose: null }));
    const verbose =
      query.flag("verbose") && backend.system.swarm().controlAvailable
        ? { tasks: await backend.tasks.list(), nodes: await backend.nodes.list() }
        : null;
    return sendJson(reply, writeNetwork(network, { containers, verbose }));
  });

  app.post("/networks/create", async (request, reply) => {
    const spec = readNetworkSpec(await readJson(request));
    const { id, warning } = await backend.networks.create(spec);
    return sendJson(reply, { Id: id, Warning: warning }, 201);
  });

  app.delete("/networks/:id", async (request, reply) => {
    await backend.networks.remove(pathPart(request, "id"));
    return sendNothing(reply, 204);
  });
}

function networkMatches(network: Network | LocalNetwork, filters: Filters): boolean {
  if (filters.size === 0) return true;
  const swarm = isSwarmNetwork(network);
  const name = swarm ? network.spec.name : network.name;
  return (
    matchesExactly(filters, "driver", swarm ? network.spec.driver : network.driver) &&
    matchesPattern(filters, "id", network.id) &&
    matchesPattern(filters, "name", name) &&
    matchesLabels(filters, "label", swarm ? network.spec.labels : {}) &&
    matchesExactly(filters, "scope", swarm ? "swarm" : "local") &&
    matchesExactly(filters, "type", swarm && !network.spec.ingress ? "custom" : "builtin")
  );
}

async function networksInUse(backend: Backend): Promise<ReadonlySet<string>> {
  const used = new Set<string>();
  for (const container of await backend.containers.list()) {
    for (const network of container.networks) used.add(network.networkId);
  }
  if (!backend.system.swarm().controlAvailable) return used;
  for (const service of await backend.services.list()) {
    for (const network of service.spec.task.networks) used.add(network.target);
  }
  return used;
}
