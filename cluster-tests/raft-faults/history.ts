/** What the clients of one register did and saw, in the order in which it happened, and as a file in the words of Jepsen's logs. */

import { formatHistory } from "../../sim/history/jepsen.ts";
import type { RegisterResult } from "../../sim/history/models.ts";

/** What was asked of a register. Every written value is written once, so a value tells which write it came from. */
export type RegisterOp =
  | { readonly kind: "read" }
  | { readonly kind: "write"; readonly value: number }
  | { readonly kind: "cas"; readonly from: number; readonly to: number };

export type Outcome =
  | "ok"
  /** Refused because the register held something else by then. */
  | "stale"
  /** It had no effect, which says nothing of the register. */
  | "refused"
  /** It may have taken effect, may do so yet, or never. */
  | "unknown";

export interface RecordedOp {
  readonly process: number;
  readonly op: RegisterOp;
  /** Position of the call among all calls and answers of the run. */
  readonly call: number;
  /** Position of the answer; null while there is none, and for ever when the outcome is unknown. */
  return: number | null;
  /** Null while it is under way: not known then either. */
  outcome: Outcome | null;
  /** What a read saw; null: nothing was written yet. */
  value: number | null;
  /** A read: the version of the row that it saw. A write: the version that it replaced, as far as it got. */
  version: number | null;
}

/** Orders the calls and answers of a whole run. */
export class Order {
  #next = 0;
  take(): number {
    this.#next += 1;
    return this.#next;
  }
}

/** The history of one register. */
export class History {
  readonly name: string;
  readonly ops: RecordedOp[] = [];
  readonly #order: Order;
  #lastValue = 0;

  constructor(name: string, order: Order) {
    this.name = name;
    this.#order = order;
  }

  /** A value that nobody wrote to this register before. */
  freshValue(): number {
    this.#lastValue += 1;
    return this.#lastValue;
  }

  call(process: number, op: RegisterOp): RecordedOp {
    const recorded: RecordedOp = {
      process,
      op,
      call: this.#order.take(),
      return: null,
      outcome: null,
      value: null,
      version: null,
    };
    this.ops.push(recorded);
    return recorded;
  }

  /** The answer to an operation; an unknown outcome is none, whatever came. */
  answer(op: RecordedOp, outcome: Outcome): void {
    op.outcome = outcome;
    op.return = outcome === "unknown" ? null : this.#order.take();
  }
}

/** What an operation that took effect, or is known not to have, answered. */
export function resultOf({ op, outcome, value }: RecordedOp): RegisterResult {
  switch (op.kind) {
    case "read":
      return { kind: "read", value };
    case "write":
      return { kind: "write" };
    case "cas":
      return { kind: "cas", swapped: outcome !== "stale" };
    default:
      return op satisfies never;
  }
}

/** The history as etcd's Jepsen logs have it, for script/check-history. What was refused is left out. */
export function jepsenText(ops: readonly RecordedOp[]): string {
  const told = ops.filter(({ outcome }) => outcome !== "refused");
  return formatHistory(
    told.map((recorded) => {
      const { process, call, op } = recorded;
      const result = recorded.return === null ? null : resultOf(recorded);
      return { process, call, return: recorded.return, op, result };
    }),
  );
}
