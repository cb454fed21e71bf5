/** Goal: a group of saves leaves what the same saves leave one by one. Method: random saves against the plain rule. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Entry, HardState } from "../raft/types.ts";
import { groupOf, type SaveChange } from "./raft-log-group.ts";

/** How far back a save goes, how many entries it brings, and how much it raises the term. */
const saves = fc.array(
  fc.tuple(
    fc.nat({ max: 4 }),
    fc.nat({ max: 4 }),
    fc.nat({ max: 1 }),
    fc.constantFrom(null, "n1", "n2"),
  ),
  { minLength: 1, maxLength: 12 },
);

test("groupOf() is the saves one by one", () => {
  let replaced = 0;
  fc.assert(
    fc.property(fc.nat({ max: 6 }), saves, (before, steps) => {
      const log: Entry[] = Array.from({ length: before }, (_, i) => entry(i + 1, 1));
      const base: HardState = { term: 1, vote: null, commit: 0 };
      const expected = [...log];
      const changes: SaveChange[] = [];
      let hardState = base;
      let promises = false;
      for (const [back, count, raise, vote] of steps) {
        const first = Math.max(1, expected.length + 1 - back);
        if (count > 0 && first <= expected.length) replaced += 1;
        const next = { term: hardState.term + raise, vote, commit: hardState.commit };
        promises ||= raise > 0 || vote !== hardState.vote;
        hardState = next;
        const entries = Array.from({ length: count }, (_, i) => entry(first + i, next.term));
        if (count > 0) expected.splice(first - 1, expected.length, ...entries);
        changes.push({ hardState, entries, snapshot: null });
      }
      const group = groupOf(changes, base, before);
      const start = group.entries[0]?.index ?? before + 1;
      expect([...log.slice(0, start - 1), ...group.entries]).toEqual(expected);
      expect(group.lastIndex).toBe(expected.length);
      expect(group.hardState).toEqual(hardState);
      expect(group.promises).toBe(promises);
    }),
    { seed: 7, numRuns: 500 },
  );
  expect(replaced).toBeGreaterThan(300);
});

test("groupOf() takes no save that does not follow", () => {
  const hardState = { term: 3, vote: null, commit: 0 };
  const gap = { hardState: null, entries: [entry(4, 3)], snapshot: null };
  expect(() => groupOf([gap], hardState, 2)).toThrow("join on");
  const old = { hardState: { ...hardState, term: 2 }, entries: [], snapshot: null };
  expect(() => groupOf([old], hardState, 2)).toThrow("never falls");
});

function entry(index: number, term: number): Entry {
  return { index, term, kind: "normal", data: new Uint8Array([index, term]) };
}
