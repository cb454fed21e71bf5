/**
 * When the event loop may do a sync itself. Told of how long each sync took, it trusts a device that is steadily quick
 * and lets go of one that is not, for as long as its worst costs at most a known share of the loop's time. Pure.
 */
import { assert } from "../lib/assert.ts";

/** A sync that ends before this is quick, in ms: some ten times what an SSD takes that nobody else keeps busy. */
export const quickSyncMs = 1;
/** So many quick ones in a row, wherever they were done, before the event loop does one. */
export const quickRunMin = 8;
/** A sync on the event loop that was not quick sends the next ones to the thread for so many times as long as it took. */
export const backOffTimes = 10;

export interface SyncPace {
  /** Whether the event loop may do the sync that is asked for at `nowMs`. */
  trusts(nowMs: number): boolean;
  /** One that began at `beganMs` is over at `nowMs`, on the event loop or not. Times are of one clock that never goes back. */
  took(beganMs: number, nowMs: number, onLoop: boolean): void;
}

/** The pace of a device that nothing is known of yet. */
export function createSyncPace(): SyncPace {
  let quickRun = 0;
  let backUntilMs = Number.NEGATIVE_INFINITY;
  return {
    trusts: (nowMs) => quickRun >= quickRunMin && nowMs >= backUntilMs,
    took(beganMs, nowMs, onLoop) {
      const tookMs = nowMs - beganMs;
      assert(tookMs >= 0, "a sync ends after it began");
      if (tookMs < quickSyncMs) {
        quickRun += 1;
        return;
      }
      quickRun = 0;
      if (onLoop) backUntilMs = nowMs + backOffTimes * tookMs;
    },
  };
}
