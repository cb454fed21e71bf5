/** What handlers read from a request: query parameters as Go reads them, and JSON bodies. */
import type { FastifyRequest } from "fastify";
import { failure } from "../lib/errors.ts";
import { jsonBodyBytesMax } from "./limits.ts";

/** Query parameters; of a repeated one the first counts, as in Go. */
export interface Query {
  get(name: string): string;
  all(name: string): readonly string[];
  has(name: string): boolean;
  /** False for nothing, 0, no, false and none (moby httputils.BoolValue). */
  flag(name: string): boolean;
}

/** The query of a request. */
export function queryOf(request: FastifyRequest): Query {
  const { url } = request;
  const at = url.indexOf("?");
  const parameters = new URLSearchParams(at < 0 ? "" : url.slice(at + 1));
  const get = (name: string) => parameters.get(name) ?? "";
  return {
    get,
    all: (name) => parameters.getAll(name),
    has: (name) => parameters.has(name),
    flag: (name) => !["", "0", "no", "false", "none"].includes(get(name).trim().toLowerCase()),
  };
}

/** A named part of the path; routes that name it always have it. */
export function pathPart(request: FastifyRequest, name: string): string {
  const value = (request.params as Readonly<Record<string, string | undefined>>)[name];
  return value ?? "";
}

/** The object version that an update names. Throws ShoalError("invalid") in docker's words. */
export function versionParameter(query: Query, noun: "swarm" | "node" | "service"): number {
  const raw = query.get("version");
  const version = Number(raw);
  if (/^\d+$/.test(raw) && Number.isSafeInteger(version)) return version;
  const why = /^\d+$/.test(raw) ? "value out of range" : "invalid syntax";
  throw failure(
    "invalid",
    `invalid ${noun} version '${raw}': strconv.ParseUint: parsing "${raw}": ${why}`,
  );
}

/** The body as bytes that arrive. */
export function bodyStream(request: FastifyRequest): AsyncIterable<Uint8Array> {
  // Who stops reading early must not cut the connection: the answer still has to reach the client.
  return request.raw.iterator({ destroyOnReturn: false });
}

/** The parsed JSON body; null where there is none (moby httputils.ReadJSON). Throws ShoalError("invalid"). */
export async function readJson(request: FastifyRequest): Promise<unknown> {
  const { headers } = request.raw;
  const empty =
    headers["transfer-encoding"] === undefined && Number(headers["content-length"] ?? 0) === 0;
  const contentType = headers["content-type"] ?? "";
  if (!(empty && contentType === "")) requireJson(contentType);
  const text = await readText(bodyStream(request));
  if (text.trim() === "") {
    if (empty) return null;
    throw failure("invalid", "invalid JSON: got EOF while reading request body");
  }
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw failure("invalid", `invalid JSON: ${(error as SyntaxError).message}`, error);
  }
}

function requireJson(contentType: string): void {
  const type = contentType.split(";")[0]?.trim().toLowerCase() ?? "";
  if (type === "application/json") return;
  throw failure(
    "invalid",
    type === ""
      ? "malformed Content-Type header (): mime: no media type"
      : `unsupported Content-Type header (${contentType}): must be 'application/json'`,
  );
}

async function readText(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > jsonBodyBytesMax) {
      throw failure(
        "invalid",
        `invalid JSON: the request body is longer than ${jsonBodyBytesMax} bytes`,
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
