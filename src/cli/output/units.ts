/** Numbers and times in docker's words (go-units). */

/** "About a minute", "2 hours", "5 days". */
export function humanDuration(ms: number): string {
  const seconds = Math.trunc(ms / 1000);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.trunc(ms / 60_000);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.trunc(ms / 3_600_000 + 0.5);
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.trunc(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.trunc(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.trunc(hours / 24 / 30)} months`;
  return `${Math.trunc(ms / 3_600_000 / 24 / 365)} years`;
}

/** "2 minutes ago" for an RFC 3339 time or Unix seconds. */
export function ago(when: string | number, nowMs: number): string {
  return `${humanDuration(nowMs - instantMs(when))} ago`;
}

/** Milliseconds since the epoch. */
export function instantMs(when: string | number): number {
  return typeof when === "number" ? when * 1000 : Date.parse(when);
}

/** `77.5MB`: powers of 1000 with three significant digits, as `docker images`. */
export function humanSize(bytes: number): string {
  return withUnit(bytes, 1000, ["B", "kB", "MB", "GB", "TB", "PB"], 3);
}

/** `23.54GiB`: powers of 1024 with four significant digits, as `docker info`. */
export function bytesSize(bytes: number): string {
  return withUnit(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4);
}

/** The first 12 characters of an id, without `sha256:`. */
export function shortId(id: string): string {
  return id.replace(/^sha256:/, "").slice(0, 12);
}

/** At most `length` characters, the last one an ellipsis when some are left out. */
export function ellipsis(text: string, length: number): string {
  const characters = [...text];
  if (characters.length <= length) return text;
  return length <= 1 ? (characters[0] ?? "") : `${characters.slice(0, length - 1).join("")}…`;
}

/** Order of names with numbers in them: web.2 before web.10. */
export function naturalOrder(a: string, b: string): number {
  const pieces = /(\d+|\D+)/g;
  const [left, right] = [a.match(pieces) ?? [], b.match(pieces) ?? []];
  for (let at = 0; at < Math.min(left.length, right.length); at += 1) {
    const [x = "", y = ""] = [left[at], right[at]];
    if (x === y) continue;
    if (/^\d/.test(x) && /^\d/.test(y) && Number(x) !== Number(y)) return Number(x) - Number(y);
    return x < y ? -1 : 1;
  }
  return left.length - right.length;
}

function withUnit(value: number, base: number, units: readonly string[], digits: number): string {
  let size = value;
  let unit = 0;
  while (size >= base && unit < units.length - 1) {
    size /= base;
    unit += 1;
  }
  // Go's %.3g: significant digits, no trailing zeros.
  const shown =
    size >= 10 ** digits ? String(Math.round(size)) : String(Number(size.toPrecision(digits)));
  return `${shown}${units[unit]}`;
}
