/** Shows how a service converges, as docker's command does: overall count, a line for each task, then the verification. */
import { failure } from "../../lib/errors.ts";
import type { Cli } from "../cli.ts";
import { filterQuery } from "../client.ts";
import type { NodeJson, ServiceJson, TaskJson } from "../engine-types.ts";
import { ellipsis } from "./units.ts";

/** Between two looks at the service (docker's command has the same). */
const lookMs = 200;
/** More tasks than this get no line of their own. */
const barsMax = 20;
/** Without a setting, a service must stay up this long to be converged. */
const defaultMonitorNs = 5e9;
const states = [
  "new",
  "pending",
  "assigned",
  "accepted",
  "ready",
  "preparing",
  "starting",
  "running",
];
/** What no longer runs is further than everything that will. */
const ended = ["complete", "shutdown", "failed", "rejected", "remove", "orphaned"];

/**
 * Returns when the service has run as wanted for its monitor time, or Ctrl-C was pressed. Throws `failed-precondition`
 * when its update was paused. `quiet` shows nothing.
 */
export async function waitForService(cli: Cli, serviceId: string, quiet: boolean): Promise<void> {
  const lines = new ProgressLines(cli, quiet);
  let convergedAt: number | null = null;
  let isRollingBack = false;
  for (;;) {
    const service = await cli.engine().json<ServiceJson>("GET", `/services/${serviceId}`, {
      query: { insertDefaults: "false" },
    });
    const monitorMs = (service.Spec.UpdateConfig?.Monitor || defaultMonitorNs) / 1e6;
    const message = service.UpdateStatus?.Message ?? "";
    switch (service.UpdateStatus?.State) {
      case "paused":
        throw failure("failed-precondition", `service update paused: ${message}`);
      case "rollback_paused":
        throw failure("failed-precondition", `service rollback paused: ${message}`);
      case "rollback_started":
        if (!isRollingBack && message !== "") lines.set("rollback", message);
        isRollingBack = true;
        break;
      case "rollback_completed":
        isRollingBack = true;
        break;
      case "updating":
        isRollingBack = false;
        break;
      default:
        break;
    }
    if (convergedAt !== null && cli.now() - convergedAt >= monitorMs) {
      lines.set("verify", `Service ${service.ID} converged`);
      if (isRollingBack && message !== "") lines.set("rollback", message);
      return;
    }
    const [tasks, nodes] = await Promise.all([
      cli.engine().json<TaskJson[]>("GET", "/tasks", {
        query: {
          filters: filterQuery({ service: { [service.ID]: true }, "_up-to-date": { true: true } }),
        },
      }),
      cli.engine().json<NodeJson[]>("GET", "/nodes"),
    ]);
    const active = new Set(
      nodes.filter((node) => node.Status.State !== "down").map((node) => node.ID),
    );
    const isConverged = showTasks(lines, service, tasks, active, isRollingBack);
    if (isConverged) {
      convergedAt ??= cli.now();
      const left = Math.floor((monitorMs - (cli.now() - convergedAt)) / 1000) + 1;
      if (left > 0)
        lines.set("verify", `Waiting ${left} seconds to verify that tasks are stable...`);
    } else {
      if (convergedAt !== null) lines.set("verify", "Detected task failure");
      convergedAt = null;
    }
    if (await pauseOrAbort(lookMs, cli.signal)) {
      if (!isConverged) {
        cli.out.write("Operation continuing in background.\n");
        cli.out.write(`Use \`docker service ps ${serviceId}\` to check progress.\n`);
      }
      return;
    }
  }
}

/** Shows the tasks; answers whether as many run as are wanted. */
function showTasks(
  lines: ProgressLines,
  service: ServiceJson,
  tasks: readonly TaskJson[],
  active: ReadonlySet<string>,
  isRollingBack: boolean,
): boolean {
  const mode = service.Spec.Mode;
  const isGlobal = mode.Global !== undefined || mode.GlobalJob !== undefined;
  const current = new Map<string, TaskJson>();
  for (const task of tasks) {
    const key = isGlobal ? (task.NodeID ?? "") : String(task.Slot ?? 0);
    const rival = current.get(key);
    if (task.NodeID && !active.has(task.NodeID)) continue;
    if (isGlobal && !task.NodeID) continue;
    if (rival === undefined || isMoreCurrent(task, rival)) current.set(key, task);
  }
  const wanted = isGlobal
    ? [...current.values()].filter((task) => !ended.includes(task.DesiredState)).length
    : (mode.Replicated?.Replicas ?? mode.ReplicatedJob?.TotalCompletions ?? 0);
  if (isGlobal && wanted === 0 && active.size > 0 && tasks.length === 0) {
    lines.set("overall progress", "waiting for new tasks");
    return false;
  }
  const running = [...current].filter(
    ([key, task]) =>
      (isGlobal || Number(key) <= wanted) &&
      (task.Status.State === "running" ||
        (service.Spec.Mode.ReplicatedJob !== undefined && task.Status.State === "complete")) &&
      !ended.includes(task.DesiredState),
  ).length;
  const verb = isRollingBack ? "rolling back update: " : "";
  lines.set("overall progress", `${verb}${running} out of ${wanted} tasks`);
  if (wanted <= barsMax) {
    const keys = isGlobal
      ? [...current.keys()].sort()
      : Array.from({ length: wanted }, (_, at) => String(at + 1));
    for (const key of keys) {
      const task = current.get(key);
      const id = isGlobal ? ellipsis(key, 13).replace("…", "") : `${key}/${wanted}`;
      lines.bar(id, task?.Status.State ?? "", task?.Status.Err ?? "");
    }
  }
  return running === wanted;
}

/** The newer of two tasks of one slot: wanted to go less far, then being further. */
function isMoreCurrent(task: TaskJson, rival: TaskJson): boolean {
  const wantedOrder = rank(task.DesiredState) - rank(rival.DesiredState);
  if (wantedOrder !== 0) return wantedOrder < 0;
  return rank(task.Status.State) > rank(rival.Status.State);
}
function rank(state: string): number {
  const place = states.indexOf(state);
  return place >= 0 ? place : states.length + ended.indexOf(state);
}

/** Named lines that change: drawn over each other on a terminal, else written when they change. */
class ProgressLines {
  readonly #cli: Cli;
  readonly #quiet: boolean;
  readonly #lines = new Map<string, string>();

  constructor(cli: Cli, quiet: boolean) {
    this.#cli = cli;
    this.#quiet = quiet;
  }
  set(id: string, text: string): void {
    const line = `${id}: ${text}`;
    if (this.#quiet || this.#lines.get(id) === line) return;
    const out = this.#cli.out;
    if (out.isTTY !== true) {
      this.#lines.set(id, line);
      out.write(`${line} \n`);
      return;
    }
    const isNew = !this.#lines.has(id);
    this.#lines.set(id, line);
    const place = [...this.#lines.keys()].indexOf(id);
    const up = this.#lines.size - place - (isNew ? 1 : 0);
    const shown = ellipsis(line, (out.columns ?? 80) - 1);
    if (isNew) out.write(`\x1b[2K\r${shown}\n`);
    else out.write(`\x1b[${up}A\x1b[2K\r${shown}\x1b[${up}B\r`);
  }
  bar(id: string, state: string, error: string): void {
    const isTty = this.#cli.out.isTTY === true;
    if (error !== "") this.set(id, error.replace(/\n.*/s, ""));
    else if (isTty && state !== "") this.set(id, `${state.padEnd(9)} ${barOf(state)}`);
    // Without a terminal docker's command names the task and draws no bar.
    else this.set(id, " ");
  }
}

function barOf(state: string): string {
  const width = 50;
  const share = Math.min(1, (rank(state) + 2) / 9);
  const full = Math.round(share * width);
  return `[${"=".repeat(full)}${full < width ? `>${" ".repeat(width - full - 1)}` : ""}]`;
}

/** Resolves after `ms` with false, or with true as soon as `signal` is aborted. */
function pauseOrAbort(ms: number, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return Promise.resolve(true);
  return new Promise((resolve) => {
    const abort = (): void => {
      clearTimeout(timer);
      resolve(true);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve(false);
    }, ms);
    signal.addEventListener("abort", abort, { once: true });
  });
}
