/** What a command works with: the engine, the terminal, the environment. Handed in, so that a test can give its own. */
import type { Readable, Writable } from "node:stream";
import type { EngineClient } from "./client.ts";

export interface Terminal {
  readonly out: Writable & { readonly isTTY?: boolean; readonly columns?: number };
  readonly err: Writable;
  readonly in: Readable & { readonly isTTY?: boolean };
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Milliseconds since the epoch. */
  now(): number;
}
export interface Cli extends Terminal {
  /** Connected on first use. Throws `invalid` when the daemon's address is not one. */
  engine(): EngineClient;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

/** Writes one line to the output. */
export function say(cli: Terminal, line: string): void {
  cli.out.write(`${line}\n`);
}
/** Writes one line to the error output. */
export function warn(cli: Terminal, line: string): void {
  cli.err.write(`${line}\n`);
}
