/** Linearizable reads of one manager: all that are asked in one turn of the event loop share one round of the core. */
import { after, type Clock, type InstantMs } from "../lib/clock.ts";
import { failure, type ShoalError } from "../lib/errors.ts";
import type { Random } from "../lib/random.ts";
import type { RaftCore } from "../raft/types.ts";
import { readAgainMs, readTimeoutMs } from "./limits.ts";
import { noLeaderText } from "./raft-proposals.ts";

export interface Reads {
  /** Resolves when this manager's state holds everything that was committed when it was asked. Rejects with ShoalError("unavailable"). */
  linearize(): Promise<void>;
  /** The core confirmed these, and what they must see is applied. */
  confirmed(readIds: readonly number[]): void;
  /** The core drew its work: who asks from now on asks anew. */
  turned(): void;
  rejectAll(error: ShoalError): void;
}

interface Read {
  readonly settle: ((error: Error | null) => void)[];
  forget: () => void;
}

/** Read numbers are random in the beginning, so that an answer meant for a former life of this manager fits none of this one. */
const READ_ID_START_MAX: number = 2 ** 40;

/** Reads through `core`; `wake` says that the core was told something. */
export function createReads(parts: {
  readonly core: RaftCore;
  readonly clock: Clock;
  readonly random: Random;
  readonly wake: () => void;
}): Reads {
  const { core, clock, random, wake } = parts;
  const reads = new Map<number, Read>();
  let nextReadId = 1 + random.below(READ_ID_START_MAX);
  /** The round that is not drawn yet: one more may join. */
  let open: Read | null = null;

  function ask(readId: number, read: Read, deadline: InstantMs): void {
    core.readIndex(readId);
    read.forget = clock.wakeAt(after(clock.now(), readAgainMs), () => {
      if (!reads.has(readId)) return;
      // A lost question is asked again under its number: an early answer serves as well as a late one.
      if (clock.now() < deadline) {
        ask(readId, read, deadline);
        return;
      }
      reads.delete(readId);
      for (const settle of read.settle) settle(failure("unavailable", noLeaderText));
    });
    wake();
  }

  return {
    linearize() {
      return new Promise<void>((resolve, reject) => {
        const settle = (error: Error | null): void => (error === null ? resolve() : reject(error));
        if (open !== null) {
          open.settle.push(settle);
          return;
        }
        const read: Read = { settle: [settle], forget: () => {} };
        const readId = nextReadId;
        nextReadId += 1;
        reads.set(readId, read);
        open = read;
        ask(readId, read, after(clock.now(), readTimeoutMs));
      });
    },
    confirmed(readIds) {
      for (const readId of readIds) {
        const read = reads.get(readId);
        if (read === undefined) continue;
        reads.delete(readId);
        read.forget();
        for (const settle of read.settle) settle(null);
      }
    },
    turned() {
      open = null;
    },
    rejectAll(error) {
      for (const read of reads.values()) {
        read.forget();
        for (const settle of read.settle) settle(error);
      }
      reads.clear();
      open = null;
    },
  };
}
