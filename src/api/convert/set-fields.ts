/** Objects without their unset fields, as Go's `omitempty` leaves them out. */

/** A copy without fields that are undefined, null, false, 0, "" or empty lists and maps. */
export function withoutUnset(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const set: Record<string, unknown> = {};
  for (const name of Object.keys(fields)) {
    const value = fields[name];
    if (value === undefined || value === null || value === false || value === 0 || value === "") {
      continue;
    }
    if (typeof value === "object" && isEmpty(value)) continue;
    set[name] = value;
  }
  return set;
}

/** A copy without fields that are undefined or null: for pointers, whose zero values count. */
export function withoutNull(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const set: Record<string, unknown> = {};
  for (const name of Object.keys(fields)) {
    const value = fields[name];
    if (value !== undefined && value !== null) set[name] = value;
  }
  return set;
}

function isEmpty(value: object): boolean {
  if (Array.isArray(value)) return value.length === 0;
  for (const _ in value) return false;
  return true;
}
