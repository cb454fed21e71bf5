/** What the clients of one register did and saw, in the order in which it happened, and as a file in the words of Jepsen's logs. */

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

/** The history as etcd's Jepsen logs have it: one event a line, tab-separated. What was refused is left out. */
export function jepsenText(ops: readonly RecordedOp[]): string {
  const events: { readonly at: number; readonly text: string }[] = [];
  const ends = Math.max(0, ...ops.map((op) => Math.max(op.call, op.return ?? 0))) + 1;
  for (const op of ops) {
    if (op.outcome === "refused") continue;
    const line = (what: string, value: string): string =>
      `INFO  jepsen.util - ${op.process}\t:${what}\t:${op.op.kind}\t${value}`;
    const asked = argumentOf(op.op);
    events.push({ at: op.call, text: line("invoke", asked) });
    if (op.return === null) {
      // A process whose outcome is unknown asks nothing more: where its line stands says nothing.
      events.push({ at: ends, text: line("info", ":timed-out") });
    } else {
      const seen = op.op.kind === "read" && op.outcome === "ok" ? (op.value ?? "nil") : asked;
      events.push({ at: op.return, text: line(op.outcome === "ok" ? "ok" : "fail", String(seen)) });
    }
  }
  return `${events
    .sort((a, b) => a.at - b.at)
    .map(({ text }) => text)
    .join("\n")}\n`;
}

function argumentOf(op: RegisterOp): string {
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
