/**
 * The part of Go's text/template that people use in `--format`: fields, pipes, variables, if, range, with, and docker's functions.
 *
 * A template is read once into nodes and then given values. Values are JSON; a field that is not there is refused by name.
 */
import { failure } from "../../lib/errors.ts";

export type Template = (value: unknown) => string;

/** Reads a template. Throws `invalid` with docker's "template parsing error" for one that cannot be read. */
export function parseTemplate(text: string): Template {
  const tokens = tokenize(text);
  const { nodes, rest } = parseNodes(tokens, 0, []);
  if (rest !== tokens.length) throw bad("unexpected {{end}}");
  return (value) => run(nodes, { root: value, dot: value, variables: new Map([["$", value]]) });
}

type Token = { readonly text: string } | { readonly action: string };
type Expression =
  | { readonly kind: "value"; readonly value: unknown }
  | { readonly kind: "field"; readonly from: Expression | null; readonly path: readonly string[] }
  | { readonly kind: "variable"; readonly name: string }
  | { readonly kind: "call"; readonly name: string; readonly args: readonly Expression[] };
type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "print"; readonly expression: Expression }
  | { readonly kind: "set"; readonly name: string; readonly expression: Expression }
  | {
      readonly kind: "if" | "with";
      readonly expression: Expression;
      readonly then: readonly Node[];
      readonly otherwise: readonly Node[];
    }
  | {
      readonly kind: "range";
      readonly names: readonly string[];
      readonly expression: Expression;
      readonly then: readonly Node[];
      readonly otherwise: readonly Node[];
    };
interface Scope {
  readonly root: unknown;
  readonly dot: unknown;
  readonly variables: Map<string, unknown>;
}

function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  for (;;) {
    const open = text.indexOf("{{", at);
    if (open < 0) return [...tokens, { text: text.slice(at) }];
    const close = text.indexOf("}}", open);
    if (close < 0) throw bad("unclosed action");
    let action = text.slice(open + 2, close);
    let before = text.slice(at, open);
    if (/^-\s/.test(action)) {
      before = before.trimEnd();
      action = action.slice(1);
    }
    at = close + 2;
    if (/\s-$/.test(action)) {
      action = action.slice(0, -1);
      while (/\s/.test(text[at] ?? "")) at += 1;
    }
    tokens.push({ text: before });
    if (!/^\s*\/\*/.test(action)) tokens.push({ action: action.trim() });
  }
}

/** Nodes up to an action that starts with one of `stops`; `rest` is its place. */
function parseNodes(
  tokens: readonly Token[],
  start: number,
  stops: readonly string[],
): { nodes: Node[]; rest: number } {
  const nodes: Node[] = [];
  let at = start;
  while (at < tokens.length) {
    const token = tokens[at];
    if (token === undefined) break;
    if ("text" in token) {
      nodes.push({ kind: "text", text: token.text });
      at += 1;
      continue;
    }
    const [word = ""] = token.action.split(/\s+/);
    if (stops.includes(word)) return { nodes, rest: at };
    if (word === "end" || word === "else") throw bad(`unexpected {{${word}}}`);
    if (word === "if" || word === "with" || word === "range") {
      const block = parseBlock(tokens, at, word, token.action.slice(word.length).trim());
      nodes.push(block.node);
      at = block.rest;
      continue;
    }
    const assignment = /^\$(\w+)\s*:?=\s*(.+)$/s.exec(token.action);
    if (assignment !== null) {
      const expression = parsePipe(assignment[2] ?? "");
      nodes.push({ kind: "set", name: `$${assignment[1]}`, expression });
    } else {
      nodes.push({ kind: "print", expression: parsePipe(token.action) });
    }
    at += 1;
  }
  if (stops.length > 0) throw bad("unexpected EOF");
  return { nodes, rest: at };
}

function parseBlock(
  tokens: readonly Token[],
  start: number,
  kind: "if" | "with" | "range",
  head: string,
): { node: Node; rest: number } {
  const body = parseNodes(tokens, start + 1, ["end", "else"]);
  const stop = tokens[body.rest];
  const word = stop !== undefined && "action" in stop ? stop.action : "end";
  let otherwise: Node[] = [];
  let rest = body.rest + 1;
  if (word.startsWith("else")) {
    const chained = /^else\s+(if|with)\s+(.+)$/s.exec(word);
    if (chained !== null) {
      const next = parseBlock(
        tokens,
        body.rest,
        chained[1] === "with" ? "with" : "if",
        chained[2] ?? "",
      );
      otherwise = [next.node];
      rest = next.rest;
    } else {
      const second = parseNodes(tokens, body.rest + 1, ["end"]);
      otherwise = second.nodes;
      rest = second.rest + 1;
    }
  }
  const then = body.nodes;
  if (kind !== "range") {
    return { node: { kind, expression: parsePipe(head), then, otherwise }, rest };
  }
  const named = /^\$(\w+)(?:\s*,\s*\$(\w+))?\s*:=\s*(.+)$/s.exec(head);
  const names =
    named === null ? [] : [named[1], named[2]].flatMap((n) => (n === undefined ? [] : [`$${n}`]));
  const expression = parsePipe(named?.[3] ?? head);
  return { node: { kind: "range", names, expression, then, otherwise }, rest };
}

function parsePipe(text: string): Expression {
  const words = lex(text);
  const stages: Expression[] = [];
  let from = 0;
  for (let at = 0; at <= words.length; at += 1) {
    if (at < words.length && words[at] !== "|") continue;
    const stage = parseCommand(words.slice(from, at));
    const before = stages.at(-1);
    if (before !== undefined && stage.kind !== "call")
      throw bad(`${JSON.stringify(text)}: only a function can follow a pipe`);
    stages.push(
      stage.kind === "call" && before !== undefined
        ? { ...stage, args: [...stage.args, before] }
        : stage,
    );
    from = at + 1;
  }
  const last = stages.at(-1);
  if (last === undefined) throw bad("missing value for command");
  return last;
}

function parseCommand(words: readonly string[]): Expression {
  const terms: Expression[] = [];
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? "";
    if (word !== "(") {
      terms.push(parseTerm(word, at === 0));
      continue;
    }
    let depth = 1;
    const start = at + 1;
    while (depth > 0) {
      at += 1;
      if (at >= words.length) throw bad("unclosed left paren");
      if (words[at] === "(") depth += 1;
      if (words[at] === ")") depth -= 1;
    }
    let inner = parsePipe(words.slice(start, at).join(" "));
    const next = words[at + 1] ?? "";
    if (next.startsWith(".") && next.length > 1) {
      inner = { kind: "field", from: inner, path: next.slice(1).split(".") };
      at += 1;
    }
    terms.push(inner);
  }
  const [first, ...args] = terms;
  if (first === undefined) throw bad("missing value for command");
  if (first.kind === "call") return { ...first, args };
  if (args.length > 0) throw bad(`can't give argument to non-function ${words[0]}`);
  return first;
}

function parseTerm(word: string, isFirst: boolean): Expression {
  if (word === ".") return { kind: "field", from: null, path: [] };
  if (word.startsWith(".")) return { kind: "field", from: null, path: word.slice(1).split(".") };
  if (word.startsWith("$")) {
    const [name = "$", ...path] = word.split(".");
    const variable: Expression = { kind: "variable", name };
    return path.length === 0 ? variable : { kind: "field", from: variable, path };
  }
  if (word.startsWith('"')) return { kind: "value", value: JSON.parse(word) as unknown };
  if (word.startsWith("`")) return { kind: "value", value: word.slice(1, -1) };
  if (/^-?\d+(\.\d+)?$/.test(word)) return { kind: "value", value: Number(word) };
  if (word === "true" || word === "false") return { kind: "value", value: word === "true" };
  if (word === "nil") return { kind: "value", value: null };
  if (!(word in functions)) throw bad(`function ${JSON.stringify(word)} not defined`);
  if (!isFirst) return { kind: "call", name: word, args: [] };
  return { kind: "call", name: word, args: [] };
}

function lex(text: string): string[] {
  const words: string[] = [];
  const pattern = /\s+|"(?:[^"\\]|\\.)*"|`[^`]*`|[()|]|[^\s()|"`]+/gy;
  let at = 0;
  while (at < text.length) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) throw bad(`unexpected ${JSON.stringify(text[at])} in operand`);
    at = pattern.lastIndex;
    if (match[0].trim() !== "") words.push(match[0]);
  }
  return words;
}

function run(nodes: readonly Node[], scope: Scope): string {
  return nodes.map((node) => runNode(node, scope)).join("");
}

function runNode(node: Node, scope: Scope): string {
  switch (node.kind) {
    case "text":
      return node.text;
    case "print":
      return show(evaluate(node.expression, scope));
    case "set":
      scope.variables.set(node.name, evaluate(node.expression, scope));
      return "";
    case "if":
      return run(isTrue(evaluate(node.expression, scope)) ? node.then : node.otherwise, scope);
    case "with": {
      const value = evaluate(node.expression, scope);
      return isTrue(value) ? run(node.then, { ...scope, dot: value }) : run(node.otherwise, scope);
    }
    case "range": {
      const entries = entriesOf(evaluate(node.expression, scope));
      if (entries.length === 0) return run(node.otherwise, scope);
      return entries
        .map(([key, value]) => {
          const variables = new Map(scope.variables);
          const [first, second] = node.names;
          if (second !== undefined && first !== undefined) variables.set(first, key);
          const named = second ?? first;
          if (named !== undefined) variables.set(named, value);
          return run(node.then, { ...scope, dot: value, variables });
        })
        .join("");
    }
    default:
      return node satisfies never;
  }
}

function evaluate(expression: Expression, scope: Scope): unknown {
  switch (expression.kind) {
    case "value":
      return expression.value;
    case "variable":
      if (!scope.variables.has(expression.name))
        throw bad(`undefined variable ${JSON.stringify(expression.name)}`);
      return scope.variables.get(expression.name);
    case "field": {
      let value = expression.from === null ? scope.dot : evaluate(expression.from, scope);
      for (const name of expression.path) value = field(value, name);
      return value;
    }
    case "call": {
      const call = functions[expression.name];
      if (call === undefined) throw bad(`function ${JSON.stringify(expression.name)} not defined`);
      return call(...expression.args.map((arg) => evaluate(arg, scope)));
    }
    default:
      return expression satisfies never;
  }
}

function field(value: unknown, name: string): unknown {
  if (value === null || value === undefined) return undefined;
  if (typeof value === "object" && !Array.isArray(value) && name in value) {
    return (value as Record<string, unknown>)[name];
  }
  if (typeof value !== "object" || Array.isArray(value) || !isMapLike(value)) {
    throw bad(`can't evaluate field ${name}`);
  }
  return undefined;
}

/** Names with anything but Go field names in them are keys of a map, where an absent key is no error. */
function isMapLike(value: object): boolean {
  const keys = Object.keys(value);
  return keys.length === 0 || keys.some((key) => !/^[A-Z]\w*$/.test(key));
}

const functions: Readonly<Record<string, (...args: unknown[]) => unknown>> = {
  json: (value) => goJson(value),
  len: (value) => entriesOf(value).length || (typeof value === "string" ? value.length : 0),
  index: (value, ...keys) =>
    keys.reduce<unknown>(
      (inner, key) => (inner as Record<string, unknown> | null | undefined)?.[String(key)],
      value,
    ),
  join: (list, separator) => (Array.isArray(list) ? list.map(show).join(String(separator)) : ""),
  split: (text, separator) => String(text).split(String(separator)),
  lower: (text) => String(text).toLowerCase(),
  upper: (text) => String(text).toUpperCase(),
  title: (text) => String(text).replace(/\b[a-z]/g, (letter) => letter.toUpperCase()),
  pad: (text, before, after) =>
    String(text) === ""
      ? ""
      : " ".repeat(Number(before)) + String(text) + " ".repeat(Number(after)),
  truncate: (text, length) => [...String(text)].slice(0, Number(length)).join(""),
  print: (...values) => values.map(show).join(""),
  println: (...values) => `${values.map(show).join(" ")}\n`,
  printf: (format, ...values) => printf(String(format), values),
  eq: (first, ...others) => others.some((other) => show(first) === show(other)),
  ne: (first, second) => show(first) !== show(second),
  lt: (first, second) => Number(first) < Number(second),
  le: (first, second) => Number(first) <= Number(second),
  gt: (first, second) => Number(first) > Number(second),
  ge: (first, second) => Number(first) >= Number(second),
  not: (value) => !isTrue(value),
  and: (...values) => values.find((value) => !isTrue(value)) ?? values.at(-1),
  or: (...values) => values.find(isTrue) ?? values.at(-1),
};

/** JSON as docker's `json` function writes it: maps by key, `<`, `>` and `&` as they are. */
export function goJson(value: unknown): string {
  return JSON.stringify(value === undefined ? null : value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner) && isMapLike(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/** JSON as Go's json.Marshal: the three characters that mean something in HTML are escaped. */
export function goJsonForHtml(value: unknown): string {
  return goJson(value).replace(/[<>&]/g, (char) => `\\u00${char.charCodeAt(0).toString(16)}`);
}

/** A value as Go's %v prints it. */
export function show(value: unknown): string {
  if (value === null) return "<nil>";
  if (value === undefined) return "<no value>";
  if (Array.isArray(value)) return `[${value.map(show).join(" ")}]`;
  if (typeof value === "object") {
    const entries = Object.entries(value);
    if (!isMapLike(value)) return `{${entries.map(([, inner]) => show(inner)).join(" ")}}`;
    const sorted = entries.sort(([a], [b]) => (a < b ? -1 : 1));
    return `map[${sorted.map(([key, inner]) => `${key}:${show(inner)}`).join(" ")}]`;
  }
  return String(value);
}

function printf(format: string, values: readonly unknown[]): string {
  let next = 0;
  return format.replace(
    /%(-?\d*)(?:\.(\d+))?([vsdqft%])/g,
    (_, width: string, digits: string, verb: string) => {
      if (verb === "%") return "%";
      const value = values[next];
      next += 1;
      const text =
        verb === "q"
          ? JSON.stringify(show(value))
          : verb === "f"
            ? Number(value).toFixed(Number(digits ?? 6))
            : show(value);
      const size = Number(width || 0);
      return size < 0 ? text.padEnd(-size) : text.padStart(size);
    },
  );
}

function isTrue(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

function entriesOf(value: unknown): readonly (readonly [unknown, unknown])[] {
  if (Array.isArray(value)) return value.map((inner, at) => [at, inner] as const);
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
}

function bad(why: string): Error {
  return failure("invalid", `template parsing error: template: :1: ${why}`);
}
