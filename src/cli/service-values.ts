/** Values of service flags that have a grammar of their own: mounts, networks, ports, preferences, hosts, ulimits. */
import { failure } from "../lib/errors.ts";
import type { MountJson, PortConfig } from "./engine-types.ts";
import { labelMap, ramBytes } from "./values.ts";

/** `type=bind,source=/a,target=/b,readonly`; docker's mount syntax. Throws `invalid` in docker's words. */
export function parseMount(text: string): MountJson {
  const mount: MountJson = { Type: "volume" };
  const bad = (why: string): Error =>
    failure("invalid", `invalid argument ${JSON.stringify(text)} for "--mount" flag: ${why}`);
  for (const field of text.split(",")) {
    const at = field.indexOf("=");
    const key = (at < 0 ? field : field.slice(0, at)).trim().toLowerCase();
    const value = at < 0 ? "" : field.slice(at + 1);
    switch (key) {
      case "type":
        mount.Type = value.toLowerCase();
        break;
      case "source":
      case "src":
        mount.Source = value;
        break;
      case "target":
      case "dst":
      case "destination":
        mount.Target = value;
        break;
      case "readonly":
      case "ro":
        if (at >= 0 && !/^(true|false|1|0)$/.test(value))
          throw bad(`invalid value for ${key}: ${value}`);
        mount.ReadOnly = at < 0 || value === "true" || value === "1";
        if (!mount.ReadOnly) delete mount.ReadOnly;
        break;
      case "bind-propagation":
        mount.BindOptions = { ...mount.BindOptions, Propagation: value.toLowerCase() };
        break;
      case "bind-nonrecursive":
        mount.BindOptions = { ...mount.BindOptions, NonRecursive: value !== "false" };
        break;
      case "volume-nocopy":
        mount.VolumeOptions = { ...mount.VolumeOptions, NoCopy: value !== "false" };
        break;
      case "volume-label":
        mount.VolumeOptions = {
          ...mount.VolumeOptions,
          Labels: { ...mount.VolumeOptions?.Labels, ...labelMap([value]) },
        };
        break;
      case "volume-driver":
        mount.VolumeOptions = {
          ...mount.VolumeOptions,
          DriverConfig: { ...mount.VolumeOptions?.DriverConfig, Name: value },
        };
        break;
      case "volume-opt":
        mount.VolumeOptions = {
          ...mount.VolumeOptions,
          DriverConfig: {
            ...mount.VolumeOptions?.DriverConfig,
            Options: { ...mount.VolumeOptions?.DriverConfig?.Options, ...labelMap([value]) },
          },
        };
        break;
      case "tmpfs-size": {
        const bytes = ramBytes(value);
        if (bytes === null) throw bad(`invalid value for ${key}: ${value}`);
        mount.TmpfsOptions = { ...mount.TmpfsOptions, SizeBytes: bytes };
        break;
      }
      case "tmpfs-mode":
        if (!/^[0-7]+$/.test(value)) throw bad(`invalid value for ${key}: ${value}`);
        mount.TmpfsOptions = { ...mount.TmpfsOptions, Mode: Number.parseInt(value, 8) };
        break;
      default:
        if (at < 0) throw bad(`invalid field '${field}' must be a key=value pair`);
        throw bad(`unknown option '${key}' in '${field}'`);
    }
  }
  if (mount.Type === "") throw bad("type is required");
  if (mount.Target === undefined || mount.Target === "") throw bad("target is required");
  if (mount.BindOptions !== undefined && mount.Type !== "bind") {
    throw bad(`cannot mix 'bind-*' options with mount type '${mount.Type}'`);
  }
  if (mount.VolumeOptions !== undefined && mount.Type !== "volume") {
    throw bad(`cannot mix 'volume-*' options with mount type '${mount.Type}'`);
  }
  if (mount.TmpfsOptions !== undefined && mount.Type !== "tmpfs") {
    throw bad(`cannot mix 'tmpfs-*' options with mount type '${mount.Type}'`);
  }
  return mount;
}

export interface NetworkArgument {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly driverOptions: Readonly<Record<string, string>>;
}

/** `NAME` or `name=NAME,alias=A,driver-opt=K=V`. */
export function parseNetwork(text: string): NetworkArgument {
  if (!/(^|,)name=/.test(text)) return { name: text, aliases: [], driverOptions: {} };
  let name = "";
  const aliases: string[] = [];
  const options: string[] = [];
  for (const field of text.split(",")) {
    const at = field.indexOf("=");
    const key = field.slice(0, at).trim().toLowerCase();
    const value = field.slice(at + 1);
    if (at < 0) throw failure("invalid", `invalid field: ${field}`);
    if (key === "name") name = value;
    else if (key === "alias") aliases.push(value);
    else if (key === "driver-opt") options.push(value);
    else throw failure("invalid", `invalid field key ${key}`);
  }
  return { name, aliases, driverOptions: labelMap(options) };
}

/** `8080:80/tcp`, `8080-8081:80-81` or `published=8080,target=80,protocol=tcp,mode=host`. Throws `invalid`. */
export function parsePort(text: string): Required<PortConfig>[] {
  const bad = (why: string): Error =>
    failure("invalid", `invalid argument ${JSON.stringify(text)} for "-p, --publish" flag: ${why}`);
  if (text.includes("=")) {
    let [protocol, target, published, mode] = ["tcp", 0, 0, "ingress"];
    for (const field of text.split(",")) {
      const [key = "", value = ""] = field.split("=");
      if (key === "protocol") protocol = value.toLowerCase();
      else if (key === "mode") mode = value;
      else if (key === "target") target = Number(value);
      else if (key === "published") published = Number(value);
      else throw bad(`invalid field key ${key}`);
    }
    if (!["tcp", "udp", "sctp"].includes(protocol))
      throw bad(`invalid protocol value ${JSON.stringify(protocol)}`);
    if (mode !== "ingress" && mode !== "host")
      throw bad(`invalid publish mode value ${JSON.stringify(mode)}`);
    if (!(target >= 1 && target <= 65535)) throw bad('missing mandatory field "target"');
    if (!(published >= 0 && published <= 65535)) throw bad(`invalid published port ${published}`);
    return [
      { Protocol: protocol, TargetPort: target, PublishedPort: published, PublishMode: mode },
    ];
  }
  const match = /^(?:(\d+)(?:-(\d+))?:)?(\d+)(?:-(\d+))?(?:\/(tcp|udp|sctp))?$/i.exec(text);
  if (match === null) throw bad(`invalid containerPort: ${text}`);
  const [target, targetEnd] = [Number(match[3]), Number(match[4] ?? match[3])];
  const published = match[1] === undefined ? 0 : Number(match[1]);
  const publishedEnd = match[1] === undefined ? 0 : Number(match[2] ?? match[1]);
  if (targetEnd > 65535 || publishedEnd > 65535 || target > targetEnd)
    throw bad(`invalid containerPort: ${text}`);
  if (published > 0 && publishedEnd - published !== targetEnd - target) {
    throw bad(`invalid ranges specified for container and host Ports: ${text}`);
  }
  return Array.from({ length: targetEnd - target + 1 }, (_, at) => ({
    Protocol: (match[5] ?? "tcp").toLowerCase(),
    TargetPort: target + at,
    PublishedPort: published === 0 ? 0 : published + at,
    PublishMode: "ingress",
  }));
}

/** A port as docker sends it: what is 0 is left away. */
export function portJson(port: Required<PortConfig>): PortConfig {
  const { PublishedPort, ...rest } = port;
  return PublishedPort === 0
    ? rest
    : {
        Protocol: port.Protocol,
        TargetPort: port.TargetPort,
        PublishedPort,
        PublishMode: port.PublishMode,
      };
}

/** `spread=node.labels.zone`. Throws `invalid`. */
export function parsePreference(text: string): { Spread: { SpreadDescriptor: string } } {
  const at = text.indexOf("=");
  if (at < 0) {
    throw failure(
      "invalid",
      `invalid argument ${JSON.stringify(text)} for "--placement-pref" flag: placement preference must be of the format "<strategy>=<arg>"`,
    );
  }
  if (text.slice(0, at).trim() !== "spread") {
    throw failure(
      "invalid",
      `invalid argument ${JSON.stringify(text)} for "--placement-pref" flag: unsupported placement preference ${text.slice(0, at)} (only spread is supported)`,
    );
  }
  return { Spread: { SpreadDescriptor: text.slice(at + 1).trim() } };
}

/** `host:ip` as the line `ip host` of /etc/hosts. Throws `invalid`. */
export function hostLine(text: string): string {
  const at = text.search(/[:=]/);
  const address = text.slice(at + 1).replace(/^\[|\]$/g, "");
  if (at <= 0 || address === "")
    throw failure("invalid", `bad format for add-host: ${JSON.stringify(text)}`);
  return `${address} ${text.slice(0, at)}`;
}

/** `nofile=1024:2048` or `nofile=1024`. Throws `invalid`. */
export function parseUlimit(text: string): { Name: string; Hard: number; Soft: number } {
  const match = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(text);
  if (match === null) {
    throw failure(
      "invalid",
      `invalid argument ${JSON.stringify(text)} for "--ulimit" flag: invalid ulimit argument: ${text}`,
    );
  }
  const soft = Number(match[2]);
  const hard = Number(match[3] ?? match[2]);
  if (soft > hard && hard !== -1) {
    throw failure(
      "invalid",
      `invalid argument ${JSON.stringify(text)} for "--ulimit" flag: ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`,
    );
  }
  return { Name: match[1] ?? "", Hard: hard, Soft: soft };
}
