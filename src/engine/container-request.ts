/** From a request to a container: what it needs is found or refused, its record and its files are made. */
import { platformProblem } from "../image/config.ts";
import type { ImageStore } from "../image/image-store.ts";
import type { Clock } from "../lib/clock.ts";
import { failure } from "../lib/errors.ts";
import type { Container } from "../model/container.ts";
import type { Image } from "../model/image.ts";
import type { Limits } from "../model/resources.ts";
import type { Labels } from "../model/stored.ts";
import type { ContainerSpec, TaskSpec } from "../model/task.ts";
import type { ContainerRecords, HostFacts } from "./container-records.ts";
import { hostnameFile, hostsFile, resolvConfFile } from "./etc-files.ts";
import { logOptionsOf } from "./log-options.ts";
import { argumentsOf, environmentOf, type OciInput } from "./oci-spec.ts";
import { signalName } from "./signals.ts";
import { type ContainerUser, findUser } from "./user.ts";

const defaultStopTimeoutSeconds = 10;
/** Digits of an id that stand for it where it is shown; also the default host name. */
export const shortIdDigits = 12;

/** What to make a container of. */
export interface ContainerRequest {
  /** 64 hex digits; the same request again finds what it made before. */
  readonly id: string;
  readonly name: string;
  readonly spec: ContainerSpec;
  /** Added to the spec's and the image's. */
  readonly labels: Labels;
  readonly limits: Limits | null;
  readonly logDriver: TaskSpec["logDriver"];
  readonly networks: Container["networks"];
}

/** What of the engine's options this needs. */
export interface RequestContext {
  readonly images: ImageStore;
  readonly records: ContainerRecords;
  readonly host: HostFacts;
  readonly clock: Clock;
  /** Go's name: amd64. */
  readonly architecture: string;
}

/** Finds everything that a container needs and that may be missing or wrong. Throws ShoalError in docker's words. */
export async function prepareContainer(
  { images, host, architecture }: RequestContext,
  request: ContainerRequest,
): Promise<{ readonly image: Image; readonly user: ContainerUser }> {
  const { spec } = request;
  const image = images.find(spec.image);
  if (image === null) throw failure("not-found", `No such image: ${spec.image}`);
  const problem = platformProblem(image, spec.image, architecture);
  if (problem !== null) throw failure("invalid", problem);
  argumentsOf(image.config, spec);
  logOptionsOf(request.logDriver);
  // A container whose stop signal nobody knows could never be told to stop.
  stopSignalOf(spec, image);
  for (const item of spec.mounts) {
    if (item.kind === "bind" && !(await host.exists(item.source ?? ""))) {
      throw failure(
        "invalid",
        `invalid mount config for type "bind": bind source path does not exist: ${item.source}`,
      );
    }
  }
  const text = async (path: string) => {
    const bytes = await images.readFile(image, path);
    return bytes === null ? null : new TextDecoder().decode(bytes);
  };
  const user = findUser(spec.user ?? image.config.user, spec.groups, {
    passwd: await text("/etc/passwd"),
    group: await text("/etc/group"),
  });
  return { image, user };
}

/** The record of a container that is about to be made. */
export function containerOf(
  { records, clock }: RequestContext,
  request: ContainerRequest,
  image: Image,
): Container {
  const { spec } = request;
  const hostname = spec.hostname || request.id.slice(0, shortIdDigits);
  const keepsLog = logOptionsOf(request.logDriver) !== null;
  return {
    id: request.id,
    name: request.name,
    imageRef: spec.image,
    imageId: image.id,
    labels: { ...image.config.labels, ...spec.labels, ...request.labels },
    createdAt: clock.now(),
    ...argumentsOf(image.config, spec),
    env: environmentOf(image.config, spec, hostname, "/").filter(
      (entry) => !entry.startsWith("HOME=") && !entry.startsWith("HOSTNAME="),
    ),
    workingDir: spec.dir || image.config.workingDir,
    user: spec.user ?? image.config.user,
    hostname,
    stopSignal: stopSignalOf(spec, image),
    stopTimeoutSeconds:
      spec.stopGraceNs === null ? defaultStopTimeoutSeconds : spec.stopGraceNs / 1e9,
    mounts: spec.mounts,
    limits: request.limits ?? { nanoCpus: 0, memoryBytes: 0, pids: 0 },
    readOnly: spec.readOnly,
    capabilityAdd: spec.capabilityAdd,
    capabilityDrop: spec.capabilityDrop,
    state: "created",
    pid: 0,
    startedAt: null,
    finishedAt: null,
    exitCode: 0,
    oomKilled: false,
    error: "",
    logPath: keepsLog ? `${records.directoryOf(request.id)}/${request.id}-json.log` : "",
    networks: request.networks,
  };
}

/** Makes the container's own hosts, hostname and resolv.conf. */
export async function writeEtcFiles(
  { host, records }: RequestContext,
  container: Container,
  request: ContainerRequest,
): Promise<OciInput["etc"]> {
  const own = await host.resolvConf();
  const dns = request.spec.dns ?? own;
  const addresses = container.networks.map((network) => network.address);
  const paths = await records.writeFiles(container.id, {
    hosts: hostsFile(container.hostname, addresses, request.spec.hosts),
    hostname: hostnameFile(container.hostname),
    "resolv.conf": resolvConfFile(container.networks.length > 0, {
      nameservers: dns.nameservers.length > 0 ? dns.nameservers : own.nameservers,
      search: dns.search,
      options: dns.options,
    }),
  });
  return { hosts: paths.hosts, hostname: paths.hostname, resolvConf: paths["resolv.conf"] };
}

function stopSignalOf(spec: ContainerSpec, image: Image): string {
  return signalName(spec.stopSignal || image.config.stopSignal || "SIGTERM");
}
