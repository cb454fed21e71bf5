/** Goal: each switch of RaftConfig does what its docstring says. Method: the same few steps with it on and off. */
import { expect, test } from "vitest";
import { RAFT_DEFAULTS } from "./limits.ts";
import { ABC, one } from "./testing/by-hand.ts";
import { Cluster } from "./testing/cluster.ts";
import type { RaftConfig } from "./types.ts";

const TICKS = RAFT_DEFAULTS.electionTicks;

function led(options: Partial<RaftConfig>): Cluster {
  const cluster = Cluster.of(ABC, 1, options);
  cluster.elect("a");
  return cluster;
}

test.each([true, false])("appendsAtOnce %s: proposals are sent one by one, or together", (on) => {
  const cluster = led({ appendsAtOnce: on });
  for (const text of ["x", "y", "z"]) cluster.propose("a", text);
  const sizes = cluster
    .core("a")
    .ready()
    .messages.map((message) => (message.kind === "append" ? message.entries.length : 0));
  expect(sizes).toEqual(on ? [1, 1, 1, 1, 1, 1] : [3, 3]);
});

test.each([true, false])(
  "preVote %s: a peer that is cut off keeps its term, or raises it",
  (on) => {
    const cluster = led({ preVote: on });
    const { term } = cluster.core("c").status();
    cluster.isolate("c");
    cluster.tick(10 * TICKS);
    expect(cluster.core("c").status().term > term).toBe(!on);
  },
);

test.each([true, false])("checkQuorum %s: a leader without a quorum steps down, or stays", (on) => {
  const cluster = led({ checkQuorum: on });
  cluster.isolate("a");
  cluster.tick(3 * TICKS);
  expect(cluster.core("a").status().role === "leader").toBe(!on);
});

test.each([true, false])("stepDownOnRemoval %s: a removed leader follows, or leads on", (on) => {
  const cluster = led({ stepDownOnRemoval: on });
  cluster.core("a").proposeMembership(one("remove", "a"));
  cluster.settle();
  expect(cluster.core("a").status().role).toBe(on ? "follower" : "leader");
  expect(cluster.propose("a", "x")).toMatchObject({ ok: false, reason: "removed" });
});

test.each([true, false])("disableProposalForwarding %s: a follower refuses, or hands on", (on) => {
  const cluster = led({ disableProposalForwarding: on });
  expect(cluster.propose("b", "x").ok).toBe(!on);
  cluster.tick(1);
  expect(cluster.peer("a").applied).toEqual(on ? [] : ["x"]);
});

test.each(["told", "empty-entry"] as const)("refusedMembership %s", (refusedMembership) => {
  const cluster = led({ refusedMembership });
  cluster.core("a").proposeMembership(one("remove", "c"));
  const second = cluster.core("a").proposeMembership(one("remove", "b"));
  cluster.settle();
  expect(second.ok).toBe(refusedMembership === "empty-entry");
  expect(cluster.core("a").status().membership.voters).toEqual(["a", "b"]);
  const last = cluster.peer("a").disk.state.entries.at(-1)?.kind;
  expect(last).toBe(refusedMembership === "told" ? "membership" : "empty");
});

test.each([true, false])("refusalsTellCommitted %s", (on) => {
  const cluster = led({ refusalsTellCommitted: on });
  cluster.core("b").step({
    kind: "vote",
    from: "c",
    to: "b",
    term: 9,
    lastIndex: 0,
    lastTerm: 0,
    transfer: true,
  });
  const reply = cluster.core("b").ready().afterSave[0];
  expect(reply).toMatchObject({ kind: "vote-reply", granted: false });
  expect(reply !== undefined && "committed" in reply).toBe(on);
});

test("trace tells of steps under etcd's names", () => {
  const names: string[] = [];
  const cluster = led({ trace: ({ name, nid }) => names.push(`${nid} ${name}`) });
  cluster.core("a").proposeMembership(one("remove", "c"));
  cluster.settle();
  for (const step of ["InitState", "BecomeCandidate", "BecomeLeader", "Replicate", "Commit"]) {
    expect(names).toContain(`a ${step}`);
  }
  expect(names.indexOf("a ChangeConf")).toBeLessThan(names.indexOf("a ApplyConfChange"));
  expect(names).toContain("b ReceiveAppendEntriesRequest");
});
