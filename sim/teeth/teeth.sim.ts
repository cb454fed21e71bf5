// Goal: the bank of faults fits the source, and our checks bite. Method: a handful of faults, each caught within its first seeds; script/teeth tries all of them.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bank, type Fault } from "./bank.ts";
import { simulate } from "./catch.ts";
import { type Copy, copyOf, copyWith, faulty, removeCopy } from "./copy.ts";
import { markdown, sumUp } from "./table.ts";

/** Caught in the first seeds, one of each kind: a vote, a commit, a snapshot, a read, a disk. */
const handful = [
  "vote-before-save",
  "leader-counts-itself-early",
  "conflict-kept",
  "read-before-applied",
  "saved-without-sync",
];
const seedsMax = 10;
const limitMs = 50_000;

let base = "";
let whole: Copy;
beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), "shoal-teeth-"));
  whole = copyOf(process.cwd(), join(base, "whole"));
}, limitMs);
afterAll(() => removeCopy(base));

test("every fault fits the source, under a name of its own", () => {
  expect(bank.length).toBeGreaterThanOrEqual(24);
  expect(new Set(bank.map(({ name }) => name)).size).toBe(bank.length);
  for (const fault of bank)
    expect(() => faulty(fault, whole.sources.get(fault.file))).not.toThrow();
});

test("every pitfall has a fault, but for those that the simulator's own state machine answers for", () => {
  const covered = new Set(bank.map(({ pitfall }) => pitfall));
  const absent = Array.from({ length: 22 }, (_, at) => String(at + 1)).filter(
    (n) => !covered.has(n),
  );
  // Client retries and what is applied: sessions and state hashes are the simulator's (sim/raft/registers.ts).
  expect(absent).toEqual(["16", "17"]);
});

test.each([
  ["there twice", "a b a", "its text is there 2 times"],
  ["not there", "b", "its text is there 0 times"],
  ["in a file that is not there", undefined, "does not import"],
])("a fault whose text is %s stops the tool", (_, text, why) => {
  expect(() => faulty(made({ find: "a", replace: "c" }), text)).toThrow(why);
});

test("a fault that changes nothing stops the tool", () => {
  expect(() => faulty(made({ find: "a", replace: "a" }), "a")).toThrow("changes nothing");
  expect(faulty(made({ find: "a", replace: "$&c" }), "ab")).toBe("$&cb");
});

test("the table says what caught a fault, and what nothing caught", () => {
  const fault = made({});
  const caught = { kind: "caught", by: "simulator", seeds: 3, said: "a | b" } as const;
  const outcomes = [
    { fault, verdict: caught },
    { fault, verdict: { kind: "clean", seeds: 9 } as const },
  ];
  expect(markdown(outcomes)).toContain("| simulator | 3 | a \\| b |");
  expect(markdown(outcomes)).toContain("| NOT CAUGHT | 9 |");
  expect(sumUp(outcomes)).toContain("1 of 2 faults caught");
});

test("the source as it is, is clean", { timeout: limitMs }, async () => {
  expect(await simulate(whole.folder, 1, seedsMax, limitMs)).toEqual({
    kind: "clean",
    seeds: seedsMax,
  });
});

test.each(handful)("%s is caught", { timeout: limitMs }, async (name) => {
  const fault = bank.find((one) => one.name === name);
  expect(fault).toBeDefined();
  const folder = join(base, name);
  copyWith(whole, fault as Fault, folder);
  expect(await simulate(folder, 1, seedsMax, limitMs)).toMatchObject({
    kind: "caught",
    by: "simulator",
  });
});

function made(parts: Partial<Fault>): Fault {
  const all = { name: "one", pitfall: "1", what: "wrong", file: "f.ts", find: "a", replace: "b" };
  return { ...all, ...parts };
}
