/** The composition root: opens every part of a node, hands each what it needs, and closes them in turn. */
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { arch } from "node:os";
import { join } from "node:path";
import type { SystemInfo } from "../api/backend.ts";
import { createApiServer } from "../api/server.ts";
import { createEngine, type Engine } from "../engine/engine.ts";
import { readChecked, writeChecked } from "../io/checked-json.ts";
import { createContainerRecords } from "../io/container-records.ts";
import { lockDirectory } from "../io/directory-lock.ts";
import { hostFacts } from "../io/host-facts.ts";
import { hostInfo, ipv4Routes, mtuOf } from "../io/host-info.ts";
import { openImageStore } from "../io/image-store.ts";
import { jsonFileLogs } from "../io/json-file-log.ts";
import { connectNative } from "../io/native-client.ts";
import { spawnCore } from "../io/native-core-process.ts";
import { systemClock } from "../io/system-clock.ts";
import { systemRandom } from "../io/system-random.ts";
import type { Log } from "../lib/log.ts";
import { nsPerSecond } from "../model/defaults.ts";
import type { NodeDescription } from "../model/node.ts";
import { createClusterBackend } from "./backend/cluster.ts";
import { createEngineBackend, taskLogLines } from "./backend/engine.ts";
import { createLocalNetworks } from "./backend/local-networks.ts";
import { createSwarmLogs } from "./backend/logs.ts";
import { createSwarmEvents } from "./backend/swarm-events.ts";
import { type Config, version } from "./config.ts";
import { createSwarmNode } from "./swarm-node.ts";
import { swarmFiles } from "./swarm-state.ts";
import { createWorkerSide } from "./worker-side.ts";

export interface Daemon {
  stop(): Promise<void>;
}

/** Starts a node. Resolves when its API answers; throws with what to do when a part cannot start. */
export async function startDaemon(
  config: Config,
  log: Log,
  onFatal: (error: Error) => void,
): Promise<Daemon> {
  const { dataRoot, execRoot } = config;
  const clock = systemClock;
  const random = systemRandom;
  const startedAtMs = clock.now();
  await mkdir(dataRoot, { recursive: true, mode: 0o711 });
  await mkdir(execRoot, { recursive: true, mode: 0o711 });
  const unlock = await lockDirectory(dataRoot);
  const [engineId, host] = await Promise.all([engineIdOf(dataRoot), hostInfo()]);

  const socketPath = join(execRoot, "core.sock");
  const { coreBinary: binary, cgroupParent } = config;
  const keeper = await spawnCore({ binary, execRoot, socketPath, cgroupParent, log });
  const native = connectNative({ socketPath, log });
  const images = await openImageStore({
    dataRoot,
    unpack: async (archive, diffId, destination) =>
      await native.call("unpack", {
        archive,
        digest: null,
        diffId,
        destination,
        // As docker does: which of them a container may open, its device rules say.
        devices: "make",
      }),
    clock,
    log,
    machine: host.architecture,
  });
  const engine: Engine = createEngine({
    native,
    images,
    records: createContainerRecords(dataRoot),
    logs: jsonFileLogs,
    host: hostFacts,
    clock,
    log,
    cgroupParent,
    architecture: arch() === "x64" ? "amd64" : arch(),
  });
  await engine.open();

  const describe = async (dataPathAddress: string): Promise<NodeDescription> => ({
    hostname: config.nodeName,
    os: "linux",
    architecture: host.architecture,
    resources: { nanoCpus: host.cpus * nsPerSecond, memoryBytes: host.memoryBytes },
    engineVersion: version,
    engineLabels: Object.fromEntries(config.labels.map(splitLabel)),
    dataPathAddress,
    underlayMtu: await mtuOf(dataPathAddress),
    routes: await ipv4Routes(),
  });
  const worker = createWorkerSide({ engine, native, clock, random, log, describe });
  const swarm = createSwarmNode({
    files: swarmFiles(dataRoot),
    clock,
    random,
    log,
    describe,
    openAgent: (options) => worker.openAgent(options),
    taskLogs: (query, signal) => taskLogLines(engine, query, signal),
    onFatal,
  });
  const swarmEvents = createSwarmEvents(engine.events);
  swarm.onManager((manager) => swarmEvents.follow(manager));

  const info = async (): Promise<SystemInfo> => ({
    id: engineId,
    hostname: config.nodeName,
    version,
    gitCommit: "",
    builtAt: "",
    kernelVersion: host.kernelVersion,
    osVersion: host.osVersion,
    operatingSystem: host.operatingSystem,
    architecture: host.architecture,
    cpus: host.cpus,
    memoryBytes: host.memoryBytes,
    dataRoot,
    cgroupVersion: native.identity?.cgroup === "v2" ? "2" : "1",
    storageDriver: "overlay2",
    labels: config.labels,
    debug: config.logLevel === "debug",
    startedAtMs,
    // It says "shoal-core 0.1.0".
    coreVersion: native.identity?.binary.split(" ").at(-1) ?? null,
  });
  const backend = {
    ...createEngineBackend({ engine, images, swarm, info }),
    ...createClusterBackend({
      swarm,
      clock,
      random,
      logs: createSwarmLogs(swarm),
      localNetworks: createLocalNetworks(engineId, startedAtMs, () => worker.networks()),
    }),
  };
  const api = createApiServer({ backend, log, clock });
  await swarm.resume();
  await listen(api, config);
  if (config.pidFile !== null) await writeFile(config.pidFile, `${process.pid}\n`);
  log.info({ hosts: config.hosts, version }, "API listening");
  return {
    async stop() {
      await api.close();
      await swarm.stop();
      engine.close();
      native.close();
      keeper.close();
      await unlock();
      if (config.pidFile !== null) await rm(config.pidFile, { force: true });
    },
  };
}

async function listen(api: ReturnType<typeof createApiServer>, config: Config): Promise<void> {
  for (const host of config.hosts) {
    if (host.kind === "unix") {
      await mkdir(join(host.path, ".."), { recursive: true });
      await api.listen({ path: host.path, mode: 0o660 });
      continue;
    }
    const { ca, cert, key } = config.tls ?? { ca: "", cert: "", key: "" };
    const [caText, certText, keyText] = await Promise.all(
      [ca, cert, key].map((path) => readFile(path, "utf8")),
    );
    const tls = { ca: caText ?? "", cert: certText ?? "", key: keyText ?? "" };
    await api.listen({ host: host.host, port: host.port, tls });
  }
}

/** The engine's own id, made once: docker shows it, and the ids of the predefined networks come from it. */
async function engineIdOf(dataRoot: string): Promise<string> {
  const path = join(dataRoot, "engine-id.json");
  const saved = (await readChecked(path)) as { id?: unknown } | null;
  if (typeof saved?.id === "string") return saved.id;
  const id = createHash("sha256").update(systemRandom.id()).digest("hex").slice(0, 32);
  await writeChecked(path, { id });
  return id;
}

function splitLabel(label: string): [string, string] {
  const at = label.indexOf("=");
  return [label.slice(0, at), label.slice(at + 1)];
}
