import { expect, test } from "vitest";
import type { NativeCore } from "../engine/native-core.ts";
import { failure } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import { aNetwork } from "../model/testing/rows.ts";
import type { NativeFailure, NativeSandbox, NetworkOp, ResolverZone } from "../wire/native.ts";
import type { AssignedTask, NetworkPeer } from "../wire/session.ts";
import { containerIdOf } from "./container-id.ts";
import { createNetworkApply } from "./network-apply.ts";
import { FakeClock } from "./testing/fake-clock.ts";
import { anAssigned } from "./testing/fakes.ts";

function world() {
  const clock = new FakeClock();
  const calls: { readonly call: string; readonly fields: Record<string, unknown> }[] = [];
  let dump: readonly NativeSandbox[] = [];
  let refuse: (op: NetworkOp) => NativeFailure | null = () => null;
  let away = false;
  const connectedListeners: (() => void)[] = [];
  const native = {
    get connected() {
      return !away;
    },
    call(call: string, fields: Record<string, unknown>) {
      calls.push({ call, fields });
      if (away) return Promise.reject(failure("unavailable", "the core is away"));
      if (call === "network-dump") return Promise.resolve({ sandboxes: dump });
      if (call === "network") {
        return Promise.resolve({ failures: (fields["ops"] as NetworkOp[]).map(refuse) });
      }
      return Promise.resolve({});
    },
    onEvent: () => () => {},
    onConnected(listener: () => void) {
      connectedListeners.push(listener);
      queueMicrotask(listener);
      return () => {};
    },
  } as unknown as NativeCore;
  const networks = createNetworkApply({
    native,
    clock,
    log: silentLog,
    upstreams: () => Promise.resolve(["192.0.2.53"]),
  });
  const applied: number[] = [];
  networks.onApplied((revision) => applied.push(revision));
  const ops = () =>
    calls
      .filter((item) => item.call === "network")
      .flatMap((item) => item.fields["ops"] as NetworkOp[]);
  const zones = () =>
    calls
      .filter((item) => item.call === "resolver")
      .flatMap((item) => item.fields["zones"] as ResolverZone[]);
  return {
    clock,
    networks,
    calls,
    applied,
    ops,
    zones,
    setDump: (value: readonly NativeSandbox[]) => {
      dump = value;
    },
    setRefuse: (value: typeof refuse) => {
      refuse = value;
    },
    setAway: (value: boolean) => {
      away = value;
    },
    reconnect: () => {
      for (const listener of connectedListeners) listener();
    },
  };
}

const task: AssignedTask = anAssigned("t1", {
  attachments: [
    {
      networkId: "net",
      address: "10.0.1.2",
      prefixLength: 24,
      mac: "02:42:0a:00:01:02",
      aliases: [],
    },
  ],
});
const id = containerIdOf("t1");
function peer(digit: number, named = true): NetworkPeer {
  return {
    key: `net/p${digit}`,
    networkId: "net",
    taskId: `p${digit}`,
    nodeId: "n2",
    nodeAddress: "192.0.2.2",
    address: `10.0.1.${digit}`,
    mac: `02:42:0a:00:01:0${digit}`,
    serviceName: "web",
    containerName: `web.${digit}.p${digit}`,
    aliases: [],
    named,
  };
}
function assigned(revision: number, peers: readonly NetworkPeer[], networks = [aNetwork("net")]) {
  const node = { nodeId: "n1", localAddress: "192.0.2.1", dataPathPort: 4789 };
  return { revision, ...node, networks, peers };
}

test("a task's network is up before it is prepared, its names answer before it starts", async () => {
  const { clock, networks, ops, zones, calls, applied } = world();
  networks.start();
  networks.assign(assigned(7, [peer(3)]));
  await clock.pass(0);
  expect(ops()).toEqual([]);
  expect(applied).toEqual([7]);
  await networks.prepare(task);
  expect(ops().map((op) => op.op)).toEqual([
    "sandbox-add",
    "bridge-add",
    "vxlan-add",
    "fdb-put",
    "neighbour-put",
  ]);
  await networks.attach(task, id);
  expect(ops().at(-1)).toMatchObject({ op: "endpoint-add", containerId: id, name: "eth0" });
  expect(zones().at(-1)).toMatchObject({ networkId: "net", revision: 7 });
  expect(calls.at(-1)?.fields["clients"]).toEqual([
    { containerId: id, networkIds: ["net"], upstreams: ["192.0.2.53"] },
  ]);
  const before = calls.length;
  networks.assign(assigned(8, [peer(3)]));
  await clock.pass(0);
  expect(calls.length).toBe(before);
  expect(applied).toEqual([7, 8]);
  networks.release("t1");
  await clock.pass(0);
  expect(ops().at(-1)).toMatchObject({ op: "sandbox-remove" });
  expect(calls.at(-1)?.fields).toMatchObject({ removeZones: ["net"], removeClients: [id] });
  networks.stop();
});

test("who runs already keeps its port when the process comes back", async () => {
  const { clock, networks, ops, setDump } = world();
  networks.adopt(task, id);
  networks.assign(assigned(1, []));
  setDump([
    {
      sandbox: "ov-001000",
      bridge: { address: "10.0.1.1/24", mtu: 1450 },
      vxlan: { vni: 4096, local: "192.0.2.1", port: 4789, mtu: 1450 },
      ports: [`v${id.slice(0, 12)}`, "vstale"],
      fdb: [],
      neighbours: [],
    },
  ]);
  networks.start();
  await clock.pass(0);
  expect(ops()).toEqual([{ op: "endpoint-remove", sandbox: "ov-001000", port: "vstale" }]);
  networks.stop();
});

test("a refused step says why to those it concerns, and is tried again", async () => {
  const { clock, networks, applied, setRefuse } = world();
  networks.start();
  networks.assign(assigned(1, []));
  setRefuse((op) =>
    op.op === "vxlan-add"
      ? { code: "system", errno: 17, message: "File exists", doing: "adding vxlan0" }
      : null,
  );
  await expect(networks.prepare(task)).rejects.toMatchObject({
    code: "unavailable",
    message: "waiting for the task's networks: network net: adding vxlan0: File exists",
  });
  expect(applied).toEqual([]);
  setRefuse(() => null);
  await clock.pass(100);
  expect(applied).toEqual([1]);
  await networks.prepare(task);
  networks.stop();
});

test("a network that is not known yet is waited for", async () => {
  const { clock, networks } = world();
  networks.start();
  networks.assign(assigned(1, [], []));
  await expect(networks.prepare(task)).rejects.toThrow("network net is not known here yet");
  networks.assign(assigned(2, []));
  await clock.pass(0);
  await networks.prepare(task);
  networks.stop();
});

test("after the core was away everything is compared and told anew; and every minute", async () => {
  const { clock, networks, calls, zones, reconnect, setAway } = world();
  networks.start();
  networks.assign(assigned(1, [peer(3)]));
  await networks.prepare(task);
  setAway(true);
  await expect(networks.attach(task, id)).rejects.toMatchObject({ code: "unavailable" });
  setAway(false);
  reconnect();
  await networks.attach(task, id);
  const dumps = () => calls.filter((item) => item.call === "network-dump").length;
  expect(zones()).toHaveLength(2);
  const before = dumps();
  await clock.pass(60_000);
  expect(dumps()).toBe(before + 1);
  networks.stop();
});

test("only running endpoints have names, all have paths", async () => {
  const { networks, ops, zones } = world();
  networks.start();
  networks.assign(assigned(1, [peer(3), peer(4, false)]));
  await networks.prepare(task);
  expect(ops().filter((op) => op.op === "fdb-put")).toHaveLength(2);
  const names = zones()
    .at(-1)
    ?.records.find((record) => record.name === "web");
  expect(names?.addresses).toEqual(["10.0.1.3"]);
  networks.stop();
});
