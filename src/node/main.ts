/** The daemon's entry point: arguments, signals, exit codes. */
import { createLog } from "../io/pino-log.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import { parseConfig, usage, version } from "./config.ts";
import { startDaemon } from "./daemon.ts";

/** How long a stop may take before the process ends anyway. */
const stopTimeoutMs = 10_000;

async function main(): Promise<void> {
  const config = parseConfig(process.argv.slice(2));
  if (config === "help") {
    process.stdout.write(usage);
    return;
  }
  if (config === "version") {
    process.stdout.write(`Shoal version ${version}\n`);
    return;
  }
  const log = createLog(config.logLevel);
  const die = (error: unknown): void => {
    log.error(
      { error: messageOf(error), stack: error instanceof Error ? error.stack : undefined },
      "shoald stops: this must not happen",
    );
    process.exit(70);
  };
  process.on("uncaughtException", die);
  process.on("unhandledRejection", die);
  const daemon = await startDaemon(config, log, (error) => {
    log.error({ error: error.message }, "shoald stops: the manager's log cannot be written");
    process.exit(74);
  });
  let stopping = false;
  const stop = (signal: string): void => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, "stopping; containers go on");
    const timer = setTimeout(() => process.exit(1), stopTimeoutMs);
    daemon
      .stop()
      .then(() => {
        clearTimeout(timer);
        process.exit(0);
      })
      .catch(die);
  };
  process.on("SIGTERM", () => stop("SIGTERM"));
  process.on("SIGINT", () => stop("SIGINT"));
}

/** One line for what the world did; a bug shows where it is. */
function explain(error: unknown): string {
  if (error instanceof ShoalError) return error.message;
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "ENOSPC" || code === "EDQUOT" || code === "EROFS") {
    return `starting: ${messageOf(error)}; free some space under --data-root and --exec-root, and start again`;
  }
  return error instanceof Error && error.stack !== undefined ? error.stack : String(error);
}

main().catch((error: unknown) => {
  process.stderr.write(`shoald: ${explain(error)}\n`);
  process.exit(error instanceof ShoalError && error.code === "invalid" ? 125 : 1);
});
