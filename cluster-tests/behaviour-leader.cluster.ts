/** Goal: what a leader began, the next one ends: updates, restart delays, attempts. How: the leader of three managers is powered off in the middle of each. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "./lib/command.ts";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { at, isRunning, Services } from "./lib/services.ts";
import { Swarm } from "./lib/swarm.ts";

let swarm: Swarm;
let before: Holdings;

beforeAll(async () => {
  before = await holdings();
  swarm = await Swarm.create("heir", 3, 0);
  await swarm.loadBusybox();
}, 120_000);
afterAll(async () => {
  await swarm?.destroy();
  expect(leaked(before, await holdings(), swarm.marks)).toEqual([]);
}, 120_000);

test("the leader dies while a service is updated, one waits to restart, one has used up its attempts", async () => {
  const [m1 = ""] = swarm.managers;
  const leader = await until("a leader", () => swarm.leader(m1));
  const witness = swarm.managers.find((machine) => machine !== leader) ?? "";
  const services = new Services(swarm, witness);
  // None of their tasks is on the leader, so that nothing moves because of its death.
  const away = ["--constraint", `node.hostname!=${leader}`];
  const rolling = ["--update-delay", "1s", "--update-monitor", "500ms", "--replicas", "5"];
  await services.create("rolls", [...away, ...rolling]);
  await services.create("waits", [...away, "--restart-delay", "6s"], "sh", "-c", "sleep 3; exit 1");
  await services.create(
    "spent",
    [...away, "--restart-delay", "100ms", "--restart-max-attempts", "2"],
    "false",
  );
  await services.settled("rolls", 5);
  await services.until("spent", "three failures", (rows) =>
    rows.filter((row) => row.Status.State === "failed").length === 3 ? true : null,
  );
  const failed = await services.until("waits", "a failure", (rows) => {
    return rows.find((row) => row.Status.State === "failed") ?? null;
  });
  await services.update("rolls", "--env-add", "V=2");
  await services.updated("rolls", "updating");
  const looks = services.watch("rolls");
  await swarm.machine("kill", leader);
  expect(await services.updated("rolls", "completed")).toBe("update completed");
  for (const look of await looks()) {
    const running = look.filter(isRunning).length;
    expect(running).toBeLessThanOrEqual(5);
    expect(running).toBeGreaterThanOrEqual(4);
  }
  const now = await services.settled("rolls", 5);
  // Each slot was replaced once, by whichever leader.
  for (const row of now) {
    const made = (await services.rows("rolls")).filter((one) => one.Slot === row.Slot);
    expect(made).toHaveLength(2);
  }
  const again = await services.until("waits", "its successor's run", (rows) => {
    return rows.find((row) => row.ID !== failed.ID && isRunning(row)) ?? null;
  });
  const waited = at(again.Status.Timestamp) - at(failed.Status.Timestamp);
  expect(waited).toBeGreaterThanOrEqual(6_000);
  // A leader that had forgotten when it began would wait anew.
  expect(waited).toBeLessThan(8_500);
  expect((await services.rows("spent")).map((row) => row.Status.State)).toEqual([
    "failed",
    "failed",
    "failed",
  ]);
  await swarm.machine("start", leader);
  await until("all three to be ready", async () => {
    const nodes = await swarm.nodes(witness);
    return nodes.every((node) => node.Status.State === "ready") ? true : null;
  });
});

test("the leader dies while a failed update is rolled back", async () => {
  const [m1 = ""] = swarm.managers;
  const leader = await until("a leader", () => swarm.leader(m1));
  const witness = swarm.managers.find((machine) => machine !== leader) ?? "";
  const services = new Services(swarm, witness);
  const flags = ["--update-failure-action", "rollback", "--update-parallelism", "0"];
  const back = [
    "--rollback-delay",
    "1s",
    "--rollback-monitor",
    "200ms",
    "--restart-delay",
    "300ms",
  ];
  const away = ["--constraint", `node.hostname!=${leader}`];
  await services.create("back", [...away, ...flags, ...back, "--replicas", "4"]);
  await services.settled("back", 4);
  await services.update("back", "--args", "false");
  await services.updated("back", "rollback_started");
  await swarm.machine("kill", leader);
  expect(await services.updated("back", "rollback_completed")).toBe("rollback completed");
  const now = await services.settled("back", 4);
  expect(new Set(now.map((row) => row.Slot)).size).toBe(4);
  await services.remove("back");
});
