/**
 * Goal: whatever is asked wrongly is refused with docker's status code and words, and changes nothing.
 * How: tables of raw requests against a manager and a node that is in no swarm; all that the API shows is compared before and after.
 */
import { mkdir, open, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { must, until } from "./lib/command.ts";
import { dockerArchive, ociArchive } from "./lib/images.ts";
import { LoneNode } from "./lib/lone-node.ts";

let manager: LoneNode;
let worker: LoneNode;
let stranger: LoneNode;
let busybox: string;

beforeAll(async () => {
  manager = await LoneNode.create("bad-m");
  worker = await LoneNode.create("bad-w", 2, manager);
  stranger = await LoneNode.create("bad-s", 3, manager);
  await Promise.all([manager.start(), worker.start(), stranger.start()]);
}, 60_000);
afterAll(async () => {
  for (const node of [stranger, worker, manager]) await node?.destroy();
}, 60_000);

/** A request, the status that it must get, and words of the answer. */
type Case = readonly [
  what: string,
  method: string,
  path: string,
  body: unknown,
  status: number,
  words: string,
];

/** Sends each and compares; the node's state must stay what it was. */
async function refuse(node: LoneNode, cases: readonly Case[]): Promise<void> {
  const before = await node.everything();
  const wrong: string[] = [];
  for (const [what, method, path, body, status, words] of cases) {
    const answer = await node.call(method, path, body);
    if (answer.status !== status || !answer.message.includes(words))
      wrong.push(`${what}: ${answer.status} ${answer.message}\n   not ${status} ${words}`);
  }
  expect(wrong.join("\n")).toBe("");
  expect(await node.everything()).toBe(before);
}

const invalid = "rpc error: code = InvalidArgument desc = ";

function service(over: object = {}, container: object = {}, task: object = {}): object {
  return {
    Name: "bad",
    TaskTemplate: { ContainerSpec: { Image: "busybox", ...container }, ...task },
    ...over,
  };
}
function create(what: string, body: unknown, status: number, words: string): Case {
  return [`service create: ${what}`, "POST", "/services/create", body, status, words];
}
function network(what: string, body: unknown, status: number, words: string): Case {
  return [`network create: ${what}`, "POST", "/networks/create", body, status, words];
}
function overlay(subnet: string | null, gateway: string | null = null, name = "bad"): object {
  const config = {
    ...(subnet === null ? {} : { Subnet: subnet }),
    ...(gateway === null ? {} : { Gateway: gateway }),
  };
  return { Name: name, Driver: "overlay", IPAM: { Config: [config] } };
}

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
  busybox = await manager.loadBusybox();
  await worker.loadBusybox();
  const token = await manager.docker("swarm", "join-token", "-q", "worker");
  const remote = `${manager.address}:2377`;
  await worker.docker("swarm", "join", "--token", token, remote);
  const join = (given: string, address = remote): unknown => ({
    ListenAddr: "0.0.0.0:2377",
    RemoteAddrs: [address],
    JoinToken: given,
  });
  const already = 'This node is already part of a swarm. Use "docker swarm leave"';
  await refuse(manager, [
    ["init twice", "POST", "/swarm/init", { ListenAddr: "0.0.0.0:2377" }, 503, already],
    ["join as manager", "POST", "/swarm/join", join(token), 503, already],
    [
      "leave as the last manager",
      "POST",
      "/swarm/leave",
      undefined,
      503,
      "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm.",
    ],
  ]);
  const twice = await worker.call("POST", "/swarm/join", join(token));
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
      join(`SWMTKN-1-${flip(digest)}-${secret}`),
      401,
      "remote CA does not match fingerprint",
    ],
    [
      "secret",
      join(`SWMTKN-1-${digest}-${flip(secret)}`),
      401,
      "A valid join token is necessary to join this cluster",
    ],
    ["rotated", join(token), 401, "A valid join token is necessary to join this cluster"],
    ["cut", join(token.slice(0, -1)), 400, "invalid join token"],
    ["nobody there", join(token, "10.199.0.200:2377"), 503, "could not join the swarm"],
    ["no manager there", join(token, `${worker.address}:2377`), 503, "could not join the swarm"],
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

test("services: unknown fields, wrong types, bad names, numbers, references and placements", async () => {
  await manager.docker("network", "create", "-d", "overlay", "front");
  await manager.docker(
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--name",
    "taken",
    "--stop-signal",
    "KILL",
    "busybox",
    "sleep",
    "1d",
  );
  await manager.converged("taken", 1);
  const placed = (expression: string): object =>
    service({}, {}, { Placement: { Constraints: [expression] } });
  await refuse(manager, [
    create("misspelt field", service({ Replicas: 3 }), 400, 'unknown field "Replicas"'),
    create("misspelt field within", service({}, { Comand: ["x"] }), 400, 'unknown field "Comand"'),
    create("no object", [], 400, "invalid JSON: json: cannot unmarshal array"),
    create("a text", '"bad"', 400, "invalid JSON: json: cannot unmarshal string"),
    create("broken JSON", '{"Name":', 400, "invalid JSON"),
    create("no body", undefined, 400, ""),
    create(
      "wrong type",
      service({ Name: 7 }),
      400,
      "json: cannot unmarshal number into Go struct field ServiceSpec.Name of type string",
    ),
    create(
      "wrong list",
      service({}, { Env: "A=1" }),
      400,
      "json: cannot unmarshal string into Go struct field",
    ),
    create("no template", { Name: "bad" }, 400, `${invalid}TaskSpec: missing runtime`),
    create("no name", service({ Name: "" }), 400, `${invalid}meta: name must be provided`),
    create(
      "long name",
      service({ Name: "x".repeat(64) }),
      400,
      `${invalid}name must be 63 characters or fewer`,
    ),
    create(
      "name no label",
      service({ Name: "a b" }),
      400,
      `${invalid}name must be valid as a DNS name component`,
    ),
    create(
      "name taken",
      service({ Name: "taken" }),
      409,
      "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service taken already exists",
    ),
    create(
      "name taken in capitals",
      service({ Name: "TAKEN" }),
      409,
      "name conflicts with an existing object",
    ),
    create(
      "negative replicas",
      service({ Mode: { Replicated: { Replicas: -1 } } }),
      400,
      "json: cannot unmarshal number -1 into Go struct field",
    ),
    create(
      "half a replica",
      service({ Mode: { Replicated: { Replicas: 1.5 } } }),
      400,
      "json: cannot unmarshal number 1.5",
    ),
    create("two modes", service({ Mode: { Replicated: { Replicas: 1 }, Global: {} } }), 400, ""),
    create(
      "no image",
      service({}, { Image: "" }),
      400,
      `${invalid}ContainerSpec: image reference must be provided`,
    ),
    create(
      "bad image",
      service({}, { Image: "Busy Box" }),
      400,
      `${invalid}ContainerSpec: "Busy Box" is not a valid repository/tag`,
    ),
    create("bad tag", service({}, { Image: "busybox:" }), 400, "is not a valid repository/tag"),
    create(
      "bad digest",
      service({}, { Image: "busybox@sha256:12" }),
      400,
      "is not a valid repository/tag",
    ),
    create(
      "unknown network",
      service({}, {}, { Networks: [{ Target: "nowhere" }] }),
      404,
      "network nowhere not found",
    ),
    create(
      "ingress network",
      service({}, {}, { Networks: [{ Target: "ingress" }] }),
      400,
      `${invalid}Service cannot be explicitly attached to the ingress network`,
    ),
    create(
      "network twice",
      service({}, {}, { Networks: [{ Target: "front" }, { Target: "front" }] }),
      400,
      "network front is given twice",
    ),
    create(
      "constraint without operator",
      placed("node.role"),
      400,
      "constraint expected one operator from ==, !=",
    ),
    create("constraint key", placed("=role==x"), 400, ""),
    create("constraint value", placed("node.role== "), 400, "value '' is invalid"),
    create(
      "unknown preference",
      service(
        {},
        {},
        { Placement: { Preferences: [{ Spread: { SpreadDescriptor: "node.rack" } }] } },
      ),
      400,
      "placement preference",
    ),
    create(
      "CPU below the least",
      service({}, {}, { Resources: { Limits: { NanoCPUs: 1000 } } }),
      400,
      `${invalid}invalid cpu value 0.000001: Must be at least 0.001`,
    ),
    create(
      "memory below the least",
      service({}, {}, { Resources: { Reservations: { MemoryBytes: 1_000_000 } } }),
      400,
      `${invalid}invalid memory value 1000000: Must be at least 4MiB`,
    ),
    create(
      "negative memory",
      service({}, {}, { Resources: { Limits: { MemoryBytes: -1 } } }),
      400,
      `${invalid}invalid memory value -1: Must be at least 4MiB`,
    ),
    create(
      "pids",
      service({}, {}, { Resources: { Limits: { Pids: -2 } } }),
      400,
      `${invalid}invalid pids limit -2`,
    ),
    create(
      "restart delay",
      service({}, {}, { RestartPolicy: { Condition: "any", Delay: -1 } }),
      400,
      `${invalid}TaskSpec: restart-delay cannot be negative`,
    ),
    create(
      "restart condition",
      service({}, {}, { RestartPolicy: { Condition: "sometimes" } }),
      400,
      "sometimes",
    ),
    create(
      "grace",
      service({}, { StopGracePeriod: -1 }),
      400,
      `${invalid}ContainerSpec: stop-grace-period cannot be negative`,
    ),
    create(
      "update delay",
      service({ UpdateConfig: { Delay: -1 } }),
      400,
      `${invalid}TaskSpec: update-delay cannot be negative`,
    ),
    create(
      "update ratio",
      service({ UpdateConfig: { MaxFailureRatio: 1.5 } }),
      400,
      `${invalid}TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1`,
    ),
    create("update action", service({ UpdateConfig: { FailureAction: "pray" } }), 400, "pray"),
    create("update order", service({ UpdateConfig: { Order: "first" } }), 400, "first"),
    create(
      "env",
      service({}, { Env: ["=x"] }),
      400,
      `${invalid}ContainerSpec: invalid environment variable: =x`,
    ),
    create(
      "mount target",
      service({}, { Mounts: [{ Type: "bind", Source: "/tmp", Target: "x" }] }),
      400,
      `${invalid}ContainerSpec: invalid mount target, must be an absolute path: x`,
    ),
    create(
      "mount type",
      service({}, { Mounts: [{ Type: "cloud", Source: "/tmp", Target: "/x" }] }),
      400,
      "cloud",
    ),
    create(
      "capability",
      service({}, { CapabilityAdd: ["CAP_FLY"] }),
      400,
      `${invalid}ContainerSpec: invalid capability: "CAP_FLY"`,
    ),
    create(
      "a thing that does not exist yet",
      service({}, { Healthcheck: { Test: ["CMD", "x"] } }),
      501,
      "health checks are not supported yet",
    ),
    create(
      "huge spec",
      service({}, { Labels: { x: "y".repeat(1_600_000) } }),
      400,
      "raft message is too large",
    ),
    create("huge body", Buffer.alloc(3 * 1024 * 1024, 32), 400, "longer than"),
    [
      "update of none",
      "POST",
      "/services/nowhere/update?version=1",
      service(),
      404,
      "service nowhere not found",
    ],
    [
      "update without a version",
      "POST",
      "/services/taken/update",
      service({ Name: "taken" }),
      400,
      "invalid service version ''",
    ],
    [
      "update of a bad version",
      "POST",
      "/services/taken/update?version=x",
      service({ Name: "taken" }),
      400,
      "invalid service version 'x'",
    ],
    [
      "stale update",
      "POST",
      "/services/taken/update?version=1",
      service({ Name: "taken" }),
      500,
      "rpc error: code = Unknown desc = update out of sequence",
    ],
    ["rm of none", "DELETE", "/services/nowhere", undefined, 404, "service nowhere not found"],
    ["inspect of none", "GET", "/services/nowhere", undefined, 404, "service nowhere not found"],
    [
      "logs of none",
      "GET",
      "/services/nowhere/logs?stdout=1",
      undefined,
      404,
      "service nowhere not found",
    ],
    [
      "logs of no stream",
      "GET",
      "/services/taken/logs",
      undefined,
      400,
      "you must choose at least one stream",
    ],
    ["task of none", "GET", "/tasks/nowhere", undefined, 404, "task nowhere not found"],
    [
      "unknown filter",
      "GET",
      '/services?filters={"colour":["red"]}',
      undefined,
      400,
      "invalid filter 'colour'",
    ],
    ["broken filter", "GET", "/services?filters={", undefined, 400, "invalid"],
  ]);
  const rename = await manager.get<{ Version: { Index: number } }>("/services/taken");
  await refuse(manager, [
    [
      "rename",
      "POST",
      `/services/taken/update?version=${rename.Version.Index}`,
      service({ Name: "other" }),
      501,
      "renaming services is not supported",
    ],
    [
      "mode change",
      "POST",
      `/services/taken/update?version=${rename.Version.Index}`,
      service({ Name: "taken", Mode: { Global: {} } }),
      501,
      "service mode change is not allowed",
    ],
    [
      "rollback of the first",
      "POST",
      `/services/taken/update?version=${rename.Version.Index}&rollback=previous`,
      service({ Name: "taken" }),
      400,
      "does not have a previous spec",
    ],
  ]);
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
    ["renamed swarm", "POST", swarm, { ...Spec, Name: "other" }, 400, ""],
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
  expect((await manager.call("PUT", "/services/taken", {})).status).toBe(404);
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

test("images: broken archives leave nothing, another architecture's task is rejected with the reason", async () => {
  const folder = manager.folder;
  const files = join(folder, "images");
  await mkdir(files);
  const good = await readFile(await dockerArchive(files, busybox, "good:1"));
  const spoiled = await readFile(await ociArchive(files, busybox, "spoiled:1", { spoil: true }));
  // A root file system with a file that climbs out of it.
  const evil = join(files, "evil.tar");
  await writeFile(join(files, "x"), "x");
  await must("tar", [
    "-C",
    files,
    "--transform",
    "s,^x$,../../../../../../tmp/shoal-evil,",
    "-P",
    "-cf",
    evil,
    "x",
  ]);
  const evilImage = await readFile(await dockerArchive(files, evil, "evil:1"));
  const link = join(files, "link.tar");
  await symlink("/var/tmp", join(files, "out"));
  await must("tar", ["-C", files, "-cf", link, "out"]);
  await rm(join(files, "out"));
  await mkdir(join(files, "out"));
  await writeFile(join(files, "out", "shoal-evil"), "x");
  await must("tar", ["-C", files, "-rf", link, "out/shoal-evil"]);
  const linkImage = await readFile(await dockerArchive(files, link, "link:1"));
  const before = await manager.everything();
  const held = async (): Promise<string> =>
    await must("sh", [
      "-c",
      `cd ${manager.dataRoot}; find images layers -not -type d | grep -v lock | sort; ls images/tmp layers/sha256`,
    ]);
  const heldBefore = await held();
  const tar = { headers: { "Content-Type": "application/x-tar" } };
  const wrong: string[] = [];
  for (const [what, path, bytes, words] of [
    ["truncated", "/images/load", good.subarray(0, good.length / 2), "Tar archive is truncated"],
    ["cut in the header", "/images/load", good.subarray(0, 700), "Tar archive is truncated"],
    ["no tar", "/images/load", Buffer.from("this is no archive ".repeat(100)), "archive"],
    ["empty", "/images/load", Buffer.alloc(0), "archive"],
    ["a tar that is no image", "/images/load", await readFile(busybox), "manifest.json"],
    ["wrong digest", "/images/load", spoiled, "digest"],
    ["leaves the root", "/images/load", evilImage, "root"],
    [
      "import of garbage",
      "/images/create?fromSrc=-&repo=x",
      Buffer.from("garbage ".repeat(200)),
      "",
    ],
    ["import of nothing", "/images/create?fromSrc=-&repo=x", Buffer.alloc(0), "archive is empty"],
    [
      "import that leaves the root",
      "/images/create?fromSrc=-&repo=x",
      await readFile(evil),
      "root",
    ],
    [
      "import of a bad name",
      "/images/create?fromSrc=-&repo=Bad%20Name",
      await readFile(busybox),
      "invalid reference format",
    ],
  ] as const) {
    const answer = await manager.call("POST", path, bytes, tar);
    const failed = answer.status >= 400 || answer.text.includes("errorDetail");
    if (!failed || !answer.text.includes(words))
      wrong.push(`${what}: ${answer.status} ${answer.text}\n   not ${words}`);
    if (answer.status >= 500)
      wrong.push(`${what}: ${answer.status} ${answer.text}: the archive is wrong, not the daemon`);
  }
  expect(wrong.join("\n")).toBe("");
  // A link that leads out is allowed in an image; what is written through it must not be there outside.
  const through = await manager.call("POST", "/images/load", linkImage, tar);
  expect(through.text).toBeTruthy();
  for (const path of ["/tmp/shoal-evil", "/var/tmp/shoal-evil"])
    await expect(open(path)).rejects.toThrow("ENOENT");
  await manager.call("DELETE", "/images/link:1");
  expect(await manager.everything()).toBe(before);
  expect(await held()).toBe(heldBefore);

  const other = await readFile(await dockerArchive(files, busybox, "other:1", "s390x"));
  expect((await manager.call("POST", "/images/load", other, tar)).status).toBe(200);
  await manager.docker(
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--restart-condition",
    "none",
    "--constraint",
    "node.role==manager",
    "--name",
    "alien",
    "other:1",
    "sleep",
    "1d",
  );
  await manager.docker(
    "service",
    "create",
    "-d",
    "--no-resolve-image",
    "--restart-condition",
    "none",
    "--constraint",
    "node.role==manager",
    "--name",
    "unknown",
    "nobody/has-this:1",
    "sleep",
    "1d",
  );
  for (const [name, words] of [
    ["alien", "s390x"],
    ["unknown", "No such image: nobody/has-this:1"],
  ] as const) {
    const error = await until(`the task of ${name} to be rejected`, async () => {
      const [task] = await manager.tasks(name);
      return task?.Status.State === "rejected" ? (task.Status.Err ?? "") : null;
    });
    expect(error).toContain(words);
  }
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
    "front",
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
