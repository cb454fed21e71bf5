/** Writes rows on behalf of sessions: what comes close together is proposed together, and a conflict is tried again on the fresh row. */
import { AssertionError } from "../../lib/assert.ts";
import { after, type Clock } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import type { Log } from "../../lib/log.ts";
import type { Action, Proposer, Store, View } from "../../store/types.ts";
import { writeRetryMs, writesInFlightMax, writesPerProposalMax, writeWindowMs } from "./limits.ts";

/** What to write of one row, decided when it is proposed; null: there is nothing to write any more. */
export type Write = (view: View) => Action | null;

export interface RowWriter {
  /** Writes `key` with `write`, instead of what was waiting for that key. `done` is called once it is stored, or needs not be. */
  write(key: string, write: Write, done: () => void): void;
  /** What waits for `key`, or is under way, has not been stored. */
  isPending(key: string): boolean;
  /** Forgets everything; nothing is called any more. */
  stop(): void;
}

export interface RowWriterParts {
  readonly store: Store;
  readonly proposer: Proposer;
  readonly clock: Clock;
  readonly log: Log;
}

interface Waiting {
  readonly key: string;
  readonly write: Write;
  readonly done: () => void;
}

export function createRowWriter({ store, proposer, clock, log }: RowWriterParts): RowWriter {
  const waiting = new Map<string, Waiting>();
  const underWay = new Map<string, Waiting>();
  let inFlight = 0;
  let cancelAlarm: (() => void) | null = null;
  let stopped = false;

  function flushIn(delayMs: number): void {
    if (stopped || cancelAlarm !== null) return;
    cancelAlarm = clock.wakeAt(after(clock.now(), delayMs), () => {
      cancelAlarm = null;
      flush();
    });
  }

  /** Takes what waits, but for keys that are under way: their versions are about to change. */
  function flush(): void {
    while (!stopped && inFlight < writesInFlightMax) {
      const batch: Waiting[] = [];
      const actions: Action[] = [];
      const view = store.view();
      for (const one of [...waiting.values()]) {
        if (batch.length === writesPerProposalMax) break;
        if (underWay.has(one.key)) continue;
        waiting.delete(one.key);
        const action = one.write(view);
        if (action === null) {
          one.done();
        } else {
          batch.push(one);
          actions.push(action);
        }
      }
      if (batch.length === 0) return;
      send(batch, actions);
    }
  }

  function send(batch: readonly Waiting[], actions: readonly Action[]): void {
    inFlight += 1;
    for (const one of batch) underWay.set(one.key, one);
    proposer.propose(actions.map((action) => [action])).then(
      ({ results }) => {
        settle(batch, (index) => results[index]?.ok === true);
        flush();
      },
      (error: unknown) => {
        if (!(error instanceof ShoalError)) throw asBug(error);
        log.warn(
          { error: messageOf(error), rows: batch.length },
          "statuses not stored; again soon",
        );
        settle(batch, () => false);
        flushIn(writeRetryMs);
      },
    );
  }

  function settle(batch: readonly Waiting[], isStored: (index: number) => boolean): void {
    inFlight -= 1;
    for (const [index, one] of batch.entries()) {
      underWay.delete(one.key);
      if (stopped) continue;
      if (isStored(index)) {
        // What came since is newer: that one's storing will be told.
        if (!waiting.has(one.key)) one.done();
      } else if (!waiting.has(one.key)) {
        waiting.set(one.key, one);
      }
    }
  }

  return {
    write(key, write, done) {
      if (stopped) return;
      waiting.set(key, { key, write, done });
      if (inFlight < writesInFlightMax) flushIn(writeWindowMs);
    },
    isPending: (key) => waiting.has(key) || underWay.has(key),
    stop() {
      stopped = true;
      cancelAlarm?.();
      cancelAlarm = null;
      waiting.clear();
      underWay.clear();
    },
  };
}

function asBug(error: unknown): AssertionError {
  const bug = new AssertionError(`proposing statuses fails with a ShoalError: ${messageOf(error)}`);
  bug.cause = error;
  return bug;
}
