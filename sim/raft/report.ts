/** What many seeds of the Raft simulator add up to, as lines for a terminal or as a table for docs/. */
import { addCounts, type Counts, countedNames, noCounts } from "./counts.ts";
import type { RaftRun } from "./simulation.ts";

/** The sum of the seeds that ran. */
export class RaftReport {
  seeds = 0;
  nodeTicks = 0;
  events = 0;
  simulatedMs = 0;
  slowestMs = 0;
  readonly violations: number[] = [];
  readonly counts: Counts = noCounts();
  #traces = 0;

  add(run: RaftRun): void {
    this.seeds += 1;
    this.nodeTicks += run.nodeTicks;
    this.events += run.events;
    this.simulatedMs += run.simulatedMs;
    this.slowestMs = Math.max(this.slowestMs, run.healedMs);
    if (run.violation !== null) this.violations.push(run.seed);
    addCounts(this.counts, run.counts);
    this.#traces = (Math.imul(this.#traces, 31) + Number.parseInt(run.traceHash, 16)) >>> 0;
  }

  /** What it was, and how much; `seconds` of wall time and of one core's work. */
  rows(seconds: number, cpuSeconds: number): readonly (readonly [string, string])[] {
    return [
      ["scenario", "raft"],
      ["seeds", count(this.seeds)],
      ["wall time", `${seconds.toFixed(1)} s`],
      ["processor time", `${cpuSeconds.toFixed(1)} s`],
      ["simulated time", `${count(this.simulatedMs / 1_000)} s`],
      ["node-ticks", count(this.nodeTicks)],
      ["node-ticks per second", count(this.nodeTicks / seconds)],
      ["events", `${count(this.events)} (${count(this.events / seconds)} a second)`],
      ...countedNames().map((name) => [name, count(this.counts[name])] as const),
      ["slowest to go on when healed", `${(this.slowestMs / 1_000).toFixed(1)} s`],
      ["trace of all seeds", this.#traces.toString(16).padStart(8, "0")],
      ["violations", count(this.violations.length)],
    ];
  }
}

export function asText(rows: readonly (readonly [string, string])[]): string {
  return rows.map(([what, value]) => `${what.padEnd(48)}${value}\n`).join("");
}

export function asMarkdown(rows: readonly (readonly [string, string])[]): string {
  const lines = rows.map(([what, value]) => `| ${what} | ${value} |\n`).join("");
  return `| what | how much |\n|---|---:|\n${lines}`;
}

function count(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}
