import { describe, expect, test } from "vitest";
import { emptyRun } from "../image/config.ts";
import type { ImageConfig } from "../model/image.ts";
import type { ContainerSpec } from "../model/task.ts";
import { aTaskSpec } from "../model/testing/rows.ts";
import { capabilitiesOf, defaultCapabilities } from "./capabilities.ts";
import { hostsFile, parseResolvConf, resolvConfFile } from "./etc-files.ts";
import { logOptionsOf } from "./log-options.ts";
import { argumentsOf, environmentOf, ociSpec } from "./oci-spec.ts";
import { instantNs } from "./rfc3339.ts";
import { signalName } from "./signals.ts";
import { parsePs } from "./top.ts";
import { findUser } from "./user.ts";

const spec = (over: Partial<ContainerSpec> = {}) => ({ ...aTaskSpec().container, ...over });
const image = (over: Partial<ImageConfig> = {}) => ({ ...emptyRun, command: ["sh"], ...over });

function made(
  over: Partial<ContainerSpec> = {},
  limits = { nanoCpus: 0, memoryBytes: 0, pids: 0 },
) {
  return ociSpec({
    containerId: "c",
    image: image(),
    spec: spec(over),
    limits,
    user: { uid: 0, gid: 0, additionalGids: [0], home: "/root" },
    hostname: "h",
    cgroupParent: "/shoal",
    etc: { hosts: "/d/hosts", hostname: "/d/hostname", resolvConf: "/d/resolv.conf" },
  });
}

describe("what is executed", () => {
  test.each([
    [["e"], ["c"], [], [], ["e"], ["c"]],
    [["e"], ["c"], [], ["a"], ["e"], ["a"]],
    [["e"], ["c"], ["x"], [], ["x"], []],
    [["e"], ["c"], ["x"], ["a"], ["x"], ["a"]],
    [[], ["c"], [], [], [], ["c"]],
  ])("image %j %j, spec %j %j", (entrypoint, command, own, args, wantEntry, wantArgs) => {
    const result = argumentsOf(image({ entrypoint, command }), { command: own, args });
    expect(result).toEqual({ entrypoint: wantEntry, args: wantArgs });
  });

  test("nothing at all is refused", () => {
    expect(() => argumentsOf(emptyRun, spec())).toThrow("no command specified");
  });

  test("environment: image over defaults, spec over image, a bare name removes", () => {
    const env = environmentOf(
      image({ env: ["PATH=/i", "A=1", "B=1"] }),
      { env: ["B=2", "A"] },
      "h",
      "/r",
    );
    expect(env).toEqual(["PATH=/i", "HOSTNAME=h", "B=2", "HOME=/r"]);
  });

  test.each([
    ["TERM", "SIGTERM"],
    ["sigquit", "SIGQUIT"],
    ["9", "9"],
    ["SIGRTMIN+3", "SIGRTMIN+3"],
    ["rtmax-30", "SIGRTMAX-30"],
    ["RTMIN", "SIGRTMIN"],
    ["SIGCLD", "SIGCHLD"],
    ["IOT", "SIGABRT"],
  ])("signal %s", (text, want) => {
    expect(signalName(text)).toBe(want);
  });

  test.each(["FOO", "SIG", "", "0", "65", "-9", "RTMIN+31", "RTMIN-1", "SIGSIGTERM"])(
    "no signal: %j",
    (text) => {
      expect(() => signalName(text)).toThrow(`invalid signal: ${text}`);
    },
  );
});

describe("the OCI configuration", () => {
  test("limits as docker sets them", () => {
    const { resources } = made({}, { nanoCpus: 500_000_000, memoryBytes: 1_000, pids: 5 }).linux;
    expect(resources).toEqual({
      memory: { limit: 1_000, reservation: null, swap: 2_000 },
      cpu: { shares: null, quota: 50_000, period: 100_000, cpus: null },
      pids: { limit: 5 },
    });
    expect(made().linux.resources).toEqual({ memory: null, cpu: null, pids: null });
  });

  test("mounts: docker's own, the files under /etc, then the user's by depth", () => {
    const bind = { kind: "bind" as const, source: "/s", propagation: null, sizeBytes: null };
    const tmpfs = { kind: "tmpfs" as const, source: null, propagation: null, readOnly: false };
    const { mounts } = made({
      mounts: [
        { ...tmpfs, target: "/a/b/c", sizeBytes: 1_024, mode: 0o700 },
        { ...bind, target: "/a", readOnly: true, mode: null },
        { ...bind, target: "/etc/hosts", readOnly: false, mode: null },
      ],
    });
    const targets = mounts.map((item) => item.destination);
    expect(targets.slice(0, 2)).toEqual(["/proc", "/dev"]);
    expect(targets.indexOf("/a")).toBeLessThan(targets.indexOf("/a/b/c"));
    expect(mounts.filter((item) => item.destination === "/etc/hosts")).toMatchObject([
      { source: "/s" },
    ]);
    expect(mounts.find((item) => item.destination === "/a")?.options).toEqual([
      "rbind",
      "rprivate",
      "rro",
    ]);
    expect(mounts.find((item) => item.destination === "/a/b/c")?.options).toContain("mode=700");
  });

  test("privilege and what is hidden are docker's", () => {
    const fourteen =
      "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT";
    const wanted = fourteen.split(" ").map((name) => `CAP_${name}`);
    const { process, linux, mounts } = made();
    const { bounding, effective, permitted, inheritable, ambient } = process.capabilities;
    for (const set of [bounding, effective, permitted]) expect(set.toSorted()).toEqual(wanted);
    expect([inheritable, ambient]).toEqual([[], []]);
    const masked = ["/proc/kcore", "/proc/keys", "/proc/interrupts", "/sys/firmware"];
    const powercap = "/sys/devices/virtual/powercap";
    expect(linux.maskedPaths).toEqual(expect.arrayContaining([...masked, powercap]));
    expect(linux.maskedPaths.length).toBeGreaterThanOrEqual(10);
    const readonly = ["bus", "fs", "irq", "sys", "sysrq-trigger"].map((name) => `/proc/${name}`);
    expect(linux.readonlyPaths.toSorted()).toEqual(readonly);
    expect(mounts.find(({ destination }) => destination === "/sys")?.options).toContain("ro");
  });

  test("capabilities", () => {
    expect(made().process.capabilities.bounding).toEqual(defaultCapabilities);
    expect(capabilitiesOf(["net_admin"], ["CAP_CHOWN"])).toContain("CAP_NET_ADMIN");
    expect(capabilitiesOf(["net_admin"], ["CAP_CHOWN"])).not.toContain("CAP_CHOWN");
    expect(capabilitiesOf(["KILL"], ["ALL"])).toEqual(["CAP_KILL"]);
    expect(capabilitiesOf(["ALL"], [])).toHaveLength(41);
    expect(() => capabilitiesOf(["NOPE"], [])).toThrow('invalid capability: "NOPE"');
  });
});

describe("users", () => {
  const files = {
    passwd: "root:x:0:0:r:/root:/bin/sh\nbob:x:7:8:b:/home/bob:/bin/sh\n",
    group: "root:x:0:\nbobs:x:8:\nlog:x:9:root,bob\n",
  };
  test.each([
    ["", [], { uid: 0, gid: 0, additionalGids: [0, 9], home: "/root" }],
    ["bob", [], { uid: 7, gid: 8, additionalGids: [8, 9], home: "/home/bob" }],
    ["7", [], { uid: 7, gid: 8, additionalGids: [8, 9], home: "/home/bob" }],
    ["99", [], { uid: 99, gid: 0, additionalGids: [0], home: "/" }],
    ["bob:log", [], { uid: 7, gid: 9, additionalGids: [9], home: "/home/bob" }],
    ["99:77", ["log"], { uid: 99, gid: 77, additionalGids: [77, 9], home: "/" }],
  ])("%j with %j", (text, groups, want) => {
    expect(findUser(text, groups, files)).toEqual(want);
  });
  test.each([
    ["eve", "unable to find user eve: no matching entries in passwd file"],
    ["bob:eves", "unable to find group eves: no matching entries in group file"],
    ["99999999999", "uids and gids must be in range"],
  ])("%j is refused", (text, message) => {
    expect(() => findUser(text, [], files)).toThrow(message);
  });
  test("an image without files runs numbers", () => {
    expect(findUser("5:6", [], { passwd: null, group: null })).toMatchObject({ uid: 5, gid: 6 });
  });
});

describe("files under /etc", () => {
  test("a networked container asks our resolver, another the host's", () => {
    const dns = { nameservers: ["9.9.9.9"], search: ["x"], options: [] };
    expect(resolvConfFile(true, dns)).toBe("nameserver 127.0.0.11\nsearch x\noptions ndots:0\n");
    expect(resolvConfFile(false, dns)).toBe("nameserver 9.9.9.9\nsearch x\n");
    expect(parseResolvConf("# c\nnameserver 1.1.1.1 \nsearch a b\n")).toEqual({
      nameservers: ["1.1.1.1"],
      search: ["a", "b"],
      options: [],
    });
  });
  test("hosts", () => {
    expect(hostsFile("h", ["10.0.0.2"], ["1.2.3.4 a b"])).toMatch(
      /1\.2\.3\.4\ta b\n10\.0\.0\.2\th\n$/,
    );
  });
});

test.each([
  [{ name: "none", options: {} }, null],
  [null, {}],
  [
    { name: "json-file", options: { "max-size": "10m", "max-file": "3" } },
    { maxSizeBytes: 10 * 1024 * 1024, maxFiles: 3 },
  ],
  [
    { name: "", options: { mode: "non-blocking", "max-buffer-size": "4m" } },
    { mode: "non-blocking", maxBufferBytes: 4 * 1024 * 1024 },
  ],
  [
    { name: "", options: { "max-size": "1k", "max-file": "2", compress: "true" } },
    { maxSizeBytes: 1024, maxFiles: 2, compress: true },
  ],
])("log driver %j", (driver, want) => {
  const usual = {
    maxSizeBytes: null,
    maxFiles: 1,
    mode: "blocking",
    maxBufferBytes: 1024 * 1024,
    compress: false,
  };
  expect(logOptionsOf(driver)).toEqual(want === null ? null : { ...usual, ...want });
});

test.each([
  [{ name: "syslog", options: {} }, "logger: no log driver named 'syslog' is registered"],
  [{ name: "", options: { x: "1" } }, "unknown log opt 'x' for json-file log driver"],
  [{ name: "", options: { "max-size": "ten" } }, "invalid size: 'ten'"],
  [{ name: "", options: { "max-file": "3" } }, "max-file cannot be set without max-size"],
  [{ name: "", options: { mode: "x" } }, "logging mode not supported: x"],
  [{ name: "", options: { "max-buffer-size": "1m" } }, "only supported with 'mode=non-blocking'"],
  [{ name: "", options: { compress: "true" } }, "compress cannot be true"],
  [{ name: "", options: { compress: "maybe" } }, "invalid value for 'compress': 'maybe'"],
])("log driver %j is refused", (driver, message) => {
  expect(() => logOptionsOf(driver)).toThrow(message);
});

test("times keep their nanoseconds", () => {
  expect(instantNs("1970-01-01T00:00:01.000000002Z")).toBe(1_000_000_002n);
  expect(instantNs("1970-01-01T01:00:00+01:00")).toBe(0n);
  expect(instantNs("yesterday")).toBeNull();
});

test("top keeps the rows of the container", () => {
  const output = "UID  PID CMD\nroot  1 init\nroot 20 sleep 300 x\n";
  expect(parsePs(output, [20])).toEqual({
    titles: ["UID", "PID", "CMD"],
    processes: [["root", "20", "sleep 300 x"]],
  });
  expect(() => parsePs("CMD\nx", [1])).toThrow("Couldn't find PID field");
});
