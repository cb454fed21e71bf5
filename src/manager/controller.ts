/** A reconcile loop with the loop left out: pure functions that manager/controller-loop.ts runs on the leader. */
import type { InstantMs } from "../lib/clock.ts";
import type { Random } from "../lib/random.ts";
import type { ActionGroup, Change, View } from "../store/types.ts";

export interface Controller {
  readonly name: string;
  /** Keys that a change makes worth another look. */
  keysOf(change: Change, view: View): Iterable<string>;
  /** Keys to look at when this manager becomes leader. */
  keysAtStart(view: View): Iterable<string>;
  /** What to write now for `key`, and when to look again at the latest. From any state, with nothing failing, this becomes quiet. */
  reconcile(key: string, view: View, now: InstantMs, random: Random): Decision;
}
export interface Decision {
  readonly groups: readonly ActionGroup[];
  readonly lookAgainAt: InstantMs | null;
}
export const quiet: Decision = { groups: [], lookAgainAt: null };
