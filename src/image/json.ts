/** Reading JSON that strangers wrote: every access says what it expected. */
import { failure, messageOf } from "../lib/errors.ts";

/** The value of UTF-8 JSON bytes. Throws ShoalError("invalid") naming `what`. */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw failure("invalid", `${what} is not valid JSON: ${messageOf(error)}`, error);
  }
}

/** The value as an object. */
export function recordOf(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw failure("invalid", `${what} is missing, or is not an object`);
  }
  return value as Record<string, unknown>;
}

/** As recordOf, but absent or null is null. */
export function recordOrNull(
  value: unknown,
  what: string,
): Readonly<Record<string, unknown>> | null {
  return value === undefined || value === null ? null : recordOf(value, what);
}

/** The value as a list of strings. */
export function listOf(value: unknown, what: string): readonly string[] {
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
    throw failure("invalid", `${what} is missing, or is not a list of strings`);
  }
  return value;
}

/** The value when it is a string, else `otherwise`. */
export function stringOr(value: unknown, otherwise: string): string {
  return typeof value === "string" ? value : otherwise;
}
