/** Reads an object of docker's JSON field by field as Go would: any case, null is unset, and nothing set is ever ignored. */
import { failure, type ShoalError } from "../../lib/errors.ts";

/** Where a value stands, for messages. */
interface Place {
  /** "service create" */
  readonly operation: string;
  /** "ServiceSpec" */
  readonly type: string;
  /** "TaskTemplate.ContainerSpec"; empty at the root. */
  readonly path: string;
}
type NumberKind = "int64" | "uint64" | "float64";

/** One JSON object that is being read. Everything read counts as known; `done` refuses the rest. */
export class Fields {
  readonly #place: Place;
  readonly #values: Map<string, { readonly name: string; readonly value: unknown }>;
  readonly #read = new Set<string>();

  /** Throws ShoalError("invalid") when `value` is neither an object nor null. */
  constructor(value: unknown, place: Place) {
    this.#place = place;
    this.#values = new Map();
    if (value === null || value === undefined) return;
    if (typeof value !== "object" || Array.isArray(value)) throw mismatch(value, place, "object");
    for (const [name, held] of Object.entries(value)) {
      this.#values.set(name.toLowerCase(), { name, value: held });
    }
  }

  /** The body of a request. `type` is Go's name of it, for messages. */
  static root(value: unknown, operation: string, type: string): Fields {
    return new Fields(value, { operation, type, path: "" });
  }

  /** True for a field that is there and not null. */
  has(name: string): boolean {
    return this.#take(name) !== null;
  }

  text(name: string): string {
    const value = this.#take(name);
    if (value === null) return "";
    if (typeof value !== "string") throw mismatch(value, this.#at(name), "string");
    return value;
  }

  /** A text, or null where it is unset or empty. */
  textOrNull(name: string): string | null {
    const text = this.text(name);
    return text === "" ? null : text;
  }

  flag(name: string): boolean {
    return this.flagOrNull(name) ?? false;
  }

  flagOrNull(name: string): boolean | null {
    const value = this.#take(name);
    if (value === null) return null;
    if (typeof value !== "boolean") throw mismatch(value, this.#at(name), "bool");
    return value;
  }

  number(name: string, kind: NumberKind = "int64"): number {
    return this.numberOrNull(name, kind) ?? 0;
  }

  numberOrNull(name: string, kind: NumberKind = "int64"): number | null {
    const value = this.#take(name);
    if (value === null) return null;
    if (typeof value !== "number") throw mismatch(value, this.#at(name), kind);
    const whole = kind === "float64" || Number.isInteger(value);
    if (
      !whole ||
      !Number.isFinite(value) ||
      Math.abs(value) >= 2 ** 64 ||
      (kind === "uint64" && value < 0)
    ) {
      throw mismatch(value, this.#at(name), kind);
    }
    return value;
  }

  texts(name: string): readonly string[] {
    const values = this.#list(name, "string");
    for (const value of values) {
      if (typeof value !== "string") throw mismatch(value, this.#at(name), "string");
    }
    return values as readonly string[];
  }

  textMap(name: string): Readonly<Record<string, string>> {
    const value = this.#take(name);
    if (value === null) return {};
    if (typeof value !== "object" || Array.isArray(value)) {
      throw mismatch(value, this.#at(name), "map[string]string");
    }
    for (const held of Object.values(value)) {
      if (typeof held !== "string") throw mismatch(held, this.#at(name), "string");
    }
    return value as Readonly<Record<string, string>>;
  }

  /** An object; null where it is unset. */
  object(name: string): Fields | null {
    const value = this.#take(name);
    return value === null ? null : new Fields(value, this.#at(name));
  }

  objects(name: string): readonly Fields[] {
    return this.#list(name, "struct").map((value) => new Fields(value, this.#at(name)));
  }

  /** Accepted and of no effect, as the API's documents say of it. */
  ignore(...names: readonly string[]): void {
    for (const name of names) this.#take(name);
  }

  /** Refuses a field that is set, because what it asks for does not exist yet. `what` is a plural: "secrets". */
  refuse(name: string, what: string): void {
    if (isSet(this.#take(name))) throw this.unsupported(`${what} are not supported yet`);
  }

  /** A refusal in the name of this operation. */
  unsupported(what: string): ShoalError {
    return failure("not-implemented", `${this.#place.operation}: ${what}`);
  }

  /** Refuses what was set and not read: a misspelt option must not pass as accepted. */
  done(): void {
    for (const [key, { name, value }] of this.#values) {
      if (this.#read.has(key) || !isSet(value)) continue;
      const where = this.#place.path === "" ? "" : ` in ${this.#place.path}`;
      throw failure(
        "invalid",
        `${this.#place.operation}: unknown field "${name}"${where}; this version of shoal does not know it`,
      );
    }
  }

  #take(name: string): unknown {
    const key = name.toLowerCase();
    this.#read.add(key);
    return this.#values.get(key)?.value ?? null;
  }

  #list(name: string, element: string): readonly unknown[] {
    const value = this.#take(name);
    if (value === null) return [];
    if (!Array.isArray(value)) throw mismatch(value, this.#at(name), `[]${element}`);
    return value as readonly unknown[];
  }

  #at(name: string): Place {
    const { path } = this.#place;
    return { ...this.#place, path: path === "" ? name : `${path}.${name}` };
  }
}

/** False for Go's zero values and for what holds nothing else: null, false, 0, "", [], {} and objects of them. */
export function isSet(value: unknown): boolean {
  if (value === null || value === undefined || value === false || value === 0 || value === "") {
    return false;
  }
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === "object") return Object.values(value).some(isSet);
  return true;
}

/** In the words of Go's encoding/json, behind those of moby's httputils.ReadJSON. */
function mismatch(value: unknown, place: Place, wanted: string): ShoalError {
  const kind = Array.isArray(value) ? "array" : typeof value === "boolean" ? "bool" : typeof value;
  const found =
    typeof value === "number" && /^u?int|^float/.test(wanted) ? `number ${value}` : kind;
  const target =
    place.path === ""
      ? `Go value of type ${place.type}`
      : `Go struct field ${place.type}.${place.path} of type ${wanted}`;
  return failure("invalid", `invalid JSON: json: cannot unmarshal ${found} into ${target}`);
}
