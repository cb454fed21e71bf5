/** A proposer for tests that commits to one store at once. */

import type { Clock } from "../../lib/clock.ts";
import { failure } from "../../lib/errors.ts";
import type { ActionGroup, Committed, Proposer, Store } from "../../store/types.ts";

export interface TestProposer extends Proposer {
  /** Entries that were committed. */
  readonly entries: (readonly ActionGroup[])[];
  /** Proposals fail while this is set: there is no leader. */
  unavailable: boolean;
  /** Commits without waiting for a promise. */
  commit(...groups: readonly ActionGroup[]): Committed;
}

export function createTestProposer(store: Store, clock: Clock): TestProposer {
  let index = store.view().index;
  const proposer: TestProposer = {
    entries: [],
    unavailable: false,
    commit(...groups) {
      index += 1;
      proposer.entries.push(groups);
      return store.apply(index, { proposalId: `test-${index}`, at: clock.now(), groups });
    },
    async propose(groups) {
      await Promise.resolve();
      if (proposer.unavailable) throw failure("unavailable", "proposing: there is no leader");
      return proposer.commit(...groups);
    },
  };
  return proposer;
}
