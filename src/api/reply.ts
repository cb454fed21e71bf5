/** How answers leave: JSON with docker's exact content type, and streams that flush at once and end with their client. */
import { once } from "node:events";
import type { FastifyReply, FastifyRequest } from "fastify";
import { AssertionError } from "../lib/assert.ts";
import { messageOf, ShoalError, statusOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";

/** Exactly this: with a charset behind it, docker's command prints the raw JSON of an error. */
const jsonType = "application/json";

/** Answers `body` as JSON. */
export function sendJson(reply: FastifyReply, body: unknown, status = 200): FastifyReply {
  return sendJsonText(reply, JSON.stringify(body), status);
}

/** Answers JSON that is written already. */
export function sendJsonText(reply: FastifyReply, text: string, status = 200): FastifyReply {
  // As bytes, because fastify adds a charset to every JSON text.
  return reply
    .code(status)
    .header("content-type", jsonType)
    .send(Buffer.from(`${text}\n`));
}

/** Answers with a status and nothing else. */
export function sendNothing(reply: FastifyReply, status: number): FastifyReply {
  return reply.code(status).send();
}

/** Answers the failure in docker's form. What is no ShoalError is a bug here and is logged. */
export function sendFailure(reply: FastifyReply, error: unknown, log: Log): FastifyReply {
  if (error instanceof ShoalError) {
    return sendJson(reply, { message: error.message }, statusOf(error.code));
  }
  const status = error instanceof AssertionError ? 500 : clientStatusOf(error);
  if (status >= 500) log.error({ error, url: reply.request.url }, "a request met a bug");
  return sendJson(reply, { message: messageOf(error) }, status);
}

/** fastify's own refusals (a malformed URL) carry their status. */
function clientStatusOf(error: unknown): number {
  const status = (error as { readonly statusCode?: unknown } | null)?.statusCode;
  return typeof status === "number" && status >= 400 && status < 500 ? status : 500;
}

/** A body that is written piece by piece. */
export interface OpenStream {
  /** Aborted when the client goes or the server closes. */
  readonly signal: AbortSignal;
  /** Waits while the client reads slower than we write. Writes to a client that has gone are dropped. */
  write(piece: Uint8Array | string): Promise<void>;
  end(): void;
}

/** Aborted when the client of `request` goes, or `closing` is. */
export function clientSignal(
  request: FastifyRequest,
  reply: FastifyReply,
  closing: AbortSignal,
): AbortSignal {
  const ended = new AbortController();
  const end = () => ended.abort();
  if (reply.raw.destroyed || request.raw.socket.destroyed || closing.aborted) {
    end();
    return ended.signal;
  }
  // Not AbortSignal.any: `closing` lives as long as the server and would hold every signal made from it.
  closing.addEventListener("abort", end, { once: true });
  reply.raw.once("close", () => {
    closing.removeEventListener("abort", end);
    end();
  });
  return ended.signal;
}

/** Sends the headers now; the body follows through what it answers. */
export function openStream(
  reply: FastifyReply,
  contentType: string,
  signal: AbortSignal,
): OpenStream {
  const { raw } = reply;
  reply.header("content-type", contentType);
  reply.hijack();
  raw.writeHead(200, reply.getHeaders() as Record<string, string>);
  raw.flushHeaders();
  return {
    signal,
    async write(piece) {
      if (raw.destroyed || signal.aborted) return;
      if (raw.write(piece)) return;
      try {
        await once(raw, "drain", { signal });
      } catch (error) {
        // The client has gone or the server closes: the caller sees it at `signal`.
        if (!signal.aborted && !raw.destroyed) throw error;
      }
    },
    end() {
      raw.end();
    },
  };
}
