/** Writes that wait to be seen applied: each is handed to the leader, and again until its entry comes back. */
import { after, type Clock, type InstantMs } from "../lib/clock.ts";
import { failure, type ShoalError } from "../lib/errors.ts";
import type { Random } from "../lib/random.ts";
import type { RaftCore } from "../raft/types.ts";
import type { ActionGroup, Committed } from "../store/types.ts";
import { encodeBody } from "../wire/codec.ts";
import { entryBytesMax, proposalsMax, proposeAgainMs, proposeTimeoutMs, tickMs } from "./limits.ts";

/** docker's words for a swarm without a leader; scripts match on them. */
export const noLeaderText =
  "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";

export interface Proposals {
  /** Resolves with what the groups did. Rejects with ShoalError: "unavailable" (whether it was written may be unknown), "invalid". */
  propose(groups: readonly ActionGroup[]): Promise<Committed>;
  /** An entry was applied: tells who waits for it. */
  applied(committed: Committed): void;
  /**
   * A snapshot replaced entries that were not seen applied. Whoever was handed to a leader may be among them: asking
   * again would have its copy refused as stale, and its caller told of a failure that was a success.
   */
  skipped(): void;
  /** Nobody will be told of anything any more. */
  rejectAll(error: ShoalError): void;
}

interface Waiter {
  readonly data: Uint8Array;
  readonly resolve: (committed: Committed) => void;
  readonly reject: (error: Error) => void;
  /** It was handed to a leader: it may be in the log, here or elsewhere. */
  handedOver: boolean;
  forget: () => void;
}

/** Proposals to `core`; `wake` says that the core was told something. */
export function createProposals(parts: {
  readonly core: RaftCore;
  readonly clock: Clock;
  readonly random: Random;
  readonly wake: () => void;
}): Proposals {
  const { core, clock, random, wake } = parts;
  const waiters = new Map<string, Waiter>();

  /** Again until it is seen applied: the versions in it make a second one harmless. */
  function submit(proposalId: string, waiter: Waiter, deadline: InstantMs): void {
    const result = core.propose(waiter.data);
    if (!result.ok && (result.reason === "log-full" || result.reason === "removed")) {
      waiters.delete(proposalId);
      waiter.reject(failure("unavailable", `writing to the cluster's state: ${result.reason}`));
      return;
    }
    waiter.handedOver ||= result.ok;
    const look = (): void => {
      if (waiters.get(proposalId) !== waiter) return;
      // In our own log while we still lead, it only waits for a majority.
      const inLog = result.ok && result.index !== null && core.status().term === result.term;
      if (clock.now() >= deadline) {
        waiters.delete(proposalId);
        waiter.reject(
          failure("unavailable", `${waiter.handedOver ? unknownText : ""}${noLeaderText}`),
        );
      } else if (inLog) waiter.forget = clock.wakeAt(after(clock.now(), proposeAgainMs), look);
      else submit(proposalId, waiter, deadline);
    };
    waiter.forget = clock.wakeAt(after(clock.now(), result.ok ? proposeAgainMs : tickMs), look);
    wake();
  }

  return {
    propose(groups) {
      if (waiters.size >= proposalsMax) {
        return Promise.reject(
          failure("unavailable", `${proposalsMax} writes are under way; try again`),
        );
      }
      const proposalId = random.id();
      const data = encodeBody({ proposalId, at: clock.now(), groups });
      if (data.byteLength > entryBytesMax) {
        return Promise.reject(
          failure(
            "invalid",
            `raft message is too large: ${data.byteLength} bytes, the limit is ${entryBytesMax}`,
          ),
        );
      }
      return new Promise<Committed>((resolve, reject) => {
        const waiter = { data, resolve, reject, handedOver: false, forget: () => {} };
        waiters.set(proposalId, waiter);
        submit(proposalId, waiter, after(clock.now(), proposeTimeoutMs));
      });
    },
    applied(committed) {
      const waiter = waiters.get(committed.proposalId);
      if (waiter === undefined) return;
      waiters.delete(committed.proposalId);
      waiter.forget();
      waiter.resolve(committed);
    },
    skipped() {
      for (const [proposalId, waiter] of waiters) {
        if (!waiter.handedOver) continue;
        waiters.delete(proposalId);
        waiter.forget();
        waiter.reject(
          failure(
            "unavailable",
            "writing to the cluster's state: this manager fell behind and was given a snapshot; whether it was written is unknown. Look, and try again",
          ),
        );
      }
    },
    rejectAll(error) {
      for (const waiter of waiters.values()) {
        waiter.forget();
        waiter.reject(error);
      }
      waiters.clear();
    },
  };
}

const unknownText = `writing to the cluster's state: no answer in ${proposeTimeoutMs} ms; whether it was written is unknown. `;
