/** What clients saw: the nouns of the linearizability checker. */

/** One operation of a client. */
export interface Operation<Op, Result> {
  /** Who asked; only for people who read the history. */
  readonly process: number;
  /** When it was asked, in any unit that only grows. */
  readonly call: number;
  /** When it was answered, in the same unit; null: never, so it takes effect at any time from `call` on, or never. */
  readonly return: number | null;
  readonly op: Op;
  /** What was answered; null when `return` is null. */
  readonly result: Result | null;
}

/** A sequential object: what its operations answer when they come one after another. */
export interface Model<State, Op, Result> {
  readonly initial: State;
  /**
   * The state after `op`, or undefined when `op` cannot answer `result` in `state`. With `result` null the answer is
   * unknown, and any is allowed.
   */
  step(state: State, op: Op, result: Result | null): State | undefined;
  /** Whether an `op` that answers `result` leaves every state as it is. */
  readsOnly(op: Op, result: Result | null): boolean;
  /** Equal states, and no others, have equal keys. */
  keyOf(state: State): string | number;
  /**
   * The key of the only state in which `op` with `result` (null: any) does not do what it does in all other states, or
   * null: it does the same in all. States that no operation to come tells apart are then as good as equal.
   */
  tellsApart(op: Op, result: Result | null): string | number | null;
  /** Equal operations, and no others, have equal keys. */
  opKeyOf(op: Op): string;
  /** The object that `op` is about: objects are judged one by one, since a history is linearizable when each is. Absent: there is one. */
  partOf?(op: Op): string;
}

export type Verdict = "linearizable" | "not-linearizable" | "unknown";

export interface Judgement<Op, Result> {
  readonly verdict: Verdict;
  /** Not linearizable: the first answer up to which no order of the operations explains the answers. Else null. */
  readonly stuck: Operation<Op, Result> | null;
  /** Steps of the model that were tried. */
  readonly work: number;
}
