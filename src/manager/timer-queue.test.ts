import * as fc from "fast-check";
import { expect, test } from "vitest";
import { after } from "../lib/clock.ts";
import { createTestClock } from "./testing/clock.ts";
import { createTimerQueue } from "./timer-queue.ts";

test("wakes each key once, at the last time that was set for it, with one alarm", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.tuple(fc.integer({ min: 0, max: 9 }), fc.option(fc.integer({ min: 0, max: 99 }))),
      ),
      async (settings) => {
        const clock = createTestClock();
        const begin = clock.now();
        const rung: [number, number][] = [];
        const queue = createTimerQueue<number>(clock, (key) =>
          rung.push([key, clock.now() - begin]),
        );
        const wanted = new Map<number, number>();
        for (const [key, at] of settings) {
          queue.set(key, at === null ? null : after(begin, at));
          if (at === null) wanted.delete(key);
          else wanted.set(key, at);
          expect(queue.has(key)).toBe(at !== null);
        }
        expect(queue.size).toBe(wanted.size);
        expect(clock.pending).toBe(wanted.size === 0 ? 0 : 1);
        await clock.advance(200);
        expect(new Map(rung)).toEqual(wanted);
        expect(rung).toHaveLength(wanted.size);
        expect(rung.map(([, at]) => at)).toEqual(
          [...rung.map(([, at]) => at)].sort((a, b) => a - b),
        );
        expect([queue.size, clock.pending]).toEqual([0, 0]);
      },
    ),
  );
});
