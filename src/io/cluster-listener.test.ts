/** Goal: who may ask for what on the cluster's port. How: a real listener on loopback, real certificates of each role, of nobody, and of another cluster. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { InstantMs } from "../lib/clock.ts";
import { silentLog } from "../lib/log.ts";
import type { NodeRole } from "../model/node.ts";
import type { ToAgent, ToManager } from "../wire/session.ts";
import { clusterPaths } from "../wire/session.ts";
import { certificateAuthority, createNodeKey } from "./certificates.ts";
import {
  fetchRoot,
  openSession,
  openSocket,
  requestJoin,
  requestRenewal,
} from "./cluster-client.ts";
import { type ClusterListener, listenForCluster, type TlsIdentity } from "./cluster-listener.ts";
import { channelOf } from "./ws-channel.ts";

const now = Date.now() as InstantMs;
const clusterId = "c".repeat(25);
let root: Awaited<ReturnType<typeof certificateAuthority.createRoot>>;
let listener: ClusterListener;
let address: string;

async function identity(
  role: NodeRole,
  nodeId: string,
  ca = root,
  cluster = clusterId,
): Promise<TlsIdentity> {
  const key = await createNodeKey();
  const certificatePem = await certificateAuthority.sign(
    ca,
    key.csrPem,
    { nodeId, clusterId: cluster, role },
    3_600_000,
    now,
  );
  return { caPem: ca.certificatePem, certificatePem, keyPem: key.keyPem };
}

beforeAll(async () => {
  root = await certificateAuthority.createRoot(now);
  // Port 0 would hide the number behind the contract; take a free one first.
  const { createServer } = await import("node:net");
  const port = await new Promise<number>((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const found = (probe.address() as { port: number }).port;
      probe.close(() => resolve(found));
    });
  });
  address = `127.0.0.1:${port}`;
  listener = await listenForCluster(
    "127.0.0.1",
    port,
    await identity("manager", "m1"),
    clusterId,
    {
      ca: () => ({ certificatePem: root.certificatePem }),
      join: async (body, seen) => ({ body, seen }),
      renew: async (_body, peer) => ({ nodeId: peer.nodeId }),
      session: (socket, peer) => {
        const channel = channelOf<ToAgent, ToManager>(socket);
        channel.onMessage(() =>
          channel.send({ kind: "welcome", session: peer.nodeId, heartbeatMs: 1 }),
        );
      },
      raft: (socket) => socket.close(),
      logs: async function* () {
        yield "line\n";
      },
      isRemoved: (nodeId) => nodeId === "removed",
    },
    silentLog,
  );
});
afterAll(async () => {
  await listener.close();
});

test("the CA is fetched without a certificate and pinned by its digest", async () => {
  expect(await fetchRoot(address, root.digest)).toBe(root.certificatePem);
  await expect(fetchRoot(address, "0".repeat(50))).rejects.toThrow(
    "remote CA does not match fingerprint",
  );
});

test("join needs no certificate, but the manager's must be of the pinned CA", async () => {
  const request = {
    token: "t",
    csrPem: "c",
    availability: "active",
    clusterAddress: "a",
    hostname: "h",
  } as const;
  expect(await requestJoin(address, root.certificatePem, request)).toMatchObject({
    seen: "127.0.0.1",
  });
  const other = await certificateAuthority.createRoot(now);
  await expect(requestJoin(address, other.certificatePem, request)).rejects.toThrow(
    /certificate|signature/,
  );
});

test("a worker's certificate opens a session and nothing that is the managers'", async () => {
  const worker = await identity("worker", "w1");
  const channel = await openSession(address, worker);
  const welcome = await new Promise<ToAgent>((resolve) => {
    channel.onMessage(resolve);
    channel.send({ kind: "heartbeat", sequence: 1 });
  });
  expect(welcome).toMatchObject({ kind: "welcome", session: "w1" });
  channel.close("done");
  await expect(openSocket(address, clusterPaths.raft, worker)).rejects.toThrow(
    "needs a manager's certificate",
  );
  expect(await requestRenewal(address, worker, "csr")).toEqual({ nodeId: "w1" });
});

test("a manager's certificate opens the raft connection", async () => {
  const socket = await openSocket(address, clusterPaths.raft, await identity("manager", "m2"));
  expect(socket.readyState).toBe(socket.OPEN);
  socket.terminate();
});

test("certificates of another root, another cluster and a removed node are each refused", async () => {
  const foreign = await certificateAuthority.createRoot(now);
  const forged = { ...(await identity("manager", "m3", foreign)), caPem: root.certificatePem };
  await expect(openSocket(address, clusterPaths.raft, forged)).rejects.toThrow(
    "a certificate of this cluster is needed",
  );
  const other = await identity("manager", "m3", root, "d".repeat(25));
  await expect(openSocket(address, clusterPaths.raft, other)).rejects.toThrow("of another cluster");
  await expect(openSession(address, await identity("worker", "removed"))).rejects.toThrow(
    "was removed from the cluster",
  );
});
