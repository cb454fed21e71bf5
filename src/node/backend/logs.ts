/** Service and task logs: asked of every node that runs a task, and merged as they come. */
import type { LogsQuery, TaskLogLine } from "../../api/backend.ts";
import { readLogs } from "../../io/cluster-client.ts";
import { failure, messageOf } from "../../lib/errors.ts";
import type { Manager } from "../../manager/manager.ts";
import type { Task } from "../../model/task.ts";
import { isBefore } from "../../model/task-state.ts";
import type { SwarmNode } from "../swarm-node.ts";

/** Lines that may wait for a reader that is slower than the nodes. */
const linesWaitingMax = 4_096;

export interface SwarmLogs {
  ofService(manager: Manager, serviceId: string, query: LogsQuery): AsyncIterable<TaskLogLine>;
  ofTask(manager: Manager, taskId: string, query: LogsQuery): AsyncIterable<TaskLogLine>;
}

/** Logs over the cluster's own connections, as this node. */
export function createSwarmLogs(swarm: SwarmNode): SwarmLogs {
  async function* merged(
    manager: Manager,
    query: LogsQuery,
    belongs: (task: Task) => boolean,
    find: () => readonly Task[],
  ): AsyncIterable<TaskLogLine> {
    const stop = new AbortController();
    const end = () => stop.abort();
    query.signal.addEventListener("abort", end);
    const lines: TaskLogLine[] = [];
    const failures: string[] = [];
    const followed = new Set<string>();
    let open = 0;
    let wake: () => void = () => {};
    let roomAgain: (() => void)[] = [];

    function follow(task: Task): void {
      if (followed.has(task.id) || task.nodeId === null || isBefore(task.status.state, "starting"))
        return;
      followed.add(task.id);
      open += 1;
      pull(task)
        .catch((error: unknown) => {
          if (!stop.signal.aborted) failures.push(messageOf(error));
        })
        .finally(() => {
          open -= 1;
          wake();
        });
    }

    async function pull(task: Task): Promise<void> {
      const nodeId = task.nodeId ?? "";
      const node = manager.store.view().table("nodes").get(nodeId);
      if (node === undefined || node.state === "down") {
        throw failure("unavailable", `node ${nodeId} is not available`);
      }
      const search = new URLSearchParams({
        task: task.id,
        follow: String(query.follow),
        stdout: String(query.stdout),
        stderr: String(query.stderr),
        tail: String(query.tail),
        ...(query.sinceNs === null ? {} : { since: String(query.sinceNs) }),
        ...(query.untilNs === null ? {} : { until: String(query.untilNs) }),
      });
      for await (const text of readLogs(
        node.clusterAddress,
        swarm.identity(),
        search,
        stop.signal,
      )) {
        if (text === "") continue;
        const record = JSON.parse(text) as {
          stream: "stdout" | "stderr";
          time: string;
          line: string;
          error?: string;
        };
        if (record.error !== undefined) throw failure("unavailable", record.error);
        lines.push({
          taskId: task.id,
          serviceId: task.serviceId,
          nodeId,
          stream: record.stream,
          time: record.time,
          line: Buffer.from(record.line, "base64"),
        });
        wake();
        if (lines.length > linesWaitingMax)
          await new Promise<void>((resolve) => roomAgain.push(resolve));
      }
    }

    for (const task of find()) follow(task);
    const unwatch = query.follow
      ? manager.store.watch(({ changes }) => {
          for (const change of changes) {
            if (change.table === "tasks" && change.after !== null && belongs(change.after))
              follow(change.after);
          }
        })
      : () => {};
    stop.signal.addEventListener("abort", () => wake());
    try {
      while (!stop.signal.aborted) {
        const line = lines.shift();
        if (line !== undefined) {
          yield line;
          continue;
        }
        for (const resume of roomAgain) resume();
        roomAgain = [];
        if (open === 0 && !query.follow) break;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      if (failures.length > 0 && !stop.signal.aborted) {
        throw failure(
          "internal",
          `incomplete log stream. some logs could not be retrieved for the following reasons: ${failures.join(", ")}`,
        );
      }
    } finally {
      unwatch();
      query.signal.removeEventListener("abort", end);
      stop.abort();
      for (const resume of roomAgain) resume();
    }
  }

  return {
    ofService: (manager, serviceId, query) =>
      merged(
        manager,
        query,
        (task) => task.serviceId === serviceId,
        () => [...manager.store.view().table("tasks").by("service", serviceId)],
      ),
    ofTask: (manager, taskId, query) =>
      merged(
        manager,
        query,
        (task) => task.id === taskId,
        () => {
          const task = manager.store.view().table("tasks").get(taskId);
          return task === undefined ? [] : [task];
        },
      ),
  };
}
