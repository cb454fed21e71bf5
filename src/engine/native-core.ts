/** The native core as the engine sees it: calls that answer, events that come. io/native-client.ts speaks the socket. */
import { type ErrorCode, ShoalError } from "../lib/errors.ts";
import type {
  NativeCall,
  NativeEvent,
  NativeFailure,
  NativeRequest,
  NativeResults,
} from "../wire/native.ts";

/** The fields of a call, without its name and id. */
export type NativeArguments<C extends NativeCall> = Omit<
  Extract<NativeRequest, { readonly call: C }>,
  "id" | "call"
>;

export interface NativeCore {
  /** Rejects with NativeError when the core refuses, with ShoalError("unavailable") while it is away or when it went away before it answered (the call may have been done). */
  call<C extends NativeCall>(call: C, fields: NativeArguments<C>): Promise<NativeResults[C]>;
  readonly connected: boolean;
  /** Events in order; the returned function ends it. Exits come again on each new connection until `delete`. */
  onEvent(listener: (event: NativeEvent) => void): () => void;
  /** Called on each new connection, and soon when there is one already. */
  onConnected(listener: () => void): () => void;
}

/** A refusal of the native core, with its own code. */
export class NativeError extends ShoalError {
  readonly nativeCode: NativeFailure["code"];
  readonly errno: number | null;
  constructor(doing: string, failure: NativeFailure) {
    super(codes[failure.code], `${doing}: ${failure.doing}: ${failure.message}`);
    this.nativeCode = failure.code;
    this.errno = failure.errno;
  }
}

/** True for the refusal `code` of the native core. */
export function isNative(error: unknown, code: NativeFailure["code"]): boolean {
  return error instanceof NativeError && error.nativeCode === code;
}

const codes: Readonly<Record<NativeFailure["code"], ErrorCode>> = {
  "not-found": "not-found",
  "already-exists": "conflict",
  invalid: "invalid",
  conflict: "conflict",
  full: "unavailable",
  system: "internal",
};
