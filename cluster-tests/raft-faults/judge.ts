/**
 * Whether what clients saw of a register can be true of one register: three judges, each of which needs only the history.
 *
 * 1. No ghost: what was refused is never seen.
 * 2. Versions: the version of a row stands for one value, and never goes back in time.
 * 3. Linearizability, by sim/history. Values are unique, so a write with an unknown outcome that somebody saw has taken effect
 *    before the first answer that shows it: that bound spares the search most of its work.
 */
import { judge } from "../../sim/history/check.ts";
import { type RegisterOp, type RegisterResult, register } from "../../sim/history/models.ts";
import type { Operation } from "../../sim/history/types.ts";
import { type RecordedOp, resultOf } from "./history.ts";

/** Steps of the search before the checker gives up. */
const stepsMax = 20_000_000;

/** Everything that is wrong with a history, in words; empty when it is fine. */
export function objections(name: string, ops: readonly RecordedOp[]): readonly string[] {
  return [...ghosts(ops), ...versionsThatGoBack(ops), ...notLinearizable(ops)].map(
    (text) => `${name}: ${text}`,
  );
}

/** The value that an operation leaves when it takes effect. */
function written(op: RecordedOp): number | null {
  if (op.op.kind === "read") return null;
  return op.op.kind === "write" ? op.op.value : op.op.to;
}
/** The value that an operation shows to have been there. */
function seen(op: RecordedOp): number | null {
  if (op.outcome !== "ok") return null;
  if (op.op.kind === "read") return op.value;
  return op.op.kind === "cas" ? op.op.from : null;
}

function ghosts(ops: readonly RecordedOp[]): string[] {
  const refused = new Map<number, RecordedOp>();
  const writers = new Set<number>();
  for (const op of ops) {
    const value = written(op);
    if (value === null) continue;
    writers.add(value);
    if (op.outcome === "stale" || op.outcome === "refused") refused.set(value, op);
  }
  return ops.flatMap((op) => {
    const value = seen(op);
    if (value === null) return [];
    const ghost = refused.get(value);
    if (ghost !== undefined)
      return [
        `process ${op.process} saw ${value} at ${op.call}..${op.return}, which was refused to process ${ghost.process} at ${ghost.call}..${ghost.return}`,
      ];
    return writers.has(value)
      ? []
      : [`process ${op.process} saw ${value} at ${op.call}, which nobody wrote`];
  });
}

function versionsThatGoBack(ops: readonly RecordedOp[]): string[] {
  const found: string[] = [];
  const values = new Map<number, number | null>();
  // What is known to be over once an operation has returned: its version, or the one that it replaced and one more.
  const floors: { readonly at: number; readonly version: number }[] = [];
  for (const op of ops) {
    if (op.outcome !== "ok" || op.version === null || op.return === null) continue;
    if (op.op.kind === "read") {
      const known = values.get(op.version);
      if (known !== undefined && known !== op.value)
        found.push(`version ${op.version} was seen with the values ${known} and ${op.value}`);
      values.set(op.version, op.value);
      floors.push({ at: op.return, version: op.version });
    } else floors.push({ at: op.return, version: op.version + 1 });
  }
  floors.sort((a, b) => a.at - b.at);
  const reads = ops
    .filter((op) => op.op.kind === "read" && op.outcome === "ok" && op.version !== null)
    .sort((a, b) => a.call - b.call);
  let next = 0;
  let floor = 0;
  for (const read of reads) {
    for (; (floors[next]?.at ?? Number.POSITIVE_INFINITY) < read.call; next += 1)
      floor = Math.max(floor, floors[next]?.version ?? 0);
    if ((read.version ?? 0) < floor)
      found.push(
        `process ${read.process} read version ${read.version} (${read.value}) at ${read.call}..${read.return}, when version ${floor} or a later one was known`,
      );
  }
  return found;
}

function notLinearizable(ops: readonly RecordedOp[]): string[] {
  const { verdict, stuck } = judge(operationsOf(ops), register, stepsMax);
  if (verdict === "linearizable") return [];
  if (stuck === null)
    return [`${verdict}: ${ops.length} operations need more than ${stepsMax} steps`];
  const { process, call, op, result } = stuck;
  return [
    `${verdict}: no order explains what process ${process} was answered to the call at ${call}: ${JSON.stringify(op)} ${JSON.stringify(result)}`,
  ];
}

/** The history for the checker. A write without an answer that somebody saw gets the time of the first answer that shows it. */
function operationsOf(ops: readonly RecordedOp[]): Operation<RegisterOp, RegisterResult>[] {
  const firstSeen = new Map<number, number>();
  for (const op of ops) {
    const value = seen(op);
    if (value === null || op.return === null) continue;
    firstSeen.set(value, Math.min(firstSeen.get(value) ?? op.return, op.return));
  }
  return ops.flatMap((recorded): Operation<RegisterOp, RegisterResult>[] => {
    const { process, call, op, outcome } = recorded;
    // It had no effect and shows nothing; nor does a read that was not answered before the clients stopped.
    if (outcome === "refused" || (outcome !== "ok" && op.kind === "read")) return [];
    const value = written(recorded);
    const shown = value === null || outcome === "stale" ? undefined : firstSeen.get(value);
    const isAnswered = recorded.return !== null;
    if (!isAnswered && shown === undefined)
      return [{ process, call, return: null, op, result: null }];
    const result = resultOf(recorded);
    return [{ process, call, return: recorded.return ?? shown ?? null, op, result }];
  });
}
