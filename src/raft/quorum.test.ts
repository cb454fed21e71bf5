/** Goal: majorities, single and joint, count right. Method: tables, and a plain count over all small cases. */
import { describe, expect, test } from "vitest";
import { jointCommitted, jointVote, majorityCommitted, majorityVote } from "./quorum.ts";

const ids = ["a", "b", "c", "d", "e"];

describe("majorityCommitted()", () => {
  test.each([
    { matched: [], expected: Number.POSITIVE_INFINITY },
    { matched: [null], expected: 0 },
    { matched: [12], expected: 12 },
    { matched: [12, null], expected: 0 },
    { matched: [12, 5], expected: 5 },
    { matched: [100, 101, 99], expected: 100 },
    { matched: [100, null, 99], expected: 99 },
    { matched: [5, null, null], expected: 0 },
    { matched: [1, 2, 3, 4], expected: 2 },
    { matched: [1, 5, 3, 4, 2], expected: 3 },
  ])("of $matched is $expected", ({ matched, expected }) => {
    const voters = ids.slice(0, matched.length);
    expect(majorityCommitted(voters, (id) => matched[ids.indexOf(id)] ?? null)).toBe(expected);
  });
});

test("jointCommitted() is the lower of both halves, and an empty half holds nothing back", () => {
  const matched = (id: string): number | null => ({ a: 13, b: 100, c: 7 })[id] ?? null;
  expect(jointCommitted({ voters: ["a"], outgoing: ["b"] }, matched)).toBe(13);
  expect(jointCommitted({ voters: ["b"], outgoing: [] }, matched)).toBe(100);
  expect(jointCommitted({ voters: ["a", "b"], outgoing: ["c", "d"] }, matched)).toBe(0);
});

test("majorityVote() agrees with counting, for every vote of up to five voters", () => {
  const said = [true, false, null];
  for (let voters = 1; voters <= 5; voters += 1) {
    for (let code = 0; code < 3 ** voters; code += 1) {
      const votes = Array.from(
        { length: voters },
        (_, i) => said[Math.floor(code / 3 ** i) % 3] ?? null,
      );
      const yes = votes.filter((vote) => vote === true).length;
      const no = votes.filter((vote) => vote === false).length;
      const expected = yes * 2 > voters ? "won" : no * 2 >= voters ? "lost" : "pending";
      const result = majorityVote(ids.slice(0, voters), (id) => votes[ids.indexOf(id)] ?? null);
      expect(result, JSON.stringify(votes)).toBe(expected);
    }
  }
});

test.each([
  { a: null, b: null, expected: "pending" },
  { a: true, b: null, expected: "pending" },
  { a: true, b: true, expected: "won" },
  { a: true, b: false, expected: "lost" },
  { a: false, b: null, expected: "lost" },
  { a: null, b: false, expected: "lost" },
])("jointVote() of $a and $b is $expected", ({ a, b, expected }) => {
  const membership = { voters: ["a"], outgoing: ["b"] };
  expect(jointVote(membership, (id) => (id === "a" ? a : b))).toBe(expected);
});
