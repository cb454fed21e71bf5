/** Runs commands as a person would, and tells what they said when they fail. */
import { spawn } from "node:child_process";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The checkout: this file is in cluster-tests/lib, or in dist/cluster-tests/lib once compiled. */
export const checkout: string = ((): string => {
  const here = dirname(fileURLToPath(import.meta.url));
  const up = here.includes(join("dist", "cluster-tests")) ? "../../.." : "../..";
  return resolve(here, up);
})();

export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a command to its end. Never throws for an exit code. */
export async function run(
  command: string,
  args: readonly string[],
  options: {
    readonly env?: Readonly<Record<string, string>>;
    readonly input?: string;
    readonly timeoutMs?: number;
  } = {},
): Promise<Outcome> {
  return await new Promise((done, reject) => {
    const child = spawn(command, [...args], {
      env: { ...process.env, ...options.env },
      stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 60_000);
    let out = "";
    let err = "";
    child.stdout?.on("data", (chunk) => {
      out += String(chunk);
    });
    child.stderr?.on("data", (chunk) => {
      err += String(chunk);
    });
    child.once("error", reject);
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      done({ code: code ?? (signal === "SIGKILL" ? 137 : 1), out, err });
    });
    if (options.input !== undefined) child.stdin?.end(options.input);
  });
}

/** Runs a command that must succeed; answers what it printed, trimmed. */
export async function must(
  command: string,
  args: readonly string[],
  options: Parameters<typeof run>[2] = {},
): Promise<string> {
  const { code, out, err } = await run(command, args, options);
  if (code !== 0) {
    throw new Error(`${command} ${args.join(" ")}: exit ${code}\n${out}${err}`);
  }
  return out.trim();
}

/** How often a condition is looked at. */
const lookEveryMs = 50;

/** Waits until `look` answers something other than null; tells what it waited for when it gives up. */
export async function until<T>(
  what: string,
  look: () => Promise<T | null>,
  timeoutMs = 30_000,
): Promise<T> {
  const started = Date.now();
  let last = "";
  for (;;) {
    try {
      const found = await look();
      if (found !== null) return found;
    } catch (error) {
      last = String(error);
    }
    if (Date.now() - started > timeoutMs) {
      throw new Error(`waited ${timeoutMs} ms in vain for ${what}${last ? `: ${last}` : ""}`);
    }
    await new Promise((next) => setTimeout(next, lookEveryMs));
  }
}
