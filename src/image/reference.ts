/** Image references, `[domain/]path[:tag][@digest]`: parsed, completed and shortened as docker does (distribution/reference). */
import { failure } from "../lib/errors.ts";

export interface Reference {
  /** `docker.io` when none was given. */
  readonly domain: string;
  /** `library/busybox` for `busybox`. */
  readonly path: string;
  readonly tag: string | null;
  /** `sha256:` and 64 hex digits. */
  readonly digest: string | null;
}

const defaultDomain = "docker.io";
const defaultTag = "latest";
/** Longest domain and path together, in characters (distribution/reference NameTotalLengthMax). */
const nameLengthMax = 255;

const pathPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const domainPattern =
  /^(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*(?::[0-9]+)?$/;
const tagPattern = /^\w[\w.-]{0,127}$/;
const digestPattern = /^sha256:[0-9a-f]{64}$/;
const hexIdPattern = /^[0-9a-f]{64}$/;

/** Parses what a user wrote; nothing is added but the domain and `library/`. Throws ShoalError("invalid") in docker's words. */
export function parseReference(text: string): Reference {
  if (hexIdPattern.test(text)) {
    throw invalid(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  }
  let rest = text;
  let digest: string | null = null;
  const at = rest.indexOf("@");
  if (at >= 0) {
    digest = rest.slice(at + 1);
    rest = rest.slice(0, at);
    if (!digestPattern.test(digest)) throw invalid("invalid reference format");
  }
  let tag: string | null = null;
  const colon = rest.lastIndexOf(":");
  if (colon > rest.lastIndexOf("/")) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!tagPattern.test(tag)) throw invalid("invalid reference format");
  }
  const { domain, path } = splitDomain(rest);
  if (path.toLowerCase() !== path) {
    throw invalid(`invalid reference format: repository name (${path}) must be lowercase`);
  }
  if (!path.split("/").every((part) => pathPattern.test(part)) || !domainPattern.test(domain)) {
    throw invalid("invalid reference format");
  }
  if (domain.length + 1 + path.length > nameLengthMax) {
    throw invalid(`repository name must not be more than ${nameLengthMax} characters`);
  }
  return { domain, path, tag, digest };
}

/** The reference with `latest` where it names neither tag nor digest. */
export function withDefaultTag(reference: Reference): Reference {
  return reference.tag === null && reference.digest === null
    ? { ...reference, tag: defaultTag }
    : reference;
}

/** The name as docker prints it: without `docker.io/` and `library/`, without tag and digest. */
export function familiarName(reference: Reference): string {
  if (reference.domain !== defaultDomain) return `${reference.domain}/${reference.path}`;
  return reference.path.startsWith("library/")
    ? reference.path.slice("library/".length)
    : reference.path;
}

/** The whole reference as docker prints it. */
export function familiar(reference: Reference): string {
  const tag = reference.tag === null ? "" : `:${reference.tag}`;
  const digest = reference.digest === null ? "" : `@${reference.digest}`;
  return `${familiarName(reference)}${tag}${digest}`;
}

function splitDomain(name: string): { readonly domain: string; readonly path: string } {
  const slash = name.indexOf("/");
  const first = slash < 0 ? "" : name.slice(0, slash);
  const isDomain =
    slash >= 0 && (/[.:]/.test(first) || first === "localhost" || first.toLowerCase() !== first);
  const given = isDomain ? first : defaultDomain;
  const domain = given === "index.docker.io" ? defaultDomain : given;
  const path = isDomain ? name.slice(slash + 1) : name;
  return {
    domain,
    path: domain === defaultDomain && !path.includes("/") ? `library/${path}` : path,
  };
}

function invalid(message: string): Error {
  return failure("invalid", message);
}
