/** `docker top`: the host's ps, and of its rows those of the container (moby daemon/top_unix.go). */
import { failure } from "../lib/errors.ts";
import type { HostFacts } from "./container-records.ts";

export interface Top {
  readonly titles: readonly string[];
  readonly processes: readonly (readonly string[])[];
}

/** Runs ps with `psArguments` (empty: -ef) and keeps the rows of `pids`. */
export async function topOf(
  psArguments: string,
  pids: readonly number[],
  host: HostFacts,
): Promise<Top> {
  const given = psArguments.trim() === "" ? "-ef" : psArguments.trim();
  return parsePs(await host.ps(given.split(/\s+/)), pids);
}

/** The titles and the rows of `pids` in ps's output. Throws when ps did not tell the PID. */
export function parsePs(output: string, pids: readonly number[]): Top {
  const [head = "", ...rest] = output.split("\n");
  const titles = head.trim().split(/\s+/);
  const pidAt = titles.indexOf("PID");
  if (pidAt < 0) throw failure("internal", "Couldn't find PID field in ps output");
  const wanted = new Set(pids.map(String));
  const processes = rest
    .map((line) => columnsOf(line, titles.length))
    .filter((fields) => wanted.has(fields[pidAt] ?? ""));
  return { titles, processes };
}

/** The last column keeps its spaces: it is the command. */
function columnsOf(line: string, count: number): readonly string[] {
  const fields = line.trim().split(/\s+/);
  if (fields.length <= count) return fields;
  return [...fields.slice(0, count - 1), fields.slice(count - 1).join(" ")];
}
