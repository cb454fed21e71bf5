/** The `filters` parameter in both of its forms, and how values are matched (moby api/types/filters). */
import { failure } from "../lib/errors.ts";
import type { Labels } from "../model/stored.ts";

/** What was asked for, per filter. */
export type Filters = ReadonlyMap<string, readonly string[]>;

/**
 * Reads `{"name":{"value":true}}` or the older `{"name":["value"]}`. Throws ShoalError("invalid") on anything else, and on a
 * filter that is not among `known`.
 */
export function parseFilters(text: string | undefined, known: readonly string[]): Filters {
  const filters = new Map<string, readonly string[]>();
  if (text === undefined || text === "") return filters;
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw failure("invalid", "invalid filter", error);
  }
  if (parsed === null) return filters;
  if (typeof parsed !== "object" || Array.isArray(parsed))
    throw failure("invalid", "invalid filter");
  for (const [name, wanted] of Object.entries(parsed)) {
    if (!known.includes(name)) throw failure("invalid", `invalid filter '${name}'`);
    filters.set(name, valuesOf(wanted));
  }
  return filters;
}

function valuesOf(wanted: unknown): readonly string[] {
  if (wanted === null) return [];
  if (Array.isArray(wanted) && wanted.every((value) => typeof value === "string")) return wanted;
  if (typeof wanted === "object" && Object.values(wanted).every((on) => typeof on === "boolean")) {
    return Object.keys(wanted);
  }
  throw failure("invalid", "invalid filter");
}

/** True when the filter was not given, or one of its values is `value`. */
export function matchesExactly(filters: Filters, name: string, value: string): boolean {
  const wanted = filters.get(name);
  return wanted === undefined || wanted.length === 0 || wanted.includes(value);
}

/** True when the filter was not given, or `value` begins with one of its values. */
export function matchesPrefix(filters: Filters, name: string, value: string): boolean {
  const wanted = filters.get(name);
  if (wanted === undefined || wanted.length === 0) return true;
  return wanted.some((start) => value.startsWith(start));
}

/** True when the filter was not given, or one of its values, a regular expression, is found in `value`. */
export function matchesPattern(filters: Filters, name: string, value: string): boolean {
  const wanted = filters.get(name);
  if (wanted === undefined || wanted.length === 0) return true;
  return wanted.some((pattern) => pattern === value || (patternOf(pattern)?.test(value) ?? false));
}

/** True when every `key` and `key=value` of the filter is among the labels. */
export function matchesLabels(filters: Filters, name: string, labels: Labels): boolean {
  return (filters.get(name) ?? []).every((wanted) => {
    const at = wanted.indexOf("=");
    const key = at < 0 ? wanted : wanted.slice(0, at);
    if (!Object.hasOwn(labels, key)) return false;
    return at < 0 || labels[key] === wanted.slice(at + 1);
  });
}

/** The filter as a yes or no; null where it was not given. */
export function booleanFilter(filters: Filters, name: string): boolean | null {
  const wanted = filters.get(name);
  if (wanted === undefined || wanted.length === 0) return null;
  const truths = new Set(wanted.map((value) => booleanWords.get(value.toLowerCase())));
  const [only] = truths;
  if (truths.size === 1 && only !== undefined) return only;
  throw failure("invalid", `invalid filter '${name}=[${wanted.join(" ")}]'`);
}

/** Refuses values that the filter does not know, in docker's words. */
export function requireValues(filters: Filters, name: string, allowed: readonly string[]): void {
  for (const value of filters.get(name) ?? []) {
    if (!allowed.includes(value)) throw failure("invalid", `Invalid ${name} filter: '${value}'`);
  }
}

const booleanWords: ReadonlyMap<string, boolean> = new Map([
  ["1", true],
  ["true", true],
  ["0", false],
  ["false", false],
]);

/** Compiled once per text: lists are filtered by the same few, again and again. */
const patterns = new Map<string, RegExp | null>();
const patternsMax = 256;

function patternOf(text: string): RegExp | null {
  const known = patterns.get(text);
  if (known !== undefined) return known;
  if (patterns.size >= patternsMax) patterns.clear();
  let pattern: RegExp | null;
  try {
    pattern = new RegExp(text);
  } catch {
    // As in docker, a value that is no regular expression matches only itself.
    pattern = null;
  }
  patterns.set(text, pattern);
  return pattern;
}
