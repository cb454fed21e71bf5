/** For tests: a swarm of plain arrays behind the API. It decides nothing; tests set what it holds and read what it was asked. */
import type { InstantMs } from "../../lib/clock.ts";
import { failure } from "../../lib/errors.ts";
import type { Cluster } from "../../model/cluster.ts";
import type { Container } from "../../model/container.ts";
import type { EngineEvent } from "../../model/event.ts";
import type { Image } from "../../model/image.ts";
import type { Network } from "../../model/network.ts";
import type { Node } from "../../model/node.ts";
import type { Service } from "../../model/service.ts";
import { type Task, taskName } from "../../model/task.ts";
import {
  aCluster,
  aDescription,
  aNetwork,
  aNode,
  aService,
  aServiceSpec,
  aStatus,
  aTask,
  aTaskSpec,
} from "../../model/testing/rows.ts";
import type { Backend, LocalNetwork, LocalSwarm, LogsQuery, TaskLogLine } from "../backend.ts";

/** Everything a test may set, and `calls`: what the backend was asked to do. */
export interface World {
  swarm: LocalSwarm;
  cluster: Cluster;
  nodes: Node[];
  services: Service[];
  tasks: Task[];
  networks: Network[];
  local: LocalNetwork[];
  images: Image[];
  containers: Container[];
  events: EngineEvent[];
  logLines: TaskLogLine[];
  /** Resolved when a stream of events or logs saw its signal. */
  aborted: Promise<void>;
  calls: { readonly name: string; readonly value: unknown }[];
}

export const rootPem = `-----BEGIN CERTIFICATE-----
MIIBazCCARCgAwIBAgIUOs6+ATZgbe0UjT8D0RUG4fKQVBUwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAxMIc3dhcm0tY2EwHhcNMjYxMTIwMTQ1NjAwWhcNNDYxMTE1MTQ1
NjAwWjATMREwDwYDVQQDEwhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABC9mNOMqHRD2NIaVlLlTy0uLPvqjphkBSTpCMN0S8Mp4G0pM0bF06cz/XK0s
bKrXjEjWU9zGrBltuXurweJo+xujQjBAMA4GA1UdDwEB/wQEAwIBBjAPBgNVHRMB
Af8EBTADAQH/MB0GA1UdDgQWBBR+Dst3Ox2KFeBTncw7acg32oOKGDAKBggqhkjO
PQQDAgNJADBGAiEAhCVcuWGoVIGRhkr9ktMBwfUdkZKNOqJZeB1z758M7LkCIQCf
PKlmti+jmn7xe11sdNBrrCVmMO7bSU3hGnd5tkE0jQ==
-----END CERTIFICATE-----
`;

const at = (ms: number) => ms as InstantMs;
/** The moment at which all of this stands still: 2026-11-20T15:00:00Z. */
export const now: InstantMs = at(Date.UTC(2026, 10, 20, 15));
const meta = { version: 12, createdAt: at(now - 60_123), updatedAt: at(now - 5_000) };
export const ids = {
  node: "0nh20d1fy88pvctmqw1mxsy4f",
  worker: "1ab20d1fy88pvctmqw1mxsy4f",
  service: "meldexbtmg79kwl34za8ye0i9",
  global: "ac24y6xu9ncqtvaq37a9owbqc",
  network: "lg8fiyux0ksfsyenak5ow7hfo",
  task: "0nyurebyh5gbibfbsp214x23x",
  pending: "loly6cxsexdt4a9jsm1epj32r",
  container: "69bbddcba3ec35615899a643fa4c92fded9c0c507535a9e300f1b677aa15de7e",
  image: "sha256:3f04faf6d109d8782da17e84f5ddabf08a5b2cd9b5726a9bfd5ae0ae8ccebd0e",
} as const;

/** Two nodes, a replicated service with a running and a pending task, a global one, a network, an image, a container. */
export function aWorld(): World {
  const cluster = aCluster({
    id: "p115lcv1kjbc79h9x2mslat77",
    meta,
    rootCa: { certificatePem: rootPem, keyPem: "", digest: "0".repeat(50) },
    joinTokens: {
      worker: `SWMTKN-1-${"0".repeat(50)}-${"1".repeat(25)}`,
      manager: `SWMTKN-1-${"0".repeat(50)}-${"2".repeat(25)}`,
    },
  });
  const webTask = aTaskSpec({ networks: [{ target: ids.network, aliases: ["www"] }] });
  const containerOf = (): Container => ({
    id: ids.container,
    name: `web.1.${ids.task}`,
    imageRef: "busybox:latest",
    imageId: ids.image,
    labels: { "com.docker.swarm.task.id": ids.task, "com.docker.swarm.service.name": "web" },
    createdAt: at(now - 10_000),
    entrypoint: [],
    args: ["sleep", "1000"],
    env: ["A=b"],
    workingDir: "/",
    user: "",
    hostname: "69bbddcba3ec",
    stopSignal: "SIGTERM",
    stopTimeoutSeconds: 10,
    mounts: [],
    limits: { nanoCpus: 0, memoryBytes: 67_108_864, pids: 0 },
    readOnly: false,
    capabilityAdd: [],
    capabilityDrop: [],
    state: "running",
    pid: 28_592,
    startedAt: at(now - 6_000),
    finishedAt: null,
    exitCode: 0,
    oomKilled: false,
    error: "",
    logPath: "/var/lib/shoal/containers/x/json.log",
    networks: [
      {
        networkId: ids.network,
        networkName: "ov1",
        address: "10.0.1.5",
        prefixLength: 24,
        gateway: "10.0.1.1",
        mac: "02:42:0a:00:01:05",
        aliases: ["web", "www"],
      },
    ],
  });
  return {
    swarm: {
      state: "active",
      nodeId: ids.node,
      nodeAddress: "192.0.2.1",
      error: "",
      controlAvailable: true,
      managers: [{ nodeId: ids.node, address: "192.0.2.1:2377" }],
      nodeCount: 2,
      managerCount: 1,
      cluster,
    },
    cluster,
    nodes: [
      aNode(ids.node, {
        meta,
        spec: { name: "", labels: { zone: "a" }, role: "manager", availability: "active" },
        role: "manager",
        description: aDescription({ hostname: "m1" }),
        manager: { raftId: "r1", address: "192.0.2.1:2377" },
      }),
      aNode(ids.worker, { meta, description: aDescription({ hostname: "w1" }) }),
    ],
    services: [
      aService(ids.service, {
        meta,
        spec: aServiceSpec("web", { mode: { kind: "replicated", replicas: 2 }, task: webTask }),
        specVersion: 12,
        previousSpec: aServiceSpec("web", { task: webTask }),
        updateStatus: {
          state: "completed",
          startedAt: at(now - 9_000),
          completedAt: at(now - 4_000),
          message: "update completed",
        },
      }),
      aService(ids.global, {
        meta,
        spec: aServiceSpec("everywhere", {
          mode: { kind: "global" },
          labels: { "com.docker.stack.namespace": "st" },
          endpointMode: "dnsrr",
        }),
        specVersion: 11,
      }),
    ],
    tasks: [
      aTask(ids.task, {
        meta,
        serviceId: ids.service,
        slot: 1,
        nodeId: ids.node,
        spec: webTask,
        specVersion: 12,
        status: aStatus({
          state: "running",
          message: "started",
          containerId: ids.container,
          pid: 28_592,
          at: at(now - 6_000),
        }),
        attachments: [
          {
            networkId: ids.network,
            address: "10.0.1.5",
            prefixLength: 24,
            mac: "02:42:0a:00:01:05",
            aliases: ["www"],
          },
        ],
      }),
      aTask(ids.pending, {
        meta,
        serviceId: ids.service,
        slot: 2,
        spec: webTask,
        specVersion: 11,
        status: aStatus({
          state: "pending",
          message: "pending task scheduling",
          error: "no suitable node (insufficient resources on 2 nodes)",
          at: at(now - 6_000),
        }),
      }),
    ],
    networks: [aNetwork(ids.network, { meta, spec: { ...aNetwork("x").spec, name: "ov1" } })],
    local: [
      { id: "4".repeat(64), name: "host", driver: "host", createdAtMs: now - 90_000 },
      { id: "5".repeat(64), name: "none", driver: "null", createdAtMs: now - 90_000 },
    ],
    images: [
      {
        id: ids.image,
        tags: ["busybox:latest"],
        digests: [`busybox@sha256:${"7".repeat(64)}`],
        createdAt: at(now - 86_400_000),
        author: "",
        comment: "",
        os: "linux",
        architecture: "amd64",
        variant: "",
        sizeBytes: 1_984_182,
        diffIds: [`sha256:${"8".repeat(64)}`],
        config: {
          env: ["PATH=/bin"],
          entrypoint: [],
          command: ["sh"],
          workingDir: "",
          user: "",
          labels: { maker: "us" },
          stopSignal: null,
          exposedPorts: ["80/tcp"],
          volumes: [],
        },
        history: [
          {
            createdAt: at(now - 86_400_000),
            createdBy: "ADD file",
            comment: "",
            emptyLayer: false,
          },
          {
            createdAt: at(now - 86_400_000),
            createdBy: 'CMD ["sh"]',
            comment: "",
            emptyLayer: true,
          },
        ],
      },
    ],
    containers: [
      containerOf(),
      {
        ...containerOf(),
        id: "a".repeat(64),
        name: "web.2.old",
        state: "exited",
        exitCode: 137,
        finishedAt: at(now - 3_000),
      },
    ],
    events: [],
    logLines: [],
    aborted: Promise.resolve(),
    calls: [],
  };
}

/** A backend over the world; later changes of the world show. */
export function fakeBackend(world: World): Backend {
  const did = (name: string, value: unknown) => world.calls.push({ name, value });

  /** What is there, then nothing until the signal when it is followed. */
  async function* streamed<T>(held: readonly T[], follow: boolean, signal: AbortSignal) {
    yield* held;
    if (!follow) return;
    world.aborted = new Promise((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener("abort", () => resolve(), { once: true });
    });
    await world.aborted;
  }
  const logs = (query: LogsQuery) => {
    did("logs", { ...query, signal: undefined });
    return streamed(world.logLines, query.follow, query.signal);
  };
  function find<T extends { readonly id: string }>(
    noun: string,
    rows: readonly T[],
    reference: string,
    nameOf: (row: T) => string,
  ): T {
    const found =
      rows.find((row) => row.id === reference || nameOf(row) === reference) ??
      rows.find((row) => row.id.startsWith(reference));
    if (found === undefined) throw failure("not-found", `${noun} ${reference} not found`);
    return found;
  }
  const service = (reference: string) =>
    find("service", world.services, reference, (row) => row.spec.name);
  const task = (reference: string) => find("task", world.tasks, reference, taskName);
  const node = (reference: string) =>
    find("node", world.nodes, reference, (row) => row.description?.hostname ?? "");
  const image = (reference: string) => {
    const found = world.images.find(
      ({ id, tags }) =>
        id === reference || tags.includes(reference) || tags.includes(`${reference}:latest`),
    );
    if (found === undefined) throw failure("not-found", `No such image: ${reference}`);
    return found;
  };
  const container = (reference: string) => {
    const found = world.containers.find(
      ({ id, name }) => id.startsWith(reference) || name === reference,
    );
    if (found === undefined) throw failure("not-found", `No such container: ${reference}`);
    return found;
  };

  return {
    system: {
      info: async () => ({
        id: "6IBQ:ZULJ",
        hostname: "m1",
        version: "0.1.0",
        gitCommit: "abcdef0",
        builtAt: "2026-11-20T00:00:00Z",
        kernelVersion: "6.18.0",
        osVersion: "12",
        operatingSystem: "Debian GNU/Linux 12 (bookworm)",
        architecture: "x86_64",
        cpus: 2,
        memoryBytes: 8 * 1024 ** 3,
        dataRoot: "/var/lib/shoal",
        cgroupVersion: "2",
        storageDriver: "overlay2",
        labels: [],
        debug: false,
        startedAtMs: now,
        coreVersion: "0.1.0",
      }),
      swarm: () => world.swarm,
      events: ({ signal, untilNs }) => streamed(world.events, untilNs === null, signal),
      diskUsage: async () => ({ layersBytes: 1_984_182 }),
    },
    swarm: {
      init: async (request) => {
        did("swarm.init", request);
        return ids.node;
      },
      join: async (request) => {
        did("swarm.join", request);
      },
      leave: async (force) => {
        did("swarm.leave", force);
      },
      inspect: async () => world.cluster,
      update: async (version, spec, rotate) => {
        did("swarm.update", { version, spec, rotate });
      },
      unlockKey: async () => "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
      unlock: async (key) => {
        did("swarm.unlock", key);
      },
    },
    nodes: {
      list: async () => world.nodes,
      get: async (reference) => node(reference),
      managers: async () => [
        { nodeId: ids.node, leader: true, reachability: "reachable", address: "192.0.2.1:2377" },
      ],
      update: async (reference, version, spec) => {
        did("nodes.update", { id: node(reference).id, version, spec });
      },
      remove: async (reference, force) => {
        did("nodes.remove", { id: node(reference).id, force });
      },
    },
    services: {
      list: async () => world.services,
      get: async (reference) => service(reference),
      counts: async () => new Map([[ids.service, { running: 1, desired: 2, completed: 0 }]]),
      create: async (spec) => {
        did("services.create", spec);
        return { id: ids.service, warnings: [] };
      },
      update: async (reference, version, spec, options) => {
        did("services.update", { id: service(reference).id, version, spec, options });
        return { warnings: [] };
      },
      remove: async (reference) => {
        did("services.remove", service(reference).id);
      },
      logs: (reference, query) => {
        service(reference);
        return logs(query);
      },
      explain: async (reference) => [
        {
          taskId: ids.pending,
          taskName: `${service(reference).spec.name}.2`,
          state: "pending",
          desired: "running",
          nodeId: null,
          nodeName: null,
          reason: "no node has 8 CPUs free",
          sinceMs: now - 6_000,
          nodes: [
            {
              nodeId: ids.node,
              nodeName: "m1",
              fits: false,
              filter: "resources",
              reason: "4 CPUs",
            },
          ],
        },
      ],
    },
    tasks: {
      list: async () => world.tasks,
      upToDate: async (tasks) =>
        tasks.filter(({ serviceId, specVersion }) =>
          world.services.some((row) => row.id === serviceId && row.specVersion === specVersion),
        ),
      get: async (reference) => task(reference),
      logs: (reference, query) => {
        task(reference);
        return logs(query);
      },
    },
    networks: {
      list: async () => world.networks,
      local: async () => world.local,
      get: async (reference) =>
        find<Network | LocalNetwork>(
          "network",
          [...world.networks, ...world.local],
          reference,
          (row) => ("spec" in row ? row.spec.name : row.name),
        ),
      create: async (spec) => {
        did("networks.create", spec);
        return { id: ids.network, warning: "" };
      },
      remove: async (reference) => {
        did("networks.remove", reference);
      },
    },
    images: {
      list: async () => world.images,
      get: async (reference) => image(reference),
      async *load(archive) {
        const { value: first } = await archive[Symbol.asyncIterator]().next();
        // Refused before the rest is read.
        if (
          Buffer.from(first ?? [])
            .toString()
            .startsWith("refuse")
        ) {
          throw failure("invalid", "not an archive");
        }
        const text = Buffer.from(first ?? []).toString() + (await textOf(archive));
        if (text === "broken") throw failure("invalid", "invalid tar header");
        yield "Loaded image: busybox:latest";
        if (text === "half") throw failure("invalid", "unexpected EOF");
        yield "Loaded image: other:1";
      },
      importRoot: async (archive, options) => {
        did("images.importRoot", { ...options, archive: await textOf(archive) });
        return ids.image;
      },
      tag: async (reference, target) => {
        did("images.tag", { id: image(reference).id, target });
      },
      remove: async (reference, options) => {
        did("images.remove", { id: image(reference).id, options });
        return [{ untagged: reference }, { deleted: ids.image }];
      },
    },
    containers: {
      list: async () => world.containers,
      get: async (reference) => container(reference),
      logs: (reference, query) => {
        container(reference);
        return logs(query);
      },
      top: async () => ({ titles: ["UID", "PID", "CMD"], processes: [["root", "1", "sleep"]] }),
    },
  };
}

async function textOf(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
