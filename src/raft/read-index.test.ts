/** Goal: a read is answered once, after a quorum confirmed its round. Method: rounds of a leader with two followers. */
import { expect, test } from "vitest";
import { READS_WAITING_MAX } from "./limits.ts";
import { ReadRounds } from "./read-index.ts";

const two = (acknowledged: ReadonlySet<string>): boolean => acknowledged.size >= 2;
const read = (readId: number) => ({ from: "a", readId, index: readId });

test("reads asked in one turn share a round", () => {
  const rounds = new ReadRounds();
  rounds.add(read(1));
  rounds.add(read(2));
  expect(rounds.close()).toBe(1);
  expect(rounds.close()).toBeNull();
  expect(rounds.acknowledge(1, "a", two)).toEqual([]);
  expect(rounds.acknowledge(1, "b", two)).toEqual([read(1), read(2)]);
  expect(rounds.acknowledge(1, "c", two)).toEqual([]);
});

test("a later round's answer confirms the rounds before it; an earlier one's says nothing of later ones", () => {
  const rounds = new ReadRounds();
  for (const id of [1, 2, 3]) {
    rounds.add(read(id));
    rounds.close();
  }
  rounds.acknowledge(1, "a", two);
  expect(rounds.acknowledge(2, "b", two)).toEqual([read(1)]);
  expect(rounds.newest()).toBe(3);
  expect(rounds.acknowledge(3, "a", two)).toEqual([read(2)]);
  expect(rounds.acknowledge(3, "c", two)).toEqual([read(3)]);
  expect(rounds.newest()).toBeNull();
});

test("reads beyond the limit are dropped, and room comes back", () => {
  const rounds = new ReadRounds();
  for (let id = 0; id < READS_WAITING_MAX; id += 1) expect(rounds.add(read(id))).toBe(true);
  expect(rounds.add(read(-1))).toBe(false);
  rounds.close();
  expect(rounds.acknowledge(1, "a", () => true)).toHaveLength(READS_WAITING_MAX);
  expect(rounds.add(read(1))).toBe(true);
});
