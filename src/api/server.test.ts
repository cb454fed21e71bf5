/** Goal: the traps that the docker command falls into (spec/engine-api.md 4.2) stay shut. How: raw bytes over a real unix socket. */
import { statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLog } from "../lib/log.ts";
import { createApiServer } from "./server.ts";
import { aWorld, fakeBackend, ids, now } from "./testing/fake-backend.ts";
import { answerOf, type Served, serve } from "./testing/serve.ts";

let served: Served;
beforeEach(async () => {
  served = await serve();
});
afterEach(() => served.close());

const close = "Host: x\r\nConnection: close\r\n\r\n";

test("an error has exactly the content type application/json and docker's form", async () => {
  const bytes = await served.raw(`GET /v1.50/services/zzz HTTP/1.1\r\n${close}`);
  expect(bytes).toMatch(/^HTTP\/1\.1 404 Not Found\r\n/);
  expect(bytes).toMatch(/\r\ncontent-type: application\/json\r\n/i);
  expect(answerOf(bytes).text).toBe('{"message":"service zzz not found"}\n');
});

test("HEAD /_ping tells version, system and swarm, with no body", async () => {
  const bytes = await served.raw(`HEAD /_ping HTTP/1.1\r\n${close}`);
  const { status, headers, text } = answerOf(bytes);
  expect({ status, text }).toEqual({ status: 200, text: "" });
  expect(Object.fromEntries(headers)).toMatchObject({
    "api-version": "1.50",
    ostype: "linux",
    "docker-experimental": "false",
    "builder-version": "1",
    swarm: "active/manager",
    server: "Shoal/0.1.0 (linux)",
    "cache-control": "no-cache, no-store, must-revalidate",
    pragma: "no-cache",
    "content-length": "0",
  });
});

test("GET /_ping answers OK", async () => {
  const answer = await served.call("GET", "/v1.24/_ping");
  expect({ status: answer.status, text: answer.text }).toEqual({ status: 200, text: "OK" });
});

const pings = [
  ["inactive", false, "inactive"],
  ["pending", false, "pending"],
  ["error", false, "error"],
  ["locked", true, "locked"],
  ["active", false, "active/worker"],
  ["active", true, "active/manager"],
] as const;
test.each(pings)("the Swarm header of %s, control %s, is %s", async (state, control, header) => {
  served.world.swarm = { ...served.world.swarm, state, controlAvailable: control };
  expect((await served.call("HEAD", "/_ping")).headers.get("swarm")).toBe(header);
});

const versions = [
  ["/v1.24/version", 200, ""],
  ["/v1.50/version", 200, ""],
  ["/version", 200, ""],
  ["/v1.51/version", 400, "client version 1.51 is too new. Maximum supported API version is 1.50"],
  ["/v2.0/version", 400, "client version 2.0 is too new. Maximum supported API version is 1.50"],
  [
    "/v1.23/version",
    400,
    "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
  ],
  ["/v1.50/nothing", 404, "page not found"],
  ["/nothing", 404, "page not found"],
  ["/%zz", 400, "'/%zz' is not a valid url component"],
] as const;
test.each(versions)("%s answers %s", async (path, status, message) => {
  const answer = await served.call("GET", path);
  expect(answer.status).toBe(status);
  expect(answer.headers.get("content-type")).toBe("application/json");
  if (message !== "") expect(answer.json()).toEqual({ message });
});

test("distribution is a 404, so that docker warns and goes on", async () => {
  const answer = await served.call("GET", "/v1.50/distribution/127.0.0.1:5000/web:1/json");
  expect(answer.status).toBe(404);
  expect(answer.text).toContain("127.0.0.1:5000/web:1 was not looked up");
});

test("a task always carries its container spec", async () => {
  const tasks = (await served.call("GET", "/v1.50/tasks")).json() as {
    Spec: { ContainerSpec: object };
  }[];
  expect(tasks).toHaveLength(2);
  for (const task of tasks)
    expect(task.Spec.ContainerSpec).toMatchObject({ Image: "busybox:latest" });
});

const lists = [
  "nodes",
  "services",
  "tasks",
  "networks",
  "images/json",
  "containers/json",
  "plugins",
  "secrets",
  "configs",
];
test.each(lists)("an empty list of %s is [] and not null", async (path) => {
  Object.assign(served.world, {
    nodes: [],
    services: [],
    tasks: [],
    networks: [],
    local: [],
    images: [],
    containers: [],
  });
  expect((await served.call("GET", `/v1.50/${path}`)).text).toBe("[]\n");
});

test("volumes are an empty list", async () => {
  expect((await served.call("GET", "/volumes")).json()).toEqual({ Volumes: [], Warnings: [] });
});

const notFound = [
  ["/containers/zzz/json", "No such container: zzz"],
  ["/images/zzz/json", "No such image: zzz"],
  ["/networks/zzz", "network zzz not found"],
  ["/networks/host?scope=swarm", "network host not found"],
  ["/volumes/zzz", "get zzz: no such volume"],
  ["/services/zzz?insertDefaults=true", "service zzz not found"],
  ["/tasks/zzz", "task zzz not found"],
  ["/nodes/zzz", "node zzz not found"],
  ["/plugins/zzz/json", 'plugin "zzz" not found'],
  ["/secrets/zzz", "secret zzz not found"],
  ["/configs/zzz", "config zzz not found"],
] as const;
test.each(notFound)("docker inspect goes on past %s: 404", async (path, message) => {
  const answer = await served.call("GET", `/v1.50${path}`);
  expect(answer.status).toBe(404);
  expect(answer.json()).toEqual({ message });
});

const refused = [
  [
    "POST",
    "/containers/create?name=x",
    "containers/create is not supported by this version of shoal",
  ],
  [
    "POST",
    "/networks/n/connect",
    "networks/{id}/connect is not supported by this version of shoal",
  ],
  ["POST", "/networks/prune", "networks/prune is not supported by this version of shoal"],
  ["DELETE", "/containers/x", "DELETE containers/{id} is not supported by this version of shoal"],
  ["POST", "/images/a/b/push", "images/{name}/push is not supported by this version of shoal"],
  ["GET", "/images/a/b/get", "GET images/{name}/get is not supported by this version of shoal"],
  ["POST", "/images/create?fromImage=nginx&tag=1", "image pull: pulling nginx from a registry"],
] as const;
test.each(refused)("%s %s is refused by name", async (method, path, message) => {
  const answer = await served.call(method, `/v1.50${path}`);
  expect(answer.status).toBe(501);
  expect(answer.text).toContain(message);
});

test("an options refusal leaves nothing done", async () => {
  const answer = await served.call("POST", "/services/create", {
    Name: "web",
    TaskTemplate: { ContainerSpec: { Image: "a" } },
    EndpointSpec: { Ports: [{ TargetPort: 80 }] },
  });
  expect(answer.status).toBe(501);
  expect(answer.json()).toEqual({
    message: "service create: published ports are not supported yet",
  });
  expect(served.world.calls).toEqual([]);
});

const bodies = [
  ["{", "invalid JSON: "],
  ["[]", "invalid JSON: json: cannot unmarshal array into Go value of type ServiceSpec"],
  [
    '{"Mode":{"Replicated":{"Replicas":"x"}},"TaskTemplate":{"ContainerSpec":{}}}',
    "invalid JSON: json: cannot unmarshal string into Go struct field ServiceSpec.Mode.Replicated.Replicas of type uint64",
  ],
  [
    '{"Mode":{"Replicated":{"Replicas":-1}},"TaskTemplate":{"ContainerSpec":{}}}',
    "cannot unmarshal number -1 into Go struct field ServiceSpec.Mode.Replicated.Replicas of type uint64",
  ],
] as const;
test.each(bodies)("the body %s is a 400", async (body, message) => {
  const answer = await served.call("POST", "/services/create", body);
  expect(answer.status).toBe(400);
  expect(answer.text).toContain(message);
  expect(served.world.calls).toEqual([]);
});

test("a body that is not said to be JSON is refused as docker does", async () => {
  const bytes = await served.raw(
    "POST /swarm/unlock HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
  );
  expect(answerOf(bytes).json()).toEqual({
    message: "unsupported Content-Type header (text/plain): must be 'application/json'",
  });
});

test("a body beyond the limit is refused", async () => {
  const answer = await served.call("POST", "/networks/create", { Name: "x".repeat(2 ** 21) });
  expect(answer.status).toBe(400);
  expect(answer.text).toContain("longer than 2097152 bytes");
});

const wrongFilters = [
  ["/services?filters=%7B%22x%22%3A%7B%22a%22%3Atrue%7D%7D", "invalid filter 'x'"],
  ["/nodes?filters=%7B%22x%22%3A%5B%22a%22%5D%7D", "invalid filter 'x'"],
  ["/tasks?filters=nonsense", "invalid filter"],
  [
    "/tasks?filters=%7B%22desired-state%22%3A%5B%22up%22%5D%7D",
    "Invalid desired-state filter: 'up'",
  ],
  ["/tasks?filters=%7B%22service%22%3A%5B%22up%22%5D%7D", "service up not found"],
] as const;
test.each(wrongFilters)("%s is refused", async (path, message) => {
  const answer = await served.call("GET", path);
  expect([400, 404]).toContain(answer.status);
  expect(answer.json()).toEqual({ message });
});

const filtered = [
  ["/tasks", { service: { [ids.service]: true }, "_up-to-date": { true: true } }, [ids.task]],
  ["/tasks", { service: ["web"] }, [ids.task, ids.pending]],
  ["/tasks", { node: ["m1"] }, [ids.task]],
  ["/tasks", { name: ["web.2"] }, [ids.pending]],
  ["/services", { mode: { global: true } }, [ids.global]],
  ["/services", { label: ["com.docker.stack.namespace=st"] }, [ids.global]],
  ["/services", { name: ["we"] }, [ids.service]],
  ["/nodes", { role: ["manager"] }, [ids.node]],
  ["/nodes", { "node.label": ["zone=b"] }, []],
  ["/nodes", { membership: ["accepted"] }, [ids.node, ids.worker]],
] as const;
test.each(filtered)("%s with %j lists %j", async (path, filters, expected) => {
  const query = encodeURIComponent(JSON.stringify(filters));
  const found = (await served.call("GET", `${path}?filters=${query}`)).json() as { ID: string }[];
  expect(found.map((row) => row.ID)).toEqual(expected);
});

const namedFilters = [
  ["/networks", { driver: ["overlay"] }, ["ov1"]],
  ["/networks", { scope: ["local"], type: ["builtin"] }, ["host", "none"]],
  ["/networks", { name: ["ho"] }, ["host"]],
  ["/networks", { dangling: ["false"] }, ["ov1"]],
] as const;
test.each(namedFilters)("%s with %j lists %j", async (path, filters, expected) => {
  const query = encodeURIComponent(JSON.stringify(filters));
  const found = (await served.call("GET", `${path}?filters=${query}`)).json() as { Name: string }[];
  expect(found.map((row) => row.Name)).toEqual(expected);
});

test("containers: running ones, all of them, by status, by label, a few", async () => {
  const states = async (query: string) =>
    ((await served.call("GET", `/containers/json${query}`)).json() as { Status: string }[]).map(
      ({ Status }) => Status,
    );
  const filter = (filters: object) => `?filters=${encodeURIComponent(JSON.stringify(filters))}`;
  expect(await states("")).toEqual(["Up 6 seconds"]);
  expect(await states("?all=1")).toEqual(["Up 6 seconds", "Exited (137) 3 seconds ago"]);
  expect(await states(filter({ status: ["exited"] }))).toEqual(["Exited (137) 3 seconds ago"]);
  expect(await states(filter({ exited: ["0"] }))).toEqual([]);
  expect(await states(filter({ "is-task": ["true"], network: ["ov1"] }))).toEqual(["Up 6 seconds"]);
  expect(await states(filter({ ancestor: ["busybox"] }))).toEqual(["Up 6 seconds"]);
  expect(await states("?limit=1")).toEqual(["Up 6 seconds"]);
});

test("service create converts, keeps and answers 201", async () => {
  const answer = await served.call("POST", "/v1.50/services/create", {
    Name: "web",
    TaskTemplate: { ContainerSpec: { Image: "a" } },
  });
  expect(answer.status).toBe(201);
  expect(answer.json()).toEqual({ ID: ids.service, Warnings: [] });
  expect(served.world.calls).toMatchObject([
    { name: "services.create", value: { name: "web", mode: { kind: "replicated", replicas: 1 } } },
  ]);
});

test("a rollback needs no spec, an update a version", async () => {
  await served.call("POST", "/services/web/update?version=12&rollback=previous", { Bad: 1 });
  expect(served.world.calls).toEqual([
    {
      name: "services.update",
      value: { id: ids.service, version: 12, spec: null, options: { rollback: true } },
    },
  ]);
  const answer = await served.call("POST", "/services/web/update?version=x", {});
  expect(answer.json()).toEqual({
    message: `invalid service version 'x': strconv.ParseUint: parsing "x": invalid syntax`,
  });
});

test("?status=true adds the counts, nothing else does", async () => {
  const status = async (path: string) =>
    ((await served.call("GET", path)).json() as { ServiceStatus?: object }[])[0]?.ServiceStatus;
  expect(await status("/services?status=true")).toEqual({
    RunningTasks: 1,
    DesiredTasks: 2,
    CompletedTasks: 0,
  });
  expect(await status("/services")).toBeUndefined();
});

test("swarm init answers a JSON string, and the defaults are docker's", async () => {
  const answer = await served.call("POST", "/swarm/init", { AdvertiseAddr: "10.99.0.1" });
  expect(answer.text).toBe(`"${ids.node}"\n`);
  expect(served.world.calls[0]?.value).toEqual({
    listenAddress: "0.0.0.0:2377",
    advertiseAddress: "10.99.0.1",
    dataPathAddress: "",
    dataPathPort: 4789,
    forceNewCluster: false,
    autoLockManagers: false,
    availability: "active",
    addressPools: [],
    subnetSize: 24,
    spec: {},
  });
});

test("swarm update keeps what it does not name and reads the rotations", async () => {
  const path = "/swarm/update?version=12&rotateWorkerToken=true&rotateManagerToken=false";
  await served.call("POST", path, { Dispatcher: { HeartbeatPeriod: 7e9 } });
  expect(served.world.calls[0]?.value).toEqual({
    version: 12,
    spec: { ...served.world.cluster.spec, heartbeatPeriodNs: 7e9 },
    rotate: { workerToken: true, managerToken: false, unlockKey: false },
  });
});

test("secrets of a node that is no manager are docker's 503", async () => {
  served.world.swarm = { ...served.world.swarm, state: "inactive", controlAvailable: false };
  const answer = await served.call("GET", "/secrets");
  expect(answer.status).toBe(503);
  expect(answer.text).toContain("This node is not a swarm manager.");
});

test("service logs are frames with time and details in front", async () => {
  served.world.logLines = [
    {
      taskId: ids.task,
      serviceId: ids.service,
      nodeId: ids.node,
      stream: "stderr",
      time: "2026-11-20T15:00:00.5Z",
      line: Buffer.from("tick\n"),
    },
  ];
  const answer = await served.call(
    "GET",
    "/v1.50/services/web/logs?stderr=1&details=1&timestamps=1&tail=5&since=12.5",
  );
  const line = `2026-11-20T15:00:00.500000000Z com.docker.swarm.node.id=${ids.node},com.docker.swarm.service.id=${ids.service},com.docker.swarm.task.id=${ids.task} tick\n`;
  const length = String.fromCharCode(0, 0, 0, line.length);
  expect(answer.text).toBe(`\u0002\0\0\0${length}${line}`);
  expect(answer.headers.get("content-type")).toBe("application/vnd.docker.multiplexed-stream");
  expect(served.world.calls[0]?.value).toMatchObject({
    tail: 5,
    sinceNs: 12_500_000_000n,
    stdout: false,
    stderr: true,
  });
  const old = await served.call("GET", "/v1.41/services/web/logs?stdout=1");
  expect(old.headers.get("content-type")).toBe("application/vnd.docker.raw-stream");
  const none = await served.call("GET", "/services/web/logs");
  expect(none.json()).toEqual({ message: "Bad parameters: you must choose at least one stream" });
});

test("images load streams a line an image, and says a late failure in the stream", async () => {
  const load = (body: string) =>
    served.raw(
      `POST /images/load?quiet=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-tar\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
  const good = answerOf(await load("good"));
  expect(good.text).toBe(
    '{"stream":"Loaded image: busybox:latest\\n"}\n{"stream":"Loaded image: other:1\\n"}\n',
  );
  expect(good.headers.get("content-type")).toBe("application/json");
  const half = answerOf(await load("half"));
  expect(half.text.split("\n")[1]).toBe(
    '{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}',
  );
  const broken = answerOf(await load("broken"));
  expect(broken.status).toBe(400);
  expect(broken.json()).toEqual({ message: "invalid tar header" });
});

test("import takes repo, tag, changes and message", async () => {
  const answer = await served.call(
    "POST",
    "/images/create?fromSrc=-&repo=x/y&tag=1&changes=CMD%20a&changes=ENV%20b%3Dc&message=hi&platform=",
    "tar",
  );
  expect(answer.text).toBe(`{"status":"${ids.image}"}\n`);
  expect(served.world.calls[0]?.value).toEqual({
    reference: "x/y:1",
    changes: ["CMD a", "ENV b=c"],
    message: "hi",
    platform: null,
    archive: "tar",
  });
});

test("images with slashes in their name are found, tagged and removed", async () => {
  const [first] = served.world.images;
  if (first !== undefined) served.world.images = [{ ...first, tags: ["reg.io:5000/a/b:1"] }];
  expect((await served.call("GET", "/images/reg.io:5000/a/b:1/json")).status).toBe(200);
  expect((await served.call("GET", "/images/reg.io:5000/a/b:1/history")).status).toBe(200);
  expect((await served.call("POST", "/images/reg.io:5000/a/b:1/tag?repo=c&tag=2")).status).toBe(
    201,
  );
  const removed = await served.call("DELETE", "/images/reg.io:5000/a/b:1?force=1");
  expect(removed.json()).toEqual([{ Untagged: "reg.io:5000/a/b:1" }, { Deleted: ids.image }]);
  expect(served.world.calls).toMatchObject([
    { name: "images.tag", value: { target: "c:2" } },
    { name: "images.remove", value: { options: { force: true, prune: true } } },
  ]);
});

test("events flush their headers at once and end with their client", async () => {
  served.world.events = [
    {
      type: "container",
      action: "start",
      actorId: "c1",
      attributes: { image: "busybox" },
      scope: "local",
      timeNs: 1_795_186_785_123_456_789n,
    },
  ];
  const bytes = await new Promise<string>((resolve, reject) => {
    const socket = connect({ path: served.socketPath }, () =>
      socket.write("GET /events HTTP/1.1\r\nHost: x\r\n\r\n"),
    );
    let seen = "";
    socket.on("error", reject);
    socket.on("data", (chunk) => {
      seen += chunk.toString();
      // One event came while the stream stays open; then the client goes.
      if (!seen.includes("timeNano")) return;
      socket.destroy();
      resolve(seen);
    });
  });
  expect(bytes).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*content-type: application\/json\r\n/i);
  expect(bytes).toContain(
    '{"status":"start","id":"c1","from":"busybox","Type":"container","Action":"start","Actor":{"ID":"c1","Attributes":{"image":"busybox"}},"scope":"local","time":1795186785,"timeNano":1795186785123456789}\n',
  );
  await served.world.aborted;
});

test("a followed log has its headers before any line", async () => {
  const first = await new Promise<string>((resolve, reject) => {
    const socket = connect({ path: served.socketPath }, () =>
      socket.write("GET /services/web/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n"),
    );
    socket.on("error", reject);
    socket.once("data", (chunk) => {
      socket.destroy();
      resolve(chunk.toString());
    });
  });
  expect(first).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  await served.world.aborted;
});

test("explain answers in the API's words", async () => {
  const answer = await served.call("GET", "/shoal/v1/services/web/explain");
  expect(answer.json()).toMatchObject({
    Tasks: [{ TaskID: ids.pending, Reason: "no node has 8 CPUs free", Nodes: [{ Fits: false }] }],
  });
});

test("the socket has its mode, and a dead socket file is replaced", async () => {
  expect(statSync(served.socketPath).mode & 0o777).toBe(0o660);
  const path = join(served.folder, "old.sock");
  writeFileSync(path, "");
  const server = createApiServer({
    backend: fakeBackend(aWorld()),
    log: silentLog,
    clock: { now: () => now },
  });
  await server.listen({ path, mode: 0o600 });
  expect(statSync(path).mode & 0o777).toBe(0o600);
  await expect(server.listen({ path: served.socketPath, mode: 0o600 })).rejects.toThrow(
    "another daemon answers there",
  );
  await server.close();
});
