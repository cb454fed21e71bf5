/** The Engine API: one fastify application, answered on any number of sockets. */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { type FastifyInstance, fastify } from "fastify";
import type { Clock, InstantMs } from "../lib/clock.ts";
import { failure } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Backend } from "./backend.ts";
import type { ApiContext } from "./context.ts";
import { closeGraceMs, pathParameterLengthMax } from "./limits.ts";
import { openListener, type TlsSocket, type UnixSocket } from "./listen.ts";
import { sendFailure } from "./reply.ts";
import { containerRoutes } from "./routes/containers.ts";
import { imageRoutes } from "./routes/images.ts";
import { networkRoutes } from "./routes/networks.ts";
import { nodeRoutes } from "./routes/nodes.ts";
import { otherRoutes } from "./routes/others.ts";
import { serviceRoutes } from "./routes/services.ts";
import { swarmRoutes } from "./routes/swarm.ts";
import { systemRoutes } from "./routes/system.ts";
import { taskRoutes } from "./routes/tasks.ts";
import { unsupportedRoutes } from "./routes/unsupported.ts";
import { apiVersion, productVersion, versionOf, withoutVersion } from "./version.ts";

export interface ApiServer {
  /** Opens one more socket. Throws ShoalError("unavailable") when the address cannot be had. */
  listen(where: UnixSocket | TlsSocket): Promise<void>;
  /** Ends streams, lets running requests finish for a moment, closes every socket. */
  close(): Promise<void>;
}

/** The server of the API over `backend`; it listens nowhere yet. */
export function createApiServer(options: {
  readonly backend: Backend;
  readonly log: Log;
  readonly clock?: Pick<Clock, "now">;
}): ApiServer {
  const closing = new AbortController();
  const app = createApplication({
    backend: options.backend,
    log: options.log,
    clock: options.clock ?? { now: () => Date.now() as InstantMs },
    closing: closing.signal,
  });
  const servers: Server[] = [];
  return {
    async listen(where) {
      await app.ready();
      const answer = (request: IncomingMessage, response: ServerResponse) =>
        app.routing(request, response);
      servers.push(await openListener(where, answer, options.log));
    },
    async close() {
      closing.abort();
      await Promise.all(servers.splice(0).map(closeServer));
      await app.close();
    },
  };
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const cut = setTimeout(() => server.closeAllConnections(), closeGraceMs);
    server.close(() => {
      clearTimeout(cut);
      resolve();
    });
    server.closeIdleConnections();
  });
}

function createApplication(context: ApiContext): FastifyInstance {
  const app = fastify({
    exposeHeadRoutes: false,
    // Bodies are read by the handlers, with their own limits: archives have none.
    bodyLimit: Number.MAX_SAFE_INTEGER,
    routerOptions: { maxParamLength: pathParameterLengthMax, ignoreTrailingSlash: true },
    rewriteUrl: (request) => withoutVersion(request.url ?? "/"),
    frameworkErrors: (error, _request, reply) => sendFailure(reply, error, context.log),
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", (_request, _payload, done) => done(null));

  app.addHook("onRequest", async (request, reply) => {
    reply
      .header("api-version", apiVersion)
      .header("docker-experimental", "false")
      .header("ostype", "linux")
      .header("server", `Shoal/${productVersion} (linux)`);
    // A body that nobody read to its end would block the next request of this connection.
    reply.raw.once("finish", () => {
      if (!request.raw.readableEnded) request.raw.resume();
    });
    if (!request.is404) versionOf(request.originalUrl);
  });
  app.setErrorHandler((error, _request, reply) => sendFailure(reply, error, context.log));
  app.setNotFoundHandler((_request, reply) =>
    sendFailure(reply, failure("not-found", "page not found"), context.log),
  );

  for (const routes of [
    systemRoutes,
    swarmRoutes,
    nodeRoutes,
    serviceRoutes,
    taskRoutes,
    networkRoutes,
    imageRoutes,
    containerRoutes,
    otherRoutes,
    unsupportedRoutes,
  ]) {
    routes(app, context);
  }
  return app;
}
