/** Goal: docker events tells of the swarm's changes as moby does, and of nothing that docker does not have. How: a table of row changes. */
import { expect, test } from "vitest";
import {
  aNetwork,
  aNode,
  aService,
  aServiceSpec,
  aTask,
  instant,
} from "../../model/testing/rows.ts";
import type { Change } from "../../store/types.ts";
import { eventOf } from "./swarm-events.ts";

const service = aService("s1", { spec: aServiceSpec("web") });
const scaled = {
  ...service,
  spec: aServiceSpec("web", { mode: { kind: "replicated", replicas: 3 } }),
};
const updating = {
  ...service,
  updateStatus: {
    state: "updating" as const,
    startedAt: instant(0),
    completedAt: null,
    message: "",
  },
};
const completed = {
  ...updating,
  updateStatus: { ...updating.updateStatus, state: "completed" as const },
};
const network = aNetwork("n1");
const rewritten = { ...network, meta: { ...network.meta, version: 9 }, cursor: "10.0.1.77" };
const node = aNode("m1");
const drained = { ...node, spec: { ...node.spec, availability: "drain" as const } };
const promoted = { ...node, spec: { ...node.spec, role: "manager" as const } };
const down = { ...node, state: "down" as const };

const told: readonly [string, Change, string, string, Record<string, string>][] = [
  ["a new service", { table: "services", before: null, after: service }, "service", "create", {}],
  ["a removed one", { table: "services", before: service, after: null }, "service", "remove", {}],
  [
    "a scaled one",
    { table: "services", before: service, after: scaled },
    "service",
    "update",
    { "replicas.old": "1", "replicas.new": "3" },
  ],
  [
    "an update that begins",
    { table: "services", before: service, after: updating },
    "service",
    "update",
    { "updatestate.new": "updating" },
  ],
  [
    "an update that ends",
    { table: "services", before: updating, after: completed },
    "service",
    "update",
    { "updatestate.old": "updating", "updatestate.new": "completed" },
  ],
  [
    "a new network",
    { table: "networks", before: null, after: network },
    "network",
    "create",
    { type: "overlay" },
  ],
  [
    "a drained node",
    { table: "nodes", before: node, after: drained },
    "node",
    "update",
    { "availability.old": "active", "availability.new": "drain" },
  ],
  [
    "a promoted node",
    { table: "nodes", before: node, after: promoted },
    "node",
    "update",
    { "role.old": "worker", "role.new": "manager" },
  ],
  [
    "a lost node",
    { table: "nodes", before: node, after: down },
    "node",
    "update",
    { "state.old": node.state, "state.new": "down" },
  ],
];
test.each(told)("%s", (_what, change, type, action, attributes) => {
  expect(eventOf(change)).toMatchObject({
    type,
    action,
    actorId: (change.after ?? change.before)?.id,
    scope: "swarm",
  });
  const { name: _name, ...rest } = eventOf(change)?.attributes ?? {};
  expect(rest).toEqual(attributes);
});

const untold: readonly [string, Change][] = [
  ["a network whose cursor moved", { table: "networks", before: network, after: rewritten }],
  ["a task", { table: "tasks", before: null, after: aTask("t1") }],
];
test.each(untold)("%s is no event", (_what, change) => {
  expect(eventOf(change)).toBeNull();
});
