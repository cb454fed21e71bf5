/**
 * Goal: who a node is decides what it may ask, and only its certificate says who it is.
 * How: probes of the cluster's port with a worker's certificate, another cluster's, a removed node's and none; tokens rotated; files taken away.
 */
import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { certificateAuthority, createNodeKey, identityOf } from "../src/io/certificates.ts";
import type { InstantMs } from "../src/lib/clock.ts";
import { raftVersionMax, raftVersionMin } from "../src/wire/limits.ts";
import { encodeLinkFrame } from "../src/wire/raft-link.ts";
import { clusterPaths } from "../src/wire/session.ts";
import { type Probe, sendProbe } from "./lib/cluster-probe.ts";
import { until } from "./lib/command.ts";
import { LoneNode } from "./lib/lone-node.ts";

let manager: LoneNode;
let worker: LoneNode;
let stranger: LoneNode;
let address: string;

beforeAll(async () => {
  manager = await LoneNode.create("id-m");
  worker = await LoneNode.create("id-w", 2, manager);
  stranger = await LoneNode.create("id-s", 3, manager);
  await Promise.all([manager.start(), worker.start(), stranger.start()]);
  await Promise.all([manager.init(), stranger.init()]);
  address = `${manager.address}:2377`;
  const token = await manager.docker("swarm", "join-token", "-q", "worker");
  await worker.docker("swarm", "join", "--token", token, address);
  await manager.nodesReady(2);
}, 60_000);
afterAll(async () => {
  for (const node of [stranger, worker, manager]) await node?.destroy();
}, 60_000);

interface Pair {
  readonly certificatePem: string;
  readonly keyPem: string;
}

/** A node's own certificate and key, as a thief of its disk would have them. */
async function pairOf(node: LoneNode): Promise<Pair> {
  const text = await readFile(join(node.dataRoot, "swarm/certificates/swarm-node.pem"), "utf8");
  const block = (kind: string): string =>
    new RegExp(`-----BEGIN ${kind}-----[^-]+-----END ${kind}-----`).exec(text)?.[0] ?? "";
  return { certificatePem: block("CERTIFICATE"), keyPem: block("PRIVATE KEY") };
}

/** Sends each probe; the manager's state must stay what it was. */
async function probes(
  cases: readonly (readonly [
    what: string,
    probe: Omit<Probe, "address"> & { address?: string },
    status: number,
    words: string,
  ])[],
): Promise<void> {
  const before = await manager.everything();
  const wrong: string[] = [];
  for (const [what, probe, status, words] of cases) {
    const answer = await sendProbe(worker, { address, ...probe });
    if (answer.status !== status || !answer.text.includes(words))
      wrong.push(`${what}: ${answer.status} ${answer.text}\n   not ${status} ${words}`);
  }
  expect(wrong.join("\n")).toBe("");
  expect(await manager.everything()).toBe(before);
}

test("without a certificate only the root certificate and joining answer", async () => {
  const needed = "a certificate of this cluster is needed";
  await probes([
    ["root certificate", { path: clusterPaths.ca }, 200, "BEGIN CERTIFICATE"],
    ["renew", { path: clusterPaths.renew, method: "POST", body: { csrPem: "x" } }, 401, needed],
    ["session", { path: clusterPaths.session, upgrade: true }, 401, needed],
    ["raft", { path: clusterPaths.raft, upgrade: true }, 401, needed],
    ["logs", { path: clusterPaths.logs }, 401, needed],
    ["nowhere", { path: "/shoal/v1/nowhere" }, 404, "no such path"],
    ["the Engine API", { path: "/v1.41/info" }, 404, "no such path"],
    ["an empty join", { path: clusterPaths.join, method: "POST", body: {} }, 400, "lacks a field"],
    ["a join of nothing", { path: clusterPaths.join, method: "POST", body: null }, 400, ""],
    [
      "a huge join",
      { path: clusterPaths.join, method: "POST", body: { token: "x".repeat(70_000) } },
      400,
      "longer than",
    ],
  ]);
  // Plain HTTP, and bytes that are nothing, get no answer.
  for (const bytes of ["GET /shoal/v1/ca HTTP/1.0\\r\\n\\r\\n", "hello\\n"]) {
    const plain = await worker.tryInside(
      "sh",
      "-c",
      `printf '${bytes}' | timeout 3 busybox nc ${manager.address} 2377`,
    );
    expect(plain.out).not.toMatch(/HTTP|CERTIFICATE/);
  }
});

test("a worker's certificate is no manager's, whatever it asks", async () => {
  const pair = await pairOf(worker);
  const needs = "this needs a manager's certificate";
  await probes([
    ["raft", { path: clusterPaths.raft, upgrade: true, ...pair }, 403, needs],
    ["logs of the manager", { path: clusterPaths.logs, ...pair }, 403, needs],
    [
      "logs of itself",
      { path: clusterPaths.logs, address: `${worker.address}:2377`, ...pair },
      403,
      needs,
    ],
  ]);
  // A request that names itself a manager gets a worker's certificate again.
  const { csrPem } = await createNodeKey();
  const renewed = await sendProbe(worker, {
    address,
    path: clusterPaths.renew,
    method: "POST",
    body: { csrPem, role: "manager" },
    ...pair,
  });
  expect([renewed.status, (JSON.parse(renewed.text) as { role: string }).role]).toEqual([
    200,
    "worker",
  ]);
  const api = await worker.call("GET", "/services");
  expect([
    api.status,
    api.message.includes("Worker nodes can't be used to view or modify cluster state"),
  ]).toEqual([503, true]);
});

test("another cluster's certificate is refused, also a manager's", async () => {
  const pair = await pairOf(stranger);
  const needed = "a certificate of this cluster is needed";
  await probes([
    [
      "renew",
      { path: clusterPaths.renew, method: "POST", body: { csrPem: "x" }, ...pair },
      401,
      needed,
    ],
    ["session", { path: clusterPaths.session, upgrade: true, ...pair }, 401, needed],
    ["raft", { path: clusterPaths.raft, upgrade: true, ...pair }, 401, needed],
    ["logs", { path: clusterPaths.logs, ...pair }, 401, needed],
  ]);
  // Whoever knows all names can write a certificate with them, but not sign it.
  const { nodeId, clusterId } = identityOf((await pairOf(manager)).certificatePem) ?? {
    nodeId: "",
    clusterId: "",
  };
  const now = Date.now() as InstantMs;
  const [root, key] = [await certificateAuthority.createRoot(now), await createNodeKey()];
  const forged = await certificateAuthority.sign(
    root,
    key.csrPem,
    { nodeId, clusterId, role: "manager" },
    3_600_000,
    now,
  );
  const forgery = { certificatePem: forged, keyPem: key.keyPem };
  await probes([
    ["session", { path: clusterPaths.session, upgrade: true, ...forgery }, 401, needed],
    ["raft", { path: clusterPaths.raft, upgrade: true, ...forgery }, 401, needed],
    ["logs", { path: clusterPaths.logs, ...forgery }, 401, needed],
  ]);
});

test("tokens rotate: the old one is refused, the other role's stays, the new one joins", async () => {
  await stranger.docker("swarm", "leave", "--force");
  const old = await manager.docker("swarm", "join-token", "-q", "worker");
  const forManagers = await manager.docker("swarm", "join-token", "-q", "manager");
  await manager.docker("swarm", "join-token", "--rotate", "-q", "worker");
  const next = await manager.docker("swarm", "join-token", "-q", "worker");
  expect(next).not.toBe(old);
  expect(await manager.docker("swarm", "join-token", "-q", "manager")).toBe(forManagers);
  const refused = await stranger.dockerRun("swarm", "join", "--token", old, address);
  expect([
    refused.code,
    refused.err.includes("A valid join token is necessary to join this cluster"),
  ]).toEqual([1, true]);
  await stranger.docker("swarm", "join", "--token", next, address);
  expect(
    (await manager.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}")).split("\n"),
  ).toContain("id-s Ready");
});

test("a removed node's certificate is refused, and the node says that it was removed", async () => {
  const pair = await pairOf(stranger);
  const { Swarm } = await stranger.get<{ Swarm: { NodeID: string } }>("/info");
  await manager.docker("node", "rm", "--force", "id-s");
  const removed = `node ${Swarm.NodeID} was removed from the cluster`;
  await probes([
    ["session", { path: clusterPaths.session, upgrade: true, ...pair }, 403, removed],
    [
      "renew",
      { path: clusterPaths.renew, method: "POST", body: { csrPem: "x" }, ...pair },
      403,
      removed,
    ],
  ]);
  await until("the node to say that it was removed", async () =>
    stranger.output.includes("this node was removed from the swarm") ? true : null,
  );
  await stranger.docker("swarm", "leave");
  const token = await manager.docker("swarm", "join-token", "-q", "worker");
  await stranger.docker("swarm", "join", "--token", token, address);
});

test("a restart with an unreadable or foreign certificate names the file; with the right one the node is back", async () => {
  await stranger.stop();
  const folder = join(stranger.dataRoot, "swarm/certificates");
  const path = join(folder, "swarm-node.pem");
  const kept = join(stranger.folder, "kept.pem");
  await rename(path, kept);
  for (const [spoil, words] of [
    [async () => {}, "ENOENT"],
    [() => mkdir(path), "EISDIR"],
    [
      () => cp(join(worker.dataRoot, "swarm/certificates/swarm-node.pem"), path),
      "it is the certificate of another node",
    ],
  ] as const) {
    await spoil();
    expect(await stranger.tryStart()).toBe(false);
    expect(stranger.exitCode).toBe(1);
    expect(stranger.output).toContain(`shoald: reading ${path}: `);
    expect(stranger.output).toContain(words);
    expect(stranger.output).toContain(
      "this node cannot prove who it is in its swarm. Restore the file",
    );
    await rm(path, { recursive: true, force: true });
  }
  await rename(kept, path);
  await stranger.start();
  await until("the node to be ready again", async () => {
    const rows = await manager.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}");
    return rows.split("\n").includes("id-s Ready") ? true : null;
  });
});

/** Opens a Raft connection inside a namespace, sends one frame, and says how the first answer begins: its opcode and its text. */
const greeter = `
import { request } from "node:https";
const { host, frame, cert, key } = JSON.parse(process.argv[2]);
const payload = Buffer.from(frame, "base64");
const headers = { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "c2hvYWwtdGVzdC1rZXktMQ==" };
const say = (opcode, text) => { process.stdout.write(JSON.stringify({ opcode, text })); process.exit(0); };
const outgoing = request({ host, port: 2377, path: "${clusterPaths.raft}", rejectUnauthorized: false, agent: false, headers, timeout: 5000, cert, key });
outgoing.on("upgrade", (_response, socket, head) => {
  const heard = (bytes) => { if (bytes.length > 1) say(bytes[0] & 15, bytes.subarray(2).toString("latin1")); };
  heard(head);
  socket.on("data", heard);
  socket.write(Buffer.concat([Buffer.from([0x82, 0xfe, payload.length >> 8, payload.length & 255, 0, 0, 0, 0]), payload]));
});
outgoing.on("response", (response) => say(0, String(response.statusCode)));
outgoing.on("error", (error) => say(0, String(error)));
outgoing.on("timeout", () => say(0, "timeout"));
outgoing.end();
`;

test("a manager's certificate is good for its own Raft id only", async () => {
  await manager.docker("node", "promote", "id-w");
  const { certificatePem, keyPem } = await until("the promoted node's certificate", async () => {
    const pair = await pairOf(worker);
    return identityOf(pair.certificatePem)?.role === "manager" ? pair : null;
  });
  const raftIdOf = async (node: LoneNode): Promise<string> => {
    const names = await readdir(join(node.dataRoot, "swarm"));
    return names.find((name) => /^raft-.{20,}$/.test(name))?.slice("raft-".length) ?? "";
  };
  const path = join(worker.folder, "greeter.mjs");
  await writeFile(path, greeter);
  const greetAs = async (from: string): Promise<{ opcode: number; text: string }> => {
    const frame = encodeLinkFrame({
      kind: "hello",
      versionMin: raftVersionMin,
      versionMax: raftVersionMax,
      from,
      to: await raftIdOf(manager),
      incarnation: "a thief's",
      nonce: "n",
      echo: "",
    });
    const argument = {
      host: manager.address,
      frame: Buffer.from(frame).toString("base64"),
      cert: certificatePem,
      key: keyPem,
    };
    return JSON.parse(await worker.inside(process.execPath, path, JSON.stringify(argument)));
  };
  // The certificate comes first, the directory of its Raft peer a moment later.
  const own = await until(
    "the promoted node's Raft id",
    async () => (await raftIdOf(worker)) || null,
  );
  const answer = await greetAs("x".repeat(25));
  expect(answer.text).toContain(`is raft peer ${own}, not xxx`);
  expect(answer.opcode).toBe(8);
  await until("the manager's warning", async () =>
    manager.output.includes("raft connection refused: it is not who it says") ? true : null,
  );
  expect((await greetAs(own)).opcode).toBe(2);
  await manager.docker("node", "demote", "id-w");
  await until("the demoted node to be a worker", async () => {
    const { code } = await worker.dockerRun("node", "ls");
    return code === 1 ? true : null;
  });
});
