/** What the command does where docker cannot be asked beside it: waiting, hosts, streams, daemons that are not there. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it, onTestFinished } from "vitest";
import { resolveEndpoint } from "./host.ts";
import { shoalVersion } from "./shoal-version.ts";
import { FixtureEngine, runWords } from "./testing/fixture-engine.ts";
import { leaderNode, swarmRoutes, webService } from "./testing/swarm-fixture.ts";

let engine: FixtureEngine | null = null;
afterEach(async () => {
  await engine?.close();
  engine = null;
});
const none = {
  host: null,
  tls: false,
  tlsVerify: false,
  caFile: null,
  certFile: null,
  keyFile: null,
};

it("service scale waits until as many tasks run as are wanted, and says how far it is", async () => {
  let looks = 0;
  const spec = {
    ...webService.Spec,
    Mode: { Replicated: { Replicas: 2 } },
    UpdateConfig: { Parallelism: 1, MaxFailureRatio: 0, Monitor: 1e8 },
  };
  const task = (slot: number, state: string): object => ({
    ID: `t${slot}`,
    ServiceID: webService.ID,
    Slot: slot,
    NodeID: leaderNode.ID,
    Spec: {},
    DesiredState: "running",
    Status: { State: state, Timestamp: "2026-01-01T00:00:00Z" },
  });
  const service = { ...webService, Spec: spec, UpdateStatus: null };
  engine = await FixtureEngine.open({
    ...swarmRoutes,
    "GET /services/web": { json: service },
    [`GET /services/${webService.ID}`]: { json: service },
    [`POST /services/${webService.ID}/update`]: { json: { Warnings: null } },
    "GET /tasks": (query) => {
      expect(JSON.parse(query.get("filters") ?? "")).toEqual({
        service: { [webService.ID]: true },
        "_up-to-date": { true: true },
      });
      looks += 1;
      return { json: [task(1, "running"), task(2, looks > 1 ? "running" : "starting")] };
    },
  });
  const ran = await engine.run("service", "scale", "web=2");
  expect(ran.err).toBe("");
  expect(ran.code).toBe(0);
  expect(ran.out.split("\n").map((line) => line.trimEnd())).toEqual([
    "web scaled to 2",
    "overall progress: 1 out of 2 tasks",
    "1/2:",
    "2/2:",
    "overall progress: 2 out of 2 tasks",
    "verify: Waiting 1 seconds to verify that tasks are stable...",
    `verify: Service ${webService.ID} converged`,
    "",
  ]);
});

it("a paused update ends the wait with its reason", async () => {
  const paused = {
    ...webService,
    UpdateStatus: { State: "paused", Message: "update paused due to failure" },
  };
  engine = await FixtureEngine.open({
    ...swarmRoutes,
    "GET /services/web": { json: paused },
    [`GET /services/${webService.ID}`]: { json: paused },
    [`POST /services/${webService.ID}/update`]: { json: { Warnings: ["careful"] } },
  });
  const ran = await engine.run("service", "update", "--force", "web");
  expect(ran).toEqual({
    code: 1,
    out: "web\n",
    err: "careful\nservice update paused: update paused due to failure\n",
  });
});

it("service logs names each line's task, and keeps the streams apart", async () => {
  const line = (kind: number, text: string): Buffer => {
    const header = Buffer.from([kind, 0, 0, 0, 0, 0, 0, 0]);
    header.writeUInt32BE(Buffer.byteLength(text), 4);
    return Buffer.concat([header, Buffer.from(text)]);
  };
  const details = `com.docker.swarm.node.id=${leaderNode.ID},com.docker.swarm.service.id=${webService.ID},com.docker.swarm.task.id=ddd4rebyh5gbibfbsp214x23x`;
  engine = await FixtureEngine.open({
    ...swarmRoutes,
    "GET /services/web/logs": {
      raw: Buffer.concat([line(1, `${details} hello there\n`), line(2, `${details} oh no\n`)]),
      type: "application/vnd.docker.multiplexed-stream",
    },
  });
  const ran = await engine.run("service", "logs", "web");
  expect(ran).toEqual({
    code: 0,
    out: "web.1.ddd4rebyh5gb@m10     | hello there\n",
    err: "web.1.ddd4rebyh5gb@m10     | oh no\n",
  });
  expect((await engine.run("service", "logs", "--raw", "web")).out).toBe("hello there\n");
});

it("load sends the archive and shows what was loaded; an error in the stream is the command's", async () => {
  let sent: unknown = null;
  let answer = '{"stream":"Loaded image: a:1\\n"}\r\n';
  engine = await FixtureEngine.open({
    "POST /images/load": (_query, body) => {
      sent = body;
      return { raw: Buffer.from(answer), type: "application/json" };
    },
  });
  const loaded = await runWords(["load"], { DOCKER_HOST: engine.host }, "tar bytes");
  expect(loaded).toEqual({ code: 0, out: "Loaded image: a:1\n", err: "" });
  expect(sent).toBe("tar bytes");
  answer = '{"errorDetail":{"message":"archive/tar: invalid tar header"},"error":"x"}';
  const broken = await runWords(["load"], { DOCKER_HOST: engine.host }, "x");
  expect(broken).toEqual({ code: 1, out: "", err: "archive/tar: invalid tar header\n" });
  const absent = await engine.run("load", "-i", "/no/such.tar");
  expect(absent.err).toBe("open /no/such.tar: no such file or directory\n");
});

it("import sends its changes and prints the id", async () => {
  engine = await FixtureEngine.open({ "POST /images/create": { json: { status: "sha256:1" } } });
  const ran = await runWords(
    ["import", "-c", "CMD a", "-c", "ENV b=c", "-", "web:1"],
    { DOCKER_HOST: engine.host },
    "tar",
  );
  expect(ran).toEqual({ code: 0, out: "sha256:1\n", err: "" });
  const query = new URL(engine.asked[0]?.path ?? "", "http://x").searchParams;
  expect(query.getAll("changes")).toEqual(["CMD a", "ENV b=c"]);
  expect([query.get("fromSrc"), query.get("repo"), query.get("tag")]).toEqual(["-", "web", "1"]);
});

it("no daemon, an error that is not JSON, and an old daemon are each told", async () => {
  const absent = await runWords(["node", "ls"], { SHOAL_HOST: "unix:///no/such.sock" });
  expect(absent).toEqual({
    code: 1,
    out: "",
    err: "Cannot connect to the Docker daemon at unix:///no/such.sock. Is the docker daemon running?\n",
  });
  engine = await FixtureEngine.open({
    "GET /nodes": { status: 503, json: { message: "This node is not a swarm manager." } },
    "GET /networks": { status: 500, raw: Buffer.from("plain"), type: "text/plain" },
  });
  expect((await engine.run("node", "ls")).err).toBe(
    "Error response from daemon: This node is not a swarm manager.\n",
  );
  expect((await engine.run("network", "ls")).err).toBe("Error response from daemon: plain\n");
});

it("hosts are docker's", () => {
  expect(resolveEndpoint(none, {})).toMatchObject({ kind: "unix", path: "/run/shoal/shoal.sock" });
  expect(
    resolveEndpoint(none, { DOCKER_HOST: "unix:///a", SHOAL_HOST: "unix:///b" }),
  ).toMatchObject({ path: "/a" });
  expect(resolveEndpoint({ ...none, host: "tcp://1.2.3.4:99" }, {})).toMatchObject({
    address: "1.2.3.4",
    port: 99,
    tls: null,
  });
  expect(resolveEndpoint({ ...none, host: "tcp://[::1]" }, {})).toMatchObject({
    address: "::1",
    port: 2375,
  });
  for (const host of ["ftp://x", "unix://", "tcp://a:99999", "a/b"]) {
    expect(() => resolveEndpoint({ ...none, host }, {})).toThrow("invalid bind address format");
  }
  expect(() =>
    resolveEndpoint({ ...none, host: "tcp://a", tlsVerify: true, caFile: "/no/ca.pem" }, {}),
  ).toThrow("open /no/ca.pem: no such file");
});

it("help and version are printed, and exit with 0", async () => {
  for (const words of [
    [],
    ["--help"],
    ["service"],
    ["service", "--help"],
    ["service", "create", "--help"],
    ["machine", "cluster", "create", "--help"],
  ]) {
    const ran = await runWords(words, {});
    expect({ words, code: ran.code, err: ran.err }).toEqual({ words, code: 0, err: "" });
    expect(ran.out).toMatch(/^Usage: {2}shoal/);
  }
  expect((await runWords(["--version"], {})).out).toBe(`Shoal version ${shoalVersion}\n`);
  const file = join(import.meta.dirname, "../../package.json");
  expect((JSON.parse(readFileSync(file, "utf8")) as { version: string }).version).toBe(
    shoalVersion,
  );
});

it("machine commands say what is missing", async () => {
  const storage = mkdtempSync(join(tmpdir(), "shoal-cli-none-"));
  onTestFinished(() => rmSync(storage, { recursive: true, force: true }));
  const env = { MACHINE_STORAGE_PATH: storage };
  expect((await runWords(["machine", "ip"], env)).err).toBe(
    'Error: No machine name(s) specified and no "default" machine exists\n',
  );
  expect(await runWords(["machine", "status", "m1"], env)).toEqual({
    code: 1,
    out: "",
    err: 'Docker machine "m1" does not exist\n',
  });
  expect((await runWords(["machine", "create", "a b"], env)).err).toContain("invalid machine name");
  expect((await runWords(["machine", "create", "-d", "vbox", "a"], env)).err).toContain(
    "known are netns",
  );
  expect((await runWords(["machine", "ls"], env)).out).toBe(
    "NAME      ACTIVE    DRIVER    STATE     URL       SWARM     DOCKER    ERRORS\n",
  );
  expect((await runWords(["machine", "cluster", "rm", "-y", "x"], env)).err).toBe(
    'cluster "x" does not exist\n',
  );
});
