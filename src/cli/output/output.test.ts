/** Pieces of output: tables, templates, units, streams. */
import { describe, expect, it } from "vitest";
import {
  formatGoDuration,
  goDurationNs,
  nanoCpus,
  ramBytes,
  shellWords,
  timestamp,
} from "../values.ts";
import { readJsonLines } from "./json-lines.ts";
import { readFrames } from "./stdcopy.ts";
import { renderColumns, renderTable } from "./table.ts";
import { parseTemplate } from "./template.ts";
import { bytesSize, ellipsis, humanDuration, humanSize, naturalOrder } from "./units.ts";

describe("tables", () => {
  it("columns are ten wide at least, three apart, and the last is not padded", () => {
    expect(renderTable(["A", "LONGER NAME", "C"], [["1", "2", "3"]])).toBe(
      "A         LONGER NAME   C\n1         2             3\n",
    );
  });
  it("a line without the column ends its block, as in tabwriter", () => {
    expect(renderColumns([["a", "b"], ["x"], ["long one", "d"]], 0, 1)).toBe(
      "a b\nx\nlong one d\n",
    );
  });
});

describe("templates", () => {
  const value = {
    Name: "web",
    Spec: { Labels: { "a.b": "c" }, List: ["x", "y"] },
    N: 3,
    Empty: [],
  };
  it.each([
    ["{{.Name}}", "web"],
    ["{{json .Spec.List}}", '["x","y"]'],
    ["{{range $i, $v := .Spec.List}}{{$i}}={{$v}} {{end}}", "0=x 1=y "],
    ["{{if .Empty}}a{{else if .Name}}b{{else}}c{{end}}", "b"],
    ["{{with .Spec}}{{len .List}}{{end}}", "2"],
    ['{{index .Spec.Labels "a.b"}}', "c"],
    ['{{join .Spec.List ","}} {{upper .Name | printf "%5s|%-5s|" "q"}}', "x,y     q|WEB  |"],
    ["{{- .Name -}}  !", "web!"],
    ["{{if and (eq .Name `web`) (gt .N 2)}}yes{{end}}", "yes"],
    ["{{.Spec.Labels}}", "map[a.b:c]"],
    ["{{/* nothing */}}{{println .N}}", "3\n"],
  ])("%s", (text, expected) => {
    expect(parseTemplate(text)(value)).toBe(expected);
  });
  it.each(["{{.Name", "{{nosuch .}}", "{{if .}}", "{{end}}", "{{}}"])("%s is refused", (text) => {
    expect(() => parseTemplate(text)).toThrow("template parsing error");
  });
  it("a field that is not there is refused by name", () => {
    expect(() => parseTemplate("{{.Nme}}")(value)).toThrow("can't evaluate field Nme");
  });
});

describe("units", () => {
  it.each([
    [500, "Less than a second"],
    [1_000, "1 second"],
    [59_000, "59 seconds"],
    [60_000, "About a minute"],
    [3_000_000, "50 minutes"],
    [3_600_000, "About an hour"],
    [47 * 3_600_000, "47 hours"],
    [5 * 86_400_000, "5 days"],
    [30 * 86_400_000, "4 weeks"],
    [100 * 86_400_000, "3 months"],
    [1000 * 86_400_000, "2 years"],
  ])("%d ms is %s", (ms, words) => {
    expect(humanDuration(ms)).toBe(words);
  });
  it("sizes are docker's", () => {
    expect([humanSize(4261550), humanSize(999), humanSize(0)]).toEqual(["4.26MB", "999B", "0B"]);
    expect([bytesSize(25276502016), bytesSize(67108864)]).toEqual(["23.54GiB", "64MiB"]);
  });
  it("names with numbers are in their order", () => {
    expect(["web.10", "web.2", "api.1"].sort(naturalOrder)).toEqual(["api.1", "web.2", "web.10"]);
    expect(ellipsis("abcdef", 4)).toBe("abc…");
  });
});

describe("values", () => {
  it.each([
    ["1h30m", 5_400e9],
    ["1.5s", 1.5e9],
    ["-2ms", -2e6],
    ["0", 0],
    ["5", null],
    ["s", null],
  ])("duration %s", (text, ns) => {
    expect(goDurationNs(text)).toBe(ns);
  });
  it("durations are written as Go does", () => {
    expect([0, 1.5e9, 90e9, 7776000e9, 2e6].map(formatGoDuration)).toEqual([
      "0s",
      "1.5s",
      "1m30s",
      "2160h0m0s",
      "2ms",
    ]);
  });
  it("sizes, processors, words and times are read", () => {
    expect([ramBytes("64m"), ramBytes("1.5GiB"), ramBytes("10"), ramBytes("x")]).toEqual([
      67108864,
      1610612736,
      10,
      null,
    ]);
    expect([nanoCpus("0.5"), nanoCpus(".25"), nanoCpus("2")]).toEqual([5e8, 2.5e8, 2e9]);
    expect(shellWords(`a 'b c' "d\\"e" f\\ g ''`)).toEqual(["a", "b c", 'd"e', "f g", ""]);
    expect(timestamp("10s", 20_000)).toBe("10.000000000");
    expect(timestamp("2013-01-02T13:23:37Z", 0)).toBe("1357133017.000000000");
    expect(() => timestamp("noon", 0)).toThrow("failed to parse");
  });
});

describe("streams", () => {
  it("frames cut anywhere are put together, and each keeps its stream", async () => {
    const frame = (kind: number, text: string): Buffer => {
      const header = Buffer.from([kind, 0, 0, 0, 0, 0, 0, 0]);
      header.writeUInt32BE(Buffer.byteLength(text), 4);
      return Buffer.concat([header, Buffer.from(text)]);
    };
    const whole = Buffer.concat([frame(1, "out\n"), frame(2, "err\n"), frame(1, "")]);
    for (let size = 1; size <= whole.length; size += 1) {
      const frames: string[] = [];
      for await (const { stream, payload } of readFrames(pieces(whole, size)))
        frames.push(`${stream}:${payload}`);
      expect(frames).toEqual(["stdout:out\n", "stderr:err\n", "stdout:"]);
    }
    await expect(drain(readFrames(pieces(whole.subarray(0, 10), 3)))).rejects.toThrow(
      "ended inside a frame",
    );
    await expect(drain(readFrames(pieces(Buffer.from("not a frame"), 99)))).rejects.toThrow(
      "does not start a frame",
    );
  });
  it("JSON lines cut anywhere are put together", async () => {
    const text = Buffer.from('{"a":"ü"}\r\n{"b":2}');
    for (let size = 1; size <= text.length; size += 1) {
      const found: unknown[] = [];
      for await (const value of readJsonLines(pieces(text, size))) found.push(value);
      expect(found).toEqual([{ a: "ü" }, { b: 2 }]);
    }
  });
});

async function* pieces(whole: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < whole.length; at += size) yield whole.subarray(at, at + size);
}
async function drain(source: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of source) void _;
}
