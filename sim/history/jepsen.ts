/** Histories as text: the log of a Jepsen run against one register of etcd, read and written. */
import { ShoalError } from "../../src/lib/errors.ts";
import type { RegisterOp, RegisterResult } from "./models.ts";
import type { Operation } from "./types.ts";

export type RegisterOperation = Operation<RegisterOp, RegisterResult>;

/**
 * The operations in a log; their times are the numbers of its lines. A line is
 * `INFO  jepsen.util - PROCESS<tab>:TYPE<tab>:FUNCTION<tab>VALUE`; what other parts of Jepsen log is passed over.
 * - `:invoke` asks: `:read nil`, `:write 3`, `:cas [3 4]` (write 4 if it holds 3);
 * - `:ok` answers; `:fail :cas [3 4]` answers that the register did not hold 3;
 * - `:info`, and whatever `:timed-out` is the value of, ends with an unknown outcome: it may take effect any time
 *   later, or never. So does an operation without an end;
 * - `:fail` of others, or with another reason, says that the operation certainly did not take effect: it is left out.
 * Throws a ShoalError "invalid" with line and value when a line of the log makes no sense.
 */
export function parseHistory(text: string): RegisterOperation[] {
  const operations: (RegisterOperation | null)[] = [];
  const open = new Map<number, Invocation>();
  let content = false;
  for (const [index, raw] of text.split("\n").entries()) {
    const line = index + 1;
    const lineText = raw.replace(/\r$/, "");
    if (lineText.trim() !== "") content = true;
    const event = parseLine(lineText, line);
    if (event === null) continue;
    if (event.type === "invoke") {
      const before = open.get(event.process);
      if (before !== undefined) {
        throw bad(
          line,
          `process ${event.process} asks again, but its question of line ${before.line} has no answer`,
        );
      }
      const op = parseOp(event);
      open.set(event.process, { line, at: operations.length, op });
      operations.push({ process: event.process, call: line, return: null, op, result: null });
      continue;
    }
    const asked = open.get(event.process);
    if (asked === undefined) {
      throw bad(line, `:${event.type} for process ${event.process}, which has asked nothing`);
    }
    open.delete(event.process);
    operations[asked.at] = answered(asked, event);
  }
  if (content && operations.length === 0) {
    throw new ShoalError(
      "invalid",
      "it holds no operation; each is a line like `INFO  jepsen.util - 0<tab>:invoke<tab>:write<tab>3`",
    );
  }
  return operations.filter((operation) => operation !== null);
}

/** The text of a history that parseHistory reads back. Values must be whole numbers. Operations of one process must not overlap. */
export function formatHistory(history: readonly RegisterOperation[]): string {
  const events = history.flatMap((operation) => {
    const { process, call, op, result } = operation;
    const asked = { time: call, end: 0, text: formatLine(process, "invoke", op.kind, textOf(op)) };
    if (operation.return === null) {
      return [
        asked,
        { time: Infinity, end: 1, text: formatLine(process, "info", op.kind, ":timed-out") },
      ];
    }
    const type = result?.kind === "cas" && !result.swapped ? "fail" : "ok";
    const value =
      result?.kind === "read" ? (result.value === null ? "nil" : String(result.value)) : textOf(op);
    return [
      asked,
      { time: operation.return, end: 1, text: formatLine(process, type, op.kind, value) },
    ];
  });
  // Questions before answers of the same time: the two operations overlap.
  events.sort((a, b) => (a.time === b.time ? a.end - b.end : a.time - b.time));
  return events.map(({ text }) => `${text}\n`).join("");
}

interface Event {
  readonly line: number;
  readonly process: number;
  readonly type: "invoke" | "ok" | "fail" | "info";
  readonly kind: RegisterOp["kind"];
  readonly value: string;
}
interface Invocation {
  readonly line: number;
  readonly at: number;
  readonly op: RegisterOp;
}

const prefix = /^.*?\bjepsen\.util\b\s*[-:]\s+/;

/** The event of a line, or null when it is none. */
function parseLine(text: string, line: number): Event | null {
  const marked = prefix.test(text);
  const content = text.replace(prefix, "");
  if (!marked && !/\t:(invoke|ok|fail|info)\b/.test(text)) return null;
  if (!marked && !/^\d+\t/.test(content)) {
    throw bad(
      line,
      `${shown(text)} looks like an operation, but does not begin with INFO  jepsen.util - PROCESS`,
    );
  }
  // What the nemesis does is no operation, and prose has no tabs.
  if (content.startsWith(":nemesis")) return null;
  if (!content.includes("\t") && !/^\S+\s+:/.test(content)) return null;
  const [, process, type, kind, value] =
    /^(\S+)\s+:(\S+)\s+:(\S+)\s+(\S.*?)\s*$/.exec(content) ?? [];
  if (process === undefined || type === undefined || kind === undefined || value === undefined) {
    throw bad(line, `${shown(content)} is not PROCESS :TYPE :FUNCTION VALUE`);
  }
  if (type !== "invoke" && type !== "ok" && type !== "fail" && type !== "info") {
    throw bad(line, `:${type} is not :invoke, :ok, :fail or :info`);
  }
  if (kind !== "read" && kind !== "write" && kind !== "cas") {
    throw bad(line, `:${kind} is not :read, :write or :cas`);
  }
  return { line, process: parseNumber(process, line, "a process"), type, kind, value };
}

function parseOp({ kind, value, line }: Event): RegisterOp {
  switch (kind) {
    case "read":
      if (value !== "nil") throw bad(line, `a read is asked with nil, not ${shown(value)}`);
      return { kind };
    case "write":
      return { kind, value: parseNumber(value, line, "what is written") };
    case "cas": {
      const [, from, to] = /^\[\s*(\S+)[\s,]+(\S+)\s*\]$/.exec(value) ?? [];
      if (from === undefined || to === undefined) {
        throw bad(line, `${shown(value)} is not what a cas takes: [OLD NEW]`);
      }
      return {
        kind,
        from: parseNumber(from, line, "what a cas expects"),
        to: parseNumber(to, line, "what a cas writes"),
      };
    }
    default:
      return kind satisfies never;
  }
}

/** The operation with its end; null when it certainly did not take effect. */
function answered(asked: Invocation, event: Event): RegisterOperation | null {
  const { line, process, type, kind, value } = event;
  const { op } = asked;
  if (kind !== op.kind) {
    throw bad(
      line,
      `:${type} :${kind} answers the :${op.kind} that process ${process} asked in line ${asked.line}`,
    );
  }
  const unknown: RegisterOperation = { process, call: asked.line, return: null, op, result: null };
  if (type === "info" || value === ":timed-out") {
    if (type === "ok") throw bad(line, ":ok cannot be :timed-out");
    return unknown;
  }
  if (type === "fail" && (kind !== "cas" || value.startsWith(":"))) return null;
  const end = { ...unknown, return: line };
  if (kind === "read") {
    const read = value === "nil" ? null : parseNumber(value, line, "what was read");
    return { ...end, result: { kind, value: read } };
  }
  const repeated = textOf(parseOp(event));
  if (repeated !== textOf(op)) {
    throw bad(
      line,
      `${shown(value)} answers ${textOf(op)}, which process ${process} asked in line ${asked.line}`,
    );
  }
  return {
    ...end,
    result: kind === "write" ? { kind } : { kind, swapped: type === "ok" },
  };
}

function textOf(op: RegisterOp): string {
  switch (op.kind) {
    case "read":
      return "nil";
    case "write":
      return String(op.value);
    case "cas":
      return `[${op.from} ${op.to}]`;
    default:
      return op satisfies never;
  }
}

function formatLine(process: number, type: string, kind: string, value: string): string {
  return `INFO  jepsen.util - ${process}\t:${type}\t:${kind}\t${value}`;
}

function parseNumber(text: string, line: number, what: string): number {
  const value = Number(text);
  if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(value)) {
    throw bad(line, `${what} is a whole number, not ${shown(text)}`);
  }
  return value;
}

/** At most so many characters of a bad value are shown. */
const shownMax = 80;
function shown(text: string): string {
  return JSON.stringify(text.length > shownMax ? `${text.slice(0, shownMax)}…` : text);
}

function bad(line: number, why: string): ShoalError {
  return new ShoalError("invalid", `line ${line}: ${why}`);
}
