/** Every error that the world can cause, with its code. Docker's status codes come from `statusOf`. */

/** Kind of failure; each maps to one HTTP status of the Engine API (moby errdefs). */
export type ErrorCode =
  | "invalid" // 400: the request is wrong
  | "unauthorized" // 401
  | "forbidden" // 403
  | "not-found" // 404
  | "conflict" // 409: the name is taken, the thing is in use
  | "out-of-sequence" // 500 in docker ("update out of sequence")
  | "not-implemented" // 501: an option that does not exist yet, by name
  | "unavailable" // 503: no leader, not a manager, disk full
  | "internal" // 500
  | "failed-precondition"; // 400 in docker (grpc FailedPrecondition), e.g. demoting the last manager

/** The world failed. `message` is what a user reads: what was being done, on which value, why, what to do next. */
export class ShoalError extends Error {
  override readonly name = "ShoalError";
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}

/** Makes a ShoalError; reads well after `throw` and inside results. */
export function failure(code: ErrorCode, message: string, cause?: unknown): ShoalError {
  return new ShoalError(code, message, cause);
}

/** HTTP status of the Engine API for a code (api/server/httpstatus in moby). */
export function statusOf(code: ErrorCode): number {
  switch (code) {
    case "invalid":
    case "failed-precondition":
      return 400;
    case "unauthorized":
      return 401;
    case "forbidden":
      return 403;
    case "not-found":
      return 404;
    case "conflict":
      return 409;
    case "not-implemented":
      return 501;
    case "unavailable":
      return 503;
    case "out-of-sequence":
    case "internal":
      return 500;
    default:
      return code satisfies never;
  }
}

/** The text of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
