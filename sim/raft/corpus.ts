/** Seeds that once found something, each with what it was. They stay what they are as long as the simulator draws as it does. */

export interface Found {
  readonly seed: number;
  readonly what: string;
}

export const corpus: readonly Found[] = [
  {
    seed: 20409,
    what: "a false alarm of the ledger: an earlier version led a term, and gave it up, while it compacted on a slow disk, before its first Ready as a leader",
  },
  {
    seed: 30136,
    what: "a false alarm of the ledger: an earlier version that made itself a learner counted by the membership before while it saved that this was committed",
  },
];
