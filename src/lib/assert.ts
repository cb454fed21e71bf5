/** A broken assertion is a bug in this program, never the world's fault: the process stops with it. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** States what must hold; throws AssertionError when it does not. Stays on in production. */
export function assert(condition: boolean, whatMustHold: string): asserts condition {
  if (!condition) throw new AssertionError(`must hold: ${whatMustHold}`);
}

/** The value, which must be there. */
export function present<T>(value: T | null | undefined, what: string): T {
  assert(value !== null && value !== undefined, `${what} is present`);
  return value;
}
