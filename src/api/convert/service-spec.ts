/** A service's spec from docker's JSON and back. What goes in comes out: docker's command reads, edits and sends the whole. */
import { failure } from "../../lib/errors.ts";
import { defaultUpdate } from "../../model/defaults.ts";
import type { ServiceMode, ServiceSpec, UpdateConfig } from "../../model/service.ts";
import { Fields } from "./fields.ts";
import { withoutUnset } from "./set-fields.ts";
import { readNetworks, readTaskSpec, writeTaskSpec } from "./task-spec.ts";

/** Reads the body of `service create` and `service update`. Throws ShoalError("invalid") on a wrong shape, ("not-implemented") on an option that does not exist yet. */
export function readServiceSpec(body: unknown, operation: string): ServiceSpec {
  const fields = Fields.root(body, operation, "ServiceSpec");
  const legacyNetworks = readNetworks(fields);
  const task = readTaskSpec(fields, legacyNetworks);
  const spec: ServiceSpec = {
    name: fields.text("Name"),
    labels: fields.textMap("Labels"),
    mode: readMode(fields),
    task,
    update: readUpdateConfig(fields, "UpdateConfig", "update"),
    rollback: readUpdateConfig(fields, "RollbackConfig", "rollback"),
    endpointMode: readEndpointMode(fields),
  };
  fields.done();
  return spec;
}

/** Docker's JSON of a spec. With `defaults`, options that were left open show what they come to. */
export function writeServiceSpec(spec: ServiceSpec, defaults: boolean): object {
  const update = spec.update ?? (defaults ? defaultUpdate : null);
  const rollback = spec.rollback ?? (defaults ? defaultUpdate : null);
  const endpointMode = spec.endpointMode ?? (defaults ? "vip" : null);
  return {
    Name: spec.name,
    Labels: spec.labels,
    TaskTemplate: { ...writeTaskSpec(spec.task, defaults), Runtime: "container" },
    Mode: writeMode(spec.mode),
    ...(update !== null && { UpdateConfig: writeUpdateConfig(update) }),
    ...(rollback !== null && { RollbackConfig: writeUpdateConfig(rollback) }),
    ...(endpointMode !== null && { EndpointSpec: { Mode: endpointMode } }),
  };
}

function readMode(fields: Fields): ServiceMode {
  const mode = fields.object("Mode");
  if (mode === null) return { kind: "replicated", replicas: 1 };
  if (mode.object("ReplicatedJob") !== null || mode.object("GlobalJob") !== null) {
    throw mode.unsupported("job modes (replicated-job, global-job) are not supported yet");
  }
  const replicated = mode.object("Replicated");
  const global = mode.object("Global");
  mode.done();
  if (replicated !== null && global !== null) {
    throw failure("invalid", "must specify only one service mode");
  }
  global?.done();
  if (global !== null) return { kind: "global" };
  const replicas = replicated?.numberOrNull("Replicas", "uint64") ?? 1;
  replicated?.done();
  return { kind: "replicated", replicas };
}

function writeMode(mode: ServiceMode): object {
  switch (mode.kind) {
    case "replicated":
      return { Replicated: { Replicas: mode.replicas } };
    case "global":
      return { Global: {} };
    default:
      return mode satisfies never;
  }
}

function readUpdateConfig(
  fields: Fields,
  name: string,
  word: "update" | "rollback",
): UpdateConfig | null {
  const config = fields.object(name);
  if (config === null) return null;
  const monitorNs = config.number("Monitor");
  const read: UpdateConfig = {
    parallelism: config.number("Parallelism", "uint64"),
    delayNs: config.number("Delay"),
    failureAction: oneOf(
      config.text("FailureAction"),
      ["pause", "continue", "rollback"],
      (text) => `unrecognized ${word} failure action ${text}`,
    ),
    // Zero is unset here, as in docker: there is no monitoring for no time.
    monitorNs: monitorNs === 0 ? defaultUpdate.monitorNs : monitorNs,
    maxFailureRatio: config.number("MaxFailureRatio", "float64"),
    order: oneOf(
      config.text("Order"),
      ["stop-first", "start-first"],
      (text) => `unrecognized ${word} order ${text}`,
    ),
  };
  config.done();
  return read;
}

function writeUpdateConfig(config: UpdateConfig): object {
  return {
    Parallelism: config.parallelism,
    ...withoutUnset({ Delay: config.delayNs }),
    FailureAction: config.failureAction,
    Monitor: config.monitorNs,
    MaxFailureRatio: config.maxFailureRatio,
    Order: config.order,
  };
}

function readEndpointMode(fields: Fields): "vip" | "dnsrr" | null {
  const endpoint = fields.object("EndpointSpec");
  if (endpoint === null) return null;
  endpoint.refuse("Ports", "published ports");
  const mode = endpoint.text("Mode");
  endpoint.done();
  if (mode === "") return null;
  return oneOf<"vip" | "dnsrr">(
    mode,
    ["vip", "dnsrr"],
    (text) => `invalid resolution mode: "${text}"`,
  );
}

/** One of the words; the first of them for an empty text. */
function oneOf<T extends string>(
  text: string,
  words: readonly [T, ...T[]],
  refusal: (text: string) => string,
): T {
  if (text === "") return words[0];
  const found = words.find((word) => word === text);
  if (found === undefined) throw failure("invalid", refusal(text));
  return found;
}
