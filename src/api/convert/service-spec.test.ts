/** Goal: what docker's command sends is kept whole or refused by name. How: the recorded bodies of docker 28.2.2, and one spec with every option that exists. */
import { expect, test } from "vitest";
import { ShoalError } from "../../lib/errors.ts";
import { hasEngineApi, needsEngineApi, recording } from "../testing/shared.ts";
import { readServiceSpec, writeServiceSpec } from "./service-spec.ts";

type Json = Record<string, unknown>;
const everything = {
  Name: "web",
  Labels: { a: "b" },
  TaskTemplate: {
    ContainerSpec: {
      Image: "busybox:1",
      Labels: { c: "d" },
      Command: ["sh"],
      Args: ["-c", "sleep 1"],
      Hostname: "h",
      Env: ["A=b"],
      Dir: "/tmp",
      User: "1:2",
      Groups: ["3"],
      Privileges: { NoNewPrivileges: true },
      StopSignal: "SIGINT",
      ReadOnly: true,
      Mounts: [
        {
          Type: "bind",
          Source: "/srv",
          Target: "/srv",
          ReadOnly: true,
          BindOptions: { Propagation: "rslave" },
        },
        { Type: "tmpfs", Target: "/tmp", TmpfsOptions: { SizeBytes: 1024, Mode: 511 } },
      ],
      Hosts: ["1.2.3.4 x"],
      Sysctls: { "net.core.somaxconn": "1" },
      CapabilityAdd: ["CAP_NET_ADMIN"],
      CapabilityDrop: ["CAP_CHOWN"],
      Ulimits: [{ Name: "nofile", Hard: 20, Soft: 10 }],
      OomScoreAdj: 5,
      Init: false,
      StopGracePeriod: 0,
      DNSConfig: { Nameservers: ["8.8.8.8"], Search: ["x"], Options: ["ndots:1"] },
      Isolation: "default",
    },
    Resources: {
      Limits: { NanoCPUs: 5e8, MemoryBytes: 52428800, Pids: 10 },
      Reservations: { NanoCPUs: 1e8, MemoryBytes: 4194304 },
    },
    RestartPolicy: { Condition: "on-failure", Delay: 0, MaxAttempts: 0, Window: 5 },
    Placement: {
      Constraints: ["node.role==manager"],
      Preferences: [{ Spread: { SpreadDescriptor: "node.labels.zone" } }],
      MaxReplicas: 2,
      Platforms: [{ Architecture: "amd64", OS: "linux" }, { OS: "linux" }],
    },
    Networks: [{ Target: "n1", Aliases: ["www"] }, { Target: "n2" }],
    LogDriver: { Name: "json-file", Options: { "max-size": "1m" } },
    ForceUpdate: 3,
    Runtime: "container",
  },
  Mode: { Replicated: { Replicas: 0 } },
  UpdateConfig: {
    Parallelism: 0,
    Delay: 5,
    FailureAction: "rollback",
    Monitor: 7,
    MaxFailureRatio: 0.5,
    Order: "start-first",
  },
  RollbackConfig: {
    Parallelism: 2,
    FailureAction: "continue",
    Monitor: 8,
    MaxFailureRatio: 0,
    Order: "stop-first",
  },
  EndpointSpec: { Mode: "dnsrr" },
};

test("a spec with every option comes out as it went in", () => {
  expect(writeServiceSpec(readServiceSpec(everything, "service create"), false)).toEqual(
    everything,
  );
});

test("names of fields are read in any case, as Go reads them", () => {
  const spec = readServiceSpec(
    { name: "x", tasktemplate: { containerspec: { IMAGE: "a" } } },
    "service create",
  );
  expect(spec).toMatchObject({ name: "x", task: { container: { image: "a" } } });
});

test("defaults fill what was left open, and only when asked", () => {
  const spec = readServiceSpec(
    { TaskTemplate: { ContainerSpec: { Image: "a" } } },
    "service create",
  );
  const config = {
    Parallelism: 1,
    FailureAction: "pause",
    Monitor: 5_000_000_000,
    MaxFailureRatio: 0,
    Order: "stop-first",
  };
  expect(writeServiceSpec(spec, true)).toEqual({
    Name: "",
    Labels: {},
    TaskTemplate: {
      ContainerSpec: {
        Image: "a",
        StopGracePeriod: 10_000_000_000,
        DNSConfig: {},
        Isolation: "default",
      },
      RestartPolicy: { Condition: "any", Delay: 5_000_000_000, MaxAttempts: 0, Window: 0 },
      ForceUpdate: 0,
      Runtime: "container",
    },
    Mode: { Replicated: { Replicas: 1 } },
    UpdateConfig: config,
    RollbackConfig: config,
    EndpointSpec: { Mode: "vip" },
  });
  expect(writeServiceSpec(spec, false)).not.toHaveProperty("UpdateConfig");
});

const container = (fields: Json) => ({
  TaskTemplate: { ContainerSpec: { Image: "a", ...fields } },
});
const task = (fields: Json) => ({ TaskTemplate: { ContainerSpec: { Image: "a" }, ...fields } });
const whole = (fields: Json) => ({ ...container({}), ...fields });
const refusals: readonly (readonly [string, Json])[] = [
  ["health checks", container({ Healthcheck: { Test: ["CMD", "true"] } })],
  ["secrets", container({ Secrets: [{ SecretID: "s" }] })],
  ["configs", container({ Configs: [{ ConfigID: "c" }] })],
  ["terminals (tty)", container({ TTY: true })],
  ["open standard inputs", container({ OpenStdin: true })],
  ["an init process", container({ Init: true })],
  ["isolation hyperv", container({ Isolation: "hyperv" })],
  ["credential specs", container({ Privileges: { CredentialSpec: { File: "x" } } })],
  ["SELinux contexts", container({ Privileges: { SELinuxContext: { Disable: true } } })],
  ["seccomp profiles", container({ Privileges: { Seccomp: { Mode: "unconfined" } } })],
  ["AppArmor modes", container({ Privileges: { AppArmor: { Mode: "disabled" } } })],
  ["mounts of type volume", container({ Mounts: [{ Type: "volume", Source: "v", Target: "/v" }] })],
  ["mounts of type volume", container({ Mounts: [{ Source: "v", Target: "/v" }] })],
  ["mounts of type cluster", container({ Mounts: [{ Type: "cluster", Target: "/v" }] })],
  [
    "non-recursive binds",
    container({ Mounts: [{ Type: "bind", BindOptions: { NonRecursive: true } }] }),
  ],
  ["templates such as {{.Node.ID}}", container({ Hostname: "{{.Node.ID}}" })],
  ["templates such as N={{.Node.ID}}", container({ Env: ["N={{.Node.ID}}"] })],
  ["generic resources", task({ Resources: { Reservations: { GenericResources: [{}, 1] } } })],
  ["log driver syslog", task({ LogDriver: { Name: "syslog" } })],
  ["runtime plugin", task({ Runtime: "plugin" })],
  ["plugin tasks", task({ PluginSpec: { Name: "p" } })],
  ["driver options", task({ Networks: [{ Target: "n", DriverOpts: { a: "b" } }] })],
  ["published ports", whole({ EndpointSpec: { Ports: [{ TargetPort: 80 }] } })],
  ["job modes", whole({ Mode: { ReplicatedJob: {} } })],
  ["job modes", whole({ Mode: { GlobalJob: {} } })],
];
test.each(refusals)("%s: refused by name", (what, body) => {
  const error = errorOf(() => readServiceSpec(body, "service create"));
  expect(error.code).toBe("not-implemented");
  expect(error.message).toContain(`service create: ${what}`);
});

const wrong: readonly (readonly [string, Json])[] = [
  ['unknown field "Replicaz" in Mode.Replicated', whole({ Mode: { Replicated: { Replicaz: 1 } } })],
  ['unknown field "Imagee" in TaskTemplate.ContainerSpec', container({ Imagee: "x" })],
  ["of type []string", container({ Args: "x" })],
  ["of type string", container({ Args: [1] })],
  ["of type map[string]string", container({ Labels: ["x"] })],
  ["cannot unmarshal number 1.5", whole({ Mode: { Replicated: { Replicas: 1.5 } } })],
  ['invalid RestartCondition: "often"', task({ RestartPolicy: { Condition: "often" } })],
  ["unrecognized update failure action x", whole({ UpdateConfig: { FailureAction: "x" } })],
  ["unrecognized rollback order x", whole({ RollbackConfig: { Order: "x" } })],
  ["must specify only one service mode", whole({ Mode: { Global: {}, Replicated: {} } })],
  ['invalid resolution mode: "x"', whole({ EndpointSpec: { Mode: "x" } })],
  ['invalid MountType: "x"', container({ Mounts: [{ Type: "x" }] })],
  ["missing runtime", { TaskTemplate: {} }],
];
test.each(wrong)("%s: a 400", (message, body) => {
  const error = errorOf(() => readServiceSpec(body, "service update"));
  expect(error.code).toBe("invalid");
  expect(error.message).toContain(message);
});

test("values that mean unset are accepted wherever an option does not exist yet", () => {
  const body = whole({
    EndpointSpec: { Mode: "vip", Ports: null },
    Unknown: null,
    Mode: { Replicated: { Replicas: 1 }, ReplicatedJob: null },
  });
  Object.assign(body.TaskTemplate.ContainerSpec, {
    Healthcheck: null,
    Secrets: [],
    TTY: false,
    Init: false,
    Privileges: { CredentialSpec: null, SELinuxContext: null, NoNewPrivileges: false },
  });
  expect(readServiceSpec(body, "service create")).toMatchObject({
    endpointMode: "vip",
    task: { container: { init: false, noNewPrivileges: false } },
  });
});

const bodies = hasEngineApi
  ? [
      "svc-create",
      "svc-create2",
      "svc-update",
      "svc-scale",
      "svc-rollback",
      "stack-deploy",
      "stack-deploy2",
    ].flatMap((name) =>
      recording(name)
        .filter(({ m, u }) => m === "POST" && u.includes("/services/"))
        .map(({ u, b }) => [name, u.replace(/\?.*/, ""), b] as const),
    )
  : [["none", "none", "{}"] as const];

test.skipIf(!hasEngineApi).each(bodies)(
  `recorded %s %s: refused as it is, kept whole without what does not exist yet${needsEngineApi}`,
  (_name, _url, text) => {
    const body = JSON.parse(text) as Json;
    expect(errorOf(() => readServiceSpec(body, "service create")).code).toBe("not-implemented");
    const rest = withoutMissing(body);
    const spec = readServiceSpec(rest, "service create");
    const written = writeServiceSpec(spec, false);
    expect(readServiceSpec(written, "service update")).toEqual(spec);
    expect(written).toMatchObject(rest);
  },
);

/** A recorded spec without volumes, health checks, secrets, configs and ports, and without unset words. */
function withoutMissing(body: Json): Json {
  const missing = new Set(["Mounts", "Healthcheck", "Secrets", "Configs", "Ports", "Privileges"]);
  return JSON.parse(JSON.stringify(body), function (this: Json, key: string, value: unknown) {
    return missing.has(key) || value === "" || (key === "EndpointSpec" && isBare(value))
      ? undefined
      : value;
  }) as Json;
}

function isBare(value: unknown): boolean {
  return value !== null && typeof value === "object" && Object.keys(value).length === 0;
}

function errorOf(act: () => unknown): ShoalError {
  try {
    act();
  } catch (error) {
    if (error instanceof ShoalError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}
