/** Goal: the event loop syncs only where syncs are quick, and what slow ones cost it is bounded. Method: a device made of numbers. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { backOffTimes, createSyncPace, quickRunMin, quickSyncMs } from "./sync-pace.ts";

/** A clock, and syncs of given length done where the pace says. */
function device() {
  const pace = createSyncPace();
  let nowMs = 1_000;
  const sync = (tookMs: number): "loop" | "thread" => {
    const onLoop = pace.trusts(nowMs);
    const beganMs = nowMs;
    nowMs += tookMs;
    pace.took(beganMs, nowMs, onLoop);
    return onLoop ? "loop" : "thread";
  };
  return {
    sync,
    wait: (ms: number) => {
      nowMs += ms;
    },
    warm: () => {
      for (let n = 0; n < quickRunMin; n += 1) sync(0.1);
    },
  };
}

test("a device is trusted after a run of quick syncs, and one that was not quick begins the run anew", () => {
  const { sync } = device();
  for (let n = 1; n < quickRunMin; n += 1) expect(sync(0.1)).toBe("thread");
  expect(sync(quickSyncMs)).toBe("thread");
  for (let n = 0; n < quickRunMin; n += 1) expect(sync(0.1)).toBe("thread");
  expect(sync(0.1)).toBe("loop");
});

test("a device that is steadily slow is never trusted, however long it goes on", () => {
  const { sync } = device();
  for (let n = 0; n < 10_000; n += 1) expect(sync(quickSyncMs * 1.5)).toBe("thread");
});

test("a stall is met on the event loop once, then the thread meets it for ten times as long", () => {
  const { sync, wait, warm } = device();
  warm();
  const stallMs = 4_000;
  expect(sync(stallMs)).toBe("loop");
  for (let n = 0; n < 5; n += 1) expect(sync(stallMs)).toBe("thread");
  // Quick again, but not for long enough yet.
  wait((backOffTimes - 5) * stallMs - 100);
  for (let n = 0; n < 2 * quickRunMin; n += 1) expect(sync(0.1)).toBe("thread");
  wait(100);
  expect(sync(0.1)).toBe("loop");
});

test("what is slow holds up the event loop for at most an eleventh of the time, whatever comes", () => {
  const syncs = fc.array(
    fc.tuple(
      fc.oneof(
        fc.double({ min: 0.01, max: 0.9, noNaN: true }),
        fc.double({ min: 1, max: 5_000, noNaN: true }),
      ),
      fc.nat({ max: 30 }),
    ),
    { maxLength: 200 },
  );
  fc.assert(
    fc.property(syncs, (steps) => {
      const pace = createSyncPace();
      let nowMs = 0;
      let heldMs = 0;
      let lastMs = 0;
      for (const [tookMs, quickOnes] of steps) {
        for (const took of [...Array<number>(quickOnes).fill(0.05), tookMs]) {
          const onLoop = pace.trusts(nowMs);
          pace.took(nowMs, nowMs + took, onLoop);
          nowMs += took;
          if (onLoop && took >= quickSyncMs) {
            heldMs += took;
            lastMs = took;
          }
        }
      }
      // The last one is not paid for yet.
      expect(heldMs - lastMs).toBeLessThanOrEqual(nowMs / (backOffTimes + 1) + 1e-6);
    }),
  );
});
