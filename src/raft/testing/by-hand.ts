/** Cores that a test drives by hand, and the few moves it needs. */
import { assert } from "../../lib/assert.ts";
import { createRaft } from "../core.ts";
import { RAFT_DEFAULTS } from "../limits.ts";
import type { Entry, MembershipChange, Message, PeerId, RaftCore, SavedState } from "../types.ts";
import { startedWith } from "./cluster.ts";
import { seededRandom } from "./seeded-random.ts";

export const ABC: readonly PeerId[] = ["a", "b", "c"];

/** One change of one member. */
export function one(kind: "add-voter" | "add-learner" | "remove", id: PeerId): MembershipChange {
  return { changes: [{ kind, id }], transition: "auto" };
}

/** A core without peers to answer it. */
export function lone(id: PeerId, saved: SavedState): RaftCore {
  return createRaft({ ...RAFT_DEFAULTS, id, random: seededRandom(5) }, saved);
}

/** Works off everything, as a driver without peers does, and gives what was sent. */
export function drain(core: RaftCore): Message[] {
  const sent: Message[] = [];
  while (core.hasReady()) {
    const { messages, afterSave } = core.ready();
    sent.push(...messages, ...afterSave);
    core.advance();
  }
  return sent;
}

/** The saved state of a voter of a, b, c with entries of these terms from index 2 on. */
export function withLog(terms: readonly number[], commit = 1): SavedState {
  const entries = terms.map(
    (term, i): Entry => ({ index: 2 + i, term, kind: "normal", data: new Uint8Array(1) }),
  );
  const hardState = { term: Math.max(1, ...terms), vote: null, commit };
  return { ...startedWith(ABC), hardState, entries };
}

/** Makes `core` of voters a, b, c leader by hand, with b's vote. */
export function electByHand(core: RaftCore): void {
  core.campaign();
  drain(core);
  const { term } = core.status();
  core.step({ kind: "prevote-reply", from: "b", to: "a", term: term + 1, granted: true });
  drain(core);
  core.step({ kind: "vote-reply", from: "b", to: "a", term: term + 1, granted: true });
  const { role, term: now } = core.status();
  assert(role === "leader" && now === term + 1, "elected by hand");
}
