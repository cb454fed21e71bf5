/** A proposer for tests that commits to one store at once. */

import { assert } from "../../lib/assert.ts";
import type { Clock } from "../../lib/clock.ts";
import { failure } from "../../lib/errors.ts";
import type { ActionGroup, Committed, Proposer, Store } from "../../store/types.ts";

export interface TestProposer extends Proposer {
  /** Entries that were committed. */
  readonly entries: (readonly ActionGroup[])[];
  /** Proposals fail while this is set: there is no leader. */
  unavailable: boolean;
  /** Commits without waiting for a promise; the test wants every group to hold. */
  commit(...groups: readonly ActionGroup[]): Committed;
}

export function createTestProposer(store: Store, clock: Clock): TestProposer {
  let index = store.view().index;
  const write = (groups: readonly ActionGroup[]): Committed => {
    index += 1;
    proposer.entries.push(groups);
    return store.apply(index, { proposalId: `test-${index}`, at: clock.now(), groups });
  };
  const proposer: TestProposer = {
    entries: [],
    unavailable: false,
    commit(...groups) {
      const committed = write(groups);
      const refused = committed.results.find((result) => !result.ok);
      assert(refused === undefined, `a test's write holds: ${JSON.stringify(refused)}`);
      return committed;
    },
    async propose(groups) {
      await Promise.resolve();
      if (proposer.unavailable) throw failure("unavailable", "proposing: there is no leader");
      return write(groups);
    },
  };
  return proposer;
}
