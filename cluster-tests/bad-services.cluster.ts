/** Goal: a service that is asked for wrongly is refused in docker's words and changes nothing. How: a table of raw requests against a manager. */
import { afterAll, beforeAll, test } from "vitest";
import { create, invalid, refuse, service } from "./lib/bad-requests.ts";
import { LoneNode } from "./lib/lone-node.ts";

let manager: LoneNode;

beforeAll(async () => {
  manager = await LoneNode.create("bads");
  await manager.start();
  await manager.init();
  await manager.loadBusybox();
}, 60_000);
afterAll(async () => {
  await manager?.destroy();
}, 60_000);

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
    create("no body", undefined, 400, `${invalid}TaskSpec: missing runtime`),
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
    create(
      "two modes",
      service({ Mode: { Replicated: { Replicas: 1 }, Global: {} } }),
      400,
      "must specify only one service mode",
    ),
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
    create(
      "constraint key",
      placed("=role==x"),
      400,
      `${invalid}key '=role' is invalid in constraint`,
    ),
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
    create(
      "update action",
      service({ UpdateConfig: { FailureAction: "pray" } }),
      400,
      "unrecognized update failure action pray",
    ),
    create(
      "update order",
      service({ UpdateConfig: { Order: "first" } }),
      400,
      "unrecognized update order first",
    ),
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
      'invalid MountType: "cloud"',
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
