/** The part of the Backend that one machine answers by itself: system, images, containers. */

import type { Backend, SystemInfo } from "../../api/backend.ts";
import type { Engine } from "../../engine/engine.ts";
import type { ImageStore } from "../../image/image-store.ts";
import { failure } from "../../lib/errors.ts";
import type { SwarmNode } from "../swarm-node.ts";

/** `info` is asked anew for each `docker info`. */
export function createEngineBackend(parts: {
  readonly engine: Engine;
  readonly images: ImageStore;
  readonly swarm: SwarmNode;
  readonly info: () => Promise<SystemInfo>;
}): Pick<Backend, "system" | "images" | "containers"> {
  const { engine, images, swarm, info } = parts;
  return {
    system: {
      info,
      swarm: () => swarm.local(),
      events: (query) => engine.events.read(query),
      diskUsage: async () => ({ layersBytes: images.layersBytes() }),
    },
    images,
    containers: {
      list: () => engine.list(),
      get: (reference) => engine.get(reference),
      logs: (reference, query) => engine.logs(reference, query),
      top: (reference, psArguments) => engine.top(reference, psArguments),
    },
  };
}

/** One task's log as newline-delimited JSON, for another node's `service logs`. */
export async function* taskLogLines(
  engine: Engine,
  query: URLSearchParams,
  signal: AbortSignal,
): AsyncIterable<string> {
  const taskId = query.get("task") ?? "";
  const container = (await engine.list()).find(
    (candidate) => candidate.labels["com.docker.swarm.task.id"] === taskId,
  );
  if (container === undefined) return;
  const bound = (name: string) => {
    const text = query.get(name);
    if (text === null) return null;
    if (!/^-?\d{1,20}$/.test(text)) throw failure("invalid", `logs: ${name}="${text}" is no time`);
    return BigInt(text);
  };
  const lines = engine.logs(container.id, {
    follow: query.get("follow") === "true",
    stdout: query.get("stdout") === "true",
    stderr: query.get("stderr") === "true",
    tail: Number(query.get("tail") ?? -1),
    sinceNs: bound("since"),
    untilNs: bound("until"),
    signal,
  });
  for await (const { stream, time, line } of lines) {
    const text = Buffer.from(line).toString("base64");
    yield `${JSON.stringify({ stream, time, line: text })}\n`;
  }
}
