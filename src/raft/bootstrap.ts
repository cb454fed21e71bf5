/** How a peer's life begins: as the first of a cluster, or with nothing. */
import { assert } from "../lib/assert.ts";
import { isPeerId } from "./limits.ts";
import { encodeMembershipChange } from "./membership.ts";
import type { PeerId, SavedState } from "./types.ts";

/** A manager that joins: no log, no membership. It votes and campaigns only after the leader has made it a voter. */
export const EMPTY_STATE: SavedState = {
  hardState: { term: 0, vote: null, commit: 0 },
  snapshot: null,
  entries: [],
};

/**
 * The first manager of a new cluster: a log whose only entry, committed, makes `id` the one voter. Save it
 * (hardState and entries) before the first createRaft; everybody who joins later gets that entry like any other.
 */
export function bootstrap(id: PeerId): SavedState {
  assert(isPeerId(id), "the first manager has a PeerId");
  const data = encodeMembershipChange({ changes: [{ kind: "add-voter", id }], transition: "auto" });
  return {
    hardState: { term: 1, vote: null, commit: 1 },
    snapshot: null,
    entries: [{ index: 1, term: 1, kind: "membership", data }],
  };
}
