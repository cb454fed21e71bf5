/** The machine store: whole files or old files, damaged ones named, locks that a death frees. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { chooseAddress, gatewayOf, parseAddress, parseSubnet } from "./address-pool.ts";
import { envText, shellName, unsetText } from "./env.ts";
import { withLock } from "./lock.ts";
import { isAlive, parseIdentity } from "./netns/boot.ts";
import { hierarchies } from "./netns/cgroups.ts";
import { checkMachineName, type MachineRecord } from "./record.ts";
import { parsePlace } from "./scp.ts";
import { shellQuote } from "./shell-quote.ts";
import { MachineStore, storagePath } from "./store.ts";

const record: MachineRecord = {
  version: 1,
  name: "m1",
  driver: "netns",
  createdAt: "2026-01-01T00:00:00.000Z",
  step: "start",
  error: null,
  index: 1,
  address: "10.77.0.2",
  prefixLength: 24,
  gateway: "10.77.0.1",
  cluster: null,
  role: null,
  swarm: { kind: "init" },
  daemonArguments: [],
  daemonEnvironment: [],
};

let directory: string;
let store: MachineStore;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "shoal-ms-"));
  store = new MachineStore(directory);
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

it("a saved record is read back, and nothing but it is left in the directory", async () => {
  await store.save(record);
  await store.save({ ...record, step: null });
  expect(await store.get("m1")).toEqual({ ...record, step: null });
  expect(readdirSync(store.directory("m1"))).toEqual(["machine.json"]);
  expect(await store.find("m2")).toBeNull();
  await expect(store.get("m2")).rejects.toThrow('Docker machine "m2" does not exist');
});

it("a crash between writing and renaming leaves the old record", async () => {
  await store.save(record);
  writeFileSync(join(store.directory("m1"), "machine.json.tmp-1"), '{"version":1,"na');
  expect(await store.get("m1")).toEqual(record);
});

it.each([
  ["{", "it is not JSON"],
  ['{"version":2}', "its version is 2"],
  ['{"version":1,"name":"m1"}', "field driver"],
  [JSON.stringify({ ...record, step: "nap" }), 'step "nap" is not known'],
])("a damaged record %s is refused by the name of its file", async (text, why) => {
  await store.save(record);
  writeFileSync(join(store.directory("m1"), "machine.json"), text);
  await expect(store.get("m1")).rejects.toThrow(why);
  await expect(store.get("m1")).rejects.toThrow(join(store.directory("m1"), "machine.json"));
  const broken: string[] = [];
  expect(await store.list((name) => broken.push(name))).toEqual([]);
  expect(broken).toEqual(["m1"]);
});

it("one holder at a time has a lock, and who waits gets it when it is let go", async () => {
  const order: string[] = [];
  let inside = 0;
  await Promise.all(
    ["a", "b", "c"].map((name) =>
      withLock(directory, async () => {
        inside += 1;
        expect(inside).toBe(1);
        order.push(name);
        await new Promise((resolve) => setImmediate(resolve));
        inside -= 1;
      }),
    ),
  );
  expect(order.sort()).toEqual(["a", "b", "c"]);
});

it("waiting for a lock ends after the time given, and says for what", async () => {
  await withLock(directory, async () => {
    await expect(withLock(directory, async () => {}, 30)).rejects.toThrow(directory);
  });
});

it("addresses are the lowest free ones, fixed ones are checked", () => {
  const subnet = parseSubnet("10.77.0.0/29");
  expect(gatewayOf(subnet)).toBe("10.77.0.1");
  expect(chooseAddress(subnet, new Set(["10.77.0.2"]), null)).toBe("10.77.0.3");
  expect(chooseAddress(subnet, new Set(), "10.77.0.6")).toBe("10.77.0.6");
  expect(() => chooseAddress(subnet, new Set(), "10.77.0.7")).toThrow("choose one of");
  expect(() => chooseAddress(subnet, new Set(["10.77.0.6"]), "10.77.0.6")).toThrow(
    "another machine",
  );
  const all = new Set([2, 3, 4, 5, 6].map((last) => `10.77.0.${last}`));
  expect(() => chooseAddress(subnet, all, null)).toThrow("remove one first");
  for (const bad of ["10.0.0.0", "10.0.0.1/24", "10.0.0.0/30", "10.0.0/24", "x/24"]) {
    expect(() => parseSubnet(bad)).toThrow("invalid");
  }
  expect(() => parseAddress("1.2.3.256")).toThrow("over 255");
});

it("names are docker-machine's and fit a host name", () => {
  for (const good of ["a", "m-1.x", "A1"]) expect(() => checkMachineName(good)).not.toThrow();
  for (const bad of ["", "-a", "a/b", "a b", "a".repeat(64)]) {
    expect(() => checkMachineName(bad)).toThrow("invalid machine name");
  }
});

it("env speaks the caller's shell", () => {
  expect(envText("sh", { DOCKER_HOST: "unix:///x" }, "shoal machine env m")).toBe(
    'export DOCKER_HOST="unix:///x"\n# Run this command to configure your shell: \n# eval $(shoal machine env m)\n',
  );
  expect(envText("fish", { A: "b" }, "c")).toContain('set -gx A "b";');
  expect(unsetText("sh", ["A"], "c")).toContain("unset A\n");
  expect(shellName(null, "/usr/bin/zsh")).toBe("zsh");
  expect(shellName(null, undefined)).toBe("sh");
  expect(() => shellName("nosuch", undefined)).toThrow("unknown shell");
});

it("the storage path is the flag, then the variable, then the home directory", () => {
  expect(storagePath("/a", { MACHINE_STORAGE_PATH: "/b" })).toBe("/a");
  expect(storagePath(null, { MACHINE_STORAGE_PATH: "/b" })).toBe("/b");
  expect(storagePath(null, {})).toMatch(/\.shoal\/machine$/);
});

it("a socket path that Linux cannot bind is refused", () => {
  expect(() => store.checkSocketPath("m1")).not.toThrow();
  expect(() => store.checkSocketPath("m".repeat(90))).toThrow("Linux allows 107");
});

it("copy places, shell words, mountinfo and identities are read", () => {
  expect(parsePlace("m1:/a:b")).toEqual({ machine: "m1", path: "/a:b" });
  expect(parsePlace("/a:b")).toEqual({ machine: null, path: "/a:b" });
  expect(parsePlace("m1:")).toEqual({ machine: "m1", path: "." });
  expect(shellQuote("it's")).toBe("'it'\\''s'");
  expect(
    hierarchies(
      "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 c rw\n1 1 0:1 / / rw - ext4 x rw",
    ),
  ).toEqual([
    { mountPoint: "/sys/fs/cgroup/cpu", version: 1 },
    { mountPoint: "/sys/fs/cgroup/unified", version: 2 },
  ]);
  const stat = `7 (a ) b) S ${Array.from({ length: 18 }, () => "0").join(" ")} 4242 0`;
  expect(parseIdentity(`boot\n${stat}\n`)).toEqual({ bootId: "boot", pid: 7, startTicks: "4242" });
  expect(parseIdentity("boot\n")).toBeNull();
  expect(isAlive({ bootId: "another boot", pid: process.pid, startTicks: "1" })).toBe(false);
});
