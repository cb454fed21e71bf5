/** The list of flags in help, wrapped to 80 columns as pflag does it. */
import type { FlagSpec } from "./flag.ts";

const helpColumns = 80;
const shownKinds: Readonly<Record<string, string>> = { float: "float", bool: "" };

/** One entry a flag, sorted by name, explanations in one column. */
export function flagHelp(flags: readonly FlagSpec[]): string {
  const rows = [...flags]
    .sort((a, b) => a.name.localeCompare(b.name))
    .map((flag) => {
      const kind = flag.shown ?? shownKinds[flag.kind] ?? flag.kind;
      const dashes = flag.short === undefined ? "    " : `-${flag.short}, `;
      const quoted = flag.kind === "string" && flag.default !== undefined;
      const end =
        flag.default === undefined
          ? ""
          : ` (default ${quoted ? `"${flag.default}"` : flag.default})`;
      const left = `  ${dashes}--${flag.name}${kind === "" ? "" : ` ${kind}`}`;
      return { left, text: `${flag.help}${end}` };
    });
  const column = Math.max(...rows.map((row) => row.left.length)) + 3;
  return rows
    .map(({ left, text }) => {
      const lines = wrap(text, Math.max(24, helpColumns - column));
      return lines.map((line, at) => `${(at === 0 ? left : "").padEnd(column)}${line}`).join("\n");
    })
    .join("\n");
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
