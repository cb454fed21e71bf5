/** Goal: the command line says a verdict on each file, and goes on after a bad one. How: small files in a directory of their own. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { checkHistories } from "./command.ts";

let folder = "";
let out = "";
let err = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "shoal-history-"));
  out = "";
  err = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    out += String(text);
    return true;
  });
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    err += String(text);
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

function file(
  name: string,
  ...events: readonly (readonly [number, string, string, string])[]
): string {
  const path = join(folder, name);
  writeFileSync(
    path,
    events
      .map((event) => `INFO  jepsen.util - ${event[0]}\t:${event[1]}\t:${event[2]}\t${event[3]}\n`)
      .join(""),
  );
  return path;
}
function good(): string {
  return file(
    "good.log",
    [0, "invoke", "write", "1"],
    [0, "ok", "write", "1"],
    [0, "invoke", "read", "nil"],
    [0, "ok", "read", "1"],
  );
}
function stale(): string {
  return file(
    "stale.log",
    [0, "invoke", "write", "1"],
    [0, "ok", "write", "1"],
    [0, "invoke", "read", "nil"],
    [0, "ok", "read", "nil"],
  );
}

test("all linearizable: 0", () => {
  expect(checkHistories([good(), file("empty.log")])).toBe(0);
  expect(out).toBe(`${folder}/good.log linearizable\n${folder}/empty.log linearizable\n`);
});

test("one that is not: 1, and on demand the answer that cannot be", () => {
  expect(checkHistories(["--explain", good(), stale()])).toBe(1);
  expect(out).toContain(
    `${folder}/stale.log not linearizable\n  no order of the operations explains the answer of line 4 (asked in line 3)\n`,
  );
});

test("one that cannot be read: 2, with file and line, and the others are judged", () => {
  const bad = file("bad.log", [0, "invoke", "write", "x"]);
  expect(checkHistories([bad, join(folder, "none.log"), stale()])).toBe(2);
  expect(err).toContain(`${bad}: line 1: what is written is a whole number, not "x"`);
  expect(err).toContain("none.log");
  expect(out).toBe(`${folder}/stale.log not linearizable\n`);
});

test("more work than the limit allows: unknown, 1", () => {
  const writes = Array.from({ length: 14 }, (_, i) => [i, "invoke", "write", String(i)] as const);
  const answers = Array.from({ length: 14 }, (_, i) => [i, "ok", "write", String(i)] as const);
  const hard = file(
    "hard.log",
    ...writes,
    ...answers,
    [20, "invoke", "read", "nil"],
    [20, "ok", "read", "99"],
  );
  expect(checkHistories(["--limit", "1000", hard])).toBe(1);
  expect(out).toBe(`${hard} unknown\n`);
});

test.each([[[]], [["--limit", "0", "x"]], [["--nonsense"]]])("%j: 2 and a reason", (args) => {
  expect(checkHistories(args)).toBe(2);
  expect(err).toMatch(/^check-history: /);
});

test("--help explains: 0", () => {
  expect(checkHistories(["--help"])).toBe(0);
  expect(out).toContain("Usage: script/check-history");
});
