/** The lease of a leader: for how long nobody else can have been elected, so that it may answer reads by itself. */
import { assert } from "../lib/assert.ts";
import { LEASE_ROUNDS_MAX } from "./limits.ts";

/**
 * A heartbeat round that was sent at T and answered by a quorum gives a lease until T + (electionTicks - margin) ticks:
 * each of the quorum heard its leader at T or later, and with readMode "lease" grants nobody a vote until electionTicks
 * of its own ticks have passed since. That holds if every peer's tick takes at least
 * (electionTicks - margin) / (electionTicks - 1) of what the leader's clock says that it takes, so with 10 and 2 if no
 * clock runs more than 12 % fast against another, and if the clock runs on while the process is stopped: a leader that
 * was paused sees that its lease is over. It holds over restarts too, because a peer that starts waits as if it had just
 * heard a leader. Handing over leadership is the exception that ends it: the receiver is elected despite all of this.
 * Source: Raft thesis 6.4.1; the pause is etcd #20418.
 */
export class Lease {
  readonly #lengthMs: number;
  /** Rounds sent and not yet confirmed, oldest first. */
  #rounds: { readonly id: number; readonly sentAt: number }[] = [];
  #until = Number.NEGATIVE_INFINITY;
  #forfeited = false;

  constructor(lengthMs: number) {
    assert(lengthMs > 0, "a lease lasts for some time");
    this.#lengthMs = lengthMs;
  }

  /** Heartbeat round `id` goes out now. */
  sent(id: number, now: number): void {
    assert(id > (this.#rounds.at(-1)?.id ?? 0), "rounds go out in order");
    this.#rounds.push({ id, sentAt: now });
    // The oldest would give the shortest lease: forgetting it costs at most a round of heartbeats.
    if (this.#rounds.length > LEASE_ROUNDS_MAX) this.#rounds.shift();
  }

  /** A quorum answered every round through `id`. */
  confirmed(id: number): void {
    let newest: number | null = null;
    while (this.#rounds[0] !== undefined && this.#rounds[0].id <= id) {
      newest = this.#rounds[0].sentAt;
      this.#rounds.shift();
    }
    if (newest !== null) this.#until = Math.max(this.#until, newest + this.#lengthMs);
  }

  /** Whether nobody else can lead at `now`. */
  holds(now: number): boolean {
    return !this.#forfeited && now < this.#until;
  }

  /** Leadership is handed over: no lease for the rest of this term. */
  forfeit(): void {
    this.#forfeited = true;
  }
}
