/** An image's configuration (OCI image-spec config.md, docker's v1 format is the same): read from JSON, and written for an import. */
import type { InstantMs } from "../lib/clock.ts";
import { failure } from "../lib/errors.ts";
import type { Image, ImageConfig } from "../model/image.ts";
import { isDigest } from "./content-store.ts";
import { listOf, parseJson, recordOf, recordOrNull, stringOr } from "./json.ts";

/** An image without what only its store knows: id, tags, sizes. */
export type ConfigFile = Omit<Image, "id" | "tags" | "digests" | "sizeBytes">;

/** Most layers that one image may have; overlayfs and docker's own limit is near it. */
export const layersMax = 127;

/** Parses and checks a configuration. `what` names it in errors. Throws ShoalError("invalid"). */
export function parseConfig(bytes: Uint8Array, what: string): ConfigFile {
  const json = recordOf(parseJson(bytes, what), what);
  const rootfs = recordOf(json["rootfs"], `${what}: rootfs`);
  if (rootfs["type"] !== undefined && rootfs["type"] !== "layers") {
    throw failure("invalid", `${what}: rootfs type ${JSON.stringify(rootfs["type"])} is unknown`);
  }
  const diffIds = listOf(rootfs["diff_ids"], `${what}: rootfs.diff_ids`);
  for (const id of diffIds) {
    if (!isDigest(id)) throw failure("invalid", `${what}: ${id} is not a sha256 digest`);
  }
  if (diffIds.length > layersMax) {
    throw failure(
      "invalid",
      `${what}: it has ${diffIds.length} layers, more than ${layersMax} can be mounted`,
    );
  }
  const run = recordOrNull(json["config"], `${what}: config`) ?? {};
  return {
    createdAt: instantOf(json["created"]),
    author: stringOr(json["author"], ""),
    comment: stringOr(json["comment"], ""),
    os: stringOr(json["os"], ""),
    architecture: stringOr(json["architecture"], ""),
    variant: stringOr(json["variant"], ""),
    diffIds,
    config: parseRun(run, what),
    history: parseHistory(json["history"], what),
  };
}

/** The configuration as bytes; parseConfig of them gives the same value. */
export function writeConfig(file: ConfigFile): Uint8Array {
  const { config } = file;
  const set = (names: readonly string[]) =>
    names.length === 0 ? undefined : Object.fromEntries(names.map((name) => [name, {}]));
  const time = (at: InstantMs | null) => (at === null ? undefined : new Date(at).toISOString());
  const json = {
    architecture: file.architecture,
    ...(file.variant === "" ? {} : { variant: file.variant }),
    os: file.os,
    created: time(file.createdAt),
    author: file.author || undefined,
    comment: file.comment || undefined,
    config: {
      Env: config.env,
      Entrypoint: config.entrypoint.length === 0 ? null : config.entrypoint,
      Cmd: config.command.length === 0 ? null : config.command,
      WorkingDir: config.workingDir,
      User: config.user,
      Labels: config.labels,
      StopSignal: config.stopSignal ?? undefined,
      ExposedPorts: set(config.exposedPorts),
      Volumes: set(config.volumes),
    },
    rootfs: { type: "layers", diff_ids: file.diffIds },
    history: file.history.map((step) => ({
      created: time(step.createdAt),
      created_by: step.createdBy || undefined,
      comment: step.comment || undefined,
      empty_layer: step.emptyLayer || undefined,
    })),
  };
  return new TextEncoder().encode(JSON.stringify(json));
}

/** What running an image without any configuration means. */
export const emptyRun: ImageConfig = {
  env: [],
  entrypoint: [],
  command: [],
  workingDir: "",
  user: "",
  labels: {},
  stopSignal: null,
  exposedPorts: [],
  volumes: [],
};

/** `amd64` for `x86_64`, as images name architectures (Go's GOARCH). */
export function imageArchitecture(machine: string): string {
  const names: Readonly<Record<string, string>> = {
    x86_64: "amd64",
    x64: "amd64",
    aarch64: "arm64",
    armv7l: "arm",
    i686: "386",
  };
  return names[machine] ?? machine;
}

/** Null when the image can run on `architecture` (Go's name); otherwise docker's refusal. */
export function platformProblem(
  image: Pick<Image, "os" | "architecture" | "variant">,
  reference: string,
  architecture: string,
): string | null {
  const os = image.os === "" || image.os === "linux";
  const arch = image.architecture === "" || image.architecture === architecture;
  if (os && arch) return null;
  const variant = image.variant === "" ? "" : `/${image.variant}`;
  return `image with reference ${reference} was found but does not match the specified platform: wanted linux/${architecture}, actual: ${image.os || "linux"}/${image.architecture}${variant}`;
}

function parseRun(run: Readonly<Record<string, unknown>>, what: string): ImageConfig {
  const keys = (value: unknown, field: string) =>
    Object.keys(recordOrNull(value, `${what}: config.${field}`) ?? {});
  const labels = recordOrNull(run["Labels"], `${what}: config.Labels`) ?? {};
  return {
    env: listOf(run["Env"] ?? [], `${what}: config.Env`),
    entrypoint: listOf(run["Entrypoint"] ?? [], `${what}: config.Entrypoint`),
    command: listOf(run["Cmd"] ?? [], `${what}: config.Cmd`),
    workingDir: stringOr(run["WorkingDir"], ""),
    user: stringOr(run["User"], ""),
    labels: Object.fromEntries(Object.entries(labels).map(([key, value]) => [key, String(value)])),
    stopSignal: stringOr(run["StopSignal"], "") || null,
    exposedPorts: keys(run["ExposedPorts"], "ExposedPorts"),
    volumes: keys(run["Volumes"], "Volumes"),
  };
}

function parseHistory(value: unknown, what: string): Image["history"] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw failure("invalid", `${what}: history is not a list`);
  return value.map((step: unknown) => {
    const record = recordOf(step, `${what}: history`);
    return {
      createdAt: instantOf(record["created"]),
      createdBy: stringOr(record["created_by"], ""),
      comment: stringOr(record["comment"], ""),
      emptyLayer: record["empty_layer"] === true,
    };
  });
}

function instantOf(value: unknown): InstantMs | null {
  if (typeof value !== "string") return null;
  const ms = Date.parse(value);
  return Number.isNaN(ms) ? null : (ms as InstantMs);
}
