/** Goal: a Raft id is good with its own node's certificate only, and nobody is kept out for ever by rows that are old. How: a table of rows and greetings. */
import { describe, expect, test } from "vitest";
import { createStore } from "../store/store.ts";
import { peerObjection } from "./raft-identity.ts";
import { createTestClock } from "./testing/clock.ts";
import { createTestProposer } from "./testing/proposer.ts";
import { add, testNode } from "./testing/rows.ts";

/** Nodes m1 and m2 are Raft peers r1 and r2; w was demoted, or is not promoted yet. */
function view() {
  const store = createStore();
  const proposer = createTestProposer(store, createTestClock());
  const manager = (raftId: string) => ({
    manager: { raftId, address: "192.0.2.1:2377" },
    spec: { name: "", labels: {}, role: "manager", availability: "active" } as const,
  });
  proposer.commit([add("nodes", testNode("m1", manager("r1")))]);
  proposer.commit([add("nodes", testNode("m2", manager("r2")))]);
  proposer.commit([add("nodes", testNode("w"))]);
  return store.view();
}

describe("peerObjection", () => {
  test.each<[what: string, nodeId: string, peer: string, led: string | null, alone: string | null]>(
    [
      ["a manager as itself", "m1", "r1", null, null],
      ["a manager as another", "m1", "r2", "is node m2", "is node m2"],
      ["a node without a row as a known peer", "x", "r2", "is node m2", "is node m2"],
      ["a demoted node as a known peer", "w", "r1", "is node m1", "is node m1"],
      ["a node without a row, under a new name", "x", "r9", null, null],
      ["a manager under a name that is not in its row", "m1", "r9", "is raft peer r1", null],
      ["a demoted node, under any other name", "w", "r9", "is no manager", null],
    ],
  )("%s", (_what, nodeId, peer, led, alone) => {
    for (const [hasLeader, words] of [
      [true, led],
      [false, alone],
    ] as const) {
      const why = peerObjection(view(), hasLeader, nodeId, peer);
      if (words === null) expect(why).toBeNull();
      else expect(why).toContain(words);
    }
  });

  test("without rows everybody with a manager's certificate may greet", () => {
    expect(peerObjection(createStore().view(), true, "m1", "r1")).toBeNull();
  });
});
