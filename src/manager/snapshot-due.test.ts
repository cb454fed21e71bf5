/** Goal: snapshots come each interval, and those of two managers of one cluster never at the same entry. */
import { expect, test } from "vitest";
import { snapshotDue } from "./snapshot-due.ts";

function placesOf(self: string, voters: readonly string[], interval: number, through: number) {
  const places: number[] = [];
  for (let applied = 1; applied <= through; applied += 1) {
    if (snapshotDue(applied, places.at(-1) ?? 0, interval, self, voters)) places.push(applied);
  }
  return places;
}

test("each voter, and a learner, has places of its own, an interval apart", () => {
  const voters = ["a", "b", "c"];
  const all = [...voters, "learner"].map((id) => placesOf(id, voters, 100, 1_000));
  for (const places of all) {
    expect(places[0]).toBeLessThanOrEqual(100);
    for (const [at, place] of places.entries()) {
      if (at > 0) expect(place - (places[at - 1] ?? 0)).toBe(100);
    }
  }
  const flat = all.flat();
  expect(new Set(flat).size).toBe(flat.length);
});

test("entries that are applied many at a time are covered at once, and no place is made up for", () => {
  expect(snapshotDue(990, 0, 100, "a", ["a"])).toBe(true);
  expect(snapshotDue(999, 990, 100, "a", ["a"])).toBe(false);
  expect(snapshotDue(1_000, 990, 100, "a", ["a"])).toBe(true);
});

test("an interval of one entry covers each", () => {
  expect(placesOf("b", ["a", "b", "c"], 1, 5)).toEqual([1, 2, 3, 4, 5]);
});
