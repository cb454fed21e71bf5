/**
 * The port that nodes know each other by (2377): HTTPS and websockets, mutual TLS.
 * Who asks is told from the certificate alone; what a role may ask is decided here, in one table.
 */

import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { type WebSocket, WebSocketServer } from "ws";
import { failure, messageOf, ShoalError, statusOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Identity } from "../manager/ca/authority.ts";
import { joinBodyBytesMax, messageBytesMax, raftFrameBytesMax } from "../wire/limits.ts";
import { clusterPaths } from "../wire/session.ts";
import { identityFrom } from "./certificates.ts";

/** What the node's own certificate is, and whom it trusts. */
export interface TlsIdentity {
  readonly caPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}
export interface ClusterHandlers {
  /** The root certificate: public, pinned by the joiner's token. */
  ca(): unknown;
  join(body: unknown, seenAddress: string): Promise<unknown>;
  renew(body: unknown, peer: Identity): Promise<unknown>;
  /** A node's agent. */
  session(socket: WebSocket, peer: Identity, address: string): void;
  /** Another manager's Raft. */
  raft(socket: WebSocket, peer: Identity): void;
  /** Writes a task's log; the socket is closed by the asker or at the end. */
  logs(query: URLSearchParams, signal: AbortSignal): AsyncIterable<string>;
  /** Certificates of these nodes are refused, whatever they say. */
  isRemoved(nodeId: string): boolean;
}
export interface ClusterListener {
  /** `host:port` it is bound to. */
  readonly address: string;
  /** New handshakes use this certificate from now on. */
  setIdentity(identity: TlsIdentity): void;
  close(): Promise<void>;
}

/** Who may ask for what: nobody's certificate, any node's, or a manager's. */
const needs: Readonly<Record<string, "nothing" | "node" | "manager">> = {
  [clusterPaths.ca]: "nothing",
  [clusterPaths.join]: "nothing",
  [clusterPaths.renew]: "node",
  [clusterPaths.session]: "node",
  [clusterPaths.raft]: "manager",
  [clusterPaths.logs]: "manager",
};

/** Listens on host and port. Rejects with ShoalError("unavailable") naming the address when it is taken. */
export async function listenForCluster(
  host: string,
  port: number,
  identity: TlsIdentity,
  clusterId: string,
  handlers: ClusterHandlers,
  log: Log,
): Promise<ClusterListener> {
  const server = createServer({
    ...tlsOptions(identity),
    requestCert: true,
    rejectUnauthorized: false,
  });
  const endpoint = (maxPayload: number) =>
    new WebSocketServer({ noServer: true, maxPayload, perMessageDeflate: false });
  const sessions = endpoint(messageBytesMax);
  const managers = endpoint(raftFrameBytesMax);

  /** The asker's identity as far as the path needs one. Throws what to answer. */
  function authorize(request: IncomingMessage, path: string): Identity | null {
    const need = needs[path];
    if (need === undefined) throw failure("not-found", `no such path: ${path}`);
    if (need === "nothing") return null;
    const socket = request.socket as TLSSocket;
    const peer = peerOf(socket);
    if (!socket.authorized || peer === null) {
      throw failure(
        "unauthorized",
        `${path}: a certificate of this cluster is needed: ${String(socket.authorizationError ?? "none was given")}`,
      );
    }
    if (peer.clusterId !== clusterId) {
      throw failure(
        "unauthorized",
        `${path}: the certificate of ${peer.nodeId} is of another cluster`,
      );
    }
    if (handlers.isRemoved(peer.nodeId)) {
      throw failure("forbidden", `node ${peer.nodeId} was removed from the cluster`);
    }
    if (need === "manager" && peer.role !== "manager") {
      throw failure(
        "forbidden",
        `${path}: node ${peer.nodeId} is a ${peer.role}; this needs a manager's certificate`,
      );
    }
    return peer;
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "https://cluster");
    try {
      const peer = authorize(request, url.pathname);
      if (url.pathname === clusterPaths.ca) return reply(response, 200, handlers.ca());
      if (url.pathname === clusterPaths.join) {
        const seen = plainAddress(request.socket.remoteAddress);
        return reply(response, 200, await handlers.join(await readBody(request), seen));
      }
      if (url.pathname === clusterPaths.renew && peer !== null) {
        return reply(response, 200, await handlers.renew(await readBody(request), peer));
      }
      if (url.pathname === clusterPaths.logs) {
        const gone = new AbortController();
        response.on("close", () => gone.abort());
        response.writeHead(200, { "Content-Type": "application/x-ndjson" });
        response.flushHeaders();
        for await (const line of handlers.logs(url.searchParams, gone.signal)) {
          if (!response.write(line)) {
            await new Promise<void>((resolve) => {
              response.once("drain", resolve);
              response.once("close", resolve);
            });
          }
        }
        response.end();
        return;
      }
      throw failure("not-found", `${url.pathname} is a websocket`);
    } catch (error) {
      const status = error instanceof ShoalError ? statusOf(error.code) : 500;
      if (status === 500)
        log.error({ path: url.pathname, error: messageOf(error) }, "answering a node failed");
      if (response.headersSent) response.destroy();
      else
        reply(response, status, {
          code: error instanceof ShoalError ? error.code : "internal",
          message: messageOf(error),
        });
    }
  }

  server.on("request", (request, response) => {
    answer(request, response).catch((error: unknown) => {
      log.error({ error: messageOf(error) }, "answering a node failed");
      response.destroy();
    });
  });
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const path = new URL(request.url ?? "/", "https://cluster").pathname;
    let peer: Identity | null;
    try {
      peer = authorize(request, path);
      if (path !== clusterPaths.session && path !== clusterPaths.raft) {
        throw failure("not-found", `${path} is no websocket`);
      }
    } catch (error) {
      const status = error instanceof ShoalError ? statusOf(error.code) : 500;
      const body = JSON.stringify({ message: messageOf(error) });
      socket.end(
        `HTTP/1.1 ${status} Refused\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
      );
      return;
    }
    const known = peer as Identity;
    const isRaft = path === clusterPaths.raft;
    (isRaft ? managers : sessions).handleUpgrade(request, socket, head, (webSocket) => {
      if (isRaft) handlers.raft(webSocket, known);
      else handlers.session(webSocket, known, plainAddress(request.socket.remoteAddress));
    });
  });
  server.on("tlsClientError", (error) =>
    log.debug({ error: error.message }, "TLS handshake failed"),
  );

  await listen(server, host, port);
  server.on("error", (error) => log.error({ error: error.message }, "cluster listener"));
  return {
    address: `${host}:${port}`,
    setIdentity: (next) => server.setSecureContext(tlsOptions(next)),
    async close() {
      for (const { clients } of [sessions, managers]) {
        for (const client of clients) client.terminate();
      }
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
  };
}

function tlsOptions(identity: TlsIdentity) {
  return {
    ca: identity.caPem,
    cert: identity.certificatePem,
    key: identity.keyPem,
    minVersion: "TLSv1.3",
  } as const;
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const why = error.code === "EADDRINUSE" ? "the address is already in use" : error.message;
      reject(failure("unavailable", `listening for the cluster on ${host}:${port}: ${why}`, error));
    });
    server.listen(port, host, () => {
      server.removeAllListeners("error");
      resolve();
    });
  });
}

/** The identity in the peer's certificate, whether trusted or not. */
export function peerOf(socket: TLSSocket): Identity | null {
  const subject = socket.getPeerCertificate()?.subject;
  return subject ? identityFrom(first(subject.CN), first(subject.OU), first(subject.O)) : null;
}

function first(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

/** An IPv4 address that came in on a dual-stack socket, as IPv4. */
function plainAddress(address: string | undefined): string {
  return (address ?? "").replace(/^::ffff:/, "");
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  let text = "";
  for await (const chunk of request) {
    text += String(chunk);
    if (text.length > joinBodyBytesMax) {
      throw failure("invalid", `the request is longer than ${joinBodyBytesMax} bytes`);
    }
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw failure("invalid", `the request is no JSON: ${messageOf(error)}`, error);
  }
}

function reply(response: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body);
  response.writeHead(status, {
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(text),
  });
  response.end(text);
}
