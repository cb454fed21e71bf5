/** Images of this node. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { failure, messageOf } from "../../lib/errors.ts";
import type { Image } from "../../model/image.ts";
import type { Backend } from "../backend.ts";
import type { ApiContext } from "../context.ts";
import { writeHistory, writeImage, writeImageSummary } from "../convert/image.ts";
import { parseTimestamp } from "../convert/time.ts";
import { booleanFilter, type Filters, matchesLabels, parseFilters } from "../filters.ts";
import { clientSignal, openStream, sendJson, sendNothing } from "../reply.ts";
import { bodyStream, pathPart, type Query, queryOf } from "../request.ts";
import { unsupported } from "./unsupported.ts";

const imageFilters = ["reference", "dangling", "label", "before", "since", "until"];

export function imageRoutes(app: FastifyInstance, context: ApiContext): void {
  const { backend } = context;

  app.get("/images/json", async (request, reply) => {
    const filters = parseFilters(queryOf(request).get("filters"), imageFilters);
    const images = await matchingImages(backend, filters);
    return sendJson(reply, images.map(writeImageSummary));
  });

  app.post("/images/load", async (request, reply) => {
    const signal = clientSignal(request, reply, context.closing);
    const loaded = backend.images.load(bodyStream(request))[Symbol.asyncIterator]();
    // Until the first image is there, a failure still has its own status.
    let next = await loaded.next();
    const stream = openStream(reply, "application/json", signal);
    try {
      while (next.done !== true) {
        await stream.write(`${JSON.stringify({ stream: `${next.value}\n` })}\n`);
        next = await loaded.next();
      }
    } catch (error) {
      const message = messageOf(error);
      await stream.write(`${JSON.stringify({ errorDetail: { message }, error: message })}\n`);
    } finally {
      stream.end();
    }
    return reply;
  });

  app.post("/images/create", async (request, reply) => {
    const query = queryOf(request);
    if (query.get("fromImage") !== "") {
      throw failure(
        "not-implemented",
        `image pull: pulling ${query.get("fromImage")} from a registry is not supported yet; bring the image with \`docker load\` or \`docker import\``,
      );
    }
    if (query.get("fromSrc") !== "-") {
      throw failure(
        "not-implemented",
        "image import: fetching an archive from a URL is not supported yet; send it with `docker import - NAME < FILE`",
      );
    }
    const signal = clientSignal(request, reply, context.closing);
    const id = await backend.images.importRoot(bodyStream(request), importOptions(query));
    const stream = openStream(reply, "application/json", signal);
    await stream.write(`${JSON.stringify({ status: id })}\n`);
    stream.end();
    return reply;
  });

  // An image's name may hold slashes, so what is asked of it stands at the end of a wildcard.
  app.get("/images/*", async (request, reply) => {
    const { name, verb } = nameAndVerb(request);
    if (verb === "json") return sendInspected(backend, name, reply);
    if (verb === "history") {
      return sendJson(reply, writeHistory(await backend.images.get(name)));
    }
    if (verb === "get") throw unsupported("GET", "/images/{name}/get");
    return reply.callNotFound();
  });

  app.post("/images/*", async (request, reply) => {
    const { name, verb } = nameAndVerb(request);
    if (verb === "push") throw unsupported("POST", "/images/{name}/push");
    if (verb !== "tag") return reply.callNotFound();
    const query = queryOf(request);
    const tag = query.get("tag");
    const repository = query.get("repo");
    await backend.images.tag(name, tag === "" ? repository : `${repository}:${tag}`);
    return sendNothing(reply, 201);
  });

  app.delete("/images/*", async (request, reply) => {
    const query = queryOf(request);
    const removed = await backend.images.remove(pathPart(request, "*"), {
      force: query.flag("force"),
      prune: !query.flag("noprune"),
    });
    return sendJson(
      reply,
      removed.map((one) =>
        "untagged" in one ? { Untagged: one.untagged } : { Deleted: one.deleted },
      ),
    );
  });
}

async function sendInspected(backend: Backend, name: string, reply: FastifyReply) {
  const image = await backend.images.get(name);
  const { storageDriver } = await backend.system.info();
  return sendJson(reply, writeImage(image, storageDriver));
}

function nameAndVerb(request: FastifyRequest): { readonly name: string; readonly verb: string } {
  const path = pathPart(request, "*");
  const at = path.lastIndexOf("/");
  return { name: path.slice(0, Math.max(at, 0)), verb: path.slice(at + 1) };
}

function importOptions(query: Query) {
  const repository = query.get("repo");
  const tag = query.get("tag");
  const reference = repository === "" ? null : tag === "" ? repository : `${repository}:${tag}`;
  const platform = query.get("platform");
  return {
    reference,
    changes: query.all("changes"),
    message: query.get("message"),
    platform: platform === "" ? null : platform,
  };
}

async function matchingImages(backend: Backend, filters: Filters): Promise<readonly Image[]> {
  const dangling = booleanFilter(filters, "dangling");
  const [before, since] = await Promise.all([
    createdAt(backend, filters, "before"),
    createdAt(backend, filters, "since"),
  ]);
  const [untilText] = filters.get("until") ?? [];
  const untilNs = parseTimestamp("until", untilText ?? "");
  const until = untilNs === null ? null : Number(untilNs / 1_000_000n);
  const patterns = (filters.get("reference") ?? []).map(globPattern);
  const images = await backend.images.list();
  return images.flatMap((image) => {
    const created = image.createdAt ?? 0;
    const fits =
      (dangling === null || (image.tags.length === 0) === dangling) &&
      (before === null || created < before) &&
      (since === null || created > since) &&
      (until === null || created < until) &&
      matchesLabels(filters, "label", image.config.labels);
    if (!fits) return [];
    if (patterns.length === 0) return [image];
    // Only the names that match are shown, as in docker.
    const tags = image.tags.filter((tag) => matchesReference(patterns, tag));
    const digests = image.digests.filter((digest) => matchesReference(patterns, digest));
    return tags.length + digests.length === 0 ? [] : [{ ...image, tags, digests }];
  });
}

async function createdAt(backend: Backend, filters: Filters, name: string): Promise<number | null> {
  const [reference] = filters.get(name) ?? [];
  if (reference === undefined) return null;
  return (await backend.images.get(reference)).createdAt ?? 0;
}

/** With its tag, or without. */
function matchesReference(patterns: readonly RegExp[], reference: string): boolean {
  const withoutTag = reference.replace(/(?::[^:/@]+)?(?:@.*)?$/, "");
  return patterns.some((pattern) => pattern.test(reference) || pattern.test(withoutTag));
}

/** Go's path.Match: a star and a question mark stop at a slash. */
function globPattern(glob: string): RegExp {
  const source = glob
    .replace(/[.+^${}()|\\]/g, "\\$&")
    .replaceAll("*", "[^/]*")
    .replaceAll("?", "[^/]");
  try {
    return new RegExp(`^${source}$`);
  } catch (error) {
    throw failure("invalid", `invalid filter 'reference=${glob}': syntax error in pattern`, error);
  }
}
