/** Goal: Raft's transport over the connections that managers really have. How: two listeners with mutual TLS on loopback, heartbeats and a snapshot both ways. */
import { createServer } from "node:net";
import { expect, test } from "vitest";
import type { InstantMs } from "../lib/clock.ts";
import { silentLog } from "../lib/log.ts";
import {
  expectSameSnapshot,
  heartbeat,
  snapshotMessage,
  snapshotOf,
} from "../raft/testing/transport-suite.ts";
import type { Message } from "../raft/types.ts";
import { clusterPaths } from "../wire/session.ts";
import { certificateAuthority, createNodeKey } from "./certificates.ts";
import { openSocket } from "./cluster-client.ts";
import { listenForCluster } from "./cluster-listener.ts";
import { createRaftTransport } from "./raft-transport.ts";
import { LoopbackManagers } from "./testing/loopback-managers.ts";

const clusterId = "c".repeat(25);

test("two managers exchange messages and a snapshot over mutual TLS", async () => {
  const root = await certificateAuthority.createRoot(Date.now() as InstantMs);
  const [a, b] = [await open("a", root), await open("b", root)];
  const { until } = new LoopbackManagers();
  try {
    const addresses = new Map([
      ["a", a.address],
      ["b", b.address],
    ]);
    for (const { transport } of [a, b]) transport.setPeers(addresses);
    await until(() => {
      a.transport.send([heartbeat("a", "b", 1)]);
      b.transport.send([heartbeat("b", "a", 1)]);
      return a.messages.length > 0 && b.messages.length > 0;
    }, "heartbeats both ways");
    const ended: string[] = [];
    a.transport.onSnapshotSent((peer, ok) => ended.push(`${peer} ${ok}`));
    b.transport.onSnapshotSent((peer, ok) => ended.push(`${peer} ${ok}`));
    const [there, back] = [snapshotOf(9, 3_000_000), snapshotOf(12, 1_000_000)];
    a.transport.send([snapshotMessage("a", "b", there)]);
    b.transport.send([snapshotMessage("b", "a", back)]);
    await until(() => ended.length === 2, "both snapshots");
    expect(ended.sort()).toEqual(["a true", "b true"]);
    const snapshotAt = (messages: readonly Message[]) =>
      messages.find(({ kind }) => kind === "snapshot");
    expectSameSnapshot(snapshotAt(b.messages), snapshotMessage("a", "b", there));
    expectSameSnapshot(snapshotAt(a.messages), snapshotMessage("b", "a", back));
  } finally {
    await a.close();
    await b.close();
  }
});

async function open(id: string, root: Awaited<ReturnType<typeof certificateAuthority.createRoot>>) {
  const key = await createNodeKey();
  const subject = { nodeId: id, clusterId, role: "manager" } as const;
  const now = Date.now() as InstantMs;
  const identity = {
    caPem: root.certificatePem,
    certificatePem: await certificateAuthority.sign(root, key.csrPem, subject, 3_600_000, now),
    keyPem: key.keyPem,
  };
  const transport = createRaftTransport(
    id,
    (address) => openSocket(address, clusterPaths.raft, identity),
    silentLog,
  );
  const messages: Message[] = [];
  transport.onMessage((message) => messages.push(message));
  const address = `127.0.0.1:${await freePort()}`;
  const listener = await listenForCluster(
    "127.0.0.1",
    Number(address.split(":")[1]),
    identity,
    clusterId,
    {
      ca: () => ({}),
      join: async () => ({}),
      renew: async () => ({}),
      session: (socket) => socket.terminate(),
      raft: (socket) => transport.accept(socket),
      logs: async function* () {},
      isRemoved: () => false,
    },
    silentLog,
  );
  const close = async (): Promise<void> => {
    transport.close();
    await listener.close();
  };
  return { transport, messages, address, close };
}

async function freePort(): Promise<number> {
  return await new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as { readonly port: number };
      probe.close(() => resolve(port));
    });
  });
}
