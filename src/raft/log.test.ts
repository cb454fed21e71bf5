/** Goal: the in-memory log appends, conflicts and forgets by Raft's rules. Method: tables over logs written as terms. */
import { describe, expect, test } from "vitest";
import { RaftLog } from "./log.ts";
import type { Entry, SavedState, Snapshot } from "./types.ts";

/** Entries from `from` on whose terms are given. */
function entries(terms: readonly number[], from = 1): Entry[] {
  return terms.map((term, i) => ({
    index: from + i,
    term,
    kind: "normal",
    data: new Uint8Array(10),
  }));
}

function snapshot(index: number, term: number): Snapshot {
  const membership = {
    voters: ["a"],
    outgoing: [],
    learners: [],
    learnersNext: [],
    autoLeave: false,
  };
  return { index, term, membership, data: new Uint8Array(0) };
}

function logOf(terms: readonly number[], commit = 0): RaftLog {
  const saved: SavedState = {
    hardState: { term: terms.at(-1) ?? 0, vote: null, commit },
    snapshot: null,
    entries: entries(terms),
  };
  return new RaftLog(saved);
}

function termsOf(log: RaftLog): number[] {
  return log
    .slice(log.firstIndex, log.lastIndex, Number.MAX_SAFE_INTEGER)
    .map((entry) => entry.term);
}

describe("appendAfter()", () => {
  test.each([
    { name: "matching", prev: [3, 2], terms: [3], after: [1, 1, 2, 3], last: 4 },
    { name: "nothing new", prev: [2, 1], terms: [2], after: [1, 1, 2], last: 3 },
    { name: "an old, shorter message", prev: [1, 1], terms: [1], after: [1, 1, 2], last: 2 },
    { name: "a conflict", prev: [2, 1], terms: [3, 3], after: [1, 1, 3, 3], last: 4 },
    { name: "a conflict after a match", prev: [1, 1], terms: [1, 3], after: [1, 1, 3], last: 3 },
    { name: "the beginning", prev: [0, 0], terms: [1], after: [1, 1, 2], last: 1 },
    { name: "another term before it", prev: [3, 1], terms: [3], after: [1, 1, 2], last: null },
    { name: "a gap", prev: [4, 2], terms: [3], after: [1, 1, 2], last: null },
  ])("of $name", ({ prev, terms, after, last }) => {
    const log = logOf([1, 1, 2]);
    const [index = 0, term = 0] = prev;
    expect(log.appendAfter(index, term, entries(terms, index + 1), 0)).toBe(last);
    expect(termsOf(log)).toEqual(after);
  });

  test("commits no further than what the message vouches for", () => {
    const log = logOf([1, 1, 1]);
    log.appendAfter(1, 1, entries([1], 2), 3);
    expect(log.committed).toBe(2);
  });

  test("never replaces what is committed", () => {
    const log = logOf([1, 1, 2], 3);
    expect(() => log.appendAfter(2, 1, entries([3], 3), 0)).toThrow(
      "committed entry is never replaced",
    );
  });

  test("makes what it replaced undurable", () => {
    const log = logOf([1, 1, 2]);
    expect(log.hasUndurable()).toBe(false);
    log.appendAfter(1, 1, entries([3, 3], 2), 0);
    expect(log.takeUnoffered().map((entry) => entry.index)).toEqual([2, 3]);
    expect(log.takeUnoffered(), "each once").toEqual([]);
    // The answer of an older save does not count for what replaced it.
    log.durableThrough(3, 2);
    expect(log.durable).toBe(1);
    log.durableThrough(3, 3);
    expect(log.hasUndurable()).toBe(false);
  });
});

test.each([
  { at: [3, 2], expected: true },
  { at: [2, 2], expected: false },
  { at: [1, 3], expected: true },
  { at: [9, 1], expected: false },
])("upToDate() of $at is $expected", ({ at, expected }) => {
  expect(logOf([1, 1, 2]).upToDate(at[0] ?? 0, at[1] ?? 0)).toBe(expected);
});

test.each([
  { index: 6, term: 5, expected: { index: 6, term: 3 } },
  { index: 6, term: 2, expected: { index: 3, term: 1 } },
  { index: 6, term: 0, expected: { index: 0, term: 0 } },
  { index: 9, term: 3, expected: { index: 9, term: 0 } },
])("conflictByTerm($index, $term) is $expected", ({ index, term, expected }) => {
  expect(logOf([1, 1, 1, 3, 3, 3]).conflictByTerm(index, term)).toEqual(expected);
});

test("slice() gives what fits, at least one entry", () => {
  const log = logOf([1, 1, 1, 1]);
  const sizes = (bytes: number): number => log.slice(1, 4, bytes).length;
  expect([0, 42, 83, 84, 1000].map(sizes)).toEqual([1, 1, 1, 2, 4]);
});

describe("takeCommitted()", () => {
  test("gives each entry once, in pages of what is not applied yet", () => {
    const log = logOf([1, 1, 1, 1, 1], 5);
    const take = (): number[] => log.takeCommitted(90, false).map((entry) => entry.index);
    expect(take()).toEqual([1, 2]);
    expect(take(), "the page is full").toEqual([]);
    log.appliedThrough(1, 90);
    expect(take()).toEqual([3]);
    expect(take()).toEqual([]);
    log.appliedThrough(3, 90);
    expect(take()).toEqual([4, 5]);
    log.appliedThrough(5, 90);
    expect(log.hasCommitted(false)).toBe(false);
  });

  test("waits for the disk where that is asked", () => {
    const log = logOf([1, 1], 0);
    log.append(entries([1, 1], 3));
    log.commitThrough(4);
    expect(log.takeCommitted(1000, true).map((entry) => entry.index)).toEqual([1, 2]);
    log.durableThrough(3, 1);
    expect(log.takeCommitted(1000, true).map((entry) => entry.index)).toEqual([3]);
    expect(log.takeCommitted(1000, false).map((entry) => entry.index)).toEqual([4]);
  });
});

describe("compact()", () => {
  test("keeps a suffix for slow peers and the term before it", () => {
    const log = logOf([1, 1, 2, 2, 2], 5);
    log.appliedThrough(4, 1000);
    log.compact(snapshot(4, 2), 3);
    expect([log.firstIndex, log.lastIndex]).toEqual([3, 5]);
    expect([log.term(1), log.term(2), log.term(3)]).toEqual([null, 1, 2]);
    log.compact(snapshot(3, 2), 4);
    expect(log.firstIndex, "an older snapshot changes nothing").toBe(3);
  });

  test("of what is not applied is a bug", () => {
    const log = logOf([1, 1], 2);
    expect(() => log.compact(snapshot(2, 1), 3)).toThrow("only what is applied");
  });
});

test("a saved log that begins inside its snapshot goes on with one entry less", () => {
  const log = new RaftLog({
    hardState: { term: 2, vote: null, commit: 5 },
    snapshot: snapshot(4, 2),
    entries: entries([1, 2, 2, 2], 2),
  });
  expect([log.firstIndex, log.lastIndex, log.applied, log.committed]).toEqual([3, 5, 4, 5]);
  expect(log.term(2)).toBe(1);
});

test.each([
  {
    name: "a gap",
    terms: entries([1, 1]).filter((entry) => entry.index !== 1),
    commit: 0,
    why: "join on",
  },
  { name: "a commit index beyond it", terms: entries([1]), commit: 2, why: "is in the saved log" },
])("a saved log with $name is refused", ({ terms, commit, why }) => {
  const saved = { hardState: { term: 1, vote: null, commit }, snapshot: null, entries: terms };
  expect(() => new RaftLog(saved)).toThrow(why);
});

test("install() replaces the log and waits for the driver before it counts as applied", () => {
  const log = logOf([1, 1, 1], 1);
  log.install(snapshot(9, 3));
  expect([log.firstIndex, log.lastIndex, log.committed, log.applied]).toEqual([10, 9, 9, 0]);
  expect(log.takeCommitted(1000, false)).toEqual([]);
  expect(log.takeArrived()?.index).toBe(9);
  expect(log.takeArrived(), "offered once").toBeNull();
  log.installed(9);
  expect([log.applied, log.arrived]).toEqual([9, null]);
});
