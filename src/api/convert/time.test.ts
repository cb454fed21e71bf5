/** Goal: times and durations look as Go's and docker's do. How: tables. */
import { expect, test } from "vitest";
import type { InstantMs } from "../../lib/clock.ts";
import { humanDuration, parseTimestamp, timeText, withNineDigits, zeroTime } from "./time.ts";

const base = Date.UTC(2026, 10, 20, 15, 1, 7);
test.each([
  [base, "2026-11-20T15:01:07Z"],
  [base + 768, "2026-11-20T15:01:07.768Z"],
  [base + 760, "2026-11-20T15:01:07.76Z"],
  [base + 700, "2026-11-20T15:01:07.7Z"],
  [base + 7, "2026-11-20T15:01:07.007Z"],
])("%d is %s", (ms, text) => {
  expect(timeText(ms as InstantMs)).toBe(text);
});

test("no time is Go's zero time", () => {
  expect(timeText(null)).toBe(zeroTime);
});

test.each([
  ["2026-11-20T15:01:07Z", "2026-11-20T15:01:07.000000000Z"],
  ["2026-11-20T15:01:07.5Z", "2026-11-20T15:01:07.500000000Z"],
  ["2026-11-20T15:01:07.123456789+01:00", "2026-11-20T15:01:07.123456789+01:00"],
])("%s has nine digits as %s", (time, text) => {
  expect(withNineDigits(time)).toBe(text);
});

test.each([
  ["", null],
  ["12", 12_000_000_000n],
  ["12.5", 12_500_000_000n],
  ["1136073600.000000001", 1_136_073_600_000_000_001n],
  ["1970-01-01T00:00:01Z", 1_000_000_000n],
])("%s parses", (text, ns) => {
  expect(parseTimestamp("since", text)).toBe(ns);
});

test("anything else does not parse", () => {
  expect(() => parseTimestamp("since", "yesterday")).toThrow('invalid value for "since"');
});

test.each([
  [0, "Less than a second"],
  [1_000, "1 second"],
  [59_999, "59 seconds"],
  [60_000, "About a minute"],
  [150_000, "2 minutes"],
  [3_600_000, "About an hour"],
  [2 * 3_600_000, "2 hours"],
  [3 * 86_400_000, "3 days"],
  [20 * 86_400_000, "2 weeks"],
  [100 * 86_400_000, "3 months"],
  [800 * 86_400_000, "2 years"],
])("%d ms are %s", (ms, text) => {
  expect(humanDuration(ms)).toBe(text);
});
