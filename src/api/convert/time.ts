/** Docker's times: RFC 3339 with nanoseconds out, Unix seconds with a fraction in. */
import type { InstantMs } from "../../lib/clock.ts";
import { failure } from "../../lib/errors.ts";

/** What Go writes for a time that was never set. */
export const zeroTime = "0001-01-01T00:00:00Z";

/** RFC 3339 without trailing zeros, as Go's RFC3339Nano; the zero time for null. */
export function timeText(at: InstantMs | null): string {
  if (at === null) return zeroTime;
  const text = new Date(at).toISOString();
  const fraction = at % 1000;
  if (fraction === 0) return `${text.slice(0, 19)}Z`;
  return fraction % 10 !== 0 ? text : `${text.slice(0, fraction % 100 === 0 ? 21 : 22)}Z`;
}

/** The same time with all nine digits, as docker's logs print it. */
export function withNineDigits(time: string): string {
  const parts = /^([^.Z+]+?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(time);
  if (parts === null) return time;
  return `${parts[1]}.${(parts[2] ?? "").padEnd(9, "0").slice(0, 9)}${parts[3]}`;
}

/** Nanoseconds since the epoch of `seconds[.fraction]`; null for nothing. Throws ShoalError("invalid"). */
export function parseTimestamp(name: string, text: string): bigint | null {
  if (text === "") return null;
  const parts = /^(-?\d{1,15})(?:\.(\d{1,9}))?$/.exec(text);
  if (parts !== null) {
    const fraction = BigInt((parts[2] ?? "").padEnd(9, "0"));
    return BigInt(parts[1] ?? "0") * 1_000_000_000n + fraction;
  }
  const parsed = /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(parsed)) {
    throw failure(
      "invalid",
      `invalid value for "${name}": failed to parse value as time or duration: "${text}"`,
    );
  }
  return BigInt(parsed) * 1_000_000n;
}

/** "About a minute", "3 hours": how long, in docker's words (go-units HumanDuration). */
export function humanDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.round(seconds / 3600);
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(hours / 24 / 365)} years`;
}
