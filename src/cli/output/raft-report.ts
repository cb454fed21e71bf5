/** What `shoal raft check` prints of a log. */
import type { LogReport, Range } from "../../node/raft-offline.ts";
import { renderColumns, renderTable } from "./table.ts";
import { humanSize } from "./units.ts";

/** The report as text: what a manager would start from, the segments, and each problem with its remedy. */
export function raftReport(report: LogReport): string {
  const parts = [renderColumns(summary(report), 12, 2)];
  if (report.segments.length > 0) parts.push(segmentTable(report));
  const files = report.problems.map(
    ({ file, offset, why, remedy, loss, kind }) =>
      `${file}, byte ${offset}: ${why}\n` +
      (kind === "torn" || kind === "leftover" ? `  loses: ${loss}\n` : "") +
      `  ${remedy}\n`,
  );
  const count = files.length === 1 ? "1 problem" : `${files.length} problems`;
  parts.push(files.length === 0 ? "No problems found.\n" : `${count}:\n${files.join("")}`);
  return parts.join("\n");
}

function summary({ directory, state, keyIds, spareBytes }: LogReport): string[][] {
  const lines = [["Directory:", directory]];
  if (state === null) lines.push(["State:", "a manager would not start from this"]);
  else {
    const { term, vote, commit } = state.hardState;
    const { snapshot } = state;
    lines.push(
      ["Hard state:", `term ${term}, vote ${vote ?? "none"}, commit ${commit}`],
      [
        "Snapshot:",
        snapshot === null
          ? "none"
          : `index ${snapshot.index}, term ${snapshot.term}, ${humanSize(snapshot.bytes)}, ` +
            `${snapshot.membership.voters.length} voters, key ${snapshot.keyId ?? "none"}`,
      ],
      ["Entries:", `${rangeText(state.indexes)}, terms ${rangeText(state.terms)}`],
    );
  }
  lines.push(
    ["Keys:", keyIds.length === 0 ? "none (not encrypted)" : keyIds.join(", ")],
    ["Spare:", spareBytes === 0 ? "none" : humanSize(spareBytes)],
  );
  return lines;
}

function segmentTable({ segments }: LogReport): string {
  return renderTable(
    ["SEGMENT", "USED", "RECORDS", "ENTRIES", "TERMS", "KEY"],
    segments.map(({ name, usedBytes, records, indexes, terms, keyId }) => [
      name,
      humanSize(usedBytes),
      rangeText(records),
      rangeText(indexes),
      rangeText(terms),
      keyId ?? "none",
    ]),
  );
}

function rangeText(range: Range | null): string {
  if (range === null) return "none";
  return range.first === range.last ? `${range.first}` : `${range.first}-${range.last}`;
}
