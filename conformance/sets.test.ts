/** Goal: etcd's transcripts pass, and the reader of transcripts reads them whole. How: the outside data, where it is. */
import { describe, expect, test } from "vitest";
import { runConfChange } from "./confchange.ts";
import { dataFiles, missingData } from "./data.ts";
import { type Outcome, parseTranscript, runTranscript } from "./grammar.ts";
import { runInteraction } from "./interaction/run.ts";
import { runQuorum } from "./quorum.ts";

const missing = missingData();

describe.skipIf(missing !== null)(
  `outside data${missing === null ? "" : ` [SKIPPED: ${missing}]`}`,
  () => {
    const sets: readonly [string, string, number, number, (text: string) => Outcome][] = [
      ["quorum", "quorum/", 4, 127, runQuorum],
      ["confchange", "confchange/", 9, 58, runConfChange],
      ["interaction, level 1,", "testdata/", 28, 558, (text) => runInteraction(text, 1)],
      ["interaction, level 2,", "testdata/", 28, 558, (text) => runInteraction(text, 2)],
      ["interaction, level 3,", "testdata/", 28, 558, (text) => runInteraction(text, 3)],
    ];
    test.each(sets)("%s passes whole", (_name, prefix, fileCount, commandCount, run) => {
      const files = dataFiles(prefix);
      expect(files.length).toBe(fileCount);
      let commands = 0;
      for (const { path, text, complaint } of files) {
        expect(complaint).toBeNull();
        const outcome = run(text);
        expect(outcome.failed, path).toEqual([]);
        commands += outcome.commands;
      }
      expect(commands).toBe(commandCount);
    });

    test("the interaction transcripts are read whole: 558 commands, 4,584 lines of output", () => {
      const commands = dataFiles("testdata/").flatMap(({ text }) => parseTranscript(text));
      expect(commands.length).toBe(558);
      expect(new Set(commands.map(({ name }) => name)).size).toBe(21);
      expect(commands.reduce((sum, { expected }) => sum + expected.split("\n").length - 1, 0)).toBe(
        4_584,
      );
    });
  },
);

describe("the grammar of transcripts", () => {
  test("directive, arguments, input and output", () => {
    const text =
      "# why\n\nadd 3 voters=(1, 2) none=() quick=true \\\n  more\nv1 l2\nr3\n----\nok\n  in\n\nnext\n----\n";
    expect(parseTranscript(text)).toEqual([
      {
        line: 3,
        name: "add",
        args: [
          { key: "3", values: [] },
          { key: "voters", values: ["1", "2"] },
          { key: "none", values: [] },
          { key: "quick", values: ["true"] },
          { key: "more", values: [] },
        ],
        input: "v1 l2\nr3",
        expected: "ok\n  in\n",
      },
      { line: 11, name: "next", args: [], input: "", expected: "" },
    ]);
  });

  test("doubled separators hold blank lines", () => {
    const [command] = parseTranscript("say\n----\n----\na\n\nb\n----\n----\n");
    expect(command?.expected).toBe("a\n\nb\n");
  });

  test.each([
    ["say a\nb\n", "line 1: say a is not followed by ---- and its output"],
    ["\nsay a=(b\n----\n", "line 2: (b is not an argument"],
    ["=x\n----\n", "line 1: =x does not begin with a directive"],
    ["say\n----\n----\na\n", "line 1: the output is not closed by ---- twice"],
  ])("%j is refused", (text, why) => {
    expect(() => parseTranscript(text)).toThrow(why);
  });

  test("a difference is told with its line; a missing last line break is none", () => {
    const { commands, failed } = runTranscript("a\n----\nx\n\nb\n----\ny\n", () => "x");
    expect(commands).toBe(2);
    expect(failed).toEqual([{ line: 5, expected: "y\n", actual: "x\n" }]);
  });
});

test("a wrong answer of ours would be seen", () => {
  const { failed } = runQuorum(
    "committed cfg=(1) idx=(12)\n----\n     idx\n>     12    (id=1)\n13\n",
  );
  expect(failed.map(({ line }) => line)).toEqual([1]);
  expect(runConfChange("simple\nl1\n----\nno voters left\n").failed).toHaveLength(1);
});
