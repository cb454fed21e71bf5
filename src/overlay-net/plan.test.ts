import { describe, expect, test } from "vitest";
import { aNetwork } from "../model/testing/rows.ts";
import type { NativeSandbox, NetworkOp } from "../wire/native.ts";
import type { NetworkPeer } from "../wire/session.ts";
import { asDumped, diffNetworks } from "./diff.ts";
import { zoneOf } from "./names.ts";
import { type NetworkState, planNetworks, portName, sandboxName } from "./plan.ts";

const network = aNetwork("net", { vni: 4097 });
function peer(digit: number, nodeId: string, over: Partial<NetworkPeer> = {}): NetworkPeer {
  return {
    key: `net/t${digit}`,
    networkId: "net",
    taskId: `t${digit}`,
    nodeId,
    nodeAddress: `192.0.2.${nodeId.slice(1)}`,
    address: `10.0.1.${digit}`,
    mac: `02:42:0a:00:01:0${digit}`,
    serviceName: "Web",
    containerName: `Web.${digit}.t${digit}`,
    aliases: ["www"],
    named: true,
    ...over,
  };
}
const attachment = {
  networkId: "net",
  address: "10.0.1.2",
  prefixLength: 24,
  mac: "02:42:0a:00:01:02",
  aliases: [],
};
function plan(peers: readonly NetworkPeer[], containerId: string | null = "abcdef0123456789") {
  return planNetworks({
    nodeId: "n1",
    localAddress: "192.0.2.1",
    dataPathPort: 4789,
    networks: [network, aNetwork("unused", { vni: 5000 })],
    peers,
    tasks: [{ taskId: "t2", containerId, attachments: [attachment] }],
  });
}

/** What the kernel would have after `ops`. */
function apply(
  have: readonly NativeSandbox[],
  ops: readonly NetworkOp[],
): readonly NativeSandbox[] {
  type Mutable = { -readonly [K in keyof NativeSandbox]: NativeSandbox[K] };
  const all = new Map<string, Mutable>(have.map((item) => [item.sandbox, { ...item }]));
  for (const op of ops) {
    if (op.op === "sandbox-remove") {
      all.delete(op.sandbox);
      continue;
    }
    if (op.op === "sandbox-add") {
      const fresh = { sandbox: op.sandbox, bridge: null, vxlan: null };
      if (!all.has(op.sandbox)) {
        all.set(op.sandbox, { ...fresh, ports: [], fdb: [], neighbours: [] });
      }
      continue;
    }
    const box = all.get(op.sandbox);
    if (box === undefined) throw new Error(`${op.op} in a missing sandbox`);
    const { sandbox: _, op: __, ...rest } = op as NetworkOp & Record<string, unknown>;
    switch (op.op) {
      case "bridge-add":
        box.bridge = { address: op.address, mtu: op.mtu };
        break;
      case "vxlan-add":
        box.vxlan = rest as unknown as Mutable["vxlan"];
        break;
      case "endpoint-add":
        box.ports = [...box.ports, op.port];
        break;
      case "endpoint-remove":
        box.ports = box.ports.filter((port) => port !== op.port);
        break;
      case "fdb-put":
        box.fdb = [...box.fdb, { mac: op.mac, remote: op.remote }];
        break;
      case "fdb-remove":
        box.fdb = box.fdb.filter((item) => item.mac !== op.mac || item.remote !== op.remote);
        break;
      case "neighbour-put":
        box.neighbours = [
          ...box.neighbours.filter((item) => item.address !== op.address),
          { address: op.address, mac: op.mac },
        ];
        break;
      case "neighbour-remove":
        box.neighbours = box.neighbours.filter((item) => item.address !== op.address);
        break;
    }
  }
  return [...all.values()];
}

describe("plan", () => {
  test("one sandbox for each network in use, paths to remote endpoints only", () => {
    const state = plan([peer(2, "n1"), peer(3, "n2"), peer(4, "n3", { named: false })]);
    expect([...state.keys()]).toEqual(["ov-001001"]);
    const sandbox = state.get(sandboxName(4097));
    expect(sandbox?.bridge).toEqual({ address: "10.0.1.1/24", mtu: 1450 });
    expect(Object.fromEntries(sandbox?.fdb ?? [])).toEqual({
      "02:42:0a:00:01:03": "192.0.2.2",
      "02:42:0a:00:01:04": "192.0.2.3",
    });
    expect(sandbox?.ports).toMatchObject([
      { port: "vabcdef012345", name: "eth0", address: "10.0.1.2/24" },
    ]);
    expect(portName("a".repeat(64)).length).toBeLessThan(16);
  });

  test("a task without container has its sandbox, and no port yet", () => {
    expect(plan([], null).get("ov-001001")?.ports).toEqual([]);
  });
});

describe("diff", () => {
  const states: readonly NetworkState[] = [
    new Map(),
    plan([]),
    plan([peer(3, "n2")]),
    plan([peer(3, "n3"), peer(4, "n2")]),
    plan([peer(3, "n2", { mac: "02:42:0a:00:01:33" })], null),
    planNetworks({
      nodeId: "n1",
      localAddress: "192.0.2.99",
      dataPathPort: 4789,
      networks: [network],
      peers: [],
      tasks: [{ taskId: "t2", containerId: "abcdef0123456789", attachments: [attachment] }],
    }),
  ];
  test("from any state to any state, and then nothing is left to do", () => {
    for (const from of states) {
      for (const to of states) {
        const ops = diffNetworks(asDumped(from), to);
        const after = apply(asDumped(from), ops);
        expect(diffNetworks(after, to)).toEqual([]);
        expect(after.map((item) => item.sandbox)).toEqual([...to.keys()]);
      }
    }
  });

  test("a moved endpoint: the old path goes before the new one comes", () => {
    const ops = diffNetworks(asDumped(plan([peer(3, "n2")])), plan([peer(3, "n3")]));
    expect(ops.map((op) => op.op)).toEqual(["fdb-remove", "fdb-put"]);
  });

  test("another owner's sandboxes are left alone, half-made ones finished", () => {
    const other = {
      sandbox: "mine",
      bridge: null,
      vxlan: null,
      ports: [],
      fdb: [],
      neighbours: [],
    };
    expect(diffNetworks([other], new Map())).toEqual([]);
    const half = { ...other, sandbox: "ov-001001" };
    const ops = diffNetworks([half], plan([]));
    expect(ops.map((op) => op.op)).toEqual([
      "sandbox-add",
      "bridge-add",
      "vxlan-add",
      "endpoint-add",
    ]);
  });
});

test("names: services, tasks, containers, aliases and short ids of what runs", () => {
  const peers = [peer(3, "n2"), peer(2, "n1"), peer(4, "n3", { named: false })];
  const zone = zoneOf(network, peers, 7, (taskId) => `id-${taskId}`);
  const records = Object.fromEntries(zone.records.map((item) => [item.name, item.addresses]));
  const both = ["10.0.1.2", "10.0.1.3"];
  expect(records).toEqual({
    web: both,
    "tasks.web": both,
    www: both,
    "web.2.t2": ["10.0.1.2"],
    "web.3.t3": ["10.0.1.3"],
    "id-t2": ["10.0.1.2"],
    "id-t3": ["10.0.1.3"],
  });
  expect(zone).toMatchObject({ networkId: "net", networkName: "net", revision: 7 });
});
