/** Checks a state trace: each event follows from those before it, and the eight invariants hold after each. */
import type { TraceEvent } from "../../src/raft/trace.ts";
import { brokenInvariant, type InvariantName } from "./invariants.ts";
import { TracedCluster } from "./model.ts";
import { ImpossibleStep } from "./must.ts";
import { parseTraceLine } from "./parse.ts";
import { Follower, type FollowOptions } from "./steps.ts";

/** etcd's own runs: a network that repeats nothing. */
export const ETCD_RULES: FollowOptions = { refusalsTellCommitted: false, networkDuplicates: false };
/** Our core with its defaults, in any network. */
export const OUR_RULES: FollowOptions = { refusalsTellCommitted: true, networkDuplicates: true };

export interface Violation {
  /** Counted from 1. */
  readonly line: number;
  /** An invariant, "step" for an event that does not follow, "format" for a line that is no event. */
  readonly rule: InvariantName | "step" | "format";
  readonly event: TraceEvent | null;
  readonly why: string;
}
export interface TraceVerdict {
  readonly events: number;
  /** The first; null: the trace is accepted. */
  readonly violation: Violation | null;
}

/** Judges etcd's NDJSON: lines with the tag "trace" are events, other JSON lines are passed over. */
export function checkTrace(text: string, options?: FollowOptions): TraceVerdict {
  const checker = new TraceChecker(options);
  let events = 0;
  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    const parsed = parseTraceLine(line);
    if (parsed.kind === "other") continue;
    if (parsed.kind === "bad") {
      return {
        events,
        violation: { line: index + 1, rule: "format", event: null, why: parsed.why },
      };
    }
    events += 1;
    const violation = checker.take(parsed.event, index + 1);
    if (violation !== null) return { events, violation };
  }
  if (events === 0) {
    return {
      events,
      violation: { line: 1, rule: "format", event: null, why: "there is no event in it" },
    };
  }
  return { events, violation: null };
}

/** The same, event by event: hand it to the trace hook of cores that run. */
export class TraceChecker {
  readonly #cluster = new TracedCluster();
  readonly #follower: Follower;

  constructor(options: FollowOptions = ETCD_RULES) {
    this.#follower = new Follower(this.#cluster, options);
  }

  /** What is wrong with the event numbered `line`, or null. After a violation the checker is of no more use. */
  take(event: TraceEvent, line: number): Violation | null {
    try {
      const changed = this.#follower.step(event);
      const broken = brokenInvariant(this.#cluster.servers, changed);
      return broken === null ? null : { line, event, ...broken };
    } catch (error) {
      if (!(error instanceof ImpossibleStep)) throw error;
      const [, invariant, rest] = /^(LogMatchingInv): (.*)$/.exec(error.message) ?? [];
      return invariant === "LogMatchingInv"
        ? { line, event, rule: invariant, why: rest ?? "" }
        : { line, event, rule: "step", why: error.message };
    }
  }
}

/** One line for people. */
export function describeViolation({ line, rule, event, why }: Violation): string {
  const where = event === null ? `line ${line}` : `line ${line}, ${event.name} of ${event.nid}`;
  return `${where}: ${rule}: ${why}`;
}
