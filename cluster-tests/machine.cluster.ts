/** Real netns machines: the driver's suite, and the provisioner's promises seen from outside. Needs root; stand-ins for init and shoald. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { driverChecks } from "../src/machine/driver-suite.ts";
import { NetnsDriver } from "../src/machine/netns/driver.ts";
import type { MachineRecord } from "../src/machine/record.ts";
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
