/** Sockets of the Engine API: a unix socket with its mode, or TCP with mutual TLS. */
import { chmod, unlink } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { connect } from "node:net";
import { failure, messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import { headerBytesMax, headersTimeoutMs, idleConnectionMs, socketProbeMs } from "./limits.ts";

export interface UnixSocket {
  readonly path: string;
  /** Permission bits of the file, 0o660. */
  readonly mode: number;
}
export interface TlsSocket {
  readonly host: string;
  readonly port: number;
  /** PEM texts. Clients must show a certificate that `ca` signed. */
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string };
}

const options = {
  maxHeaderSize: headerBytesMax,
  headersTimeout: headersTimeoutMs,
  keepAliveTimeout: idleConnectionMs,
  // Archives take as long as they take.
  requestTimeout: 0,
};

/** Listens and answers with `handler`. Throws ShoalError("unavailable") when the address cannot be had. */
export async function openListener(
  where: UnixSocket | TlsSocket,
  handler: RequestListener,
  log: Log,
): Promise<Server> {
  if ("path" in where) return openUnix(where, handler, log);
  const server = createTlsServer(
    {
      ...options,
      ...where.tls,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: "TLSv1.2",
    },
    handler,
  );
  await listening(server, `${where.host}:${where.port}`, log, () =>
    server.listen({ host: where.host, port: where.port }),
  );
  return server;
}

async function openUnix(where: UnixSocket, handler: RequestListener, log: Log): Promise<Server> {
  await removeDeadSocket(where.path);
  const server = createServer(options, handler);
  await listening(server, where.path, log, () => {
    // The file must never be there with wider permissions; binding a path is synchronous.
    const before = process.umask(0o777 & ~where.mode);
    try {
      server.listen({ path: where.path });
    } finally {
      process.umask(before);
    }
  });
  await chmod(where.path, where.mode);
  return server;
}

function listening(server: Server, address: string, log: Log, start: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("listening", resolve);
    server.on("error", (error) => {
      // Later ones are of single connections (no file descriptor left): the listener goes on.
      if (server.listening)
        log.error({ error, address }, "the Engine API could not accept a connection");
      reject(
        failure(
          "unavailable",
          `cannot listen on ${address} for the Engine API: ${messageOf(error)}`,
          error,
        ),
      );
    });
    start();
  });
}

/** A file that a killed daemon left is removed; one that somebody answers on is not. */
async function removeDeadSocket(path: string): Promise<void> {
  if (await answers(path)) {
    throw failure(
      "unavailable",
      `cannot listen on ${path} for the Engine API: another daemon answers there; stop it or choose another -H`,
    );
  }
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") {
      throw failure("unavailable", `cannot remove the old socket ${path}: ${error.message}`, error);
    }
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path });
    const done = (answered: boolean) => {
      probe.destroy();
      resolve(answered);
    };
    probe.setTimeout(socketProbeMs, () => done(true));
    probe.once("connect", () => done(true));
    probe.once("error", () => done(false));
  });
}
