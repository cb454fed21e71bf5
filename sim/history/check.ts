/**
 * Whether a history is linearizable: whether its operations could have taken effect one at a time, each between its
 * call and its answer. Exact; the search of Wing, Gong and Lowe, in Lowe's just-in-time form.
 */
import { assert } from "../../src/lib/assert.ts";
import type { Judgement, Model, Operation, Verdict } from "./types.ts";

/** Model steps after which the search gives up with "unknown": some seconds, some hundred MB. */
export const HISTORY_WORK_MAX = 5_000_000;

/**
 * "unknown" only when more than `limit` steps of the model would be needed. Where a call and an answer have the same
 * time, the call counts as earlier: the two operations overlap.
 */
export function checkLinearizable<State, Op, Result>(
  history: readonly Operation<Op, Result>[],
  model: Model<State, Op, Result>,
  limit: number = HISTORY_WORK_MAX,
): Verdict {
  return judge(history, model, limit).verdict;
}

/** Like checkLinearizable, and says where the history fails. `limit` is for the whole history. */
export function judge<State, Op, Result>(
  history: readonly Operation<Op, Result>[],
  model: Model<State, Op, Result>,
  limit: number = HISTORY_WORK_MAX,
): Judgement<Op, Result> {
  assert(limit > 0, "the work limit of a history is positive");
  const parts = new Map<string, Operation<Op, Result>[]>();
  for (const operation of history) {
    const { call, return: answered, result } = operation;
    assert(answered === null || answered >= call, "an answer never comes before its call");
    assert(answered !== null || result === null, "without an answer there is no result");
    const part = model.partOf?.(operation.op) ?? "";
    const known = parts.get(part);
    if (known === undefined) parts.set(part, [operation]);
    else known.push(operation);
  }
  let work = 0;
  let verdict: Verdict = "linearizable";
  for (const part of parts.values()) {
    const found = new Search(part, model, limit - work).run();
    work += found.work;
    if (found.verdict === "not-linearizable") return { ...found, work };
    if (found.verdict === "unknown") verdict = "unknown";
  }
  return { verdict, stuck: null, work };
}

/** An operation and its bit: in the set of taken effects among the answered ones, or among the unanswered ones. */
interface Slot<Op, Result> {
  readonly operation: Operation<Op, Result>;
  readonly bit: bigint;
}

/** An answer, and what may take effect just before it. */
interface Deadline<Op, Result> {
  /** The operation that is answered: it must have taken effect by now. */
  readonly due: Slot<Op, Result>;
  /** Answered operations that are under way now, the soonest answered first; `due` is the first. */
  readonly underWay: readonly Slot<Op, Result>[];
  /** How many of the unanswered operations have been called. */
  readonly unanswered: number;
}

/** A partial order of effects: everything answered before `at` is in it. */
interface Candidate<State> {
  readonly at: number;
  readonly state: State;
  /** Operations under way that took effect. */
  readonly taken: bigint;
  /** Unanswered operations that took effect. */
  readonly used: bigint;
  readonly usedCount: number;
}

/**
 * Candidates to look at: those that explain most answers first, and of those the ones that used the fewest unanswered
 * operations, so that they spare the others that used more (see Search).
 */
class Agenda<State> {
  readonly #stacks: (Candidate<State>[] | undefined)[][] = [];

  push(candidate: Candidate<State>): void {
    while (this.#stacks.length <= candidate.at) this.#stacks.push([]);
    const byUsed = this.#stacks[candidate.at];
    assert(byUsed !== undefined, "there is a place for every answer");
    const stack = byUsed[candidate.usedCount];
    if (stack === undefined) byUsed[candidate.usedCount] = [candidate];
    else stack.push(candidate);
  }

  pop(): Candidate<State> | undefined {
    for (;;) {
      const byUsed = this.#stacks.at(-1);
      if (byUsed === undefined) return undefined;
      for (const stack of byUsed) {
        const candidate = stack?.pop();
        if (candidate !== undefined) return candidate;
      }
      this.#stacks.pop();
    }
  }
}

/**
 * Depth first over candidates. Effects are placed as late as possible: just before the answer that needs them. Five
 * facts keep it small. An answered operation that only reads, and fits, is placed at once, for that never hurts. An
 * unanswered operation is placed only where somebody under way can tell; of equal ones the earliest. A candidate that
 * used more unanswered operations than a failed one, and is otherwise equal, fails too, for they may also never take
 * effect. States that nothing to come tells apart count as one.
 */
class Search<State, Op, Result> {
  readonly #model: Model<State, Op, Result>;
  readonly #limit: number;
  readonly #deadlines: readonly Deadline<Op, Result>[];
  readonly #unanswered: readonly Slot<Op, Result>[];
  /** For each unanswered operation the bits of the equal ones before it. */
  readonly #equalBefore: readonly bigint[];
  /** By key of a state: the last answer whose operation tells it apart from others. */
  readonly #toldApart = new Map<string | number, number>();
  /** What was tried: per answer, taken set and state, the smallest sets of used operations. */
  readonly #tried: Map<string, bigint[]>[] = [];
  #work = 0;
  #furthest = -1;

  constructor(
    history: readonly Operation<Op, Result>[],
    model: Model<State, Op, Result>,
    limit: number,
  ) {
    this.#model = model;
    this.#limit = limit;
    this.#unanswered = history
      .filter((operation) => operation.return === null)
      .sort((a, b) => a.call - b.call)
      .map((operation, index) => ({ operation, bit: 1n << BigInt(index) }));
    this.#equalBefore = equalBefore(this.#unanswered, model);
    this.#deadlines = deadlinesOf(history, this.#unanswered);
    for (const [at, { due }] of this.#deadlines.entries()) this.#noteToldApart(due.operation, at);
    for (const { operation } of this.#unanswered) this.#noteToldApart(operation, Infinity);
  }

  #noteToldApart({ op, result }: Operation<Op, Result>, at: number): void {
    const key = this.#model.tellsApart(op, result);
    if (key !== null) this.#toldApart.set(key, at);
  }

  /** Equal for states that nothing from the answer `at` on tells apart. */
  #keyOf(state: State, at: number): string | number {
    const key = this.#model.keyOf(state);
    return (this.#toldApart.get(key) ?? -1) >= at ? key : notToldApart;
  }

  run(): Judgement<Op, Result> {
    const open = new Agenda<State>();
    open.push({ at: 0, state: this.#model.initial, taken: 0n, used: 0n, usedCount: 0 });
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (this.#work > this.#limit) return { verdict: "unknown", stuck: null, work: this.#work };
      const candidate = this.#settled(next);
      if (candidate.at === this.#deadlines.length) {
        return { verdict: "linearizable", stuck: null, work: this.#work };
      }
      this.#furthest = Math.max(this.#furthest, candidate.at);
      if (this.#isNew(candidate)) this.#expand(candidate, open);
    }
    const stuck = this.#deadlines[this.#furthest]?.due.operation ?? null;
    assert(stuck !== null, "a history that fails has an answer that fails");
    return { verdict: "not-linearizable", stuck, work: this.#work };
  }

  /** Places the reads that fit, and passes the answers whose operations took effect. */
  #settled({ at, state, taken, used, usedCount }: Candidate<State>): Candidate<State> {
    for (;;) {
      const deadline = this.#deadlines[at];
      if (deadline === undefined) break;
      for (const { operation, bit } of deadline.underWay) {
        if ((taken & bit) !== 0n || !this.#model.readsOnly(operation.op, operation.result))
          continue;
        if (this.#step(state, operation) !== undefined) taken |= bit;
      }
      if ((taken & deadline.due.bit) === 0n) break;
      taken ^= deadline.due.bit;
      at += 1;
    }
    return { at, state, taken, used, usedCount };
  }

  #isNew({ at, state, taken, used }: Candidate<State>): boolean {
    let tried = this.#tried[at];
    if (tried === undefined) {
      tried = new Map();
      this.#tried[at] = tried;
    }
    const key = `${taken.toString(36)} ${this.#keyOf(state, at)}`;
    const sets = tried.get(key);
    if (sets === undefined) {
      tried.set(key, [used]);
      return true;
    }
    if (sets.some((set) => (set & used) === set)) return false;
    tried.set(key, [...sets.filter((set) => (set & used) !== used), used]);
    return true;
  }

  /** Pushes what may take effect next; the most promising last, since it is popped first. */
  #expand({ at, state, taken, used, usedCount }: Candidate<State>, open: Agenda<State>): void {
    const deadline = this.#deadlines[at];
    assert(deadline !== undefined, "there is an answer to explain");
    const before = this.#model.keyOf(state);
    const watched = this.#watched(deadline, taken, used);
    for (let index = deadline.unanswered - 1; index >= 0; index -= 1) {
      const slot = this.#unanswered[index];
      const equal = this.#equalBefore[index];
      assert(slot !== undefined && equal !== undefined, "called operations are known");
      if ((used & slot.bit) !== 0n || (used & equal) !== equal) continue;
      const after = this.#step(state, slot.operation);
      if (after === undefined) continue;
      const key = this.#model.keyOf(after);
      if (key === before || !(watched.has(key) || watched.has(before))) continue;
      open.push({ at, state: after, taken, used: used | slot.bit, usedCount: usedCount + 1 });
    }
    for (let index = deadline.underWay.length - 1; index >= 0; index -= 1) {
      const slot = deadline.underWay[index];
      assert(slot !== undefined, "an index within what is under way");
      if ((taken & slot.bit) !== 0n) continue;
      // A read that did not fit when this candidate was settled does not fit now.
      const { op, result } = slot.operation;
      if (this.#model.readsOnly(op, result)) continue;
      const after = this.#step(state, slot.operation);
      if (after === undefined) continue;
      // The operation that is due is passed with it: so its candidate is the first to be looked at.
      open.push({
        at: at + (index === 0 ? 1 : 0),
        state: after,
        taken: index === 0 ? taken : taken | slot.bit,
        used,
        usedCount,
      });
    }
  }

  /** Keys of the states that somebody who may act now tells apart: only for them an unanswered operation need act now. */
  #watched(deadline: Deadline<Op, Result>, taken: bigint, used: bigint): Set<string | number> {
    const keys = new Set<string | number>();
    const note = ({ op, result }: Operation<Op, Result>): void => {
      const key = this.#model.tellsApart(op, result);
      if (key !== null) keys.add(key);
    };
    if (deadline.unanswered === 0) return keys;
    for (const { operation, bit } of deadline.underWay) if ((taken & bit) === 0n) note(operation);
    for (const { operation, bit } of this.#unanswered.slice(0, deadline.unanswered)) {
      if ((used & bit) === 0n) note(operation);
    }
    return keys;
  }

  #step(state: State, { op, result }: Operation<Op, Result>): State | undefined {
    this.#work += 1;
    return this.#model.step(state, op, result);
  }
}

/** The key that all states share which nothing tells apart; no model's key. */
const notToldApart = "\u0000";

/** The answers in order of time, each with what is under way when it comes. */
function deadlinesOf<Op, Result>(
  history: readonly Operation<Op, Result>[],
  unanswered: readonly Slot<Op, Result>[],
): Deadline<Op, Result>[] {
  const answered = history.filter((operation) => operation.return !== null);
  const byCall = [...answered].sort((a, b) => a.call - b.call);
  const byReturn = [...answered].sort((a, b) => Number(a.return) - Number(b.return));
  /** Under way, in order of their answers. */
  let underWay: Slot<Op, Result>[] = [];
  let takenBits = 0n;
  let called = 0;
  let unansweredCalled = 0;
  return byReturn.map((operation) => {
    const now = Number(operation.return);
    let next = byCall[called];
    while (next !== undefined && next.call <= now) {
      const bit = lowestFree(takenBits);
      takenBits |= bit;
      underWay.push({ operation: next, bit });
      called += 1;
      next = byCall[called];
    }
    underWay.sort((a, b) => Number(a.operation.return) - Number(b.operation.return));
    let waiting = unanswered[unansweredCalled];
    while (waiting !== undefined && waiting.operation.call <= now) {
      unansweredCalled += 1;
      waiting = unanswered[unansweredCalled];
    }
    const due = underWay.find((slot) => slot.operation === operation);
    assert(due !== undefined, "what is answered was called");
    underWay = [due, ...underWay.filter((slot) => slot !== due)];
    const deadline = { due, underWay, unanswered: unansweredCalled };
    underWay = underWay.slice(1);
    takenBits ^= due.bit;
    return deadline;
  });
}

/** The lowest bit that is not in `bits`. */
function lowestFree(bits: bigint): bigint {
  return ~bits & (bits + 1n);
}

function equalBefore<State, Op, Result>(
  unanswered: readonly Slot<Op, Result>[],
  model: Model<State, Op, Result>,
): bigint[] {
  const seen = new Map<string, bigint>();
  return unanswered.map(({ operation, bit }) => {
    const key = model.opKeyOf(operation.op);
    const before = seen.get(key) ?? 0n;
    seen.set(key, before | bit);
    return before;
  });
}
