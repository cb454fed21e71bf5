import { expect, test } from "vitest";
import type { Clock, InstantMs } from "../lib/clock.ts";
import type { TaskStatus } from "../model/task.ts";
import type { StatusReport } from "../wire/session.ts";
import { StatusReports } from "./status-reports.ts";

function status(state: TaskStatus["state"]): TaskStatus {
  const at = 0 as InstantMs;
  const none = { error: null, exitCode: null, containerId: null, pid: 0, appliedAt: null };
  return { state, message: state, at, ...none };
}

test("a status put between hello and welcome is sent when the session opens", () => {
  // How: a clock that is moved by hand, and a session that drops what is sent before the welcome.
  const timers: (() => void)[] = [];
  const clock: Clock = {
    now: () => 0 as InstantMs,
    wakeAt: (_at, callback) => {
      timers.push(callback);
      return () => {};
    },
  };
  let open = false;
  const sent: StatusReport[] = [];
  const reports = new StatusReports(clock, (updates) => {
    if (open) sent.push(...updates);
  });
  reports.put("t", status("running"));
  expect(reports.all()).toEqual([{ taskId: "t", status: status("running") }]);
  reports.put("t", status("shutdown"));
  for (const fire of timers.splice(0)) fire();
  expect(sent).toEqual([]);
  open = true;
  reports.restarted();
  expect(sent).toEqual([{ taskId: "t", status: status("shutdown") }]);
  // The answer to the hello alone does not count for the later status.
  reports.stored(["t"]);
  for (const fire of timers.splice(0)) fire();
  expect(sent.at(-1)?.status.state).toBe("shutdown");
});
