/** Goal: a node's ways into and out of a swarm. How: real nodes on loopback with real certificates, logs and sockets; only the worker side is left out. */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { systemClock } from "../io/system-clock.ts";
import { systemRandom } from "../io/system-random.ts";
import { silentLog } from "../lib/log.ts";
import type { NodeDescription } from "../model/node.ts";
import { createSwarmNode, type SwarmNode } from "./swarm-node.ts";
import { swarmFiles } from "./swarm-state.ts";

const description: NodeDescription = {
  hostname: "test",
  os: "linux",
  architecture: "x86_64",
  resources: { nanoCpus: 1e9, memoryBytes: 1e9 },
  engineVersion: "0",
  engineLabels: {},
  dataPathAddress: "127.0.0.1",
  underlayMtu: 1500,
  routes: [],
};
const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function freePort(): Promise<number> {
  return await new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolve(port));
    });
  });
}

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "shoal-node-"));
  cleanups.push(() => rm(path, { recursive: true, force: true }));
  return path;
}

function open(dataRoot: string): SwarmNode {
  const node = createSwarmNode({
    files: swarmFiles(dataRoot),
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    describe: async () => description,
    openAgent: async () => ({
      start: async () => {},
      connected: Promise.resolve(),
      stop: async () => {},
      leave: async () => {},
    }),
    taskLogs: async function* () {},
    onFatal: (error) => {
      throw error;
    },
  });
  cleanups.push(() => node.stop());
  return node;
}

const initDefaults = {
  dataPathAddress: "",
  dataPathPort: 0,
  forceNewCluster: false,
  autoLockManagers: false,
  availability: "active",
  addressPools: [],
  subnetSize: 0,
  spec: {},
} as const;

async function init(node: SwarmNode): Promise<string> {
  const address = `127.0.0.1:${await freePort()}`;
  await node.init({ ...initDefaults, listenAddress: address, advertiseAddress: address });
  return address;
}

async function join2(node: SwarmNode, joinToken: string, remote: string): Promise<void> {
  const address = `127.0.0.1:${await freePort()}`;
  await node.join({
    listenAddress: address,
    advertiseAddress: address,
    dataPathAddress: "",
    remoteAddresses: [remote],
    joinToken,
    availability: "active",
  });
}

function tokens(node: SwarmNode) {
  const [cluster] = node.manager().store.view().table("clusters").all();
  if (cluster === undefined) throw new Error("no cluster row");
  return cluster.joinTokens;
}

async function eventually(look: () => boolean): Promise<void> {
  const deadline = Date.now() + 15_000;
  while (!look()) {
    if (Date.now() > deadline) throw new Error("waited in vain");
    await new Promise((next) => setTimeout(next, 20));
  }
}

test("init makes a cluster of one, once, and a restart goes on with it", async () => {
  const root = await folder();
  const node = open(root);
  const nodeId = await node.init({
    ...initDefaults,
    listenAddress: "",
    advertiseAddress: `127.0.0.1:${await freePort()}`,
  });
  expect(nodeId).toMatch(/^[0-9a-z]{25}$/);
  expect(node.local()).toMatchObject({
    state: "active",
    nodeId,
    controlAvailable: true,
    managerCount: 1,
  });
  await expect(init(node)).rejects.toThrow("This node is already part of a swarm");
  const before = node.manager().store.digest();
  await node.stop();
  const again = open(root);
  await again.resume();
  await again.manager().raft.linearize();
  expect(again.manager().store.digest()).toBe(before);
}, 20_000);

test("managers and a worker join by token; the swarm survives its leader; bad tokens are refused", async () => {
  const roots = [await folder(), await folder(), await folder(), await folder()];
  const nodes = roots.map(open);
  const [first, second, third, worker] = nodes as [SwarmNode, SwarmNode, SwarmNode, SwarmNode];
  const address = await init(first);
  const { manager, worker: workerToken } = tokens(first);
  await expect(join2(second, "SWMTKN-1-x-y", address)).rejects.toThrow("invalid join token");
  const otherDigest = manager.replace(
    /-1-(.)/,
    (_, digit: string) => `-1-${digit === "0" ? "1" : "0"}`,
  );
  await expect(join2(second, otherDigest, address)).rejects.toThrow(
    "remote CA does not match fingerprint",
  );
  const otherSecret = `${manager.slice(0, -1)}${manager.endsWith("0") ? "1" : "0"}`;
  await expect(join2(second, otherSecret, address)).rejects.toThrow(
    "A valid join token is necessary",
  );
  expect(second.local().state).toBe("inactive");

  await join2(second, manager, address);
  await join2(third, manager, address);
  await join2(worker, workerToken, address);
  expect(worker.local()).toMatchObject({ state: "active", controlAvailable: false });
  expect(() => worker.manager()).toThrow("This node is not a swarm manager. Worker nodes");
  await expect(join2(worker, workerToken, address)).rejects.toThrow("already part of a swarm");
  await eventually(() => first.manager().raft.status().membership.voters.length === 3);
  await second.manager().raft.linearize();
  expect(second.manager().store.digest()).toBe(first.manager().store.digest());

  await first.stop();
  await eventually(() => second.manager().raft.isLeader() || third.manager().raft.isLeader());
  const [cluster] = second.manager().store.view().table("clusters").all();
  const { meta, ...row } = cluster ?? (undefined as never);
  const committed = await second
    .manager()
    .raft.propose([[{ table: "clusters", kind: "put", row, expect: meta.version }]]);
  expect(committed.results).toEqual([{ ok: true }]);
  await third.manager().raft.linearize();
  expect(third.manager().store.digest()).toBe(second.manager().store.digest());
}, 40_000);
