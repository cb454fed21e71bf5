/**
 * Goal: whatever is asked wrongly is refused with docker's status code and words, and changes nothing.
 * How: tables of raw requests against a manager and a node that is in no swarm; all that the API shows is compared before and after.
 */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type Case,
  create,
  invalid,
  network,
  overlay,
  refuse,
  service,
} from "./lib/bad-requests.ts";
import { checkout, until } from "./lib/command.ts";
import { LoneNode } from "./lib/lone-node.ts";

let manager: LoneNode;
let worker: LoneNode;
let stranger: LoneNode;

beforeAll(async () => {
  manager = await LoneNode.create("bad-m");
  worker = await LoneNode.create("bad-w", 2, manager);
  stranger = await LoneNode.create("bad-s", 3, manager);
  await Promise.all([manager.start(), worker.start(), stranger.start()]);
}, 60_000);
afterAll(async () => {
  for (const node of [stranger, worker, manager]) await node?.destroy();
}, 60_000);

test("a daemon refuses wrong flags by name, before it touches anything", async () => {
  for (const [flags, words] of [
    [["--data-rot", "/x"], "Unknown option '--data-rot'"],
    [["run"], 'shoald takes no arguments: "run"'],
    [["-H", "tcp://0.0.0.0:2375"], "a tcp host needs --tlscacert, --tlscert and --tlskey"],
    [["-H", "fd://"], 'invalid host "fd://": unix:///PATH or tcp://ADDRESS:PORT'],
    [["--cgroup-parent", "../x"], 'invalid --cgroup-parent "../x"'],
    [["--log-level", "loud"], 'invalid --log-level "loud"'],
    [["--label", "=x"], 'invalid --label "=x": KEY=VALUE'],
  ] as const) {
    const { code, err } = await stranger.tryInside(join(checkout, "bin/shoald"), ...flags);
    expect([code, err.startsWith("shoald: "), err.includes(words)], err).toEqual([125, true, true]);
  }
});

test("a node in no swarm refuses what needs one, and a bad init or join leaves it there", async () => {
  const none = 'This node is not a swarm manager. Use "docker swarm init" or';
  const init = { ListenAddr: "0.0.0.0:2377", AdvertiseAddr: manager.address };
  const cases: Case[] = [
    ["inspect", "GET", "/swarm", undefined, 503, none],
    ["node ls", "GET", "/nodes", undefined, 503, none],
    ["service ls", "GET", "/services", undefined, 503, none],
    ["leave", "POST", "/swarm/leave", undefined, 503, "This node is not part of a swarm"],
    create("no swarm", service(), 503, none),
    [
      "init: pool over a route",
      "POST",
      "/swarm/init",
      { ...init, DefaultAddrPool: ["10.199.0.0/16"] },
      400,
      "address pool 10.199.0.0/16 overlaps 10.199.0.0/24, which this host has a route to",
    ],
    [
      "init: pools overlap",
      "POST",
      "/swarm/init",
      { ...init, DefaultAddrPool: ["10.20.0.0/16", "10.20.8.0/24"] },
      400,
      "address pools 10.20.0.0/16 and 10.20.8.0/24 overlap",
    ],
    [
      "init: no pool",
      "POST",
      "/swarm/init",
      { ...init, DefaultAddrPool: ["10.300.0.0/16"] },
      400,
      "invalid address pool 10.300.0.0/16",
    ],
    [
      "init: host bits",
      "POST",
      "/swarm/init",
      { ...init, DefaultAddrPool: ["10.20.0.1/16"] },
      400,
      "invalid address pool 10.20.0.1/16",
    ],
    [
      "init: subnet size",
      "POST",
      "/swarm/init",
      { ...init, DefaultAddrPool: ["10.20.0.0/16"], SubnetSize: 31 },
      400,
      "invalid subnet size 31",
    ],
    [
      "init: pool below a subnet",
      "POST",
      "/swarm/init",
      { ...init, DefaultAddrPool: ["10.20.0.0/28"], SubnetSize: 24 },
      400,
      "address pool 10.20.0.0/28 is smaller than one subnet of /24",
    ],
    [
      "init: no such interface",
      "POST",
      "/swarm/init",
      { ...init, AdvertiseAddr: "eth9" },
      400,
      "advertise address must be",
    ],
    [
      "init: port",
      "POST",
      "/swarm/init",
      { ...init, ListenAddr: "0.0.0.0:99999" },
      400,
      'invalid address "0.0.0.0:99999"',
    ],
    [
      "init: another's address",
      "POST",
      "/swarm/init",
      { ...init, ListenAddr: "10.199.0.77:2377" },
      503,
      "listening for the cluster on 10.199.0.77:2377",
    ],
    [
      "init: data path port",
      "POST",
      "/swarm/init",
      { ...init, DataPathPort: 80 },
      400,
      "Datapath port number is not in valid range (1024-49151)",
    ],
    [
      "init: autolock",
      "POST",
      "/swarm/init",
      { ...init, AutoLockManagers: true },
      501,
      "--autolock is not supported yet",
    ],
    [
      "init: certificate life",
      "POST",
      "/swarm/init",
      { ...init, Spec: { CAConfig: { NodeCertExpiry: 1_000_000_000 } } },
      400,
      `${invalid}minimum certificate expiry time is: 1h0m0s`,
    ],
    [
      "init: misspelt field",
      "POST",
      "/swarm/init",
      { ...init, AdvertizeAddr: "10.0.0.1" },
      400,
      'unknown field "AdvertizeAddr"',
    ],
    [
      "join: no token",
      "POST",
      "/swarm/join",
      { ListenAddr: "0.0.0.0:2377", RemoteAddrs: [manager.address] },
      400,
      "join token",
    ],
    [
      "join: nobody named",
      "POST",
      "/swarm/join",
      { ListenAddr: "0.0.0.0:2377", JoinToken: "SWMTKN-1-x" },
      400,
      "at least 1 RemoteAddr is required to join",
    ],
    [
      "join: garbage token",
      "POST",
      "/swarm/join",
      {
        ListenAddr: "0.0.0.0:2377",
        RemoteAddrs: [manager.address],
        JoinToken: "SWMTKN-1-nonsense",
      },
      400,
      "invalid join token",
    ],
  ];
  const wrong: string[] = [];
  for (const [what, method, path, body, status, words] of cases) {
    const answer = await manager.call(method, path, body);
    if (answer.status !== status || !answer.message.includes(words))
      wrong.push(`${what}: ${answer.status} ${answer.message}\n   not ${status} ${words}`);
    const info = await manager.get<{ Swarm: { LocalNodeState: string } }>("/info");
    if (info.Swarm.LocalNodeState !== "inactive") wrong.push(`${what}: it is in a swarm now`);
  }
  expect(wrong.join("\n")).toBe("");
});

test("joining: twice, with a spoiled, rotated or foreign token", async () => {
  await manager.init();
  await manager.loadBusybox();
  await worker.loadBusybox();
  const token = await manager.docker("swarm", "join-token", "-q", "worker");
  const remote = `${manager.address}:2377`;
  await worker.docker("swarm", "join", "--token", token, remote);
  await manager.nodesReady(2);
  const joinWith = (given: string, address = remote): unknown => ({
    ListenAddr: "0.0.0.0:2377",
    RemoteAddrs: [address],
    JoinToken: given,
  });
  const already = 'This node is already part of a swarm. Use "docker swarm leave"';
  await refuse(manager, [
    ["init twice", "POST", "/swarm/init", { ListenAddr: "0.0.0.0:2377" }, 503, already],
    ["join as manager", "POST", "/swarm/join", joinWith(token), 503, already],
    [
      "leave as the last manager",
      "POST",
      "/swarm/leave",
      undefined,
      503,
      "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm.",
    ],
  ]);
  const twice = await worker.call("POST", "/swarm/join", joinWith(token));
  expect([twice.status, twice.message.startsWith(already)]).toEqual([503, true]);
  const asWorker = await worker.call("GET", "/services");
  expect(asWorker.status).toBe(503);
  expect(asWorker.message).toContain("Worker nodes can't be used to view or modify cluster state");

  const [, , digest = "", secret = ""] = token.split("-");
  const flip = (text: string): string => (text.startsWith("0") ? "1" : "0") + text.slice(1);
  await manager.docker("swarm", "join-token", "--rotate", "-q", "worker");
  const before = await manager.everything();
  const wrong: string[] = [];
  for (const [what, body, status, words] of [
    [
      "digest",
      joinWith(`SWMTKN-1-${flip(digest)}-${secret}`),
      401,
      "remote CA does not match fingerprint",
    ],
    [
      "secret",
      joinWith(`SWMTKN-1-${digest}-${flip(secret)}`),
      401,
      "A valid join token is necessary to join this cluster",
    ],
    ["rotated", joinWith(token), 401, "A valid join token is necessary to join this cluster"],
    ["cut", joinWith(token.slice(0, -1)), 400, "invalid join token"],
    ["nobody there", joinWith(token, "10.199.0.200:2377"), 503, "could not join the swarm"],
    [
      "no manager there",
      joinWith(token, `${worker.address}:2377`),
      503,
      "could not join the swarm",
    ],
  ] as const) {
    const answer = await stranger.call("POST", "/swarm/join", body);
    if (answer.status !== status || !answer.message.includes(words))
      wrong.push(`${what}: ${answer.status} ${answer.message}\n   not ${status} ${words}`);
  }
  expect(wrong.join("\n")).toBe("");
  expect(await manager.everything()).toBe(before);
  const { Swarm } = await stranger.get<{ Swarm: { LocalNodeState: string } }>("/info");
  expect(Swarm.LocalNodeState).toBe("inactive");
});

test("networks: names, drivers, subnets, gateways, overlaps", async () => {
  await manager.docker("network", "create", "-d", "overlay", "--subnet", "10.50.0.0/24", "fifty");
  await manager.docker(
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--name",
    "user",
    "--network",
    "fifty",
    "--stop-signal",
    "KILL",
    "busybox",
    "sleep",
    "1d",
  );
  await manager.converged("user", 1);
  await refuse(manager, [
    network("no name", overlay(null, null, ""), 400, "name"),
    network(
      "long name",
      overlay(null, null, "x".repeat(64)),
      400,
      "name must be 63 characters or fewer",
    ),
    network(
      "name taken",
      overlay(null, null, "fifty"),
      409,
      "network with name fifty already exists",
    ),
    network(
      "predefined",
      overlay(null, null, "host"),
      403,
      "operation is not permitted on predefined host network",
    ),
    network(
      "unknown driver",
      { Name: "bad", Driver: "telepathy" },
      404,
      'plugin "telepathy" not found',
    ),
    network(
      "misspelt field",
      { Name: "bad", Driver: "overlay", Atachable: true },
      400,
      'unknown field "Atachable"',
    ),
    network(
      "wrong type",
      { Name: "bad", Driver: "overlay", Attachable: "yes" },
      400,
      "json: cannot unmarshal string into Go struct field CreateRequest.Attachable of type bool",
    ),
    network(
      "option",
      { Name: "bad", Driver: "overlay", Options: { speed: "high" } },
      501,
      "the driver option speed is not supported yet",
    ),
    network("no subnet", overlay("10.1.2/24"), 400, "invalid subnet 10.1.2/24"),
    network("host bits", overlay("10.51.0.7/24"), 400, "it should be 10.51.0.0/24"),
    network("prefix", overlay("10.51.0.0/31"), 400, "its prefix must be from /8 to /29"),
    network("IPv6", overlay("fd00::/64"), 400, "invalid subnet fd00::/64"),
    network(
      "overlap",
      overlay("10.50.0.128/25"),
      403,
      "Pool overlaps with other one on this address space",
    ),
    network(
      "host route",
      overlay("10.199.0.0/25"),
      403,
      "Pool overlaps with other one on this address space",
    ),
    network(
      "gateway elsewhere",
      overlay("10.51.0.0/24", "10.52.0.1"),
      400,
      "invalid gateway 10.52.0.1",
    ),
    network(
      "gateway is the network",
      overlay("10.51.0.0/24", "10.51.0.0"),
      400,
      "invalid gateway 10.51.0.0",
    ),
    network("no gateway", overlay("10.51.0.0/24", "first"), 400, "invalid gateway first"),
    network("gateway alone", overlay(null, "10.51.0.1"), 400, "invalid network config"),
    ["rm in use", "DELETE", "/networks/fifty", undefined, 400, "is in use by service"],
    ["rm of none", "DELETE", "/networks/nowhere", undefined, 404, "network nowhere not found"],
    [
      "rm predefined",
      "DELETE",
      "/networks/host",
      undefined,
      403,
      "host is a pre-defined network and cannot be removed",
    ],
  ]);
});

test("nodes and swarm: the last manager, a node that is up, stale versions, bad specs", async () => {
  const nodes =
    await manager.get<
      { ID: string; Version: { Index: number }; Spec: { Role: string; Availability: string } }[]
    >("/nodes");
  const boss = nodes.find(({ Spec }) => Spec.Role === "manager");
  const hand = nodes.find(({ Spec }) => Spec.Role === "worker");
  const { Version, Spec } = await manager.get<{
    Version: { Index: number };
    Spec: { Name: string; Raft: object; CAConfig: object };
  }>("/swarm");
  const update = (id: string | undefined, version: number | undefined): string =>
    `/nodes/${id}/update?version=${version}`;
  const swarm = `/swarm/update?version=${Version.Index}`;
  await refuse(manager, [
    [
      "demote the last manager",
      "POST",
      update(boss?.ID, boss?.Version.Index),
      { Role: "worker", Availability: "active" },
      400,
      "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm",
    ],
    [
      "no role",
      "POST",
      update(boss?.ID, boss?.Version.Index),
      { Role: "king", Availability: "active" },
      400,
      "king",
    ],
    [
      "no availability",
      "POST",
      update(hand?.ID, hand?.Version.Index),
      { Role: "worker", Availability: "maybe" },
      400,
      "maybe",
    ],
    [
      "stale node",
      "POST",
      update(hand?.ID, 1),
      { Role: "worker", Availability: "drain" },
      500,
      "rpc error: code = Unknown desc = update out of sequence",
    ],
    [
      "node of none",
      "POST",
      update("nobody", 1),
      { Role: "worker", Availability: "active" },
      404,
      "node nobody not found",
    ],
    [
      "rm of a node that is up",
      "DELETE",
      `/nodes/${hand?.ID}`,
      undefined,
      400,
      `rpc error: code = FailedPrecondition desc = node ${hand?.ID} is not down and can't be removed`,
    ],
    [
      "rm of a manager",
      "DELETE",
      `/nodes/${boss?.ID}?force=1`,
      undefined,
      400,
      "is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
    ],
    ["rm of none", "DELETE", "/nodes/nobody", undefined, 404, "node nobody not found"],
    ["stale swarm", "POST", "/swarm/update?version=1", Spec, 500, "update out of sequence"],
    ["swarm without version", "POST", "/swarm/update", Spec, 400, "invalid swarm version ''"],
    [
      "renamed swarm",
      "POST",
      swarm,
      { ...Spec, Name: "other" },
      400,
      'swarm spec must be named "default"',
    ],
    [
      "swarm heartbeat",
      "POST",
      swarm,
      { ...Spec, Dispatcher: { HeartbeatPeriod: -1 } },
      400,
      "heartbeat time period cannot be a negative duration",
    ],
    [
      "swarm certificate life",
      "POST",
      swarm,
      { ...Spec, CAConfig: { NodeCertExpiry: 60_000_000_000 } },
      400,
      `${invalid}minimum certificate expiry time is: 1h0m0s`,
    ],
    [
      "swarm misspelt field",
      "POST",
      swarm,
      { ...Spec, Rafd: {}, Raff: 3 },
      400,
      'unknown field "Raff"',
    ],
  ]);
  const raw = async (path: string) => await manager.call("GET", path, undefined, { raw: true });
  const future = await raw("/v9.99/nodes");
  expect([future.status, future.message]).toEqual([
    400,
    "client version 9.99 is too new. Maximum supported API version is 1.50",
  ]);
  const past = await raw("/v1.10/nodes");
  expect([past.status, past.message]).toEqual([
    400,
    "client version 1.10 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
  ]);
  expect((await raw("/v1.41/nonsense")).status).toBe(404);
  expect((await manager.call("PUT", "/services/user", {})).status).toBe(404);
  const form = await manager.call("POST", "/services/create", "a=1", {
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
  });
  expect([form.status, form.message.includes("must be 'application/json'")]).toEqual([400, true]);
});

test("a subnet that is full says so, and a task starts when an address is free", async () => {
  await manager.docker("network", "create", "-d", "overlay", "--subnet", "10.60.0.0/29", "small");
  const args = ["--no-resolve-image", "--network", "small", "--stop-signal", "KILL", "--replicas"];
  await manager.docker(
    "service",
    "create",
    "-d",
    "--name",
    "first",
    ...args,
    "4",
    "busybox",
    "sleep",
    "1d",
  );
  await manager.converged("first", 4);
  await manager.docker(
    "service",
    "create",
    "-d",
    "--name",
    "second",
    ...args,
    "3",
    "busybox",
    "sleep",
    "1d",
  );
  const waiting = await until("a task to wait for an address", async () => {
    const out = await manager.docker(
      "service",
      "ps",
      "--no-trunc",
      "--format",
      "{{.CurrentState}}|{{.Error}}",
      "second",
    );
    const lines = out.split("\n").filter((line) => line.includes("no free IP"));
    return lines.length === 2 ? lines : null;
  });
  for (const line of waiting) expect(line).toMatch(/^New .*no free IP in network small/);
  await manager.converged("first", 4);
  await manager.docker("service", "scale", "-d", "first=2");
  await manager.converged("second", 3);
  const addresses = (
    await manager.get<
      {
        Status: { State: string };
        DesiredState: string;
        NetworksAttachments?: { Addresses: string[] }[];
      }[]
    >("/tasks")
  )
    .filter((task) => task.Status.State === "running" && task.DesiredState === "running")
    .flatMap((task) => task.NetworksAttachments?.flatMap((one) => one.Addresses) ?? [])
    .filter((address) => address.startsWith("10.60."));
  expect(addresses.length).toBe(5);
  expect(new Set(addresses).size).toBe(5);
});

test("leaving removes every container, cgroup and sandbox; a worker first, then the last manager", async () => {
  await manager.docker(
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--mode",
    "global",
    "--network",
    "fifty",
    "--stop-signal",
    "KILL",
    "--name",
    "everywhere",
    "busybox",
    "sleep",
    "9d",
  );
  await manager.converged("everywhere", 2);
  expect((await worker.sandboxes()).length).toBeGreaterThan(0);
  expect(worker.cgroups().length).toBeGreaterThan(0);
  const empty = async (node: LoneNode): Promise<void> => {
    expect(await node.get("/containers/json?all=1")).toEqual([]);
    expect([...(await node.sandboxes()), ...node.cgroups()]).toEqual([]);
    expect(await node.processes("sleep .*")).toEqual([]);
  };
  expect(await worker.docker("swarm", "leave")).toBe("Node left the swarm.");
  await empty(worker);
  await manager.docker("swarm", "leave", "--force");
  await empty(manager);
  const { Swarm } = await manager.get<{ Swarm: { LocalNodeState: string } }>("/info");
  expect(Swarm.LocalNodeState).toBe("inactive");
});
