/** The log of a daemon: JSON lines on stderr by pino, written at once so that a crash loses none. */
import { destination, type Logger, pino } from "pino";
import type { Log } from "../lib/log.ts";

/** A Log that writes to file descriptor 2 from `level` up. */
export function createLog(level: "debug" | "info" | "warn" | "error"): Log {
  return wrap(pino({ level, base: null }, destination({ fd: 2, sync: true })));
}

function wrap(logger: Logger): Log {
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    child: (fields) => wrap(logger.child(fields)),
  };
}
