/** The other end of the cluster's port: fetch the CA, join, renew, open a session, read a node's logs. */

import type { IncomingMessage } from "node:http";
import { Agent, type RequestOptions, request } from "node:https";
import { connect as connectTls, type PeerCertificate } from "node:tls";
import { WebSocket } from "ws";
import { type ErrorCode, failure, messageOf } from "../lib/errors.ts";
import type { Channel } from "../wire/channel.ts";
import { connectTimeoutMs, messageBytesMax, requestTimeoutMs } from "../wire/limits.ts";
import {
  clusterPaths,
  type JoinReply,
  type JoinRequest,
  type RenewReply,
  type ToAgent,
  type ToManager,
} from "../wire/session.ts";
import { identityFrom, rootDigest } from "./certificates.ts";
import type { TlsIdentity } from "./cluster-listener.ts";
import { raftSocketOptions } from "./raft-transport.ts";
import { channelOf } from "./ws-channel.ts";

/** Splits `host:port`; the port defaults to 2377. */
export function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const match = /^(.*?)(?::(\d+))?$/.exec(address.trim());
  const host = match?.[1] ?? "";
  const port = match?.[2] === undefined ? 2377 : Number(match[2]);
  if (host === "" || port < 1 || port > 65_535) {
    throw failure("invalid", `invalid address "${address}": it must be HOST or HOST:PORT`);
  }
  return { host, port };
}

/** The cluster's root certificate, taken from `address` and pinned by `digest`. Refuses any other certificate. */
export async function fetchRoot(address: string, digest: string): Promise<string> {
  const { host, port } = splitAddress(address);
  const body = await ask(
    { host, port, path: clusterPaths.ca, method: "GET", rejectUnauthorized: false },
    null,
    `asking ${address} for its CA`,
  );
  const certificatePem = (body as { certificatePem?: unknown }).certificatePem;
  if (typeof certificatePem !== "string" || rootDigest(certificatePem) !== digest) {
    throw failure(
      "unauthorized",
      `remote CA does not match fingerprint. Expected: ${digest}; the node at ${address} is of another cluster, or somebody is in between. Check the address, or get the token anew with \`docker swarm join-token\``,
    );
  }
  return certificatePem;
}

/** Joins through the manager at `address`, whose certificate must be signed by `caPem`. */
export async function requestJoin(
  address: string,
  caPem: string,
  body: JoinRequest,
): Promise<JoinReply> {
  const { host, port } = splitAddress(address);
  const options = {
    host,
    port,
    path: clusterPaths.join,
    method: "POST",
    ca: caPem,
    checkServerIdentity: managersOnly,
  };
  return (await ask(options, body, `joining through ${address}`)) as JoinReply;
}

/** Asks the manager at `address` for a new certificate for this node. */
export async function requestRenewal(
  address: string,
  identity: TlsIdentity,
  csrPem: string,
): Promise<RenewReply> {
  const { host, port } = splitAddress(address);
  const options = {
    ...clientOptions(identity, "manager"),
    host,
    port,
    path: clusterPaths.renew,
    method: "POST",
  };
  return (await ask(options, { csrPem }, `renewing the certificate at ${address}`)) as RenewReply;
}

/** Opens a node's session with the manager at `address`. */
export async function openSession(
  address: string,
  identity: TlsIdentity,
): Promise<Channel<ToManager, ToAgent>> {
  return channelOf(await openSocket(address, clusterPaths.session, identity));
}

/** An open websocket to a manager. Rejects with the manager's words when it refuses. */
export async function openSocket(
  address: string,
  path: string,
  identity: TlsIdentity,
): Promise<WebSocket> {
  const { host, port } = splitAddress(address);
  const socket = new WebSocket(`wss://${host}:${port}${path}`, {
    // By an agent, because ws types know only a yes-or-no checkServerIdentity.
    agent: new Agent(clientOptions(identity, "manager")),
    handshakeTimeout: connectTimeoutMs,
    perMessageDeflate: false,
    maxPayload: messageBytesMax,
    ...(path === clusterPaths.raft ? raftSocketOptions : {}),
  });
  return await new Promise<WebSocket>((resolve, reject) => {
    socket.once("open", () => {
      socket.removeAllListeners();
      resolve(socket);
    });
    socket.once("unexpected-response", (_request, response: IncomingMessage) => {
      readText(response)
        .then((text) =>
          reject(refusal(response.statusCode ?? 500, text, `connecting to ${address}`)),
        )
        .catch(reject)
        .finally(() => socket.terminate());
    });
    socket.once("error", (error) =>
      reject(failure("unavailable", `connecting to ${address}: ${messageOf(error)}`, error)),
    );
  });
}

/** Lines of newline-delimited JSON that the node at `address` answers for its logs. */
export async function* readLogs(
  address: string,
  identity: TlsIdentity,
  query: URLSearchParams,
  signal: AbortSignal,
): AsyncIterable<string> {
  const { host, port } = splitAddress(address);
  const response = await send(
    {
      ...clientOptions(identity, null),
      host,
      port,
      path: `${clusterPaths.logs}?${query}`,
      method: "GET",
      signal,
      timeout: connectTimeoutMs,
    },
    null,
    `reading logs from ${address}`,
  );
  if (response.statusCode !== 200) {
    throw refusal(
      response.statusCode ?? 500,
      await readText(response),
      `reading logs from ${address}`,
    );
  }
  let rest = "";
  response.setEncoding("utf8");
  for await (const chunk of response) {
    const lines = (rest + String(chunk)).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/** True when something accepts TLS connections at `address`. */
export async function answers(address: string): Promise<boolean> {
  const { host, port } = splitAddress(address);
  return await new Promise((resolve) => {
    const socket = connectTls({ host, port, rejectUnauthorized: false, timeout: connectTimeoutMs });
    const end = (ok: boolean) => {
      socket.destroy();
      resolve(ok);
    };
    socket.once("secureConnect", () => end(true));
    socket.once("error", () => end(false));
    socket.once("timeout", () => end(false));
  });
}

function clientOptions(identity: TlsIdentity, role: "manager" | null) {
  return {
    ca: identity.caPem,
    cert: identity.certificatePem,
    key: identity.keyPem,
    // Names in certificates are roles and node ids, not hosts: addresses may change.
    checkServerIdentity: role === "manager" ? managersOnly : () => undefined,
  };
}

/** Refuses a server whose certificate, though the cluster's own, is not a manager's. */
function managersOnly(host: string, certificate: PeerCertificate): Error | undefined {
  const subject: Partial<Record<"CN" | "OU" | "O", unknown>> = certificate.subject ?? {};
  const text = (value: unknown) => (typeof value === "string" ? value : undefined);
  const identity = identityFrom(text(subject.CN), text(subject.OU), text(subject.O));
  return identity?.role === "manager"
    ? undefined
    : failure("unavailable", `the node at ${host} is not a manager`);
}

async function send(
  options: RequestOptions,
  body: unknown,
  doing: string,
): Promise<IncomingMessage> {
  return await new Promise((resolve, reject) => {
    const outgoing = request({ timeout: requestTimeoutMs, agent: false, ...options }, resolve);
    outgoing.once("timeout", () =>
      outgoing.destroy(new Error(`no answer in ${options.timeout ?? requestTimeoutMs} ms`)),
    );
    outgoing.once("error", (error) =>
      reject(failure("unavailable", `${doing}: ${messageOf(error)}`, error)),
    );
    outgoing.end(body === null ? undefined : JSON.stringify(body));
  });
}

async function ask(options: RequestOptions, body: unknown, doing: string): Promise<unknown> {
  const response = await send(options, body, doing);
  const text = await readText(response);
  if (response.statusCode !== 200) throw refusal(response.statusCode ?? 500, text, doing);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw failure("internal", `${doing}: the answer is no JSON`, error);
  }
}

async function readText(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return text;
}

/** The refusal of a node, as the error that it was there. */
function refusal(status: number, text: string, doing: string): Error {
  let message = text;
  let code: ErrorCode =
    status === 503 ? "unavailable" : status === 401 ? "unauthorized" : "internal";
  try {
    const body = JSON.parse(text) as { code?: ErrorCode; message?: string };
    message = body.message ?? text;
    code = body.code ?? (status === 403 ? "forbidden" : code);
  } catch (error) {
    message = `${text.slice(0, 200)} (${messageOf(error)})`;
  }
  return failure(code, `${doing}: ${message}`);
}
