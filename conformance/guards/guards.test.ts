// Goal: the bank of guards fits the native core, whoever changes it. Method: every change of the bank is made to the source as text; script/guards builds and runs them.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { bank } from "./bank/index.ts";
import { without } from "./copy.ts";
import { type Guard, items } from "./guard.ts";
import { isCaught, markdown, sumUp, testName } from "./table.ts";

const GUARDS_MIN = 60;

test("every guard fits the source, under a name of its own", () => {
  expect(bank.length).toBeGreaterThanOrEqual(GUARDS_MIN);
  expect(new Set(bank.map(({ name }) => name)).size).toBe(bank.length);
  for (const guard of bank) expect(() => without(guard, process.cwd())).not.toThrow();
});

test("every item of the security list has a guard", () => {
  expect([...new Set(bank.map(({ item }) => item))].sort()).toEqual([...items].sort());
});

test("several changes at once say why", () => {
  for (const { name, removals, because } of bank) {
    expect([name, because !== undefined]).toEqual([name, removals.length > 1]);
  }
});

test("every guard's test is in the source", () => {
  for (const guard of bank) {
    const { crate, target, name } = guard.test;
    const folder = join("native/crates", crate.replace(/^shoal-/, ""));
    const last = name.split("::").at(-1) ?? "";
    const found = rustFiles(join(folder, target.startsWith("--") ? "src" : "tests")).some(
      (file) => {
        const text = readFileSync(file, "utf8");
        return text.includes(`fn ${last}()`) || text.includes(`"${last}"`);
      },
    );
    expect([guard.name, testName(guard.test), found]).toEqual([
      guard.name,
      testName(guard.test),
      true,
    ]);
  }
});

test.each([
  ["there twice", { find: "fn ", replace: "" }, "its text is there"],
  ["not there", { find: "no such words", replace: "" }, "its text is there 0 times"],
  ["the same as before", { find: "pub fn check(", replace: "pub fn check(" }, "changes nothing"],
])("a guard whose text is %s stops the tool", (_, change, why) => {
  const guard = made({ removals: [{ file: "runtime/src/id.rs", ...change }] });
  expect(() => without(guard, process.cwd())).toThrow(why);
});

test("a guard in a file that is not there stops the tool", () => {
  const guard = made({ removals: [{ file: "runtime/src/nothing.rs", find: "a", replace: "b" }] });
  expect(() => without(guard, process.cwd())).toThrow("there is no such file");
});

test("several changes of one file are made one after the other", () => {
  const file = "runtime/src/id.rs";
  const removals = [
    { file, find: "pub fn check(", replace: "pub fn looked_at(" },
    { file, find: "pub fn looked_at(", replace: "pub fn seen(" },
  ];
  const text = without(made({ removals }), process.cwd()).get(file);
  expect(text).toContain("pub fn seen(");
});

test("the table says which test misses a guard, and which does not", () => {
  const guard = made({ because: "twice" });
  const outcomes = [
    { guard, seconds: 1, verdict: { kind: "failed", said: "a | b" } },
    { guard, seconds: 1, verdict: { kind: "passed" } },
    { guard, seconds: 1, verdict: { kind: "does not compile", said: "error[E1]" } },
  ] as const;
  expect(markdown(outcomes)).toContain("| wrong (twice) | runtime/src id::tests::x | a \\| b |");
  expect(markdown(outcomes)).toContain("| NOT CAUGHT |");
  expect(markdown(outcomes)).toContain("| DOES NOT COMPILE error[E1] |");
  expect(sumUp(outcomes)).toContain("1 of 3 guards");
  expect(outcomes.map(isCaught)).toEqual([true, false, false]);
});

function rustFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".rs"))
    .map((name) => join(folder, name));
}

function made(parts: Partial<Guard>): Guard {
  const test = { crate: "shoal-runtime", target: "--lib", name: "id::tests::x" } as const;
  return { name: "one", item: "limits", what: "wrong", removals: [], test, ...parts };
}
