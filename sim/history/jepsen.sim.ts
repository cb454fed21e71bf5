/** Goal: logs of Jepsen are read as they are meant, and a bad one is refused with its line. How: tables, a round trip, the ten given logs. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { checkLinearizable } from "./check.ts";
import { formatHistory, parseHistory } from "./jepsen.ts";
import { register } from "./models.ts";

const root = process.env["SHOAL_SHARED"] ?? join(import.meta.dirname, "..", "..", "..", "shared");
const folder = join(root, "data", "histories");

function log(...lines: readonly string[]): string {
  return lines
    .map(
      (line) =>
        `INFO  jepsen.util - ${line.replaceAll(" :", "\t:").replace(/(:read|:write|:cas) /, "$1\t")}\n`,
    )
    .join("");
}

describe("reading", () => {
  test("questions and answers become operations, timed by lines", () => {
    const text = log(
      "0 :invoke :write 3",
      "1 :invoke :cas [3 4]",
      "0 :ok :write 3",
      "1 :fail :cas [3 4]",
    );
    expect(parseHistory(text)).toEqual([
      {
        process: 0,
        call: 1,
        return: 3,
        op: { kind: "write", value: 3 },
        result: { kind: "write" },
      },
      {
        process: 1,
        call: 2,
        return: 4,
        op: { kind: "cas", from: 3, to: 4 },
        result: { kind: "cas", swapped: false },
      },
    ]);
  });

  test.each([
    ["an operation that timed out", log("0 :invoke :write 3", "0 :info :write :timed-out")],
    ["one that timed out as a failure", log("0 :invoke :write 3", "0 :fail :write :timed-out")],
    ["one that was cut off", log("0 :invoke :write 3")],
  ])("the outcome of %s is unknown", (_name, text) => {
    const expected = {
      process: 0,
      call: 1,
      return: null,
      op: { kind: "write", value: 3 },
      result: null,
    };
    expect(parseHistory(text)).toEqual([expected]);
  });

  test("a process may go on after an unknown outcome", () => {
    const text = log(
      "0 :invoke :write 3",
      "0 :info :write :timed-out",
      "0 :invoke :read nil",
      "0 :ok :read 3",
    );
    expect(checkLinearizable(parseHistory(text), register)).toBe("linearizable");
  });

  test("what certainly failed is left out", () => {
    expect(
      parseHistory(
        log("0 :invoke :write 3", "0 :fail :write 3", "1 :invoke :read nil", "1 :fail :read nil"),
      ),
    ).toEqual([]);
  });

  test("carriage returns, empty files and lines of others do not disturb", () => {
    expect(parseHistory("")).toEqual([]);
    const text = `INFO  jepsen.core - Worker 0 starting\nINFO  jepsen.util - 5 workers started\n${log(":nemesis :info :start nil", "0 :invoke :write 3", "0 :ok :write 3")}`;
    expect(parseHistory(text.replaceAll("\n", "\r\n"))).toHaveLength(1);
  });
});

describe("refusing", () => {
  test.each([
    [log("0 :invoke :write x"), 'line 1: what is written is a whole number, not "x"'],
    [
      log("0 :invoke :write 3", "0 :invoke :write 4"),
      "line 2: process 0 asks again, but its question of line 1 has no answer",
    ],
    [log("0 :ok :write 3"), "line 1: :ok for process 0, which has asked nothing"],
    [
      log("0 :invoke :write 3", "0 :ok :read 3"),
      "line 2: :ok :read answers the :write that process 0 asked in line 1",
    ],
    [
      log("0 :invoke :write 3", "0 :ok :write 4"),
      'line 2: "4" answers 3, which process 0 asked in line 1',
    ],
    [log("0 :invoke :cas 3"), 'line 1: "3" is not what a cas takes: [OLD NEW]'],
    [log("0 :invoke :append 3"), "line 1: :append is not :read, :write or :cas"],
    [log("0 :begin :write 3"), "line 1: :begin is not :invoke, :ok, :fail or :info"],
    [log("a :invoke :write 3"), 'line 1: a process is a whole number, not "a"'],
    [
      log("0 :invoke :write"),
      'line 1: "0\\t:invoke\\t:write" is not PROCESS :TYPE :FUNCTION VALUE',
    ],
    [
      "INFO  jepsen.utl - 0\t:ok\t:read\t3\n",
      'line 1: "INFO  jepsen.utl - 0\\t:ok\\t:read\\t3" looks like an operation',
    ],
    ["hello\n", "it holds no operation"],
  ])("%j: %s", (text, message) => {
    expect(() => parseHistory(text)).toThrow(message);
  });
});

test("what is written is read back", () => {
  const text = log(
    "0 :invoke :write 3",
    "1 :invoke :read nil",
    "2 :invoke :cas [3 4]",
    "0 :ok :write 3",
    "1 :ok :read nil",
    "3 :invoke :cas [3 5]",
    "2 :ok :cas [3 4]",
    "3 :fail :cas [3 5]",
    "0 :invoke :write 7",
    "0 :info :write :timed-out",
  );
  expect(formatHistory(parseHistory(text))).toBe(text);
});

describe("the given logs", () => {
  const there = existsSync(join(folder, "EXPECTED.txt"));
  test.skipIf(!there)(
    `have their verdicts${there ? "" : ` [SKIPPED: ${folder} is missing; set SHOAL_SHARED]`}`,
    () => {
      const expected = new Map(
        readFileSync(join(folder, "EXPECTED.txt"), "utf8")
          .trim()
          .split("\n")
          .map((line) => line.replace("jepsen/", "").split(" ") as [string, string]),
      );
      const files = readdirSync(folder).filter((file) => file.endsWith(".log"));
      expect(files.length).toBe(expected.size);
      for (const file of files) {
        const history = parseHistory(readFileSync(join(folder, file), "utf8"));
        const verdict = checkLinearizable(history, register);
        expect(`${file} ${verdict === "linearizable"}`).toBe(`${file} ${expected.get(file)}`);
      }
    },
  );
});
