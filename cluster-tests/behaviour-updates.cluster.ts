/** Goal: rolling updates and rollbacks go as swarm's: order, parallelism, delay, monitor, failure actions, texts. How: several services are updated side by side on three netns machines while their tasks are watched. */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { at, isRunning, type Look, Services, type TaskRow } from "./lib/services.ts";
import { Swarm } from "./lib/swarm.ts";

let swarm: Swarm;
let services: Services;
let before: Holdings;

beforeAll(async () => {
  before = await holdings();
  swarm = await Swarm.create("rolls", 1, 2);
  await swarm.loadBusybox();
  services = new Services(swarm);
}, 120_000);
afterAll(async () => {
  await swarm?.destroy();
  expect(leaked(before, await holdings(), swarm.marks)).toEqual([]);
}, 120_000);

const replaced = ["--restart-delay", "200ms"];

function running(look: Look): number {
  return look.filter(isRunning).length;
}

/** The task that runs and the one before it, by slot. */
function pairs(rows: Look): readonly (readonly [Look[number], Look[number]])[] {
  const slots = [...new Set(rows.map((row) => row.Slot))];
  return slots.flatMap((slot) => {
    const [now, was] = rows.filter((row) => row.Slot === slot);
    return now === undefined || was === undefined ? [] : [[now, was] as const];
  });
}

describe.concurrent("an update", () => {
  test("stop-first, one at a time: never more than wanted, one less at most, the delay between slots", async () => {
    const flags = ["--update-delay", "700ms", "--update-monitor", "100ms", "--replicas", "4"];
    await services.create("first", flags);
    await services.settled("first", 4);
    const looks = services.watch("first");
    await services.update("first", "--env-add", "V=2");
    expect(await services.updated("first", "completed")).toBe("update completed");
    const seen = await looks();
    for (const look of seen) {
      expect(running(look)).toBeLessThanOrEqual(4);
      expect(running(look)).toBeGreaterThanOrEqual(3);
    }
    const turns = pairs(await services.rows("first"));
    expect(turns).toHaveLength(4);
    for (const [now, was] of turns) {
      expect([was.DesiredState, was.Status.State]).toEqual(["shutdown", "shutdown"]);
      expect(at(now.Status.Timestamp)).toBeGreaterThanOrEqual(at(was.Status.Timestamp));
    }
    const started = turns.map(([now]) => at(now.CreatedAt)).sort((a, b) => a - b);
    for (const [index, time] of started.slice(1).entries()) {
      expect(time - (started[index] ?? 0)).toBeGreaterThanOrEqual(690);
    }
  });

  test("stop-first waits for the old task's whole stop, however slow", async () => {
    const command = ["sh", "-c", "trap 'sleep 1.5; exit' TERM; while :; do sleep 0.05; done"];
    await services.create("slow-stop", ["--stop-grace-period", "10s"], ...command);
    await services.settled("slow-stop", 1);
    const looks = services.watch("slow-stop");
    await services.update("slow-stop", "--env-add", "V=2", "--update-monitor", "100ms");
    await services.updated("slow-stop", "completed");
    for (const look of await looks()) expect(running(look)).toBeLessThanOrEqual(1);
    const [[now, was] = []] = pairs(await services.rows("slow-stop"));
    expect(at(was?.Status.Timestamp ?? "") - at(now?.CreatedAt ?? "")).toBeGreaterThan(1_400);
    expect(at(now?.Status.Timestamp ?? "")).toBeGreaterThanOrEqual(at(was?.Status.Timestamp ?? ""));
  });

  test("start-first, two at a time: never less than wanted, two more at most", async () => {
    const flags = ["--update-order", "start-first", "--update-parallelism", "2"];
    await services.create("second", [...flags, "--update-monitor", "100ms", "--replicas", "4"]);
    await services.settled("second", 4);
    const looks = services.watch("second");
    await services.update("second", "--env-add", "V=2");
    expect(await services.updated("second", "completed")).toBe("update completed");
    for (const look of await looks()) {
      expect(running(look)).toBeGreaterThanOrEqual(4);
      const made = look.filter((row) => row.DesiredState !== "shutdown").length;
      expect(made).toBeLessThanOrEqual(6);
    }
    for (const [now, was] of pairs(await services.rows("second"))) {
      expect(at(was.Status.Timestamp)).toBeGreaterThanOrEqual(at(now.CreatedAt));
    }
  });

  test("a bad image: paused after the first slot, the others run on; a good one goes on from there", async () => {
    await services.create("bad", ["--replicas", "3", ...replaced, "--update-monitor", "500ms"]);
    const good = await services.settled("bad", 3);
    await services.update("bad", "--image", "no-such-image:1");
    const message = await services.updated("bad", "paused");
    const failed = /^update paused due to failure or early termination of task (\w{25})$/.exec(
      message,
    );
    const rows = await services.rows("bad");
    const culprit = rows.find((row) => row.ID === failed?.[1]);
    expect([culprit?.Status.State, culprit?.Status.Err]).toEqual([
      "rejected",
      "No such image: no-such-image:1",
    ]);
    const serves = (row: TaskRow): boolean => row.DesiredState === "running" && isRunning(row);
    const alive = rows.filter(serves).map((row) => row.ID);
    expect(alive).toHaveLength(2);
    for (const id of alive) expect(good.some((row) => row.ID === id)).toBe(true);
    // Paused: the restart policy works on, the update does not.
    await new Promise((next) => setTimeout(next, 800));
    expect((await services.rows("bad")).filter(serves).map((row) => row.ID)).toEqual(alive);
    await services.update("bad", "--image", "busybox");
    expect(await services.updated("bad", "completed")).toBe("update completed");
    // The two that never changed are what is wanted again: they stay.
    const now = await services.settled("bad", 3);
    for (const id of alive) expect(now.some((row) => row.ID === id)).toBe(true);
  });

  test("a command that crashes, with rollback: back to what ran, and a second rollback is refused", async () => {
    // The delay keeps the update on the first slot until that one's failure is known.
    const flags = ["--update-failure-action", "rollback", "--update-delay", "1s"];
    await services.create("crash", [
      "--replicas",
      "3",
      ...replaced,
      ...flags,
      "--rollback-monitor",
      "200ms",
    ]);
    const good = await services.settled("crash", 3);
    const looks = services.watch("crash");
    await services.update("crash", "--args", "sh -c 'sleep 0.3; exit 4'");
    const started = await services.updated("crash", "rollback_started");
    expect(started).toMatch(
      /^update rolled back due to failure or early termination of task \w{25}$/,
    );
    expect(await services.updated("crash", "rollback_completed")).toBe("rollback completed");
    for (const look of await looks()) expect(running(look)).toBeLessThanOrEqual(3);
    const now = await services.settled("crash", 3);
    // Slots that the update had not come to yet kept their task.
    expect(now.filter((row) => good.some((old) => old.ID === row.ID))).toHaveLength(2);
    const spec = await services.docker(
      "service",
      "inspect",
      "--format",
      "{{.Spec.TaskTemplate.ContainerSpec.Args}}",
      "crash",
    );
    expect(spec).toBe("[sleep 1d]");
    const refused = await swarm.dockerRun(services.manager, ["service", "rollback", "-d", "crash"]);
    expect([refused.code, refused.err]).toEqual([
      1,
      expect.stringContaining("does not have a previous spec"),
    ]);
  });

  test("failure action continue goes through all slots and completes", async () => {
    const flags = ["--update-failure-action", "continue", "--update-monitor", "300ms"];
    await services.create("onward", ["--replicas", "2", ...replaced, ...flags]);
    const good = await services.settled("onward", 2);
    await services.update("onward", "--args", "false");
    expect(await services.updated("onward", "completed")).toBe("update completed");
    const rows = await services.rows("onward");
    expect(
      rows.filter((row) => good.some((old) => old.ID === row.ID)).map((row) => row.DesiredState),
    ).not.toContain("running");
    await services.remove("onward");
  });

  test("failures up to the ratio are borne, one more is not", async () => {
    // An image that one of the two workers has: of two slots one fails, or both when nobody has it.
    const [w1 = ""] = swarm.workers;
    await swarm.docker(w1, "import", join(swarm.storage, "busybox.tar"), "rare:1");
    const flags = ["--update-max-failure-ratio", "0.5", "--update-monitor", "300ms"];
    // Global: each task has its own node, so that it is known which one fails.
    const place = ["--mode", "global", "--constraint", "node.role==worker"];
    for (const name of ["half", "whole"]) {
      await services.create(name, [...replaced, ...flags, ...place]);
      await services.settled(name, 2);
    }
    await services.update("half", "--image", "rare:1");
    await services.update("whole", "--image", "no-such-image:4");
    expect(await services.updated("half", "completed")).toBe("update completed");
    expect(await services.updated("whole", "paused")).toMatch(/^update paused due to failure/);
    const rejected = (await services.rows("whole")).filter(
      (row) => row.Status.State === "rejected",
    );
    expect(new Set(rejected.map((row) => row.NodeID)).size).toBe(2);
    await services.remove("half", "whole");
  });

  test("failing after the monitor does not count", async () => {
    await services.create("late", [...replaced, "--update-monitor", "300ms"]);
    await services.settled("late", 1);
    await services.update("late", "--args", "sh -c 'sleep 1.5; exit 4'");
    expect(await services.updated("late", "completed")).toBe("update completed");
    await services.until("late", "a later failure", (rows) =>
      rows.some((row) => row.Status.State === "failed") ? true : null,
    );
    expect((await services.inspect("late")).UpdateStatus?.State).toBe("completed");
    await services.remove("late");
  });

  test("start-first with a task that fails: the old one serves on", async () => {
    const flags = ["--update-order", "start-first", "--update-monitor", "500ms"];
    await services.create("keeps", [...replaced, ...flags]);
    const [old] = await services.settled("keeps", 1);
    const looks = services.watch("keeps");
    await services.update("keeps", "--image", "no-such-image:2");
    expect(await services.updated("keeps", "paused")).toMatch(/^update paused due to failure/);
    for (const look of await looks()) {
      expect(look.find((row) => row.ID === old?.ID)?.Status.State).toBe("running");
    }
    await services.remove("keeps");
  });

  test("rollback by hand: to the spec before, with the rollback's own parallelism; twice is there and back", async () => {
    const flags = [
      "--update-monitor",
      "100ms",
      "--rollback-monitor",
      "100ms",
      "--update-parallelism",
      "0",
    ];
    await services.create("undo", [
      "--replicas",
      "3",
      "--env",
      "V=1",
      ...flags,
      "--rollback-parallelism",
      "0",
    ]);
    await services.settled("undo", 3);
    await services.update("undo", "--env-add", "V=2");
    await services.updated("undo", "completed");
    const env = [
      "service",
      "inspect",
      "--format",
      "{{.Spec.TaskTemplate.ContainerSpec.Env}}",
      "undo",
    ];
    expect(await services.docker(...env)).toBe("[V=2]");
    await services.docker("service", "rollback", "-d", "undo");
    expect(await services.updated("undo", "rollback_completed")).toBe("rollback completed");
    expect(await services.docker(...env)).toBe("[V=1]");
    await services.settled("undo", 3);
    await services.docker("service", "rollback", "-d", "undo");
    await services.updated("undo", "rollback_completed");
    expect(await services.docker(...env)).toBe("[V=2]");
  });

  test("a new update takes the place of one under way", async () => {
    const flags = ["--update-delay", "1h", "--update-monitor", "100ms", "--replicas", "3"];
    await services.create("twice", flags);
    await services.settled("twice", 3);
    await services.update("twice", "--env-add", "V=2");
    await services.updated("twice", "updating");
    await services.update(
      "twice",
      "--env-add",
      "V=3",
      "--update-delay",
      "0s",
      "--update-parallelism",
      "3",
    );
    expect(await services.updated("twice", "completed")).toBe("update completed");
    const now = await services.settled("twice", 3);
    const made = await Promise.all(
      now.map(
        async (row) =>
          await swarm.api<{ Spec: { ContainerSpec: { Env: string[] } } }>(
            services.manager,
            `/tasks/${row.ID}`,
          ),
      ),
    );
    expect(made.map((row) => row.Spec.ContainerSpec.Env)).toEqual([["V=3"], ["V=3"], ["V=3"]]);
  });

  test("a global service is updated node by node", async () => {
    await services.create("all", ["--mode", "global", "--update-monitor", "100ms"]);
    await services.settled("all", 3);
    const looks = services.watch("all");
    await services.update("all", "--env-add", "V=2");
    expect(await services.updated("all", "completed")).toBe("update completed");
    for (const look of await looks()) {
      expect(running(look)).toBeGreaterThanOrEqual(2);
      expect(running(look)).toBeLessThanOrEqual(3);
    }
    const now = await services.settled("all", 3);
    expect(new Set(now.map((row) => row.NodeID)).size).toBe(3);
  });

  test("only placement changed: who may stay, stays", async () => {
    await services.create("stays", ["--replicas", "3", "--update-monitor", "100ms"]);
    const rows = await services.settled("stays", 3);
    await services.update("stays", "--constraint-add", "node.platform.os==linux");
    expect((await services.settled("stays", 3)).map((row) => row.ID)).toEqual(
      rows.map((row) => row.ID),
    );
    await services.update("stays", "--constraint-add", "node.role==worker");
    await services.updated("stays", "completed");
    const [m1 = ""] = swarm.managers;
    expect(await services.runsOn("stays")).not.toContain(m1);
    const now = await services.settled("stays", 3);
    expect(now.filter((row) => rows.some((old) => old.ID === row.ID))).toHaveLength(2);
  });
});

test("docker's own waiting command ends with the update, and says what it saw", async () => {
  // The command looks five times a second: an update that is over by then is one it has not seen converge.
  await services.create("waits", ["--replicas", "2", "--update-monitor", "1s"]);
  await services.settled("waits", 2);
  const update = ["service", "update", "--no-resolve-image", "--env-add", "V=2", "waits"];
  const good = await swarm.dockerRun(services.manager, update);
  expect([good.code, good.out]).toEqual([0, expect.stringContaining("converged")]);
  const bad = await swarm.dockerRun(services.manager, [
    "service",
    "update",
    "--no-resolve-image",
    "--image",
    "no-such-image:3",
    "--restart-delay",
    "200ms",
    "waits",
  ]);
  expect(bad.code).toBe(1);
  expect(bad.out + bad.err).toContain(
    "service update paused: update paused due to failure or early termination of task",
  );
});
