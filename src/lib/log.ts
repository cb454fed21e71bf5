/** Structured logging as a contract; io/pino-log.ts writes it. Fields first, message second, as pino has it. */
export interface Log {
  debug(fields: Readonly<Record<string, unknown>>, message: string): void;
  info(fields: Readonly<Record<string, unknown>>, message: string): void;
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
  error(fields: Readonly<Record<string, unknown>>, message: string): void;
  /** A log whose lines all carry `fields`. */
  child(fields: Readonly<Record<string, unknown>>): Log;
}

/** A log that keeps nothing: for pure tests and the simulator. */
export const silentLog: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLog,
};
