/** Tasks as docker's JSON tells them. */
import type { Network } from "../../model/network.ts";
import type { Task, TaskStatus } from "../../model/task.ts";
import { writeAttachedNetwork } from "./network.ts";
import { withoutNull, withoutUnset } from "./set-fields.ts";
import { writeMeta } from "./stored.ts";
import { writeTaskSpec } from "./task-spec.ts";
import { timeText } from "./time.ts";

/** What was written of a row, and the networks that were written with it. */
interface Written {
  readonly networks: readonly Network[];
  readonly text: string;
}
/** Rows never change, so a row is written once however often it is asked for: waiting clients ask five times a second. */
const written = new WeakMap<Task, Written>();

/** The JSON text of a task; `networks` by id are those that it may be attached to. */
export function taskText(task: Task, networks: ReadonlyMap<string, Network>): string {
  const attached = task.attachments.flatMap(({ networkId }) => networks.get(networkId) ?? []);
  const known = written.get(task);
  if (
    known !== undefined &&
    known.networks.length === attached.length &&
    known.networks.every((network, index) => network === attached[index])
  ) {
    return known.text;
  }
  const text = JSON.stringify(writeTask(task, networks));
  written.set(task, { networks: attached, text });
  return text;
}

/** A task; `networks` by id are those that it may be attached to. */
function writeTask(task: Task, networks: ReadonlyMap<string, Network>): object {
  const attachments = task.attachments.flatMap((attachment) => {
    const network = networks.get(attachment.networkId);
    if (network === undefined) return [];
    const address = `${attachment.address}/${attachment.prefixLength}`;
    return [{ Network: writeAttachedNetwork(network), Addresses: [address] }];
  });
  return {
    ...writeMeta(task),
    Labels: {},
    Spec: writeTaskSpec(task.spec, false),
    ...withoutUnset({ ServiceID: task.serviceId, Slot: task.slot, NodeID: task.nodeId }),
    Status: writeTaskStatus(task.status),
    DesiredState: task.desired,
    ...(attachments.length > 0 && { NetworksAttachments: attachments }),
  };
}

function writeTaskStatus(status: TaskStatus): object {
  const container =
    status.containerId === null && status.exitCode === null
      ? null
      : {
          ContainerID: status.containerId ?? "",
          PID: status.pid,
          ExitCode: status.exitCode ?? 0,
        };
  return withoutNull({
    Timestamp: timeText(status.at),
    State: status.state,
    Message: status.message,
    Err: status.error === "" ? null : status.error,
    ContainerStatus: container,
    PortStatus: {},
  });
}
