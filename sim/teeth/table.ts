/** What became of each fault, as lines for a terminal and as a table for docs/. */
import type { Fault } from "./bank.ts";
import type { Verdict } from "./catch.ts";

export interface Outcome {
  readonly fault: Fault;
  readonly verdict: Verdict;
}

/** One fault: name, pitfall, caught by what, in how many seeds, and what the checker said. */
export function caughtLine({ fault, verdict }: Outcome): string {
  const [by, seeds, said] = cells(verdict);
  const columns = [
    fault.name.padEnd(40),
    fault.pitfall.padEnd(12),
    by.padEnd(12),
    seeds.padStart(5),
  ];
  return `${columns.join("")}  ${shortened(said)}`;
}

/** All of them as a Markdown table. */
export function markdown(outcomes: readonly Outcome[]): string {
  const head =
    "| fault | pitfall | what is wrong then | caught by | seeds | what the checker said |";
  const rows = outcomes.map(({ fault, verdict }) => {
    const [by, seeds, said] = cells(verdict);
    const text = shortened(said).replaceAll("|", "\\|");
    return `| ${fault.name} | ${fault.pitfall} | ${fault.what} | ${by} | ${seeds} | ${text} |`;
  });
  return [head, "|---|---|---|---|---:|---|", ...rows].join("\n");
}

/** How many were caught, by what, and how soon. */
export function sumUp(outcomes: readonly Outcome[]): string {
  const caught = outcomes.filter(({ verdict }) => verdict.kind === "caught").length;
  const seeds = outcomes
    .flatMap(({ verdict }) => (verdict.kind === "caught" ? [verdict.seeds ?? []].flat() : []))
    .sort((a, b) => a - b);
  const median = seeds[Math.floor((seeds.length - 1) / 2)];
  const soon =
    median === undefined
      ? ""
      : `; by the simulator ${seeds.length}: median ${median} seeds, most ${seeds.at(-1)}`;
  return `${caught} of ${outcomes.length} faults caught${soon}`;
}

function cells(verdict: Verdict): readonly [by: string, seeds: string, said: string] {
  switch (verdict.kind) {
    case "caught":
      return [verdict.by, String(verdict.seeds ?? "-"), verdict.said];
    case "clean":
      return ["NOT CAUGHT", String(verdict.seeds ?? "-"), ""];
    case "broken":
      return ["NO VERDICT", "-", verdict.said];
    default:
      return verdict satisfies never;
  }
}

const SAID_LENGTH_MAX = 140;

/** One line of at most `SAID_LENGTH_MAX` letters. */
export function shortened(said: string): string {
  const line = said.replaceAll(/\s+/g, " ");
  return line.length <= SAID_LENGTH_MAX ? line : `${line.slice(0, SAID_LENGTH_MAX - 1)}…`;
}
