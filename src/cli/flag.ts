/** Flags as docker's users know them: kinds of values, their reading, and the words for a wrong one. */
import { failure } from "../lib/errors.ts";
import { goDurationNs, ramBytes } from "./values.ts";

/** Kind of a flag's value; its name is what help shows, as pflag does. */
export type FlagKind =
  | "bool"
  | "string"
  | "int"
  | "uint"
  | "float"
  | "decimal"
  | "duration"
  | "bytes"
  | "list"
  | "filter"
  | "map";

export interface FlagSpec {
  /** Without dashes. */
  readonly name: string;
  readonly short?: string;
  readonly kind: FlagKind;
  /** What help shows in place of the kind. */
  readonly shown?: string;
  readonly help: string;
  /** What help shows as the default. */
  readonly default?: string;
}

/** Throws with pflag's sentence unless `value` is right for the flag. */
export function checkFlagValue(flag: FlagSpec, value: string): void {
  const wrong = problem(flag.kind, value);
  if (wrong === null) return;
  const shown = flag.short === undefined ? `--${flag.name}` : `-${flag.short}, --${flag.name}`;
  throw failure(
    "invalid",
    `invalid argument ${JSON.stringify(value)} for "${shown}" flag: ${wrong}`,
  );
}

/** The values that one command was called with. */
export class Flags {
  readonly #values: Readonly<Record<string, unknown>>;
  /** `values` by flag name; absent means not given. */
  constructor(values: Readonly<Record<string, unknown>>) {
    this.#values = values;
  }
  has(name: string): boolean {
    return this.#values[name] !== undefined;
  }
  on(name: string): boolean {
    return this.#values[name] === true;
  }
  /** Null when not given. */
  text(name: string): string | null {
    const value = this.#values[name];
    if (typeof value === "string") return value;
    return Array.isArray(value) ? String(value.at(-1)) : null;
  }
  /** Every value given, in order. */
  list(name: string): readonly string[] {
    const value = this.#values[name];
    return Array.isArray(value) ? value.map(String) : [];
  }
  /** A number of kind int, uint or float; null when not given. */
  number(name: string): number | null {
    const text = this.text(name);
    return text === null ? null : Number(text);
  }
  /** Nanoseconds of a duration; null when not given. */
  ns(name: string): number | null {
    const text = this.text(name);
    return text === null ? null : goDurationNs(text);
  }
  /** A size with its unit; null when not given. */
  bytes(name: string): number | null {
    const text = this.text(name);
    return text === null ? null : ramBytes(text);
  }
}

function problem(kind: FlagKind, value: string): string | null {
  switch (kind) {
    case "int":
      return /^[+-]?\d+$/.test(value)
        ? null
        : `strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax`;
    case "uint":
      return /^\d+$/.test(value)
        ? null
        : `strconv.ParseUint: parsing ${JSON.stringify(value)}: invalid syntax`;
    case "float":
      return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value)
        ? null
        : `strconv.ParseFloat: parsing ${JSON.stringify(value)}: invalid syntax`;
    case "decimal":
      return /^[+-]?(\d+\.?\d*|\.\d+)$/.test(value)
        ? null
        : `failed to parse ${value} as a rational number`;
    case "duration":
      return goDurationNs(value) === null
        ? `time: invalid duration ${JSON.stringify(value)}`
        : null;
    case "bytes":
      return ramBytes(value) === null ? `invalid size: '${value}'` : null;
    case "filter":
      return value.includes("=") ? null : "bad format of filter (expected name=value)";
    case "map":
      return value.includes("=") ? null : `${value} must be formatted as key=value`;
    case "bool":
    case "string":
    case "list":
      return null;
    default:
      return kind satisfies never;
  }
}
