/** Linearizable reads without the log: batched into rounds, each confirmed by one round of heartbeats (Raft thesis 6.4). */
import { assert } from "../lib/assert.ts";
import { READ_ROUNDS_MAX, READS_WAITING_MAX } from "./limits.ts";
import type { PeerId } from "./types.ts";

/** One read: who asked, under which number, and what was committed when it asked. */
export interface ReadRequest {
  readonly from: PeerId;
  readonly readId: number;
  readonly index: number;
}

interface Round {
  readonly id: number;
  readonly requests: readonly ReadRequest[];
  readonly acknowledged: Set<PeerId>;
}

/**
 * The reads of one leader in one term. A heartbeat that carries round N was sent after every read of rounds 1..N was
 * asked, so its answer confirms all of them: at that time its sender still followed this leader.
 */
export class ReadRounds {
  #collecting: ReadRequest[] = [];
  #rounds: Round[] = [];
  #lastId = 0;
  #waiting = 0;
  #confirmed = 0;

  /** Takes a read into the next round. False when READS_WAITING_MAX wait already: the read is dropped. */
  add(request: ReadRequest): boolean {
    if (this.#waiting >= READS_WAITING_MAX) return false;
    this.#collecting.push(request);
    this.#waiting += 1;
    return true;
  }

  collecting(): boolean {
    return this.#collecting.length > 0;
  }

  /** Closes the round that is being collected; its number goes out in heartbeats. Null when nobody asked. */
  close(): number | null {
    return this.#collecting.length === 0 ? null : this.open();
  }

  /** Opens a round, with whatever reads were collected, or none. */
  open(): number {
    this.#lastId += 1;
    this.#rounds.push({ id: this.#lastId, requests: this.#collecting, acknowledged: new Set() });
    this.#collecting = [];
    // Nobody waits for an empty round that no quorum answered in so long.
    if (this.#rounds.length > READ_ROUNDS_MAX && this.#rounds[0]?.requests.length === 0) {
      this.#rounds.shift();
    }
    return this.#lastId;
  }

  /** The newest round that a quorum answered; 0 before the first. */
  get confirmed(): number {
    return this.#confirmed;
  }

  /** The newest round that waits for answers, for the next periodic heartbeat: so a lost heartbeat costs no read. */
  newest(): number | null {
    return this.#rounds.at(-1)?.id ?? null;
  }

  /** `from` answered round `id`. Gives the reads that are confirmed now: those of all rounds up to the newest with a quorum. */
  acknowledge(
    id: number,
    from: PeerId,
    isQuorum: (acknowledged: ReadonlySet<PeerId>) => boolean,
  ): ReadRequest[] {
    assert(id <= this.#lastId, "only rounds that were opened are answered");
    let confirmed = 0;
    for (const [at, round] of this.#rounds.entries()) {
      if (round.id > id) break;
      round.acknowledged.add(from);
      if (isQuorum(round.acknowledged)) confirmed = at + 1;
    }
    if (confirmed > 0) this.#confirmed = this.#rounds[confirmed - 1]?.id ?? this.#confirmed;
    const reads = this.#rounds.splice(0, confirmed).flatMap((round) => round.requests);
    this.#waiting -= reads.length;
    assert(this.#waiting >= 0, "no read is answered twice");
    return reads;
  }
}
