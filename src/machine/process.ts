/** Runs a program and waits for its end. */
import { type ChildProcess, spawn } from "node:child_process";
import { failure } from "../lib/errors.ts";

export interface Finished {
  /** Exit code; 128 and the signal's number when a signal ended it, as a shell has it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `argv` to its end with `input` as its standard input. Throws only when it cannot be started. */
export function run(argv: readonly string[], input: string = ""): Promise<Finished> {
  const [program = "", ...rest] = argv;
  const child = spawn(program, rest, { stdio: ["pipe", "pipe", "pipe"] });
  const output = [collect(child.stdout), collect(child.stderr)] as const;
  // A program that does not read its input closes it; its exit code says the rest.
  child.stdin.on("error", () => child.stdin.destroy());
  child.stdin.end(input);
  return exitCode(child).then((code) => ({ code, stdout: output[0](), stderr: output[1]() }));
}

/** Runs `argv`, which must succeed. Throws `internal` with what was being done and what the program said. */
export async function must(
  doing: string,
  argv: readonly string[],
  input: string = "",
): Promise<string> {
  const finished = await run(argv, input);
  if (finished.code !== 0) {
    const said = (finished.stderr || finished.stdout).trim() || "it said nothing";
    throw failure("internal", `${doing}: ${argv.join(" ")} ended with ${finished.code}: ${said}`);
  }
  return finished.stdout;
}

/** The exit code of a child, when it has ended and its output is read. Rejects when it could not start. */
export function exitCode(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once("error", (error) =>
      reject(failure("internal", `starting ${child.spawnfile}: ${error.message}`, error)),
    );
    child.once("close", (code, signal) => {
      resolve(code ?? 128 + (signal === null ? 0 : (signalNumbers[signal] ?? 0)));
    });
  });
}

/** Resolves after `ms`. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const signalNumbers: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGKILL: 9,
  SIGPIPE: 13,
  SIGTERM: 15,
};

function collect(stream: NodeJS.ReadableStream): () => string {
  const pieces: Buffer[] = [];
  stream.on("data", (piece: Buffer) => pieces.push(piece));
  return () => Buffer.concat(pieces).toString("utf8");
}
