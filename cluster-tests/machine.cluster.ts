/** Real netns machines: the driver's suite, and the provisioner's promises seen from outside. Needs root; stand-ins for init and shoald. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { HttpEngineApi } from "../src/cli/machine-api.ts";
import { createCluster, listClusters, removeCluster } from "../src/machine/cluster.ts";
import { driverChecks } from "../src/machine/driver-suite.ts";
import { NetnsDriver } from "../src/machine/netns/driver.ts";
import { exitCode } from "../src/machine/process.ts";
import { AlreadyInState, type CreateRequest, Machines } from "../src/machine/provision.ts";
import type { MachineRecord } from "../src/machine/record.ts";
import { scp } from "../src/machine/scp.ts";
import { MachineStore } from "../src/machine/store.ts";
import { type StandIn, writeStandIn } from "./support/stand-in.ts";

const isRoot = process.geteuid?.() === 0;

let directory: string;
let standIn: StandIn;
let before: string[];

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "shoal-mt-"));
  standIn = writeStandIn(directory);
});
afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

describe.skipIf(!isRoot)("netns driver (skipped without root)", () => {
  for (const check of driverChecks) {
    it(check.name, async () => {
      const store = new MachineStore(join(directory, "suite"));
      before = traces(store.hash);
      const driver = new NetnsDriver(store, standIn);
      try {
        await check.run(driver, record("suite-1"));
      } finally {
        await driver.remove(record("suite-1"));
        await driver.removeShared();
      }
      expect(traces(store.hash)).toEqual([]);
      expect(before).toEqual([]);
    });
  }
});

describe.skipIf(!isRoot)("machines (skipped without root)", () => {
  let store: MachineStore;
  let machines: Machines;
  const quiet = { keepOnFailure: false, progress: () => {} };

  beforeEach(() => {
    store = new MachineStore(join(directory, "machines"));
    machines = new Machines({
      store,
      drivers: [new NetnsDriver(store, standIn)],
      api: new HttpEngineApi(),
    });
  });
  afterEach(async () => {
    for (const name of await store.names()) await machines.remove(name, true);
    expect(traces(store.hash)).toEqual([]);
    expect(await store.network()).toBeNull();
  });

  it("two machines reach each other, run programs, take copies, and come back after a power cut", async () => {
    await machines.create(request("a"), quiet);
    await machines.create(
      { ...request("b"), address: "10.77.0.9", swarm: { kind: "init" } },
      quiet,
    );
    const [a, b] = [await store.get("a"), await store.get("b")];
    expect([a.address, b.address]).toEqual(["10.77.0.2", "10.77.0.9"]);
    expect(a.step).toBeNull();

    const script = `const s = require("node:net").createServer((c) => c.end("from-b")).listen(7000, () => console.log("listens"));`;
    const server = machines
      .driver("netns")
      .spawn(b, ["node", "-e", script], { stdio: ["ignore", "pipe", "inherit"], tty: false });
    await new Promise((resolve) => server.stdout?.once("data", resolve));
    const client = `require("node:net").connect(7000, "10.77.0.9").on("data", (d) => process.stdout.write(d))`;
    expect(await outputOf(a, ["node", "-e", client])).toBe("from-b");

    const file = join(directory, "copied.txt");
    writeFileSync(file, "hello\n", { mode: 0o640 });
    await scp(machines, { machine: null, path: file }, { machine: "a", path: "/run/x" }, false);
    await scp(machines, { machine: "a", path: "/run/x" }, { machine: "b", path: "/run" }, false);
    expect(await outputOf(b, ["sh", "-c", "cat /run/x; stat -c %a /run/x"])).toBe("hello\n640\n");
    await scp(
      machines,
      { machine: null, path: join(directory, "machines") },
      { machine: "b", path: "/run/tree" },
      true,
    );
    expect(await outputOf(b, ["test", "-f", "/run/tree/machines/a/machine.json"])).toBe("");
    await expect(
      scp(machines, { machine: "b", path: "/nowhere" }, { machine: null, path: file }, false),
    ).rejects.toThrow("/nowhere");

    await expect(machines.start("a")).rejects.toBeInstanceOf(AlreadyInState);
    await machines.kill("b");
    expect(await machines.state("b")).toBe("Stopped");
    await machines.start("b");
    expect((await machines.view(await store.get("b"))).swarm).toBe("manager");
    expect(await outputOf(b, ["test", "!", "-e", "/run/x"])).toBe("");
    await machines.restart("a");
    await machines.stop("a");
    await expect(machines.stop("a")).rejects.toBeInstanceOf(AlreadyInState);
  });

  it("a daemon that died is started again by provision", async () => {
    await machines.create(request("a"), quiet);
    const driver = machines.driver("netns");
    const record = await store.get("a");
    const pid = await driver.daemonPid(record);
    expect(pid).not.toBeNull();
    process.kill(pid ?? 0, "SIGKILL");
    await expect.poll(() => driver.daemonPid(record)).toBeNull();
    await machines.provision("a");
    expect(await driver.daemonPid(record)).not.toBeNull();
  });

  it("a create that failed says so, holds nothing that runs, and can be resumed", async () => {
    const failing = { ...request("a"), daemonEnvironment: ["STAND_IN_FAILS=1"] };
    await expect(machines.create(failing, quiet)).rejects.toThrow("step ready");
    expect(await machines.state("a")).toBe("Error");
    const record = await store.get("a");
    expect(record.step).toBe("ready");
    expect(await machines.driver("netns").state(record)).toBe("Stopped");
    await expect(machines.create(request("a"), quiet)).rejects.toThrow("already exists");
    await store.save({ ...record, daemonEnvironment: [] });
    await machines.resume("a", quiet);
    expect(await machines.state("a")).toBe("Running");
  });

  it("a cluster is made, found again half made, listed and removed", async () => {
    const lines: string[] = [];
    const wanted = {
      name: "c",
      driver: "netns",
      managers: 2,
      workers: 1,
      subnet: null,
      images: [],
      daemonArguments: [],
      daemonEnvironment: [],
    };
    const options = { keepOnFailure: false, say: (line: string) => void lines.push(line) };
    await createCluster(machines, wanted, options);
    expect(lines).toHaveLength(6);
    await machines.remove("c-w1", false);
    await machines.kill("c-m2");
    await createCluster(machines, wanted, options);
    expect(await listClusters(machines)).toEqual([
      { name: "c", managers: ["c-m1", "c-m2"], workers: ["c-w1"], running: 3 },
    ]);
    const records = await store.list();
    expect(records.map((record) => record.swarm)).toEqual([null, null, null]);
    await removeCluster(machines, "c", false);
    await expect(removeCluster(machines, "c", false)).rejects.toThrow("does not exist");
  });

  function request(name: string): CreateRequest {
    return {
      name,
      driver: "netns",
      address: null,
      subnet: null,
      swarm: null,
      cluster: null,
      role: null,
      daemonArguments: [],
      daemonEnvironment: [],
    };
  }
  async function outputOf(machine: MachineRecord, argv: readonly string[]): Promise<string> {
    const child = machines
      .driver("netns")
      .spawn(machine, argv, { stdio: ["ignore", "pipe", "inherit"], tty: false });
    const pieces: Buffer[] = [];
    child.stdout?.on("data", (piece: Buffer) => pieces.push(piece));
    expect(await exitCode(child)).toBe(0);
    return Buffer.concat(pieces).toString("utf8");
  }
});

function record(name: string): MachineRecord {
  return {
    version: 1,
    name,
    driver: "netns",
    createdAt: "2026-01-01T00:00:00.000Z",
    step: null,
    error: null,
    index: 1,
    address: "10.77.0.2",
    prefixLength: 24,
    gateway: "10.77.0.1",
    cluster: null,
    role: null,
    swarm: null,
    daemonArguments: [],
    daemonEnvironment: [],
  };
}

/** Everything on this box that names the storage path: mounts, pinned namespaces, cgroups, processes. */
function traces(hash: string): string[] {
  const found: string[] = [];
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    if (line.includes(hash)) found.push(`mount ${line}`);
  }
  for (const name of list("/run/netns")) if (name.includes(hash)) found.push(`netns ${name}`);
  for (const hierarchy of ["", ...list("/sys/fs/cgroup")]) {
    const path = join("/sys/fs/cgroup", hierarchy, "shoal-machines");
    if (list(path).includes(hash)) found.push(`cgroup ${path}/${hash}`);
  }
  for (const pid of list("/proc").filter((name) => /^\d+$/.test(name))) {
    // A zombie has ended; the box's own init has yet to take its status.
    const isZombie = / Z /.test(read(`/proc/${pid}/stat`));
    if (!isZombie && read(`/proc/${pid}/cgroup`).includes(hash)) found.push(`process ${pid}`);
  }
  return found;
}
function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
