/** Goal: bad specs are refused in swarmkit's words, good ones pass. How: one row a rule, around one good spec. */
import { expect, test } from "vitest";
import { defaultClusterSpec, defaultUpdate } from "./defaults.ts";
import type { ContainerSpec, Mount, TaskSpec } from "./task.ts";
import { aNetwork, aServiceSpec, aTaskSpec } from "./testing/rows.ts";
import {
  validateClusterSpec,
  validateNetworkSpec,
  validateNodeSpec,
  validateServiceSpec,
} from "./validate.ts";

const task = (over: Partial<TaskSpec>) => aServiceSpec("web", { task: aTaskSpec(over) });
const container = (over: Partial<ContainerSpec>) =>
  task({ container: { ...aTaskSpec().container, ...over } });
const bind: Mount = {
  kind: "bind",
  source: "/srv",
  target: "/srv",
  readOnly: false,
  propagation: null,
  sizeBytes: null,
  mode: null,
};
const restart = { condition: "any", delayNs: null, maxAttempts: null, windowNs: null } as const;
const placement = { constraints: [], spreadOver: [], maxReplicas: 0, platforms: [] };
const digest = `sha256:${"a".repeat(64)}`;

const good = [
  aServiceSpec("web"),
  aServiceSpec("a".repeat(63)),
  aServiceSpec("a_b-c--d", { mode: { kind: "replicated", replicas: 0 } }),
  ...[
    "a",
    "a/b:1",
    `reg.io:5000/a/b@${digest}`,
    "localhost/x",
    `127.0.0.1:5000/web:1@${digest}`,
  ].map((image) => container({ image })),
  container({ mounts: [bind, { ...bind, kind: "tmpfs", source: null, target: "/tmp" }] }),
  container({ capabilityAdd: ["CAP_NET_ADMIN", "net_raw"], capabilityDrop: ["ALL"] }),
  container({ ulimits: [{ name: "nofile", soft: 5, hard: -1 }] }),
  container({ stopSignal: "SIGRTMIN+3", hostname: "a.b-c", dir: "/x" }),
  task({
    placement: {
      ...placement,
      constraints: ["node.labels.a == b c"],
      spreadOver: ["node.labels.z"],
    },
  }),
  task({ limits: { nanoCpus: 0, memoryBytes: 4_194_304, pids: 0 } }),
];
test.each(good.map((spec) => [spec]))("passes: %j", (spec) => {
  expect(() => validateServiceSpec(spec)).not.toThrow();
});

const bad = [
  [aServiceSpec(""), "meta: name must be provided"],
  [aServiceSpec("a.b"), "name must be valid as a DNS name component"],
  [aServiceSpec("-a"), "name must be valid as a DNS name component"],
  [aServiceSpec("é"), "name must be valid as a DNS name component"],
  [aServiceSpec("a".repeat(64)), "name must be 63 characters or fewer"],
  [aServiceSpec(`${"a-".repeat(5000)}!`), "name must be 63 characters or fewer"],
  [
    aServiceSpec("w", { mode: { kind: "replicated", replicas: -1 } }),
    "Number of replicas must be non-negative",
  ],
  [container({ image: "" }), "ContainerSpec: image reference must be provided"],
  [container({ image: "a/B" }), 'ContainerSpec: "a/B" is not a valid repository/tag'],
  [container({ image: "a:!" }), "is not a valid repository/tag"],
  [container({ image: "a@sha256:1" }), "is not a valid repository/tag"],
  [container({ image: "f".repeat(64) }), "is not a valid repository/tag"],
  [container({ env: ["=x"] }), "invalid environment variable: =x"],
  [container({ stopGraceNs: -1 }), "stop-grace-period cannot be negative"],
  [container({ stopSignal: "!" }), "invalid stop signal: !"],
  [container({ hostname: "a b" }), "invalid hostname: a b"],
  [container({ dir: "x" }), "working directory 'x' is invalid"],
  [container({ oomScoreAdj: 1001 }), "range for oom score adj is [-1000, 1000]"],
  [container({ capabilityAdd: ["CAP_FLY"] }), 'invalid capability: "CAP_FLY"'],
  [container({ ulimits: [{ name: "x", soft: 1, hard: 1 }] }), "invalid ulimit type: x"],
  [container({ ulimits: [{ name: "core", soft: 2, hard: 1 }] }), "ulimit soft limit must be less"],
  [container({ dns: { nameservers: ["x"], search: [], options: [] } }), "invalid nameserver x"],
  [container({ mounts: [{ ...bind, target: "" }] }), "field Target must not be empty"],
  [
    container({ mounts: [{ ...bind, target: "x" }] }),
    "invalid mount target, must be an absolute path: x",
  ],
  [container({ mounts: [{ ...bind, target: "/.//" }] }), "destination can't be '/'"],
  [
    container({ mounts: [{ ...bind, source: "x" }] }),
    "invalid bind mount source, must be an absolute path: x",
  ],
  [
    container({ mounts: [{ ...bind, kind: "tmpfs" }] }),
    "invalid tmpfs source, source must be empty",
  ],
  [container({ mounts: [bind, { ...bind, target: "/srv/" }] }), "duplicate mount point: /srv/"],
  [
    task({ limits: { nanoCpus: 1, memoryBytes: 0, pids: 0 } }),
    "invalid cpu value 1e-9: Must be at least 0.001",
  ],
  [
    task({ reservations: { nanoCpus: 0, memoryBytes: 1024 } }),
    "invalid memory value 1024: Must be at least 4MiB",
  ],
  [task({ reservations: { nanoCpus: -1, memoryBytes: 0 } }), "invalid cpu value"],
  [task({ limits: { nanoCpus: 0, memoryBytes: 0, pids: -1 } }), "invalid pids limit -1"],
  [task({ restart: { ...restart, delayNs: -1 } }), "TaskSpec: restart-delay cannot be negative"],
  [task({ restart: { ...restart, windowNs: -1 } }), "TaskSpec: restart-window cannot be negative"],
  [
    task({ placement: { ...placement, constraints: ["node.role"] } }),
    "constraint expected one operator from ==, !=",
  ],
  [task({ placement: { ...placement, constraints: ["a==b"] } }), "key 'a' is invalid"],
  [task({ placement: { ...placement, constraints: ["node.id=="] } }), "value '' is invalid"],
  [
    task({ placement: { ...placement, spreadOver: ["rack"] } }),
    "placement preference spread=rack is unknown",
  ],
  [
    task({
      networks: [
        { target: "n", aliases: [] },
        { target: "n", aliases: [] },
      ],
    }),
    "network n is given twice",
  ],
  [
    aServiceSpec("w", { update: { ...defaultUpdate, delayNs: -1 } }),
    "TaskSpec: update-delay cannot be negative",
  ],
  [
    aServiceSpec("w", { update: { ...defaultUpdate, monitorNs: -1 } }),
    "TaskSpec: update-monitor cannot be negative",
  ],
  [
    aServiceSpec("w", { update: { ...defaultUpdate, maxFailureRatio: 1.1 } }),
    "update-maxfailureratio cannot be less than 0 or bigger than 1",
  ],
  [
    aServiceSpec("w", { rollback: { ...defaultUpdate, maxFailureRatio: 7 } }),
    "rollback-maxfailureratio cannot be",
  ],
  [
    aServiceSpec("w", { rollback: { ...defaultUpdate, failureAction: "rollback" } }),
    "can only be pause or continue",
  ],
] as const;
test.each(bad)("refuses %#: %j", (spec, message) => {
  expect(() => validateServiceSpec(spec)).toThrow(message);
  expect(() => validateServiceSpec(spec)).toThrow("rpc error: code = InvalidArgument desc = ");
});

test("networks: a name, and a gateway that lies in a subnet", () => {
  const { spec } = aNetwork("n");
  const network = { ...spec, name: "net" };
  expect(() => validateNetworkSpec(network)).not.toThrow();
  expect(() => validateNetworkSpec({ ...network, name: "a b" })).toThrow("DNS name component");
  expect(() => validateNetworkSpec({ ...network, gateway: "x", subnet: "10.0.0.0/8" })).toThrow(
    "invalid gateway x",
  );
  expect(() => validateNetworkSpec({ ...network, gateway: "10.0.0.1" })).toThrow(
    "has no matching subnet",
  );
});

test("nodes: labels have names", () => {
  const spec = { name: "", labels: {}, role: "worker", availability: "active" } as const;
  expect(() => validateNodeSpec(spec)).not.toThrow();
  expect(() => validateNodeSpec({ ...spec, labels: { "": "x" } })).toThrow("must have a name");
});

const badClusters = [
  [{ name: "other" }, 'swarm spec must be named "default"'],
  [{ nodeCertExpiryNs: 1 }, "minimum certificate expiry time is: 1h0m0s"],
  [{ heartbeatPeriodNs: -1 }, "heartbeat time period cannot be a negative duration"],
  [{ heartbeatTick: 0 }, "heartbeat tick must be at least 1"],
  [{ electionTick: 1 }, "election tick must be greater than the heartbeat tick"],
  [{ snapshotInterval: 0 }, "snapshot interval must be at least 1"],
] as const;
test.each(badClusters)("clusters: %j is refused", (over, message) => {
  expect(() => validateClusterSpec(defaultClusterSpec)).not.toThrow();
  expect(() => validateClusterSpec({ ...defaultClusterSpec, ...over })).toThrow(message);
});
