import { describe, expect, test } from "vitest";
import { failure } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import type { TaskStatus } from "../model/task.ts";
import { type TaskState, taskStates } from "../model/task-state.ts";
import { aStatus } from "../model/testing/rows.ts";
import { nextStep, type Step } from "./next-step.ts";
import { TaskRunner } from "./task-runner.ts";
import { FakeClock, settle } from "./testing/fake-clock.ts";
import { anAssigned, anExit, FakeExecutor, FakeNetworks } from "./testing/fakes.ts";
import { Turns } from "./turns.ts";

function world(over: { turns?: number; executor?: FakeExecutor } = {}) {
  const clock = new FakeClock();
  const executor = over.executor ?? new FakeExecutor();
  const networks = new FakeNetworks();
  const reports: TaskStatus[] = [];
  const gone: string[] = [];
  const turns = new Turns(over.turns ?? 10);
  const runner = (task = anAssigned("t1"), status: TaskStatus | null = null) => {
    const made = new TaskRunner(
      {
        executor,
        networks,
        clock,
        log: silentLog,
        turns,
        networkRows: () => new Map(),
        report: (_taskId, next) => reports.push(next),
        gone: (taskId) => gone.push(taskId),
      },
      task,
      status,
    );
    made.start();
    return made;
  };
  const states = () => reports.map((status) => status.state);
  return { clock, executor, networks, reports, gone, runner, states };
}

describe("nextStep", () => {
  const table: readonly [TaskState, Record<"running" | "ready" | "shutdown" | "gone", Step>][] = [
    ["assigned", { running: "accept", ready: "accept", shutdown: "shutdown", gone: "shutdown" }],
    ["accepted", { running: "prepare", ready: "prepare", shutdown: "shutdown", gone: "shutdown" }],
    ["preparing", { running: "prepare", ready: "prepare", shutdown: "shutdown", gone: "shutdown" }],
    ["ready", { running: "start", ready: "hold", shutdown: "shutdown", gone: "shutdown" }],
    ["starting", { running: "start", ready: "start", shutdown: "shutdown", gone: "shutdown" }],
    ["running", { running: "wait", ready: "wait", shutdown: "shutdown", gone: "shutdown" }],
    ["complete", { running: "none", ready: "none", shutdown: "none", gone: "remove" }],
    ["failed", { running: "none", ready: "none", shutdown: "none", gone: "remove" }],
  ];
  test.each(table)("in state %s", (state, steps) => {
    for (const [desired, step] of Object.entries(steps)) {
      const wanted = desired === "gone" ? null : (desired as TaskState);
      expect(nextStep({ desired: wanted, state, removed: false })).toBe(step);
    }
  });
  test("a removed task needs nothing, whatever its end", () => {
    for (const state of taskStates.slice(taskStates.indexOf("complete"))) {
      expect(nextStep({ desired: null, state, removed: true })).toBe("none");
    }
  });
});

describe("task runner", () => {
  test("takes a task to running, and its exit to the end", async () => {
    const { clock, executor, networks, reports, runner, states } = world();
    runner();
    await clock.pass(0);
    expect(states()).toEqual(["accepted", "preparing", "ready", "starting", "running"]);
    expect(reports.at(-1)).toMatchObject({ message: "started", pid: 42, error: null });
    expect(networks.calls).toEqual(["prepare t1", "attach t1"]);
    executor.end("t1", anExit(0));
    await settle();
    expect(reports.at(-1)).toMatchObject({ state: "complete", exitCode: 0, message: "finished" });
  });

  test("an exit with a code fails the task, in docker's words", async () => {
    const { clock, executor, reports, runner } = world();
    runner();
    await clock.pass(0);
    executor.end("t1", anExit(3));
    await settle();
    expect(reports.at(-1)).toMatchObject({
      state: "failed",
      exitCode: 3,
      error: "task: non-zero exit (3)",
    });
  });

  test("what fails before starting is rejected, at starting failed", async () => {
    const early = world();
    early.executor.failures.set("prepare", [failure("not-found", "No such image: x")]);
    early.runner();
    await early.clock.pass(0);
    expect(early.reports.at(-1)).toMatchObject({ state: "rejected", error: "No such image: x" });

    const late = world();
    late.executor.failures.set("start", [failure("invalid", "no such file")]);
    late.runner();
    await late.clock.pass(0);
    expect(late.reports.at(-1)).toMatchObject({ state: "failed", error: "no such file" });
  });

  test("what is not possible now is tried again, and the status says why it waits", async () => {
    const { clock, executor, reports, runner } = world();
    executor.failures.set("create", [
      failure("unavailable", "the core is away"),
      failure("unavailable", "the core is away"),
    ]);
    runner();
    await clock.pass(0);
    expect(reports.at(-1)).toMatchObject({ state: "starting", error: "the core is away" });
    await clock.pass(1_000);
    expect(reports.at(-1)).toMatchObject({ state: "running", error: null });
  });

  test("what was put off is tried at once when it may be possible again, without waiting for its time", async () => {
    const { clock, executor, reports, runner } = world();
    executor.failures.set("create", [failure("unavailable", "the core is away")]);
    const one = runner();
    await clock.pass(0);
    expect(reports.at(-1)).toMatchObject({ state: "starting", error: "the core is away" });
    one.nudge();
    await clock.pass(0);
    expect(reports.at(-1)).toMatchObject({ state: "running", error: null });
  });

  test("waits while it is only wanted ready", async () => {
    const { clock, runner, states } = world();
    const one = runner(anAssigned("t1", { desired: "ready" }));
    await clock.pass(60_000);
    expect(states().at(-1)).toBe("ready");
    one.update(anAssigned("t1"));
    await clock.pass(0);
    expect(states().at(-1)).toBe("running");
  });

  test("a shutdown ends what runs, keeps the container until the task is gone", async () => {
    const { clock, executor, reports, runner, gone } = world();
    const one = runner();
    await clock.pass(0);
    one.update(anAssigned("t1", { desired: "shutdown" }));
    await clock.pass(0);
    expect(reports.at(-1)).toMatchObject({ state: "shutdown", exitCode: 143 });
    expect(executor.containers.has("t1")).toBe(true);
    one.drop();
    await clock.pass(0);
    expect(executor.containers.has("t1")).toBe(false);
    expect(gone).toEqual(["t1"]);
  });

  test("a shutdown while it prepares makes no container", async () => {
    const { clock, executor, runner, states } = world();
    let letGo: () => void = () => {};
    executor.held.set("prepare", new Promise<void>((resolve) => (letGo = resolve)));
    const one = runner();
    await clock.pass(0);
    one.update(anAssigned("t1", { desired: "remove" }));
    letGo();
    await clock.pass(0);
    expect(states().at(-1)).toBe("shutdown");
    expect(executor.calls).not.toContain("create t1");
  });

  test.each(["accepted", "preparing", "ready", "starting"] as const)(
    "goes on after a crash in state %s and makes no second container",
    async (state) => {
      const executor = new FakeExecutor();
      executor.containers.set("t1", { state: "created", exit: null, waiters: [] });
      const { clock, runner, states } = world({ executor });
      runner(anAssigned("t1"), aStatus({ state }));
      await clock.pass(0);
      expect(states().at(-1)).toBe("running");
      expect(executor.containers.size).toBe(1);
    },
  );

  test("after a crash while it ran: adopted untouched, or its true code told", async () => {
    const executor = new FakeExecutor();
    executor.containers.set("t1", { state: "running", exit: null, waiters: [] });
    executor.containers.set("t2", { state: "exited", exit: anExit(9), waiters: [] });
    const { clock, reports, runner } = world({ executor });
    runner(anAssigned("t1"), aStatus({ state: "running" }));
    await clock.pass(0);
    expect(reports).toEqual([]);
    expect(executor.calls).toEqual(["wait t1"]);
    runner(anAssigned("t2"), aStatus({ state: "running" }));
    await clock.pass(0);
    expect(reports).toMatchObject([{ state: "failed", exitCode: 9 }]);
    runner(anAssigned("t3"), aStatus({ state: "running" }));
    await clock.pass(0);
    expect(reports.at(-1)).toMatchObject({
      state: "failed",
      error: expect.stringContaining("container is gone"),
    });
  });

  test("states never go back", async () => {
    const { clock, executor, runner, states } = world();
    executor.failures.set("prepare", [failure("unavailable", "a"), failure("unavailable", "b")]);
    executor.failures.set("start", [failure("unavailable", "c")]);
    runner();
    await clock.pass(5_000);
    executor.end("t1", anExit(1));
    await settle();
    const ranks = states().map((state) => taskStates.indexOf(state));
    expect(ranks).toEqual(ranks.toSorted((a, b) => a - b));
  });

  test("only so many prepare at once", async () => {
    const { clock, executor, runner } = world({ turns: 2 });
    let letGo: () => void = () => {};
    executor.held.set("prepare", new Promise<void>((resolve) => (letGo = resolve)));
    for (const id of ["a", "b", "c", "d"]) runner(anAssigned(id));
    await clock.pass(0);
    expect(executor.calls).toEqual(["prepare a", "prepare b"]);
    letGo();
    await clock.pass(0);
    expect(executor.containers.size).toBe(4);
  });
});
