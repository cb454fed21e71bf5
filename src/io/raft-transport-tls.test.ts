/** Goal: Raft's transport over the connections that managers really have. How: two listeners with mutual TLS on loopback, heartbeats and a snapshot both ways. */
import { createServer } from "node:net";
import { describe, expect, test } from "vitest";
import type { InstantMs } from "../lib/clock.ts";
import { type Log, silentLog } from "../lib/log.ts";
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
import { byCertificate } from "./raft-transport-identity.ts";
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

describe("a manager that greets as another one", () => {
  test("is not heard by whom it dials", async () => {
    const root = await certificateAuthority.createRoot(Date.now() as InstantMs);
    const b = await open("b", root);
    const [real, poser] = [await open("a", root), await open("a", root, "c")];
    const { until } = new LoopbackManagers();
    try {
      poser.transport.setPeers(new Map([["b", b.address]]));
      await until(() => {
        poser.transport.send([heartbeat("a", "b", 1)]);
        return b.warnings.length > 0;
      }, "a refusal");
      expect(b.warnings[0]).toContain("raft peer a is node a, the certificate is that of node c");
      real.transport.setPeers(new Map([["b", b.address]]));
      await until(() => {
        poser.transport.send([heartbeat("a", "b", 1)]);
        real.transport.send([heartbeat("a", "b", 2)]);
        return b.messages.length > 0;
      }, "the real one's heartbeat");
      expect(b.messages.every((m) => m.kind === "heartbeat" && m.commit === 2)).toBe(true);
    } finally {
      for (const manager of [real, poser, b]) await manager.close();
    }
  });

  test("is not spoken to by who dials it", async () => {
    const root = await certificateAuthority.createRoot(Date.now() as InstantMs);
    const [b, poser] = [await open("b", root), await open("a", root, "c")];
    const { until } = new LoopbackManagers();
    try {
      b.transport.setPeers(new Map([["a", poser.address]]));
      await until(() => {
        b.transport.send([heartbeat("b", "a", 1)]);
        return b.warnings.length > 1;
      }, "two refusals");
      expect(b.warnings[0]).toContain("raft peer a is node a, the certificate is that of node c");
      expect(poser.messages).toEqual([]);
    } finally {
      for (const manager of [poser, b]) await manager.close();
    }
  });

  test("is cut off once it is learned whose name that is", async () => {
    const root = await certificateAuthority.createRoot(Date.now() as InstantMs);
    const rows = new Map<string, string>();
    const [b, poser] = [await open("b", root, "b", rows), await open("a", root, "c")];
    const { until } = new LoopbackManagers();
    const closed: string[] = [];
    b.transport.onClosed((peer) => closed.push(peer));
    try {
      poser.transport.setPeers(new Map([["b", b.address]]));
      await until(() => {
        poser.transport.send([heartbeat("a", "b", 1)]);
        return b.messages.length > 0;
      }, "a heartbeat of one who is not known yet");
      rows.set("a", "a");
      // Nobody listens there: what comes to an end is the open connection.
      b.transport.setPeers(new Map([["a", "127.0.0.1:1"]]));
      await until(() => closed.length > 0, "the end of the connection");
      const heard = b.messages.length;
      await until(() => {
        poser.transport.send([heartbeat("a", "b", 1)]);
        return b.warnings.length > 1;
      }, "a refusal");
      expect(b.messages.length).toBe(heard);
    } finally {
      for (const manager of [poser, b]) await manager.close();
    }
  });
});

/** Raft peer `id` on node `nodeId`; it believes that each peer of `rows` is on that node, by default on the node of its own name. */
async function open(
  id: string,
  root: Awaited<ReturnType<typeof certificateAuthority.createRoot>>,
  nodeId: string = id,
  rows: ReadonlyMap<string, string> = new Map([
    ["a", "a"],
    ["b", "b"],
  ]),
) {
  const key = await createNodeKey();
  const subject = { nodeId, clusterId, role: "manager" } as const;
  const now = Date.now() as InstantMs;
  const identity = {
    caPem: root.certificatePem,
    certificatePem: await certificateAuthority.sign(root, key.csrPem, subject, 3_600_000, now),
    keyPem: key.keyPem,
  };
  const warnings: string[] = [];
  const log = { ...silentLog, warn: (fields: object) => warnings.push(JSON.stringify(fields)) };
  const transport = createRaftTransport(
    id,
    (address) => openSocket(address, clusterPaths.raft, identity),
    log as Log,
    {},
    byCertificate((holder, peer) => {
      const owner = rows.get(peer);
      return owner === undefined || owner === holder
        ? null
        : `raft peer ${peer} is node ${owner}, the certificate is that of node ${holder}`;
    }),
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
  return { transport, messages, warnings, address, close };
}

async function freePort(): Promise<number> {
  return await new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as { readonly port: number };
      probe.close(() => resolve(port));
    });
  });
}
