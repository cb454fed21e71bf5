/** Entry point of the `shoal` command: this process's terminal and signals, then one run. */
import { runShoal } from "./program.ts";

const abort = new AbortController();
/** How long a command has, after Ctrl-C, to say where things stand. */
const interruptGraceMs = 1_000;
process.on("SIGINT", () => {
  if (abort.signal.aborted) process.exit(130);
  abort.abort();
  setTimeout(() => process.exit(130), interruptGraceMs).unref();
});
// A reader that goes away (| head) ends the command quietly, as it ends others.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

process.exitCode = await runShoal(
  process.argv.slice(2),
  {
    out: process.stdout,
    err: process.stderr,
    in: process.stdin,
    env: process.env,
    now: () => Date.now(),
  },
  abort.signal,
);
