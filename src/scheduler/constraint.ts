/** Placement constraints: their grammar, and which nodes they admit (swarmkit manager/constraint/constraint.go). */
import { failure } from "../lib/errors.ts";
import { contains, parseCidr, parseIpv4 } from "../lib/ipv4.ts";
import type { Node } from "../model/node.ts";

export interface Constraint {
  readonly key: string;
  readonly operator: "==" | "!=";
  readonly value: string;
}

/** In the order in which an expression is searched for them. */
const operators = ["==", "!="] as const;
const keyPattern = /^[a-z_][a-z0-9\-_.]+$/i;
const valuePattern = /^[a-z0-9:\-_\t\n\f\r .*()?+[\]\\^$|/]+$/i;

/**
 * Parses `key==value` and `key!=value`; all of them must hold. Globs and regular expressions mean themselves.
 * An unknown key is no error here: it admits no node. Throws ShoalError("invalid") in swarmkit's words on the first that is malformed.
 */
export function parseConstraints(expressions: readonly string[]): readonly Constraint[] {
  return expressions.map(parseConstraint);
}

/** True when the node meets every constraint. Keys and values are compared whatever their case, label names are not. */
export function nodeMatches(constraints: readonly Constraint[], node: Node): boolean {
  return firstUnmet(constraints, node) === null;
}

/** The first constraint that the node does not meet; null when it meets all. */
export function firstUnmet(constraints: readonly Constraint[], node: Node): Constraint | null {
  return constraints.find((constraint) => !meets(constraint, node)) ?? null;
}

/** What the node has where the constraint looks; null for a key that nobody knows. */
export function nodeValue(constraint: Constraint, node: Node): string | null {
  const key = constraint.key.toLowerCase();
  const description = node.description;
  if (key === "node.id") return node.id;
  if (key === "node.hostname") return description?.hostname ?? "";
  if (key === "node.ip") return node.address;
  if (key === "node.role") return node.role;
  if (key === "node.platform.os") return description?.os ?? "";
  if (key === "node.platform.arch") return description?.architecture ?? "";
  return labelValue(constraint.key, node);
}

/** The value of `node.labels.NAME` or `engine.labels.NAME`, empty when the node has no such label; null for any other key. */
export function labelValue(key: string, node: Node): string | null {
  for (const [prefix, labels] of [
    ["node.labels.", node.spec.labels],
    ["engine.labels.", node.description?.engineLabels ?? {}],
  ] as const) {
    if (key.length <= prefix.length) continue;
    if (key.slice(0, prefix.length).toLowerCase() !== prefix) continue;
    const name = key.slice(prefix.length);
    return Object.hasOwn(labels, name) ? (labels[name] ?? "") : "";
  }
  return null;
}

/** As a user writes it. */
export function formatConstraint(constraint: Constraint): string {
  return constraint.key + constraint.operator + constraint.value;
}

function parseConstraint(expression: string): Constraint {
  const operator = operators.find((candidate) => expression.includes(candidate));
  if (operator === undefined) {
    throw failure(
      "invalid",
      `constraint expected one operator from ${operators.join(", ")}, but "${expression}" has none`,
    );
  }
  const at = expression.indexOf(operator);
  const key = expression.slice(0, at).trim();
  const value = expression.slice(at + operator.length).trim();
  if (!keyPattern.test(key)) {
    throw failure("invalid", `key '${key}' is invalid in constraint "${expression}"`);
  }
  if (!valuePattern.test(value)) {
    throw failure("invalid", `value '${value}' is invalid in constraint "${expression}"`);
  }
  return { key, operator, value };
}

function meets(constraint: Constraint, node: Node): boolean {
  const has = nodeValue(constraint, node);
  if (has === null) return false;
  const equal =
    constraint.key.toLowerCase() === "node.ip"
      ? addressEquals(constraint.value, has)
      : has.toLowerCase() === constraint.value.toLowerCase();
  // A malformed address is neither equal nor unequal.
  if (equal === null) return false;
  return equal === (constraint.operator === "==");
}

/** Whether the node's address is the wanted one or lies in the wanted block; null when that is neither. */
function addressEquals(wanted: string, address: string): boolean | null {
  const has = parseIpv4(address);
  const single = parseIpv4(wanted);
  if (single !== null) return has === single;
  const range = parseCidr(wanted);
  if (range !== null) return has !== null && contains(range.block, has);
  // Nodes have IPv4 addresses: an IPv6 one is well formed and never theirs.
  return isIpv6(wanted.split("/")[0] ?? "") ? false : null;
}

function isIpv6(text: string): boolean {
  const halves = text.split("::");
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => (half === "" ? [] : half.split(":")));
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return false;
  return halves.length === 2 ? groups.length <= 7 : groups.length === 8;
}
