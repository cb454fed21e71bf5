/** A small client of the Engine API: one request at a time over node:http, with docker's words for what goes wrong. */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import type { Readable } from "node:stream";
import { type ErrorCode, failure, ShoalError } from "../lib/errors.ts";
import type { Endpoint } from "./host.ts";

/** Newest API version that this client speaks (docker 28.2.2 has the same). */
const apiVersion = "1.50";
/** Longest JSON answer that is read. */
const answerBytesMax = 256 * 1024 * 1024;

export interface RequestOptions {
  readonly query?: Readonly<Record<string, string | null | undefined>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Sent as it is; wins over `body`. */
  readonly stream?: Readable;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** Answers of the daemon that are errors carry its HTTP status. */
export class DaemonError extends ShoalError {
  readonly status: number;
  constructor(status: number, message: string) {
    super(codeOf(status), `Error response from daemon: ${message}`);
    this.status = status;
  }
}

export class EngineClient {
  readonly endpoint: Endpoint;
  readonly #agent: HttpAgent | HttpsAgent;
  #version: Promise<string> | null = null;

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint;
    const tls = endpoint.kind === "tcp" ? endpoint.tls : null;
    this.#agent =
      tls === null
        ? new HttpAgent({ keepAlive: true })
        : new HttpsAgent({
            keepAlive: true,
            rejectUnauthorized: tls.verify,
            ...(tls.ca === "" ? {} : { ca: tls.ca }),
            ...(tls.cert === null ? {} : { cert: tls.cert }),
            ...(tls.key === null ? {} : { key: tls.key }),
          });
  }

  /** Ends idle connections. */
  close(): void {
    this.#agent.destroy();
  }

  /** The API version that both sides speak, asked once with HEAD /_ping. */
  async version(): Promise<string> {
    this.#version ??= this.#negotiate();
    return await this.#version;
  }

  /** The answer as JSON; null when it is empty. Throws DaemonError, or `unavailable` when there is no daemon. */
  async json<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
    return await readJson<T>(`${method} ${path}`, await this.stream(method, path, options));
  }

  /** As `json`, for paths that have no API version in front: /_ping and Shoal's own. */
  async plainJson<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
    const response = await this.#checked(await this.#send(method, path, options));
    return await readJson<T>(`${method} ${path}`, response);
  }

  /** Whether GET /_ping answers 200. */
  async ping(signal: AbortSignal): Promise<boolean> {
    const response = await this.#send("GET", "/_ping", { signal });
    response.resume();
    return response.statusCode === 200;
  }

  /** The answer as it comes. Throws as `json`. */
  async stream(
    method: string,
    path: string,
    options: RequestOptions = {},
  ): Promise<IncomingMessage> {
    const version = await this.version();
    return await this.#checked(await this.#send(method, `/v${version}${path}`, options));
  }

  async #checked(response: IncomingMessage): Promise<IncomingMessage> {
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 400) return response;
    throw new DaemonError(status, await errorMessage(response, status));
  }

  async #negotiate(): Promise<string> {
    const response = await this.#send("HEAD", "/_ping", {});
    response.resume();
    const offered = response.headers["api-version"];
    return typeof offered === "string" && compareVersions(offered, apiVersion) < 0
      ? offered
      : apiVersion;
  }

  #send(method: string, path: string, options: RequestOptions): Promise<IncomingMessage> {
    const endpoint = this.endpoint;
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(options.query ?? {})) {
      if (value !== null && value !== undefined) query.set(key, value);
    }
    query.sort();
    const text = options.body === undefined ? null : `${JSON.stringify(options.body)}\n`;
    const headers: Record<string, string> = {
      "user-agent": "Shoal-Client/0.1.0 (linux)",
      ...(endpoint.kind === "unix" ? { host: "api.moby.localhost" } : {}),
      ...(text === null
        ? method === "POST" && options.stream === undefined
          ? { "content-length": "0" }
          : {}
        : {
            "content-type": "application/json",
            "content-length": String(Buffer.byteLength(text)),
          }),
      ...options.headers,
    };
    const where =
      endpoint.kind === "unix"
        ? { socketPath: endpoint.path }
        : { host: endpoint.address, port: endpoint.port };
    const send = endpoint.kind === "tcp" && endpoint.tls !== null ? httpsRequest : httpRequest;
    return new Promise((resolve, reject) => {
      const request = send(
        {
          ...where,
          method,
          path: query.size > 0 ? `${path}${path.includes("?") ? "&" : "?"}${query}` : path,
          headers,
          agent: this.#agent,
          ...(options.signal === undefined ? {} : { signal: options.signal }),
        },
        resolve,
      );
      request.once("error", (error: NodeJS.ErrnoException) => reject(this.#unreachable(error)));
      if (options.stream !== undefined) {
        options.stream.once("error", (error) => request.destroy(error));
        options.stream.pipe(request);
      } else {
        request.end(text ?? undefined);
      }
    });
  }

  #unreachable(error: NodeJS.ErrnoException): Error {
    const host = this.endpoint.host;
    switch (error.code) {
      case "ENOENT":
      case "ECONNREFUSED":
      case "ENOTSOCK":
      case "EHOSTUNREACH":
      case "ENETUNREACH":
        return failure(
          "unavailable",
          `Cannot connect to the Docker daemon at ${host}. Is the docker daemon running?`,
          error,
        );
      case "EACCES":
        return failure(
          "forbidden",
          `permission denied while trying to connect to the Docker daemon socket at ${host}: ${error.message}`,
          error,
        );
      default:
        return failure("unavailable", `error during connect: ${host}: ${error.message}`, error);
    }
  }
}

/** The `filters` parameter; null when there is none. */
export function filterQuery(
  filters: Readonly<Record<string, Readonly<Record<string, true>>>> | null,
): string | null {
  return filters === null ? null : JSON.stringify(filters);
}

async function readJson<T>(what: string, response: IncomingMessage): Promise<T> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of response as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > answerBytesMax) {
      throw failure("internal", `${what}: the answer has more than ${answerBytesMax} bytes`);
    }
    pieces.push(piece);
  }
  const text = Buffer.concat(pieces).toString("utf8");
  return (text.trim() === "" ? null : JSON.parse(text)) as T;
}

async function errorMessage(response: IncomingMessage, status: number): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of response as AsyncIterable<Buffer>) pieces.push(piece);
  const text = Buffer.concat(pieces).toString("utf8").trim();
  try {
    const { message } = JSON.parse(text) as { message?: unknown };
    if (typeof message === "string") return message.trim();
  } catch {
    // Not JSON: a proxy, or not a daemon at all. Its text says more than nothing.
    return text === "" ? `request returned ${status} with no message; is it an Engine API?` : text;
  }
  return text;
}

function codeOf(status: number): ErrorCode {
  switch (status) {
    case 400:
      return "invalid";
    case 401:
      return "unauthorized";
    case 403:
      return "forbidden";
    case 404:
      return "not-found";
    case 409:
      return "conflict";
    case 501:
      return "not-implemented";
    case 503:
      return "unavailable";
    default:
      return "internal";
  }
}

function compareVersions(a: string, b: string): number {
  const [aMajor = 0, aMinor = 0] = a.split(".").map(Number);
  const [bMajor = 0, bMinor = 0] = b.split(".").map(Number);
  return aMajor - bMajor || aMinor - bMinor;
}
