/** Goal: tasks are where the nodes allow: constraints, preferences, reservations, drain, pause, a dead node. How: nodes of three netns machines are labelled, drained, paused and killed under running services. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { until } from "./lib/command.ts";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { at, Services } from "./lib/services.ts";
import { Swarm } from "./lib/swarm.ts";

interface PlacedNode {
  readonly ID: string;
  readonly Status: { readonly Addr: string };
  readonly Description: {
    readonly Hostname: string;
    readonly Platform: { readonly OS: string; readonly Architecture: string };
  };
}

let swarm: Swarm;
let services: Services;
let before: Holdings;
let m1 = "";
let w1 = "";
let w2 = "";

beforeAll(async () => {
  before = await holdings();
  swarm = await Swarm.create("places", 1, 2);
  await swarm.loadBusybox();
  services = new Services(swarm);
  [m1 = "", w1 = "", w2 = ""] = swarm.machines;
}, 120_000);
afterAll(async () => {
  await swarm?.destroy();
  expect(leaked(before, await holdings(), swarm.marks)).toEqual([]);
}, 120_000);

beforeEach(async () => {
  for (const machine of swarm.machines) await availability(machine, "active");
  await label(m1, "zone=east");
  await label(w1, "zone=east");
  await label(w2, "zone=west");
  const left = (await services.docker("service", "ls", "-q")).split("\n").filter(Boolean);
  if (left.length > 0) await services.remove(...left);
});

async function label(machine: string, ...pairs: string[]): Promise<void> {
  const flags = pairs.flatMap((pair) =>
    pair.includes("=") ? ["--label-add", pair] : ["--label-rm", pair],
  );
  await services.docker("node", "update", ...flags, machine);
}

async function availability(machine: string, wanted: "active" | "pause" | "drain"): Promise<void> {
  await services.docker("node", "update", "--availability", wanted, machine);
}

test("constraints: every key, both operators, and the reason when none fits", async () => {
  const nodes = await swarm.api<readonly PlacedNode[]>(m1, "/nodes");
  const node = nodes.find((one) => one.Description.Hostname === w2);
  const { OS = "", Architecture = "" } = node?.Description.Platform ?? {};
  const cases: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    ["role", ["node.role==manager"], [m1, m1]],
    ["not-role", ["node.role!=manager"], [w1, w2]],
    ["host", [`node.hostname==${w1}`], [w1, w1]],
    ["host-any-case", [`NODE.HOSTNAME == ${w1.toUpperCase()}`], [w1, w1]],
    ["id", [`node.id==${node?.ID}`], [w2, w2]],
    ["label", ["node.labels.zone==west"], [w2, w2]],
    ["not-label", ["node.labels.zone!=west", "node.role==worker"], [w1, w1]],
    ["absent", ["node.labels.none!=x", `node.hostname!=${m1}`], [w1, w2]],
    ["ip", [`node.ip==${node?.Status.Addr}`], [w2, w2]],
    [
      "platform",
      [`node.platform.os==${OS}`, `node.platform.arch==${Architecture}`, "node.role==manager"],
      [m1, m1],
    ],
    ["other-platform", ["node.platform.os==plan9"], []],
    ["nowhere", ["node.labels.zone==mars"], []],
    ["unknown-key", ["node.weight==7"], []],
  ];
  for (const [name, constraints] of cases) {
    const flags = constraints.flatMap((one) => ["--constraint", one]);
    await services.create(name, ["--replicas", "2", ...flags]);
  }
  for (const [name, , hosts] of cases) {
    if (hosts.length > 0) await services.placedOn(name, hosts);
    if (hosts.length === 0) {
      const rows = await services.until(name, "a reason", (rows) =>
        rows.every((row) => row.Status.Err !== undefined) ? rows : null,
      );
      expect(rows.map((row) => [row.Status.State, row.Status.Err])).toEqual(
        Array.from({ length: 2 }, () => [
          "pending",
          "no suitable node (scheduling constraints not satisfied on 3 nodes)",
        ]),
      );
    }
  }
  // A label makes the waiting ones go.
  await label(w2, "zone=mars");
  await services.placedOn("nowhere", [w2, w2]);
});

test("a label that changes moves what may not stay, and its container ends", async () => {
  const flags = ["--constraint", "node.labels.zone==east", "--restart-delay", "200ms"];
  await services.create("east", ["--replicas", "2", ...flags]);
  await services.placedOn("east", [m1, w1]);
  await label(w1, "zone=west");
  // Its state and what is wanted of it are written one after the other.
  const rejected = await services.until("east", "a rejected task that is shut down", (rows) => {
    const ended = rows.filter((row) => row.Status.State === "rejected");
    return ended.find((row) => row.DesiredState === "shutdown") ?? null;
  });
  expect(rejected.Status.Err).toBe("assigned node no longer meets constraints");
  await services.placedOn("east", [m1, m1]);
  await until("the moved task's container to end", async () => {
    const there = (await services.containers(w1)).filter(
      (row) => row.Labels["com.docker.swarm.service.name"] === "east",
    );
    return there.every((row) => row.State !== "running") ? true : null;
  });
});

test("placement preferences give each zone the same, nodes without label as one more zone", async () => {
  await services.create("even", ["--replicas", "4", "--placement-pref", "spread=node.labels.zone"]);
  await services.placedOn("even", [m1, w1, w2, w2]);
  await label(m1, "zone");
  await services.create("odd", ["--replicas", "6", "--placement-pref", "spread=node.labels.zone"]);
  await services.placedOn("odd", [m1, m1, w1, w1, w2, w2]);
});

test("what does not fit waits with the reason, and goes when another service goes", async () => {
  const { MemTotal, NCPU } = await swarm.api<{ MemTotal: number; NCPU: number }>(m1, "/info");
  const much = String(Math.floor(MemTotal * 0.6));
  await services.create("fat", ["--replicas", "3", "--reserve-memory", much]);
  await services.settled("fat", 3);
  await services.create("late", ["--reserve-memory", much]);
  await services.create("greedy", ["--reserve-cpu", String(NCPU + 1)]);
  for (const name of ["late", "greedy"]) {
    const reason = await services.until(name, "a reason", ([row]) => row?.Status.Err ?? null);
    expect(reason).toBe("no suitable node (insufficient resources on 3 nodes)");
  }
  const shown = await services.docker("service", "ps", "--no-trunc", "late");
  expect(shown).toMatch(/late\.1 .*Running +Pending .*"no suitable node \(insufficient resources/);
  await services.remove("fat");
  await services.settled("late", 1);
});

test("drain moves tasks at once whatever their delay; the node comes back empty", async () => {
  await services.create("moves", ["--replicas", "6", "--restart-delay", "1h"]);
  await services.placedOn("moves", [m1, m1, w1, w1, w2, w2]);
  await services.create("every", ["--mode", "global", "--restart-delay", "1h"]);
  await services.placedOn("every", [m1, w1, w2]);
  const old = await services.rows("moves");
  const started = Date.now();
  await availability(w1, "drain");
  await services.placedOn("moves", [m1, m1, m1, w2, w2, w2]);
  await services.placedOn("every", [m1, w2]);
  expect(Date.now() - started).toBeLessThan(5_000);
  // Stop first: in each slot the old task had ended before the new one ran.
  const rows = await services.rows("moves");
  for (const slot of [1, 2, 3, 4, 5, 6]) {
    const [now, was] = rows.filter((row) => row.Slot === slot);
    if (now === undefined || was === undefined) continue;
    expect([was.DesiredState, was.Status.State]).toEqual(["shutdown", "shutdown"]);
    expect(at(now.Status.Timestamp)).toBeGreaterThanOrEqual(at(was.Status.Timestamp));
  }
  expect(rows.length).toBe(old.length + 2);
  expect(await services.docker("node", "ps", "--filter", "desired-state=running", "-q", w1)).toBe(
    "",
  );
  await availability(w1, "active");
  await services.placedOn("every", [m1, w1, w2]);
  expect(await services.runsOn("moves")).toEqual([m1, m1, m1, w2, w2, w2]);
  // What comes next goes to the empty node.
  await services.docker("service", "scale", "-d", "moves=8");
  await services.placedOn("moves", [m1, m1, m1, w1, w1, w2, w2, w2]);
});

test("pause keeps what runs and gives nothing new: not to a replicated, not to a global service", async () => {
  await services.create("stays", ["--replicas", "3"]);
  await services.create(
    "each",
    ["--mode", "global", "--restart-delay", "100ms"],
    "sh",
    "-c",
    "sleep 1d & wait",
  );
  await services.placedOn("stays", [m1, w1, w2]);
  await services.placedOn("each", [m1, w1, w2]);
  await availability(w1, "pause");
  await services.docker("service", "scale", "-d", "stays=6");
  await services.settled("stays", 6);
  const spread = await services.runsOn("stays");
  expect(spread.filter((host) => host === w1)).toHaveLength(1);
  // Its global task dies there: it is told to stop, and nobody takes its place.
  const hosts = await services.hosts();
  const dies = (await services.rows("each")).find((row) => hosts.get(row.NodeID ?? "") === w1);
  const pid = dies?.Status.ContainerStatus?.PID ?? 0;
  expect(pid).toBeGreaterThan(0);
  await swarm.machine("ssh", w1, "kill", "-9", String(pid));
  await services.until("each", "the dead task to be given up", (rows) => {
    const row = rows.find((one) => one.ID === dies?.ID);
    return row?.Status.State === "failed" && row.DesiredState === "shutdown" ? row : null;
  });
  await new Promise((next) => setTimeout(next, 500));
  expect(await services.runsOn("each")).toEqual([m1, w2]);
  // An update passes the paused node by.
  await services.update("each", "--env-add", "A=1", "--update-monitor", "100ms");
  await services.updated("each", "completed");
  await availability(w1, "active");
  await services.placedOn("each", [m1, w1, w2]);
});

test("a global service follows the label of nodes", async () => {
  await services.create("gpu", ["--mode", "global", "--constraint", "node.labels.gpu==yes"]);
  expect(
    await services.docker("service", "ls", "--format", "{{.Replicas}}", "--filter", "name=gpu"),
  ).toBe("0/0");
  await label(w1, "gpu=yes");
  await services.placedOn("gpu", [w1]);
  await label(w2, "gpu=yes");
  await services.placedOn("gpu", [w1, w2]);
  await label(w1, "gpu");
  await services.placedOn("gpu", [w2]);
  // No update is told of: the service did not change.
  expect((await services.inspect("gpu")).UpdateStatus).toBeUndefined();
});

test("a node that dies: its tasks go elsewhere, its global task is gone; both are right when it is back", async () => {
  await services.create("live", ["--replicas", "3", "--restart-delay", "1h"]);
  await services.create("global", ["--mode", "global"]);
  await services.placedOn("live", [m1, w1, w2]);
  await services.placedOn("global", [m1, w1, w2]);
  await swarm.machine("kill", w2);
  await until("the node to be down", async () => {
    const node = (await swarm.nodes(m1)).find((one) => one.Description.Hostname === w2);
    return node?.Status.State === "down" ? true : null;
  });
  // The node is down before its tasks are told to be: they count as running for a moment more.
  const hosts = await until("three to run on the nodes that live", async () => {
    const on = await services.runsOn("live");
    return on.length === 3 && !on.includes(w2) ? on : null;
  });
  await until("docker service ls to say 2/2", async () => {
    const shown = await services.docker(
      "service",
      "ls",
      "--format",
      "{{.Replicas}}",
      "--filter",
      "name=global",
    );
    return shown === "2/2" ? true : null;
  });
  await swarm.machine("start", w2);
  await services.placedOn("global", [m1, w1, w2], 30_000);
  expect(await services.runsOn("live")).toEqual(hosts);
  await services.remove("live", "global");
  await services.containersGone("live");
  await services.containersGone("global");
});
