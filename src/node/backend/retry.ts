/** A user's change that named no version is decided again when another write came first. */
import { ShoalError } from "../../lib/errors.ts";

/** Decisions that may lose to other writes before the user is told. */
const attemptsMax = 8;

/** Runs `attempt` until it is not out of sequence, a bounded number of times. */
export async function decidedAgain<T>(attempt: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      const stale = error instanceof ShoalError && error.code === "out-of-sequence";
      if (!stale || tries >= attemptsMax) throw error;
    }
  }
}
