/** Which version of the Engine API a request speaks, by the prefix of its path (moby api/server/middleware/version.go). */
import { failure } from "../lib/errors.ts";

export const apiVersion = "1.50";
export const minApiVersion = "1.24";
export const productVersion = "0.1.0";

const prefix = /^\/v([0-9]+(?:\.[0-9.]*)?)(?=\/|\?|$)/;

/** The path without its version; an unversioned path as it is. */
export function withoutVersion(url: string): string {
  const rest = url.replace(prefix, "");
  return rest.startsWith("/") ? rest : `/${rest}`;
}

/** The version that a path names; our own where it names none. Throws ShoalError("invalid") for one that we do not speak. */
export function versionOf(url: string): string {
  const asked = prefix.exec(url)?.[1];
  if (asked === undefined) return apiVersion;
  if (compareVersions(asked, apiVersion) > 0) {
    throw failure(
      "invalid",
      `client version ${asked} is too new. Maximum supported API version is ${apiVersion}`,
    );
  }
  if (compareVersions(asked, minApiVersion) < 0) {
    throw failure(
      "invalid",
      `client version ${asked} is too old. Minimum supported API version is ${minApiVersion}, please upgrade your client to a newer version`,
    );
  }
  return asked;
}

/** Below zero when `a` is the older version; part by part, as numbers. */
export function compareVersions(a: string, b: string): number {
  const left = a.split(".");
  const right = b.split(".");
  for (let part = 0; part < Math.max(left.length, right.length); part++) {
    const difference = Number(left[part] ?? 0) - Number(right[part] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
