/** An engine for tests of the command: answers from a table on a unix socket, and keeps what it was asked. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Writable } from "node:stream";
import { runShoal } from "../program.ts";

export interface Asked {
  readonly method: string;
  /** Without the API version; with the query. */
  readonly path: string;
  readonly body: unknown;
}
export type Answer =
  | { readonly status?: number; readonly json: unknown }
  | { readonly status?: number; readonly raw: Buffer; readonly type: string };
/** Answers by `METHOD /path` without query; a function sees the query. */
export type Routes = Readonly<
  Record<string, Answer | ((query: URLSearchParams, body: unknown) => Answer)>
>;

export class FixtureEngine {
  readonly host: string;
  /** Everything that was asked but pings, in order. */
  readonly asked: readonly Asked[];
  readonly #directory: string;
  readonly #server: Server;

  private constructor(directory: string, server: Server, asked: readonly Asked[]) {
    this.asked = asked;
    this.#directory = directory;
    this.#server = server;
    this.host = `unix://${join(directory, "engine.sock")}`;
  }

  static async open(routes: Routes): Promise<FixtureEngine> {
    const directory = mkdtempSync(join(tmpdir(), "shoal-cli-"));
    const asked: Asked[] = [];
    const server = createServer((request, response) => {
      const pieces: Buffer[] = [];
      request.on("data", (piece: Buffer) => pieces.push(piece));
      request.on("end", () => {
        const path = (request.url ?? "").replace(/^\/v1\.\d+/, "");
        const url = new URL(path, "http://engine");
        const text = Buffer.concat(pieces).toString("utf8");
        const isJson = request.headers["content-type"] === "application/json";
        const body: unknown = isJson && text !== "" ? JSON.parse(text) : text;
        const method = request.method ?? "";
        if (url.pathname === "/_ping") {
          response.writeHead(200, {
            "api-version": "1.50",
            ostype: "linux",
            swarm: "active/manager",
          });
          response.end(method === "HEAD" ? "" : "OK");
          return;
        }
        asked.push({ method, path, body });
        const route = routes[`${method} ${url.pathname}`];
        const answer: Answer =
          route === undefined
            ? { status: 404, json: { message: `page not found: ${method} ${url.pathname}` } }
            : typeof route === "function"
              ? route(url.searchParams, body)
              : route;
        if ("raw" in answer) {
          response.writeHead(answer.status ?? 200, { "content-type": answer.type });
          response.end(answer.raw);
          return;
        }
        response.writeHead(answer.status ?? 200, { "content-type": "application/json" });
        response.end(answer.json === undefined ? "" : `${JSON.stringify(answer.json)}\n`);
      });
    });
    const engine = new FixtureEngine(directory, server, asked);
    await new Promise<void>((resolve) =>
      server.listen(engine.host.slice("unix://".length), resolve),
    );
    return engine;
  }

  /** Runs the command against this engine. */
  async run(...words: string[]): Promise<Ran> {
    return await runWords(words, { DOCKER_HOST: this.host });
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs the command with these words and environment; no terminal. */
export async function runWords(
  words: readonly string[],
  env: Readonly<Record<string, string>>,
  input: string = "",
): Promise<Ran> {
  const out = collector();
  const err = collector();
  const stdin = new PassThrough();
  stdin.end(input);
  const terminal = { out: out.stream, err: err.stream, in: stdin, env, now: () => Date.now() };
  const code = await runShoal(words, terminal, new AbortController().signal);
  return { code, out: out.text(), err: err.text() };
}

function collector(): { stream: Writable; text: () => string } {
  const pieces: Buffer[] = [];
  const stream = new Writable({
    write(piece: Buffer, _encoding, done) {
      pieces.push(Buffer.from(piece));
      done();
    },
  });
  return { stream, text: () => Buffer.concat(pieces).toString("utf8") };
}
