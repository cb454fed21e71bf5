/** What must hold at every moment, seen from outside the code: one leader a term, one history, nothing acknowledged lost. */
import type { RaftStatus } from "../../src/raft/types.ts";
import type { Committed, EntryBody, Store } from "../../src/store/types.ts";

export class Violation extends Error {
  override readonly name = "Violation";
}

export class SafetyChecker {
  readonly #leaders = new Map<number, string>();
  readonly #history = new Map<number, string>();
  readonly #digests = new Map<number, string>();
  readonly #highest = new Map<string, { term: number; commit: number }>();
  readonly #acknowledged = new Map<string, number>();
  applied = 0;

  /** Election safety; term and commit of one life never go back. `life` names a process, not a disk. */
  status(life: string, status: RaftStatus): void {
    if (status.role === "leader") {
      const other = this.#leaders.get(status.term);
      if (other !== undefined && other !== status.id) {
        throw new Violation(`term ${status.term} has two leaders: ${other} and ${status.id}`);
      }
      this.#leaders.set(status.term, status.id);
    }
    const before = this.#highest.get(life);
    if (before !== undefined && (status.term < before.term || status.commit < before.commit)) {
      throw new Violation(
        `${life} went back from term ${before.term}, commit ${before.commit} to ${status.term}, ${status.commit}`,
      );
    }
    this.#highest.set(life, { term: status.term, commit: status.commit });
  }

  /** One history: what one manager applied at an index, every other applies there. */
  entry(host: string, index: number, body: EntryBody, committed: Committed): void {
    this.applied += 1;
    const said = `${body.proposalId}/${committed.results.map((result) => (result.ok ? "1" : "0")).join("")}`;
    const before = this.#history.get(index);
    if (before === undefined) this.#history.set(index, said);
    else if (before !== said) {
      throw new Violation(`index ${index}: ${host} applied ${said}, another manager ${before}`);
    }
  }

  /** State machines are equal at equal indexes. */
  digest(host: string, store: Store): void {
    const { index } = store.view();
    const digest = store.digest();
    const before = this.#digests.get(index);
    if (before === undefined) this.#digests.set(index, digest);
    else if (before !== digest)
      throw new Violation(`index ${index}: the state of ${host} differs from another's`);
  }

  /** A client was told that its write is in. */
  acknowledge(proposalId: string, index: number): void {
    this.#acknowledged.set(proposalId, index);
  }

  /** Every acknowledged write is in the one history, where its client was told. */
  acknowledgedAreThere(): void {
    for (const [proposalId, index] of this.#acknowledged) {
      const said = this.#history.get(index);
      if (said === undefined || !said.startsWith(`${proposalId}/`)) {
        throw new Violation(`the write ${proposalId}, acknowledged at index ${index}, is lost`);
      }
    }
  }

  get acknowledgedCount(): number {
    return this.#acknowledged.size;
  }
}

/** No address is held by two endpoints of one network (tasks that are not over). */
export function addressesAreUnique(store: Store): void {
  const view = store.view();
  const holders = new Map<string, string>();
  for (const task of view.table("tasks").all()) {
    if (
      ["complete", "shutdown", "failed", "rejected", "remove", "orphaned"].includes(
        task.status.state,
      )
    )
      continue;
    for (const { networkId, address } of task.attachments) {
      const key = `${networkId}/${address}`;
      const other = holders.get(key);
      if (other !== undefined)
        throw new Violation(`address ${address} is held by tasks ${other} and ${task.id}`);
      holders.set(key, task.id);
    }
  }
}
