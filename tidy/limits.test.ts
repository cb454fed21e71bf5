/** Goal: files stay small, say what they are, and hide nothing. How: their text. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const linesMax = 620;
const roots = ["src", "sim", "cluster-tests", "bench"];
const files = roots.flatMap((root) =>
  readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => join(root, file)),
);
const texts = new Map(files.map((file) => [file, readFileSync(file, "utf8")]));

test("no file is longer than a reader can hold", () => {
  expect(files.length).toBeGreaterThan(100);
  const long = files.filter((file) => (texts.get(file) ?? "").split("\n").length > linesMax);
  expect(long).toEqual([]);
});

test("every source file starts with a sentence that says what it is", () => {
  const silent = files.filter(
    (file) => !/\.(test|sim)\.ts$/.test(file) && !/^\/\*\*[\s*]*\S/.test(texts.get(file) ?? ""),
  );
  expect(silent).toEqual([]);
});

test("nothing is left for later or hidden from the tools", () => {
  const hidden = /TODO|FIXME|@ts-ignore|@ts-expect-error|biome-ignore|\bas any\b|catch \{\s*\}/;
  const found = files.flatMap((file) =>
    (texts.get(file) ?? "")
      .split("\n")
      .flatMap((line, index) =>
        hidden.test(line) ? [`${file}:${index + 1}: ${line.trim()}`] : [],
      ),
  );
  expect(found).toEqual([]);
});
