/** Goal: the history checker is exact. How: tricky cases by hand, and thousands of random histories against trying every order. */
import { describe, expect, test } from "vitest";
import { checkLinearizable, judge } from "./check.ts";
import { type KvOp, kv, type RegisterOp, type RegisterResult, register } from "./models.ts";
import type { Model, Operation, Verdict } from "./types.ts";

type Op = Operation<RegisterOp, RegisterResult>;

function write(call: number, returned: number | null, value: number): Op {
  const result = returned === null ? null : ({ kind: "write" } as const);
  return { process: 0, call, return: returned, op: { kind: "write", value }, result };
}
function read(call: number, returned: number, value: number | null): Op {
  return {
    process: 0,
    call,
    return: returned,
    op: { kind: "read" },
    result: { kind: "read", value },
  };
}
function cas(call: number, returned: number | null, from: number, to: number, swapped = true): Op {
  const result = returned === null ? null : ({ kind: "cas", swapped } as const);
  return { process: 0, call, return: returned, op: { kind: "cas", from, to }, result };
}

const yes = "linearizable";
const no = "not-linearizable";

describe("by hand", () => {
  const cases: readonly [string, readonly Op[], Verdict][] = [
    ["nothing happened", [], yes],
    ["a first read finds nothing", [read(1, 2, null)], yes],
    ["a read of what nobody wrote", [read(1, 2, 7)], no],
    ["a read after a write", [write(1, 2, 1), read(3, 4, 1)], yes],
    ["a stale read", [write(1, 2, 1), write(3, 4, 2), read(5, 6, 1)], no],
    ["a read beside a write finds either", [write(1, 2, 1), write(3, 6, 2), read(4, 5, 1)], yes],
    [
      "two reads that go back in time",
      [write(1, 2, 1), write(3, 10, 2), read(4, 5, 2), read(6, 7, 1)],
      no,
    ],
    ["a lost acknowledged write", [write(1, 2, 1), read(3, 4, null)], no],
    [
      "an unknown write that took effect late",
      [write(1, 2, 1), write(3, null, 2), read(4, 5, 1), read(6, 7, 2)],
      yes,
    ],
    [
      "an unknown write that never took effect",
      [write(1, 2, 1), write(3, null, 2), read(4, 5, 1)],
      yes,
    ],
    [
      "an unknown write takes effect only once",
      [write(1, 2, 1), write(3, null, 2), read(4, 5, 2), write(6, 7, 1), read(8, 9, 2)],
      no,
    ],
    [
      "two equal unknown writes take effect twice",
      [
        write(1, 2, 1),
        write(3, null, 2),
        write(3, null, 2),
        read(4, 5, 2),
        write(6, 7, 1),
        read(8, 9, 2),
      ],
      yes,
    ],
    [
      "an unknown write does not take effect before it is asked",
      [read(1, 2, 2), write(3, null, 2)],
      no,
    ],
    ["an unknown cas that took effect", [write(1, 2, 1), cas(3, null, 1, 2), read(4, 5, 2)], yes],
    [
      "an unknown cas that could not take effect",
      [write(1, 2, 3), cas(3, null, 1, 2), read(4, 5, 2)],
      no,
    ],
    [
      "a chain of unknown cas, asked in the wrong order",
      [write(1, 2, 1), cas(3, null, 2, 3), cas(4, null, 1, 2), read(5, 6, 3)],
      yes,
    ],
    ["a cas that could not succeed", [write(1, 2, 1), cas(3, 4, 2, 3)], no],
    ["a cas that had to succeed", [write(1, 2, 1), cas(3, 4, 1, 2, false)], no],
    [
      "a cas refused because of an unknown write",
      [write(1, 2, 1), write(3, null, 5), cas(4, 5, 1, 2, false)],
      yes,
    ],
    [
      "one of two cas wins",
      [write(1, 2, 1), cas(3, 6, 1, 2), cas(4, 5, 1, 3, false), read(7, 8, 2)],
      yes,
    ],
    ["two cas win once", [write(1, 2, 1), cas(3, 6, 1, 2), cas(4, 5, 1, 3)], no],
    ["call and answer at the same time overlap", [write(1, 3, 1), read(3, 4, null)], yes],
    ["an answer of another kind", [{ ...read(1, 2, null), result: { kind: "write" } }], no],
  ];
  test.each(cases)("%s", (_name, history, verdict) => {
    expect(checkLinearizable(history, register)).toBe(verdict);
    expect(bruteForce(history, register)).toBe(verdict);
  });

  test("the answer that cannot be explained is named", () => {
    const stale = read(5, 6, 1);
    const { stuck } = judge([write(1, 2, 1), write(3, 4, 2), stale, read(7, 8, 2)], register);
    expect(stuck).toBe(stale);
  });

  test("a table is judged key by key", () => {
    const on = (key: string, { op, ...rest }: Op): Operation<KvOp, RegisterResult> => ({
      ...rest,
      op: { ...op, key },
    });
    expect(checkLinearizable([on("a", write(1, 2, 1)), on("b", read(3, 4, null))], kv)).toBe(yes);
    expect(checkLinearizable([on("a", write(1, 2, 1)), on("a", read(3, 4, null))], kv)).toBe(no);
  });

  test("the limit of work gives unknown, and only the limit", () => {
    const history = [...Array(12).keys()].map((i) => write(i, 100 + i, i));
    const last = read(200, 201, 99);
    expect(checkLinearizable([...history, last], register, 1_000)).toBe("unknown");
    expect(checkLinearizable([...history, last], register)).toBe(no);
    expect(checkLinearizable([...history, read(200, 201, 3)], register)).toBe(yes);
  });
});

describe("against trying every order", () => {
  test("20,000 random histories of up to 7 operations", () => {
    const counts = { [yes]: 0, [no]: 0, unknown: 0 };
    const random = generator(20_261_121);
    for (let round = 0; round < 20_000; round += 1) {
      const history = randomHistory(random);
      const verdict = checkLinearizable(history, register);
      counts[verdict] += 1;
      if (verdict !== bruteForce(history, register)) {
        expect.fail(`round ${round}: ${verdict} is wrong for ${JSON.stringify(history)}`);
      }
    }
    expect(counts.unknown).toBe(0);
    expect(counts[yes]).toBeGreaterThan(2_000);
    expect(counts[no]).toBeGreaterThan(2_000);
  });
});

describe("long histories", () => {
  test("a correct register with 8 clients and every tenth outcome unknown, and the same with one stale read", () => {
    const random = generator(7);
    const history: Op[] = [];
    let value: number | null = null;
    const free = Array.from({ length: 8 }, () => 0);
    for (let time = 1; history.length < 2_000; time += 1) {
      const client = random(8);
      const call = free[client] ?? 0;
      // The effect happens now; the call came up to 30 before, the answer comes up to 30 after.
      if (call >= time) continue;
      const asked = Math.max(call + 0.1, time - random(30));
      const returned = time + random(30);
      free[client] = returned;
      const unknown = random(10) === 0;
      if (random(2) === 0) {
        history.push(read(asked, returned, value));
      } else {
        if (!unknown || random(2) === 0) value = history.length;
        history.push(write(asked, unknown ? null : returned, history.length));
      }
    }
    expect(checkLinearizable(history, register)).toBe(yes);
    const last = Math.max(...history.map((operation) => operation.return ?? 0));
    const first = history.find(
      (operation) => operation.op.kind === "write" && operation.return !== null,
    );
    const stale = first?.op.kind === "write" ? Number(first.op.value) : 0;
    expect(
      checkLinearizable(
        [...history, write(last + 1, last + 2, -1), read(last + 3, last + 4, stale)],
        register,
      ),
    ).toBe(no);
  });
});

/** Tries every order of every subset that has all answered operations. */
function bruteForce<S, O, R>(history: readonly Operation<O, R>[], model: Model<S, O, R>): Verdict {
  const left = new Set(history);
  const tryFrom = (state: S): boolean => {
    const answered = [...left].filter((operation) => operation.return !== null);
    if (answered.length === 0) return true;
    const earliest = Math.min(...answered.map((operation) => Number(operation.return)));
    for (const operation of [...left]) {
      if (operation.call > earliest) continue;
      const after = model.step(state, operation.op, operation.result);
      if (after === undefined) continue;
      left.delete(operation);
      if (tryFrom(after)) return true;
      left.add(operation);
    }
    return false;
  };
  return tryFrom(model.initial) ? yes : no;
}

/** Small numbers below `n`, from a seed (mulberry32). */
function generator(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % n;
  };
}

/** Overlapping operations on few values; half of the histories are made so that mostly the right thing is read. */
function randomHistory(random: (n: number) => number): Op[] {
  const count = 1 + random(7);
  const spread = 1 + random(6);
  const honest = random(2) === 0;
  let value: number | null = null;
  return [...Array(count).keys()].map((index) => {
    const call = index * 2 - random(spread);
    const returned = random(4) === 0 ? null : index * 2 + random(spread);
    const kind = random(3);
    const seen: number | null =
      honest && random(8) !== 0 ? value : ([null, 1, 2][random(3)] ?? null);
    if (kind === 0) return returned === null ? write(call, null, 1) : read(call, returned, seen);
    const to = 1 + random(3);
    if (kind === 1) {
      value = to;
      return write(call, returned, to);
    }
    const from = 1 + random(3);
    const swapped = honest ? value === from : random(2) === 0;
    if (swapped) value = to;
    return cas(call, returned, from, to, swapped);
  });
}
