/** The grammar of transcripts (cockroachdb/datadriven): directives with arguments and input, and the output they expect. */

export interface Argument {
  readonly key: string;
  /** `key` alone has none, `key=a` one, `key=(a, b)` two. */
  readonly values: readonly string[];
}

export interface Command {
  /** Where the directive stands, counted from 1. */
  readonly line: number;
  readonly name: string;
  readonly args: readonly Argument[];
  /** The lines between directive and `----`, joined by line breaks; no line break at the end. */
  readonly input: string;
  /** What follows `----`, with a line break after each line. */
  readonly expected: string;
}

export interface Failure {
  readonly line: number;
  readonly expected: string;
  readonly actual: string;
}

/** What became of a transcript. */
export interface Outcome {
  readonly commands: number;
  readonly failed: readonly Failure[];
}

/**
 * The commands of a transcript, in order. Blank lines and lines that begin with # between commands say nothing. The
 * output ends at a blank line, or, when `----` stands twice, where it stands twice again. Throws on a malformed one,
 * with its line.
 */
export function parseTranscript(text: string): Command[] {
  const lines = text.split("\n");
  const commands: Command[] = [];
  for (let at = 0; at < lines.length; ) {
    const first = (lines[at] ?? "").trim();
    at += 1;
    if (first === "" || first.startsWith("#")) continue;
    const line = at;
    let directive = first;
    while (directive.endsWith("\\")) {
      directive = `${directive.slice(0, -1)} ${(lines[at] ?? "").trim()}`;
      at += 1;
    }
    const input: string[] = [];
    while (at < lines.length && lines[at] !== separator) {
      input.push(lines[at] ?? "");
      at += 1;
    }
    if (at === lines.length) {
      throw new Error(`line ${line}: ${first} is not followed by ${separator} and its output`);
    }
    const output = outputFrom(lines, at + 1, line);
    at = output.next;
    commands.push({
      line,
      ...parseDirective(directive, line),
      input: input.join("\n").trim(),
      expected: output.expected,
    });
  }
  return commands;
}

/** Runs each command of a transcript and compares what `run` answers with what is expected. */
export function runTranscript(text: string, run: (command: Command) => string): Outcome {
  const commands = parseTranscript(text);
  const failed: Failure[] = [];
  for (const command of commands) {
    const actual = ended(run(command));
    if (actual !== command.expected) {
      failed.push({ line: command.line, expected: command.expected, actual });
    }
  }
  return { commands: commands.length, failed };
}

const separator = "----";

function ended(text: string): string {
  return text === "" || text.endsWith("\n") ? text : `${text}\n`;
}

function outputFrom(
  lines: readonly string[],
  start: number,
  line: number,
): { expected: string; next: number } {
  const doubled = lines[start] === separator;
  const found: string[] = [];
  for (let at = doubled ? start + 1 : start; at < lines.length; at += 1) {
    const text = lines[at] ?? "";
    if (!doubled && text.trim() === "") return { expected: joined(found), next: at };
    if (doubled && text === separator && lines[at + 1] === separator) {
      return { expected: joined(found), next: at + 2 };
    }
    found.push(text);
  }
  if (doubled) throw new Error(`line ${line}: the output is not closed by ${separator} twice`);
  return { expected: joined(found), next: lines.length };
}

function joined(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}

/** `name key key=value key=(a, b)`. */
function parseDirective(text: string, line: number): { name: string; args: Argument[] } {
  const name = /^[^\s=()]+/.exec(text)?.[0];
  if (name === undefined) throw new Error(`line ${line}: ${text} does not begin with a directive`);
  const args: Argument[] = [];
  const argument = /\s+(?:([^\s=()]+)(?:=(?:\(([^()]*)\)|([^\s()]*)))?|$)/y;
  argument.lastIndex = name.length;
  while (argument.lastIndex < text.length) {
    const at = argument.lastIndex;
    const [, key, list, value] = argument.exec(text) ?? [];
    if (argument.lastIndex === 0) {
      throw new Error(
        `line ${line}: ${text.slice(at).trim()} is not an argument (key, key=value or key=(a,b))`,
      );
    }
    if (key === undefined) break;
    args.push({ key, values: valuesOf(list, value) });
  }
  return { name, args };
}

function valuesOf(list: string | undefined, value: string | undefined): string[] {
  if (list !== undefined) {
    return list.trim() === "" ? [] : list.split(",").map((item) => item.trim());
  }
  return value === undefined ? [] : [value];
}
