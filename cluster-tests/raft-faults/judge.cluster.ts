/**
 * Goal: the judges of script/faults find what they are there for, and nothing else.
 * How: a history that real managers under faults have left is accepted, and every way to spoil it is found.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkout } from "../lib/command.ts";
import { jepsenText, type RecordedOp } from "./history.ts";
import { objections } from "./judge.ts";

/** One register of five managers, from the first call to the last read of each manager. One operation a line. */
const file = join(checkout, "cluster-tests/raft-faults/recorded-history.jsonl");
const recorded: readonly RecordedOp[] = readFileSync(file, "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as RecordedOp);

/** The history with the operation at `at` changed. */
function changed(at: number, change: Partial<RecordedOp>): RecordedOp[] {
  return recorded.map((op, index) => (index === at ? { ...op, ...change } : op));
}
/** Nobody looks at versions then: linearizability alone must find it. */
function withoutVersions(ops: readonly RecordedOp[]): RecordedOp[] {
  return ops.map((op) => ({ ...op, version: null }));
}
function indexes(wanted: (op: RecordedOp) => boolean): number[] {
  return recorded.flatMap((op, index) => (wanted(op) ? [index] : []));
}
const isRead = (op: RecordedOp): boolean => op.op.kind === "read" && op.outcome === "ok";
const isAcknowledgedWrite = (op: RecordedOp): boolean =>
  op.op.kind !== "read" && op.outcome === "ok";
const writtenBy = ({ op }: RecordedOp): number =>
  op.kind === "cas" ? op.to : op.kind === "write" ? op.value : -1;

test("the history has what it takes to judge the judges, and is accepted", () => {
  expect(indexes(isRead).length).toBeGreaterThan(50);
  expect(indexes(isAcknowledgedWrite).length).toBeGreaterThan(20);
  expect(indexes(({ outcome }) => outcome === "unknown").length).toBeGreaterThan(0);
  expect(indexes(({ outcome }) => outcome === "stale").length).toBeGreaterThan(0);
  expect(objections("recorded", recorded)).toEqual([]);
  expect(objections("recorded", withoutVersions(recorded))).toEqual([]);
});

test("a stale read is found wherever it is, by its version and without it", () => {
  let made = 0;
  for (const at of indexes(isRead)) {
    const read = recorded[at];
    const before = recorded.filter((op) => isRead(op) && (op.return ?? 0) < (read?.call ?? 0));
    const newest = before.reduce((most, op) => Math.max(most, op.version ?? 0), 0);
    const old = before.find((op) => (op.version ?? 0) < newest);
    if (old === undefined) continue;
    made += 1;
    const stale = changed(at, { value: old.value, version: old.version });
    expect(objections("stale", stale).join()).toMatch(/when version \d+ or a later one was known/);
    expect(objections("stale", withoutVersions(stale)).join()).toMatch(/not-linearizable/);
  }
  expect(made).toBeGreaterThan(30);
});

test("a client that mixes two registers is found", () => {
  // Its other register stands where this one stood some operations ago.
  const mixed = recorded.map((op, index) => {
    const other = recorded.slice(0, Math.max(0, index - 40)).findLast(isRead);
    return isRead(op) && op.process % 3 === 0 && other !== undefined
      ? { ...op, value: other.value, version: other.version }
      : op;
  });
  expect(objections("mixed", mixed).length).toBeGreaterThan(0);
  expect(objections("mixed", withoutVersions(mixed)).join()).toMatch(/not-linearizable/);
});

test("an acknowledged write that nobody finds afterwards is found", () => {
  const last = indexes(isAcknowledgedWrite).at(-1) ?? -1;
  const write = recorded[last];
  const isAfter = (op: RecordedOp): boolean => op.call > (write?.return ?? 0) && isRead(op);
  const before = recorded
    .filter((op) => isRead(op) && (op.return ?? 0) < (write?.call ?? 0))
    .at(-1);
  const lost = recorded
    .filter((op) => !isRead(op) || isAfter(op) || op.value !== writtenBy(write as RecordedOp))
    .map((op) =>
      isAfter(op) ? { ...op, value: before?.value ?? null, version: before?.version ?? null } : op,
    );
  expect(lost.filter(isAfter).length).toBeGreaterThanOrEqual(3);
  expect(objections("lost", lost).join()).toMatch(/a later one was known/);
  expect(objections("lost", withoutVersions(lost)).join()).toMatch(/not-linearizable/);
});

test("a write that was refused and seen all the same is found", () => {
  const seen = new Set(recorded.filter(isRead).map(({ value }) => value));
  const writes = indexes((op) => isAcknowledgedWrite(op) && seen.has(writtenBy(op)));
  expect(writes.length).toBeGreaterThan(10);
  for (const at of writes) {
    const ghost = objections("ghost", changed(at, { outcome: "refused" }));
    expect(ghost.join()).toMatch(/which was refused to process/);
  }
});

test("a value that nobody wrote, and two values of one version, are found", () => {
  const at = indexes(isRead).at(-1) ?? -1;
  expect(objections("made up", changed(at, { value: 1_000_000 })).join()).toMatch(
    /saw 1000000 .* which nobody wrote/,
  );
  const other = recorded.find((op) => isRead(op) && op.value !== recorded[at]?.value);
  expect(objections("torn", changed(at, { value: other?.value ?? null })).join()).toMatch(
    /was seen with the values/,
  );
});

test("writes whose outcome is unknown accuse nobody", () => {
  for (const part of [1, 3]) {
    const vague = recorded.map((op) =>
      isAcknowledgedWrite(op) && writtenBy(op) % part === 0
        ? { ...op, outcome: "unknown" as const, return: null }
        : op,
    );
    expect(objections("vague", vague)).toEqual([]);
  }
});

test("the file for script/check-history has every call once, and every answer that says something", () => {
  const lines = jepsenText(recorded).trim().split("\n");
  const judged = recorded.filter(({ outcome }) => outcome !== "refused");
  expect(lines).toHaveLength(judged.length * 2);
  for (const line of lines)
    expect(line).toMatch(
      /^INFO {2}jepsen\.util - \d+\t:(invoke|ok|fail|info)\t:(read|write|cas)\t(nil|\d+|\[\d+ \d+\]|:timed-out)$/,
    );
});
