/** Goal: restarts, history and scaling are swarm's, to the state and the text. How: small services on three netns machines, read back through the API and the docker command. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Holdings, holdings, leaked } from "./lib/leaks.ts";
import { at, isRunning, Services } from "./lib/services.ts";
import { Swarm } from "./lib/swarm.ts";

let swarm: Swarm;
let services: Services;
let before: Holdings;

beforeAll(async () => {
  before = await holdings();
  swarm = await Swarm.create("behave", 1, 2);
  await swarm.loadBusybox();
  services = new Services(swarm);
}, 120_000);
afterAll(async () => {
  await swarm?.destroy();
  expect(leaked(before, await holdings(), swarm.marks)).toEqual([]);
}, 120_000);

describe.concurrent("a task that ends", () => {
  for (const { condition, command, state, error, restarts } of [
    { condition: "none", command: "true", state: "complete", error: undefined, restarts: false },
    {
      condition: "none",
      command: "false",
      state: "failed",
      error: "task: non-zero exit (1)",
      restarts: false,
    },
    {
      condition: "on-failure",
      command: "true",
      state: "complete",
      error: undefined,
      restarts: false,
    },
    {
      condition: "on-failure",
      command: "false",
      state: "failed",
      error: "task: non-zero exit (1)",
      restarts: true,
    },
    { condition: "any", command: "true", state: "complete", error: undefined, restarts: true },
    {
      condition: "any",
      command: "false",
      state: "failed",
      error: "task: non-zero exit (1)",
      restarts: true,
    },
  ]) {
    test(`restart condition ${condition}, ${command}: ${restarts ? "again" : "once"}`, async () => {
      const name = `${condition}-${command}`;
      const flags = ["--restart-condition", condition, "--restart-delay", "300ms"];
      await services.create(name, flags, command);
      const ended = await services.until(name, `a task ${state}`, (rows) => {
        return rows.find((row) => row.Status.State === state) ?? null;
      });
      expect(ended.Status.Err).toBe(error);
      expect(ended.Status.ContainerStatus?.ExitCode ?? 0).toBe(command === "true" ? 0 : 1);
      if (restarts) {
        await services.until(name, "three tasks", (rows) => (rows.length >= 3 ? true : null));
        // Every task but the youngest was told to stop; all are of one slot.
        const rows = await services.rows(name);
        expect(rows.slice(1).every((row) => row.DesiredState === "shutdown")).toBe(true);
        expect(new Set(rows.map((row) => row.Slot))).toEqual(new Set([1]));
      } else {
        // Long enough for three restarts.
        await new Promise((next) => setTimeout(next, 1_200));
        const rows = await services.rows(name);
        expect(rows.map((row) => [row.ID, row.DesiredState])).toEqual([[ended.ID, "shutdown"]]);
      }
      await services.remove(name);
    });
  }

  test("its successor is made at once in desired ready, and runs when the delay is over", async () => {
    await services.create("patient", ["--restart-delay", "3s"], "sh", "-c", "sleep 0.2; exit 9");
    const [next, first] = await services.until("patient", "a prepared successor", (rows) => {
      const [next, first] = rows;
      return rows.length === 2 && next?.Status.State === "ready" && first ? [next, first] : null;
    });
    expect(next.DesiredState).toBe("ready");
    expect(first.DesiredState).toBe("shutdown");
    expect(first.Status.Err).toBe("task: non-zero exit (9)");
    expect(at(next.CreatedAt) - at(first.Status.Timestamp)).toBeLessThan(1_000);
    const failed = await services.until("patient", "the successor's own end", (rows) => {
      return rows.find((row) => row.ID === next.ID && row.Status.State === "failed") ?? null;
    });
    const waited = at(failed.Status.Timestamp) - at(first.Status.Timestamp);
    expect(waited).toBeGreaterThanOrEqual(3_000);
    expect(waited).toBeLessThan(4_500);
    await services.remove("patient");
  });

  test("max attempts: so many restarts, then no more, and none of its history is lost", async () => {
    const flags = ["--restart-delay", "100ms", "--restart-max-attempts", "2"];
    await services.create("thrice", flags, "false");
    await services.until("thrice", "three failures", (rows) =>
      rows.filter((row) => row.Status.State === "failed").length === 3 ? true : null,
    );
    await new Promise((next) => setTimeout(next, 1_000));
    const rows = await services.rows("thrice");
    expect(rows.map((row) => `${row.DesiredState} ${row.Status.State}`)).toEqual([
      "shutdown failed",
      "shutdown failed",
      "shutdown failed",
    ]);
    // The spec version is what attempts are counted by: a new one begins anew.
    await services.update("thrice", "--env-add", "AGAIN=1");
    await services.until("thrice", "a new run", (now) =>
      now.some((row) => !rows.some((old) => old.ID === row.ID)) ? true : null,
    );
    await services.remove("thrice");
  });

  test("max attempts in a window: old restarts are forgiven", async () => {
    const flags = ["--restart-delay", "100ms", "--restart-max-attempts", "1"];
    await services.create(
      "slow",
      [...flags, "--restart-window", "400ms"],
      "sh",
      "-c",
      "sleep 0.8; false",
    );
    const seen = new Set<string>();
    await services.until("slow", "five different tasks", (rows) => {
      for (const row of rows) seen.add(row.ID);
      return seen.size >= 5 ? true : null;
    });
    await services.remove("slow");
  });

  test("five tasks a slot are kept, and listed under each other", async () => {
    await services.create("flap", ["--restart-delay", "50ms", "--replicas", "2"], "true");
    const seen = new Set<string>();
    await services.until("flap", "twenty tasks", (rows) => {
      for (const row of rows) seen.add(row.ID);
      return seen.size >= 20 ? true : null;
    });
    for (const slot of [1, 2]) {
      const kept = (await services.rows("flap")).filter((row) => row.Slot === slot);
      // One more while the reaper is on its way.
      expect(kept.length).toBeGreaterThanOrEqual(5);
      expect(kept.length).toBeLessThanOrEqual(6);
    }
    const lines = (await services.docker("service", "ps", "flap")).split("\n").slice(1);
    const names = lines.map((line) => /^\S+ +((?:\\_ )?flap\.[12]) /.exec(line)?.[1]);
    expect(names.filter((name) => name === "flap.1")).toHaveLength(1);
    expect(names.filter((name) => name === "flap.2")).toHaveLength(1);
    expect(names.filter((name) => name === "\\_ flap.1").length).toBeGreaterThanOrEqual(4);
    expect(names.indexOf("flap.1")).toBe(0);
    await services.remove("flap");
    await services.containersGone("flap");
  });
});

test("scaling down takes second copies and high slots first, scaling up fills the lowest free slots", async () => {
  await services.create("many", ["--replicas", "6"]);
  await services.settled("many", 6);
  await services.docker("service", "scale", "-d", "many=3");
  const three = await services.settled("many", 3);
  // Six were two a node: one a node is left, the one of the lower number.
  expect(new Set(three.map((row) => row.NodeID)).size).toBe(3);
  const left = three.map((row) => row.Slot ?? 0);
  await services.until("many", "the others gone with their rows", (rows) =>
    rows.length === 3 ? true : null,
  );
  await services.docker("service", "scale", "-d", "many=5");
  const five = await services.settled("many", 5);
  const free = [1, 2, 3, 4, 5, 6].filter((slot) => !left.includes(slot)).slice(0, 2);
  expect(five.map((row) => row.Slot).sort()).toEqual([...left, ...free].sort());
  // Nobody who stayed was restarted.
  for (const row of three) expect(five.some((now) => now.ID === row.ID)).toBe(true);
  await services.docker("service", "scale", "-d", "many=0");
  await services.until("many", "no row at all", (rows) => (rows.length === 0 ? true : null));
  await services.remove("many");
});

test("a slot that is waiting goes before one that runs", async () => {
  // A fourth task has no place: one a node is allowed.
  await services.create("one-each", ["--replicas", "4", "--replicas-max-per-node", "1"]);
  const waiting = await services.until(
    "one-each",
    "three running, one told why it waits",
    (rows) => {
      const waits = rows.find((row) => row.Status.Err !== undefined);
      return rows.filter(isRunning).length === 3 ? (waits ?? null) : null;
    },
  );
  expect(waiting.Status.State).toBe("pending");
  expect(waiting.Status.Err).toBe("no suitable node (max replicas per node limit exceed)");
  const runs = (await services.rows("one-each")).filter(isRunning).map((row) => row.ID);
  await services.docker("service", "scale", "-d", "one-each=3");
  const rows = await services.until("one-each", "three rows", (rows) =>
    rows.length === 3 ? rows : null,
  );
  expect(rows.map((row) => row.ID).sort()).toEqual(runs.sort());
  await services.remove("one-each");
});

test("labels of a service restart nothing; force does; removal leaves no container", async () => {
  await services.create("still", ["--replicas", "2", "--label", "tier=a"]);
  const first = await services.settled("still", 2);
  await services.update("still", "--label-add", "tier=b", "--update-parallelism", "2");
  expect((await services.inspect("still")).Spec.Labels).toEqual({ tier: "b" });
  await services.docker("service", "scale", "-d", "still=3");
  const scaled = await services.settled("still", 3);
  for (const row of first) expect(scaled.some((now) => now.ID === row.ID)).toBe(true);
  // Both slots that are asked to be replaced are; monitoring is short so that the test is.
  await services.update(
    "still",
    "--force",
    "--update-monitor",
    "200ms",
    "--update-parallelism",
    "0",
  );
  expect(await services.updated("still", "completed")).toBe("update completed");
  const forced = await services.settled("still", 3);
  for (const row of scaled) expect(forced.some((now) => now.ID === row.ID)).toBe(false);
  const history = (await services.rows("still")).filter((row) => row.DesiredState === "shutdown");
  expect(history.map((row) => row.Status.State)).toEqual(["shutdown", "shutdown", "shutdown"]);
  await services.remove("still");
  await services.containersGone("still");
});
