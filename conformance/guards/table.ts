/** What became of each guard, as lines for a terminal and as a table for docs/. */
import { shortened } from "../../sim/teeth/table.ts";
import type { Verdict } from "./cargo.ts";
import type { Guard, GuardTest } from "./guard.ts";

/** What the test said of a copy without the guard. */
export interface Outcome {
  readonly guard: Guard;
  readonly verdict: Verdict;
  readonly seconds: number;
}

/** One guard: name, item, and what the test said without it. */
export function outcomeLine({ guard, verdict, seconds }: Outcome): string {
  const [word, said] = cells(verdict);
  const columns = [guard.name.padEnd(34), guard.item.padEnd(32), word.padEnd(17)];
  return `${columns.join("")}${seconds.toFixed(1).padStart(6)} s  ${shortened(said)}`;
}

/** All of them as a Markdown table. */
export function markdown(outcomes: readonly Outcome[]): string {
  const head = "| guard | item | without it | the test that fails then | what it says |";
  const rows = outcomes.map(({ guard, verdict }) => {
    const [word, said] = cells(verdict);
    const places = guard.because === undefined ? "" : ` (${guard.because})`;
    const told = word === "caught" ? shortened(said) : `${word} ${shortened(said)}`.trim();
    const columns = [guard.name, guard.item, `${guard.what}${places}`, testName(guard.test), told];
    return `| ${columns.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`;
  });
  return [head, "|---|---|---|---|---|", ...rows].join("\n");
}

/** How many were caught. */
export function sumUp(outcomes: readonly Outcome[]): string {
  const caught = outcomes.filter(isCaught).length;
  return `${caught} of ${outcomes.length} guards are missed by their test when they are gone`;
}

/** Whether the test, built, has failed without the guard. */
export function isCaught({ verdict }: Outcome): boolean {
  return verdict.kind === "failed";
}

/** Where a test is and how it is named, as short as is clear. */
export function testName({ crate, target, name }: GuardTest): string {
  const place = target.startsWith("--") ? "src" : `tests/${target}`;
  return `${crate.replace(/^shoal-/, "")}/${place} ${name}`;
}

function cells(verdict: Verdict): readonly [word: string, said: string] {
  switch (verdict.kind) {
    case "failed":
      return ["caught", verdict.said];
    case "passed":
      return ["NOT CAUGHT", ""];
    case "does not compile":
      return ["DOES NOT COMPILE", verdict.said];
    case "broken":
      return ["NO VERDICT", verdict.said];
    default:
      return verdict satisfies never;
  }
}
