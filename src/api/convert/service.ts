/** Services as docker's JSON tells them. */
import type { Service, UpdateStatus } from "../../model/service.ts";
import type { ServiceCounts } from "../backend.ts";
import { writeServiceSpec } from "./service-spec.ts";
import { withoutNull } from "./set-fields.ts";
import { writeMeta } from "./stored.ts";
import { timeText } from "./time.ts";

/** A service. `counts` only where the client asked for the status; `defaults` fills what the user left open. */
export function writeService(
  service: Service,
  options: { readonly counts?: ServiceCounts | null; readonly defaults?: boolean } = {},
): object {
  const { spec } = service;
  const defaults = options.defaults ?? false;
  const mode = spec.endpointMode ?? (defaults ? "vip" : null);
  const endpointSpec = mode === null ? {} : { Mode: mode };
  return withoutNull({
    ...writeMeta(service),
    Spec: writeServiceSpec(spec, defaults),
    PreviousSpec:
      service.previousSpec === null ? null : writeServiceSpec(service.previousSpec, defaults),
    Endpoint: { Spec: endpointSpec },
    UpdateStatus: service.updateStatus === null ? null : writeUpdateStatus(service.updateStatus),
    ServiceStatus: options.counts
      ? {
          RunningTasks: options.counts.running,
          DesiredTasks: options.counts.desired,
          CompletedTasks: options.counts.completed,
        }
      : null,
  });
}

function writeUpdateStatus(status: UpdateStatus): object {
  return withoutNull({
    State: status.state,
    StartedAt: timeText(status.startedAt),
    CompletedAt: status.completedAt === null ? null : timeText(status.completedAt),
    Message: status.message,
  });
}
