/** Goal: features of services that meet each other do what swarm does. How: updates, placement, restarts and networks are combined on three netns machines. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "./lib/command.ts";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { addressesOf, isRunning, Services } from "./lib/services.ts";
import { Swarm } from "./lib/swarm.ts";

let swarm: Swarm;
let services: Services;
let before: Holdings;
let m1 = "";
let w1 = "";
let w2 = "";

beforeAll(async () => {
  before = await holdings();
  swarm = await Swarm.create("edges", 1, 2);
  await swarm.loadBusybox();
  services = new Services(swarm);
  [m1 = "", w1 = "", w2 = ""] = swarm.machines;
  await services.docker("network", "create", "-d", "overlay", "one");
  await services.docker("network", "create", "-d", "overlay", "two");
}, 120_000);
afterAll(async () => {
  await swarm?.destroy();
  expect(leaked(before, await holdings(), swarm.marks)).toEqual([]);
}, 120_000);

const quick = ["--update-monitor", "100ms", "--restart-delay", "200ms"];

describe.concurrent("an update", () => {
  test("frees a service that could not be placed", async () => {
    await services.create("stuck", [
      ...quick,
      "--replicas",
      "2",
      "--constraint",
      "node.labels.none==x",
    ]);
    await services.until("stuck", "a reason", (rows) =>
      rows.length === 2 && rows.every((row) => row.Status.Err !== undefined) ? true : null,
    );
    await services.update("stuck", "--constraint-rm", "node.labels.none==x");
    await services.settled("stuck", 2);
    expect(await services.updated("stuck", "completed")).toBe("update completed");
  });

  test("runs a task anew whose policy would not", async () => {
    // A task that ends within the monitoring period counts as failed, also with code 0.
    const flags = ["--restart-condition", "none", "--update-failure-action", "continue"];
    await services.create("job", [...quick, ...flags], "true");
    const done = (count: number) =>
      services.until("job", `${count} complete`, (rows) =>
        rows.filter((row) => row.Status.State === "complete").length === count ? rows : null,
      );
    await done(1);
    await services.docker("service", "scale", "-d", "job=2");
    expect((await done(2)).map((row) => row.Slot)).toEqual([1, 2]);
    await services.update("job", "--env-add", "V=2");
    expect((await done(4)).map((row) => row.Slot)).toEqual([1, 1, 2, 2]);
  });

  test("goes through with one task a node, and where nothing fits beside the old task", async () => {
    const { MemTotal } = await swarm.api<{ MemTotal: number }>(m1, "/info");
    const memory = ["--reserve-memory", String(Math.floor(MemTotal * 0.6))];
    await services.create("full", [...quick, "--replicas", "3", ...memory]);
    await services.create("spread", [...quick, "--replicas", "3", "--replicas-max-per-node", "1"]);
    for (const name of ["full", "spread"]) {
      await services.settled(name, 3);
      await services.update(name, "--env-add", "V=2");
    }
    for (const name of ["full", "spread"]) {
      expect(await services.updated(name, "completed")).toBe("update completed");
      await services.settled(name, 3);
      expect(await services.runsOn(name)).toEqual([m1, w1, w2].sort());
    }
    await services.remove("full");
  });

  test("that is paused: scaling up makes tasks of the new spec, down takes any", async () => {
    await services.create("paused", [...quick, "--replicas", "2"]);
    await services.settled("paused", 2);
    await services.update("paused", "--image", "no-such-image:5");
    await services.updated("paused", "paused");
    await services.docker("service", "scale", "-d", "paused=3");
    const third = await services.until(
      "paused",
      "a third slot",
      (rows) => rows.find((row) => row.Slot === 3 && row.Status.State === "rejected") ?? null,
    );
    expect(third.Spec.ContainerSpec.Image).toContain("no-such-image:5");
    await services.remove("paused");
    await services.containersGone("paused");
  });

  test("of its networks moves the tasks over", async () => {
    await services.create("nets", [...quick, "--network", "one"]);
    const [old] = await services.settled("nets", 1);
    await services.update("nets", "--network-add", "two", "--network-rm", "one");
    await services.updated("nets", "completed");
    const [now] = await services.settled("nets", 1);
    expect(addressesOf(old ?? ({} as never))).toHaveLength(1);
    expect(addressesOf(now ?? ({} as never))).toHaveLength(1);
    expect(addressesOf(now ?? ({} as never))).not.toEqual(addressesOf(old ?? ({} as never)));
    await services.update("nets", "--network-add", "one");
    await services.updated("nets", "completed");
    const [both] = await services.settled("nets", 1);
    expect(addressesOf(both ?? ({} as never))).toHaveLength(2);
    await services.remove("nets");
  });

  test("of a service that is removed in the middle ends with it", async () => {
    await services.create("cut", [...quick, "--replicas", "4", "--update-delay", "1h"]);
    await services.settled("cut", 4);
    await services.update("cut", "--env-add", "V=2");
    await services.updated("cut", "updating");
    await services.remove("cut");
    await services.containersGone("cut");
    expect(await services.docker("service", "ls", "-q", "--filter", "name=cut")).toBe("");
  });

  test("start-first of a global service: both run on each node for a moment, one stays", async () => {
    await services.create("gfirst", [
      ...quick,
      "--mode",
      "global",
      "--update-order",
      "start-first",
    ]);
    await services.settled("gfirst", 3);
    const looks = services.watch("gfirst");
    await services.update("gfirst", "--env-add", "V=2");
    await services.updated("gfirst", "completed");
    for (const look of await looks())
      expect(look.filter(isRunning).length).toBeGreaterThanOrEqual(3);
    const now = await services.settled("gfirst", 3);
    expect(new Set(now.map((row) => row.NodeID)).size).toBe(3);
  });

  test("through a failing start-first, rolled back: the old tasks were never stopped", async () => {
    const flags = ["--update-order", "start-first", "--update-failure-action", "rollback"];
    await services.create("safe", [...quick, ...flags, "--replicas", "2"]);
    const old = (await services.settled("safe", 2)).map((row) => row.ID).sort();
    await services.update("safe", "--image", "no-such-image:6");
    await services.updated("safe", "rollback_completed");
    const now = (await services.settled("safe", 2)).map((row) => row.ID).sort();
    expect(now).toEqual(old);
    await services.until("safe", "nothing of the failed update to be wanted", (rows) =>
      rows.every((row) => old.includes(row.ID) || row.DesiredState === "shutdown") ? true : null,
    );
  });
});

describe.concurrent("restarts", () => {
  test("attempts are counted for each slot", async () => {
    await services.create(
      "slots",
      ["--replicas", "2", "--restart-delay", "100ms", "--restart-max-attempts", "1"],
      "false",
    );
    await services.until("slots", "two failures in each", (rows) =>
      rows.filter((row) => row.Status.State === "failed").length === 4 ? true : null,
    );
    await new Promise((next) => setTimeout(next, 600));
    expect((await services.rows("slots")).map((row) => row.Slot)).toEqual([1, 1, 2, 2]);
    expect(
      await services.docker("service", "ls", "--filter", "name=slots", "--format", "{{.Replicas}}"),
    ).toBe("0/2");
  });

  test("a command that is not there: failed, with the name in the reason", async () => {
    await services.create("absent", ["--restart-condition", "none"], "/no/such/command");
    const reason = await services.until("absent", "its end", ([row]) =>
      row?.Status.State === "failed" || row?.Status.State === "rejected"
        ? `${row.Status.State} ${row.Status.Err}`
        : null,
    );
    expect(reason).toMatch(/^failed .*\/no\/such\/command.*(no such file|not found)/);
  });

  test("a process that a signal ended is told by 128 and its number", async () => {
    await services.create(
      "signal",
      ["--restart-condition", "none"],
      "sh",
      "-c",
      "sh -c 'kill -SEGV $$'; exit $?",
    );
    const reason = await services.until("signal", "its end", ([row]) =>
      row?.Status.State === "failed" ? (row.Status.Err ?? "") : null,
    );
    expect(reason).toBe("task: non-zero exit (139)");
  });
});

test("while tasks are replaced the service's name always answers, never with one that was told to stop", async () => {
  // The old tasks take their time to stop: they must be gone from the name as soon as they are told to.
  const slow = "trap 'sleep 1; exit' TERM; while :; do sleep 0.05; done";
  const flags = ["--stop-grace-period", "10s", "--replicas", "3", "--network", "one", ...quick];
  await services.create("named", flags, "sh", "-c", slow);
  const old = await services.settled("named", 3);
  const lookUp =
    "nslookup -type=a named 2>/dev/null | grep '^Address: [0-9.]*$' | cut -d' ' -f2 | sort";
  await services.create(
    "asker",
    ["--network", "one", "--constraint", `node.hostname==${w2}`],
    "sh",
    "-c",
    `while :; do echo "at" $(${lookUp}); sleep 0.05; done`,
  );
  await services.printed("asker", /^at \S+ \S+ \S+$/m);
  const looks = services.watch("named");
  await services.update("named", "--env-add", "V=2");
  await services.updated("named", "completed");
  const now = await services.settled("named", 3);
  const told = (await looks()).flatMap((look) =>
    look.filter((row) => row.DesiredState === "shutdown" && isRunning(row)),
  );
  // The old tasks were seen stopping, for a second each.
  expect(new Set(told.map((row) => row.ID)).size).toBe(3);
  await services.printed(
    "asker",
    new RegExp(`^at ${now.flatMap(addressesOf).sort().join(" ")}$`, "m"),
  );
  const answers = (await services.docker("service", "logs", "--raw", "asker")).split("\n");
  expect(answers.filter((answer) => answer === "at")).toEqual([]);
  const addresses = new Set([...old, ...now].flatMap(addressesOf));
  for (const answer of answers) {
    const seen = answer.split(" ").slice(1);
    expect(seen.length).toBeGreaterThanOrEqual(2);
    for (const address of seen) expect(addresses).toContain(address);
  }
  // With a task stopping for a second in each of three slots, two answer for most of three seconds.
  const two = answers.filter((answer) => answer.split(" ").length === 3).length;
  expect(two).toBeGreaterThan(20);
  await services.remove("named", "asker");
});

test("a name can be used again at once: of a service, and of a network when its tasks have gone", async () => {
  for (let round = 1; round <= 3; round += 1) {
    await services.docker("network", "create", "-d", "overlay", "again");
    await services.create("again", ["--replicas", "2", "--network", "again"]);
    await services.settled("again", 2);
    await services.remove("again");
    await services.create("again", ["--replicas", "1"]);
    await services.settled("again", 1);
    await services.remove("again");
    await until("the network to be free", async () => {
      const { code } = await swarm.dockerRun(m1, ["network", "rm", "again"]);
      return code === 0 ? true : null;
    });
  }
  await services.containersGone("again");
});

test("drain in the middle of an update: the update ends on the nodes that are left", async () => {
  await services.create("both", [...quick, "--replicas", "6", "--update-delay", "300ms"]);
  await services.settled("both", 6);
  await services.update("both", "--env-add", "V=2");
  await services.updated("both", "updating");
  await services.docker("node", "update", "--availability", "drain", w1);
  expect(await services.updated("both", "completed")).toBe("update completed");
  await services.settled("both", 6);
  expect(await services.runsOn("both")).not.toContain(w1);
  await services.docker("node", "update", "--availability", "active", w1);
  await services.remove("both");
});

test("a node that dies in the middle of an update does not stop it", async () => {
  await services.create("dies", [...quick, "--replicas", "4", "--update-delay", "1500ms"]);
  await services.settled("dies", 4);
  await services.update("dies", "--env-add", "V=2");
  await services.updated("dies", "updating");
  await swarm.machine("kill", w2);
  expect(await services.updated("dies", "completed")).toBe("update completed");
  const hosts = await until("four tasks on the nodes that live", async () => {
    const hosts = await services.runsOn("dies");
    return hosts.length === 4 && !hosts.includes(w2) ? hosts : null;
  });
  expect(new Set(hosts)).toEqual(new Set([m1, w1]));
  await swarm.machine("start", w2);
  await until("the node to be ready", async () => {
    const node = (await swarm.nodes(m1)).find((one) => one.Description.Hostname === w2);
    return node?.Status.State === "ready" ? true : null;
  });
  await services.remove("dies");
  await services.containersGone("dies");
});
