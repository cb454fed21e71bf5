/** Services: create, update, roll back, remove. Each decides on a view and returns what to write. */

import type { InstantMs } from "../../lib/clock.ts";
import { failure } from "../../lib/errors.ts";
import type { Random } from "../../lib/random.ts";
import type { Service, ServiceSpec } from "../../model/service.ts";
import type { NetworkAttachmentSpec } from "../../model/task.ts";
import { validateServiceSpec } from "../../model/validate.ts";
import type { ActionGroup, View } from "../../store/types.ts";
import { put, removal, rpcError, unchanged, withoutMeta } from "./commit.ts";
import { lookUp } from "./lookup.ts";

/** specVersion of a spec that this very write changes: apply puts the entry's index there. */
export const specVersionOfThisWrite = -1;

/** A new service. Throws on a bad spec, a taken name, an unknown network. */
export function createService(
  view: View,
  spec: ServiceSpec,
  random: Random,
): { readonly id: string; readonly group: ActionGroup } {
  validateServiceSpec(spec);
  for (const other of view.table("services").by("name", spec.name.toLowerCase())) {
    throw rpcError(
      "conflict",
      `name conflicts with an existing object: service ${other.spec.name} already exists`,
    );
  }
  const { networks, checks } = resolveNetworks(view, spec, null);
  const id = random.id();
  const row = {
    id,
    spec: { ...spec, task: { ...spec.task, networks } },
    specVersion: specVersionOfThisWrite,
    previousSpec: null,
    previousSpecVersion: null,
    updateStatus: null,
  };
  return { id, group: [put("services", row, null), ...checks] };
}

/** The service with a new spec; its old one is kept for one rollback. */
export function updateService(
  view: View,
  reference: string,
  version: number,
  spec: ServiceSpec,
): { readonly service: Service; readonly group: ActionGroup } {
  const service = lookUp(view, "services", reference);
  requireVersion(service, version);
  validateServiceSpec(spec);
  if (spec.name !== service.spec.name) {
    throw rpcError("not-implemented", "renaming services is not supported");
  }
  if (spec.mode.kind !== service.spec.mode.kind) {
    throw rpcError("not-implemented", "service mode change is not allowed");
  }
  const { networks, checks } = resolveNetworks(view, spec, service.spec);
  const row = {
    ...withoutMeta(service),
    spec: { ...spec, task: { ...spec.task, networks } },
    specVersion: specVersionOfThisWrite,
    previousSpec: service.spec,
    previousSpecVersion: service.specVersion,
    updateStatus: null,
  };
  return { service, group: [put("services", row, version), ...checks] };
}

/** The service back on its previous spec; twice is a redo (swarmkit controlapi/service.go). */
export function rollBackService(
  view: View,
  reference: string,
  version: number,
  now: InstantMs,
): { readonly service: Service; readonly group: ActionGroup } {
  const service = lookUp(view, "services", reference);
  requireVersion(service, version);
  if (service.previousSpec === null) {
    throw rpcError("failed-precondition", `service ${reference} does not have a previous spec`);
  }
  const { checks } = resolveNetworks(view, service.previousSpec, service.spec);
  const row = {
    ...withoutMeta(service),
    spec: service.previousSpec,
    specVersion: specVersionOfThisWrite,
    previousSpec: service.spec,
    previousSpecVersion: service.specVersion,
    updateStatus: {
      state: "rollback_started" as const,
      startedAt: now,
      completedAt: null,
      message: "manually requested rollback",
    },
  };
  return { service, group: [put("services", row, version), ...checks] };
}

/** The row goes at once; the orchestrator ends its tasks. */
export function removeService(
  view: View,
  reference: string,
): { readonly service: Service; readonly group: ActionGroup } {
  const service = lookUp(view, "services", reference);
  return { service, group: [removal("services", service)] };
}

function requireVersion(service: Service, version: number): void {
  if (service.meta.version !== version) {
    throw rpcError("out-of-sequence", "update out of sequence");
  }
}

/**
 * Networks by id, however they were named. Each that `before` did not use is written again as it is: a removal that was
 * decided before this service used it is then out of sequence, and so is this write when the removal came first.
 */
function resolveNetworks(view: View, spec: ServiceSpec, before: ServiceSpec | null) {
  const known = new Set(before?.task.networks.map(({ target }) => target));
  const networks: NetworkAttachmentSpec[] = [];
  const checks: ActionGroup[number][] = [];
  for (const attachment of spec.task.networks) {
    const network = lookUp(view, "networks", attachment.target);
    if (network.spec.ingress) {
      throw rpcError("invalid", "Service cannot be explicitly attached to the ingress network");
    }
    if (networks.some((other) => other.target === network.id)) {
      throw failure(
        "invalid",
        `network ${network.spec.name} is given twice: a task joins a network once`,
      );
    }
    networks.push({ ...attachment, target: network.id });
    checks.push(
      known.has(network.id)
        ? unchanged("networks", network)
        : put("networks", withoutMeta(network), network.meta.version),
    );
  }
  return { networks, checks };
}
