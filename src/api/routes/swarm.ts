/** The swarm: init, join, leave, inspect, update, unlock. */
import type { FastifyInstance } from "fastify";
import { failure } from "../../lib/errors.ts";
import type { ApiContext } from "../context.ts";
import {
  readClusterSpec,
  readInitRequest,
  readJoinRequest,
  writeSwarm,
} from "../convert/cluster.ts";
import { Fields } from "../convert/fields.ts";
import { sendJson, sendNothing } from "../reply.ts";
import { type Query, queryOf, readJson, versionParameter } from "../request.ts";

export function swarmRoutes(app: FastifyInstance, { backend }: ApiContext): void {
  app.get("/swarm", async (_request, reply) =>
    sendJson(reply, writeSwarm(await backend.swarm.inspect())),
  );

  app.post("/swarm/init", async (request, reply) => {
    const init = readInitRequest(await readJson(request));
    return sendJson(reply, await backend.swarm.init(init));
  });

  app.post("/swarm/join", async (request, reply) => {
    await backend.swarm.join(readJoinRequest(await readJson(request)));
    return sendNothing(reply, 200);
  });

  app.post("/swarm/leave", async (request, reply) => {
    await backend.swarm.leave(queryOf(request).flag("force"));
    return sendNothing(reply, 200);
  });

  app.post("/swarm/update", async (request, reply) => {
    const query = queryOf(request);
    const body = await readJson(request);
    const version = versionParameter(query, "swarm");
    const rotate = {
      workerToken: strictFlag(query, "rotateWorkerToken"),
      managerToken: strictFlag(query, "rotateManagerToken"),
      unlockKey: strictFlag(query, "rotateManagerUnlockKey"),
    };
    const { spec } = await backend.swarm.inspect();
    await backend.swarm.update(version, readClusterSpec(body, spec), rotate);
    return sendNothing(reply, 200);
  });

  app.get("/swarm/unlockkey", async (_request, reply) =>
    sendJson(reply, { UnlockKey: await backend.swarm.unlockKey() }),
  );

  app.post("/swarm/unlock", async (request, reply) => {
    const fields = Fields.root(await readJson(request), "swarm unlock", "UnlockRequest");
    const key = fields.text("UnlockKey");
    fields.done();
    await backend.swarm.unlock(key);
    return sendNothing(reply, 200);
  });
}

/** As Go's strconv.ParseBool reads it. */
function strictFlag(query: Query, name: string): boolean {
  const text = query.get(name);
  if (["", "0", "f", "F", "false", "FALSE", "False"].includes(text)) return false;
  if (["1", "t", "T", "true", "TRUE", "True"].includes(text)) return true;
  throw failure("invalid", `invalid value for ${name}: ${text}`);
}
