/** For tests: a server of the API on a real unix socket in a folder of its own, and requests to it as raw bytes. */
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLog } from "../../lib/log.ts";
import { createApiServer } from "../server.ts";
import { aWorld, fakeBackend, now, type World } from "./fake-backend.ts";

export interface Served {
  readonly world: World;
  readonly socketPath: string;
  readonly folder: string;
  /** Sends one request and answers all bytes that came back. */
  raw(request: string): Promise<string>;
  /** The same, taken apart. */
  call(method: string, path: string, body?: unknown): Promise<Answer>;
  close(): Promise<void>;
}
export interface Answer {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly text: string;
  json(): unknown;
}

/** Opens the server; `close` removes everything. */
export async function serve(world: World = aWorld()): Promise<Served> {
  const folder = mkdtempSync(join(tmpdir(), "shoal-api-"));
  const socketPath = join(folder, "api.sock");
  const server = createApiServer({
    backend: fakeBackend(world),
    log: silentLog,
    clock: { now: () => now },
  });
  await server.listen({ path: socketPath, mode: 0o660 });
  const raw = (request: string) => exchange(socketPath, request);
  return {
    world,
    socketPath,
    folder,
    raw,
    async call(method, path, body) {
      const payload =
        body === undefined ? "" : typeof body === "string" ? body : JSON.stringify(body);
      const type = body === undefined ? "" : "Content-Type: application/json\r\n";
      return answerOf(
        await raw(
          `${method} ${path} HTTP/1.1\r\nHost: api.moby.localhost\r\nConnection: close\r\n${type}Content-Length: ${Buffer.byteLength(payload)}\r\n\r\n${payload}`,
        ),
      );
    },
    async close() {
      await server.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function exchange(path: string, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect({ path }, () => socket.write(request));
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("error", reject);
    socket.on("close", () => resolve(Buffer.concat(chunks).toString("latin1")));
  });
}

/** Status, headers and body of raw bytes; chunks are put together. */
export function answerOf(bytes: string): Answer {
  const end = bytes.indexOf("\r\n\r\n");
  const [first = "", ...lines] = bytes.slice(0, end).split("\r\n");
  const headers = new Map(
    lines.map((line) => {
      const at = line.indexOf(":");
      return [line.slice(0, at).toLowerCase(), line.slice(at + 1).trim()];
    }),
  );
  const chunked = headers.get("transfer-encoding") === "chunked";
  const body = bytes.slice(end + 4);
  const text = chunked ? unchunk(body) : body;
  return { status: Number(first.split(" ")[1]), headers, text, json: () => JSON.parse(text) };
}

function unchunk(body: string): string {
  let text = "";
  for (let at = 0; at < body.length; ) {
    const lineEnd = body.indexOf("\r\n", at);
    const length = Number.parseInt(body.slice(at, lineEnd), 16);
    if (!(length > 0)) break;
    text += body.slice(lineEnd + 2, lineEnd + 2 + length);
    at = lineEnd + 2 + length + 2;
  }
  return text;
}
