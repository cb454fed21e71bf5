/** `docker import --change`: Dockerfile instructions that change an image's configuration. */
import { failure } from "../lib/errors.ts";
import type { ImageConfig } from "../model/image.ts";
import { splitWords } from "./words.ts";

/** The configuration after `instructions`, in order. Throws ShoalError("invalid") in docker's words. */
export function applyChanges(config: ImageConfig, instructions: readonly string[]): ImageConfig {
  return instructions.reduce(applyChange, config);
}

function applyChange(config: ImageConfig, text: string): ImageConfig {
  const match = /^\s*(\S+)(?:\s+([\s\S]*))?$/.exec(text);
  const name = (match?.[1] ?? "").toUpperCase();
  const rest = (match?.[2] ?? "").trim();
  if (name === "") throw failure("invalid", "an empty change was given");
  if (!known.has(name)) {
    throw failure("invalid", `${name.toLowerCase()} is not a valid change command`);
  }
  if (rest === "") {
    const needs = name === "ENV" || name === "LABEL" || name === "VOLUME" || name === "EXPOSE";
    throw failure("invalid", `${name} requires ${needs ? "at least" : "exactly"} one argument`);
  }
  switch (name) {
    case "CMD":
      return { ...config, command: commandOf(rest) };
    case "ENTRYPOINT":
      return { ...config, entrypoint: commandOf(rest) };
    case "ENV":
      return { ...config, env: mergeEnv(config.env, pairsOf(name, rest)) };
    case "LABEL":
      return {
        ...config,
        labels: { ...config.labels, ...Object.fromEntries(pairsOf(name, rest)) },
      };
    case "EXPOSE":
      return { ...config, exposedPorts: union(config.exposedPorts, splitWords(rest).map(portOf)) };
    case "VOLUME":
      return { ...config, volumes: union(config.volumes, listForm(rest) ?? splitWords(rest)) };
    case "STOPSIGNAL":
      return { ...config, stopSignal: rest };
    case "USER":
      return { ...config, user: rest };
    case "WORKDIR":
      return { ...config, workingDir: directoryOf(config.workingDir, rest) };
    default:
      throw failure("invalid", `${name.toLowerCase()} is not a valid change command`);
  }
}

const known: ReadonlySet<string> = new Set([
  "CMD",
  "ENTRYPOINT",
  "ENV",
  "EXPOSE",
  "LABEL",
  "STOPSIGNAL",
  "USER",
  "VOLUME",
  "WORKDIR",
]);

/** The exec form `["a","b"]` as it is; anything else is for a shell. */
function commandOf(rest: string): readonly string[] {
  return listForm(rest) ?? ["/bin/sh", "-c", rest];
}

function listForm(rest: string): readonly string[] | null {
  if (!rest.startsWith("[")) return null;
  try {
    const list: unknown = JSON.parse(rest);
    return Array.isArray(list) && list.every((item) => typeof item === "string") ? list : null;
  } catch (error) {
    // Docker takes what is no JSON for the shell form; only a broken parser would be a bug.
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

/** `A=1 B="two words"`, or the old `A rest of line`. */
function pairsOf(name: string, rest: string): readonly (readonly [string, string])[] {
  const first = /^([^\s=]+)\s+(\S[\s\S]*)$/.exec(rest);
  if (first !== null) return [[first[1] ?? "", (first[2] ?? "").trim()]];
  return splitWords(rest).map((word) => {
    const equals = word.indexOf("=");
    if (equals <= 0) {
      throw failure(
        "invalid",
        `Syntax error - can't find = in ${JSON.stringify(word)}. Must be of the form: name=value (${name})`,
      );
    }
    return [word.slice(0, equals), word.slice(equals + 1)];
  });
}

/** Later values of a variable take the place of earlier ones. */
export function mergeEnv(
  env: readonly string[],
  pairs: readonly (readonly [string, string])[],
): readonly string[] {
  const merged = new Map(env.map((entry) => [entry.split("=", 1)[0] ?? "", entry]));
  for (const [name, value] of pairs) merged.set(name, `${name}=${value}`);
  return [...merged.values()];
}

function portOf(text: string): string {
  const match = /^(\d+)(?:\/(tcp|udp|sctp))?$/.exec(text);
  const port = Number(match?.[1] ?? 0);
  if (match === null || port < 1 || port > 65_535) {
    throw failure("invalid", `invalid containerPort: ${text}`);
  }
  return `${port}/${match[2] ?? "tcp"}`;
}

function directoryOf(current: string, next: string): string {
  const joined = next.startsWith("/") ? next : `${current}/${next}`;
  const parts: string[] = [];
  for (const part of joined.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

function union(list: readonly string[], more: readonly string[]): readonly string[] {
  return [...new Set([...list, ...more])];
}
