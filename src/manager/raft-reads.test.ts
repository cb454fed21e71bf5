// Goal: linearizable reads share rounds, are asked again, and end. Method: a core that notes what it is asked.
import { expect, test } from "vitest";
import { failure } from "../lib/errors.ts";
import type { RaftCore } from "../raft/types.ts";
import { readAgainMs, readTimeoutMs } from "./limits.ts";
import { createReads, type Reads } from "./raft-reads.ts";
import { createTestClock, settle, type TestClock } from "./testing/clock.ts";
import { createTestRandom } from "./testing/random.ts";

function bench(seed = 1): { reads: Reads; asked: number[]; clock: TestClock; woken: () => number } {
  const asked: number[] = [];
  let woken = 0;
  const clock = createTestClock();
  const core = { readIndex: (readId: number) => asked.push(readId) } as unknown as RaftCore;
  const reads = createReads({
    core,
    clock,
    random: createTestRandom(seed),
    wake: () => {
      woken += 1;
    },
  });
  return { reads, asked, clock, woken: () => woken };
}

test("readers of one turn share a round; who comes after it was drawn asks anew", async () => {
  const { reads, asked, woken } = bench();
  const first = Promise.all([reads.linearize(), reads.linearize()]);
  expect(asked).toHaveLength(1);
  reads.turned();
  const second = reads.linearize();
  expect(asked).toHaveLength(2);
  expect(woken()).toBe(2);
  reads.confirmed([asked[0] ?? 0]);
  await first;
  let answered = false;
  second.then(() => {
    answered = true;
  }, expect.unreachable);
  await settle();
  expect(answered).toBe(false);
  reads.confirmed([asked[1] ?? 0]);
  await second;
});

test("read numbers begin elsewhere in each life of a manager", () => {
  const starts = [1, 2, 3, 4, 5].map((seed) => {
    const { reads, asked } = bench(seed);
    reads.linearize().catch(expect.unreachable);
    return asked[0];
  });
  expect(new Set(starts).size).toBe(starts.length);
});

test("a lost question is asked again under its number, and given up in time", async () => {
  const { reads, asked, clock } = bench();
  const read = reads.linearize();
  reads.turned();
  const refused = expect(read).rejects.toMatchObject({ code: "unavailable" });
  await clock.advance(readAgainMs);
  expect(asked).toEqual([asked[0], asked[0]]);
  await clock.advance(readTimeoutMs);
  await refused;
  const count = asked.length;
  await clock.advance(readTimeoutMs);
  expect(asked).toHaveLength(count);
  // An answer that comes too late is nobody's.
  reads.confirmed([asked[0] ?? 0]);
});

test("when the manager stops, everybody who waits hears of it and no timer is left", async () => {
  const { reads, clock } = bench();
  const read = reads.linearize();
  reads.rejectAll(failure("unavailable", "this manager is stopping"));
  await expect(read).rejects.toThrow("stopping");
  expect(clock.pending).toBe(0);
});
