// Goal: membership follows the rows one safe step at a time. Method: statuses and rows as values.
import { describe, expect, test } from "vitest";
import type { RaftStatus } from "../raft/types.ts";
import { createStore } from "../store/store.ts";
import { nextMembershipStep } from "./raft-membership.ts";
import { createTestClock } from "./testing/clock.ts";
import { createTestProposer } from "./testing/proposer.ts";
import { add, testNode } from "./testing/rows.ts";

type Progress = RaftStatus["progress"][number];
const peer = (id: string, changed: Partial<Progress> = {}): Progress => ({
  id,
  state: "replicate",
  match: 60,
  next: 61,
  active: true,
  learner: false,
  paused: false,
  pendingSnapshot: 0,
  inflight: 0,
  inflightFull: false,
  ...changed,
});
function statusOf(progress: readonly Progress[]): RaftStatus {
  return {
    id: "a",
    role: "leader",
    term: 2,
    leader: "a",
    commit: 60,
    applied: 60,
    lastIndex: 60,
    firstIndex: 1,
    membership: {
      voters: progress.filter(({ learner }) => !learner).map(({ id }) => id),
      outgoing: [],
      learners: progress.filter(({ learner }) => learner).map(({ id }) => id),
      learnersNext: [],
      autoLeave: false,
    },
    transferee: null,
    progress,
  };
}
/** A view in which these peers are wanted as managers. */
function viewOf(...wanted: readonly string[]) {
  const store = createStore();
  const proposer = createTestProposer(store, createTestClock());
  for (const id of wanted) {
    const spec = { name: "", labels: {}, role: "manager", availability: "active" } as const;
    const manager = { raftId: id, address: "192.0.2.1:2377" };
    proposer.commit([add("nodes", testNode(`node-${id}`, { spec, manager }))]);
  }
  return store.view();
}
const step = (wanted: readonly string[], progress: readonly Progress[]) =>
  nextMembershipStep(viewOf(...wanted), statusOf(progress));
const change = (kind: string, id: string) => ({
  kind: "change",
  change: { changes: [{ kind, id }], transition: "auto" },
});

describe("nextMembershipStep", () => {
  test("takes a new manager in as a learner", () => {
    expect(step(["a", "b"], [peer("a")])).toEqual(change("add-learner", "b"));
  });

  test.each<[string, Partial<Progress>, boolean]>([
    ["that has answered and is close", {}, true],
    ["that never answered, however short the log", { state: "probe", match: 0, next: 1 }, false],
    ["that was found but is not followed yet", { state: "probe", match: 60 }, false],
    ["that gets a snapshot", { state: "snapshot", match: 0 }, false],
    ["that was not heard of for an election timeout", { active: false }, false],
  ])("a learner %s", (_what, changed, becomesVoter) => {
    const learner = peer("b", { learner: true, ...changed });
    expect(step(["a", "b"], [peer("a"), learner])).toEqual(
      becomesVoter ? change("add-voter", "b") : { kind: "none" },
    );
  });

  test("a voter that is wanted no more goes only while the others are a majority", () => {
    const others = [peer("a"), peer("b"), peer("c")];
    expect(step(["a", "b"], others)).toEqual(change("remove", "c"));
    const lonely = [peer("a"), peer("b", { active: false }), peer("c")];
    expect(step(["a", "b"], lonely)).toEqual({ kind: "none" });
  });

  test("a leader that is wanted no more hands over first", () => {
    expect(step(["b"], [peer("a"), peer("b")])).toEqual({ kind: "transfer", to: "b" });
  });
});
