/** Values as Go's and docker's programs write them: durations, sizes, times, key=value. */
import { failure } from "../lib/errors.ts";

const unitNs: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** Nanoseconds of a Go duration such as `1h30m`; null when it is none. */
export function goDurationNs(text: string): number | null {
  const match = /^([+-]?)((?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.exec(text);
  if (text === "0") return 0;
  if (match === null) return null;
  let total = 0;
  for (const [, number, unit] of text.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)) {
    total += Number(number) * (unitNs[unit ?? ""] ?? 0);
  }
  return Math.round(text.startsWith("-") ? -total : total);
}

/** Go's writing of a duration, e.g. `1m30s`, `5s`, `0s`. */
export function formatGoDuration(ns: number): string {
  if (ns === 0) return "0s";
  if (ns < 0) return `-${formatGoDuration(-ns)}`;
  if (ns < 1e3) return `${ns}ns`;
  if (ns < 1e6) return `${ns / 1e3}µs`;
  if (ns < 1e9) return `${ns / 1e6}ms`;
  const seconds = ns / 1e9;
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  const rest = Number((seconds % 60).toFixed(9));
  if (hours > 0) return `${hours}h${minutes}m${rest}s`;
  return minutes > 0 ? `${minutes}m${rest}s` : `${rest}s`;
}

/** Bytes of a size such as `64m` or `1.5GiB` (powers of 1024, as docker's units.RAMInBytes); null when it is none. */
export function ramBytes(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?|\.\d+) ?([kmgtp]?)(?:i?b)?$/i.exec(text);
  if (match === null) return null;
  const power = "kmgtp".indexOf((match[2] ?? "").toLowerCase()) + 1;
  return Math.trunc(Number(match[1]) * 1024 ** (match[2] === "" ? 0 : power));
}

/** Nano-CPUs of a decimal number of processors. Throws `invalid` when it has more than nine decimals, as docker does. */
export function nanoCpus(text: string): number {
  const [whole = "", fraction = ""] = text.replace(/^[+]/, "").split(".");
  if (fraction.replace(/0+$/, "").length > 9) {
    throw failure("invalid", "value is too precise");
  }
  const sign = whole.startsWith("-") ? -1 : 1;
  const nano = Math.abs(Number(whole || "0")) * 1e9 + Number(fraction.padEnd(9, "0").slice(0, 9));
  return sign * nano;
}

/** `KEY=VALUE` and `KEY` (empty value) as a map; later ones win. */
export function labelMap(entries: readonly string[]): Record<string, string> {
  const map: Record<string, string> = {};
  for (const entry of entries) {
    const at = entry.indexOf("=");
    if (at < 0) map[entry] = "";
    else map[entry.slice(0, at)] = entry.slice(at + 1);
  }
  return map;
}

/** The `filters` parameter for `--filter KEY=VALUE…`; null for none. Throws `invalid` for one without `=`. */
export function filterMap(entries: readonly string[]): Record<string, Record<string, true>> | null {
  if (entries.length === 0) return null;
  const map: Record<string, Record<string, true>> = {};
  for (const entry of entries) {
    const at = entry.indexOf("=");
    if (at < 0) throw failure("invalid", "bad format of filter (expected name=value)");
    const key = entry.slice(0, at).trim().toLowerCase();
    const values = map[key] ?? {};
    values[entry.slice(at + 1).trim()] = true;
    map[key] = values;
  }
  return map;
}

/** `--since`, `--until`: a Go duration before now, a date, or seconds; answered as `SECONDS.NANOS`. Throws `invalid`. */
export function timestamp(text: string, nowMs: number): string {
  const ago = goDurationNs(text);
  if (ago !== null && text !== "0") return formatSeconds(nowMs - ago / 1e6);
  if (/^\d+(\.\d{1,9})?$/.test(text)) return text;
  const match = /^\d{4}-\d\d-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?)?(Z|[+-]\d\d:\d\d)?$/.exec(
    text,
  );
  if (match === null) {
    throw failure("invalid", `failed to parse value as time or duration: ${JSON.stringify(text)}`);
  }
  const [date = "", clock = ""] = text.replace(/(Z|[+-]\d\d:\d\d)$/, "").split("T");
  const zone = match[5] ?? "";
  const full = clock.split(":").concat("00", "00").slice(0, 3);
  if (full[0] === "") full[0] = "00";
  const parsed = Date.parse(`${date}T${full.join(":")}${zone}`);
  if (Number.isNaN(parsed)) {
    throw failure("invalid", `failed to parse value as time or duration: ${JSON.stringify(text)}`);
  }
  return formatSeconds(parsed);
}

function formatSeconds(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const nanos = Math.round((ms - seconds * 1000) * 1e6);
  return `${seconds}.${String(nanos).padStart(9, "0")}`;
}

/** Words of a shell-like line, for `--args` and `--entrypoint`: quotes and backslashes as in sh. */
export function shellWords(line: string): string[] {
  const words: string[] = [];
  let word: string | null = null;
  let quote = "";
  for (let at = 0; at < line.length; at += 1) {
    const char = line[at] ?? "";
    if (quote !== "") {
      if (char === quote) quote = "";
      else if (char === "\\" && quote === '"' && '"\\$`'.includes(line[at + 1] ?? " ")) {
        at += 1;
        word = (word ?? "") + (line[at] ?? "");
      } else word = (word ?? "") + char;
    } else if (char === "'" || char === '"') {
      quote = char;
      word = word ?? "";
    } else if (char === "\\" && at + 1 < line.length) {
      at += 1;
      word = (word ?? "") + (line[at] ?? "");
    } else if (/\s/.test(char)) {
      if (word !== null) words.push(word);
      word = null;
    } else word = (word ?? "") + char;
  }
  if (quote !== "") throw failure("invalid", `${JSON.stringify(line)}: a quote is not closed`);
  if (word !== null) words.push(word);
  return words;
}
