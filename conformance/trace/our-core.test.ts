/** Goal: what our own core traces is accepted, in every kind of run. How: clusters under loss, crashes, partitions and changes of membership, from seeds. */
import { describe, expect, test } from "vitest";
import { assert } from "../../src/lib/assert.ts";
import { EMPTY_STATE } from "../../src/raft/bootstrap.ts";
import { LEAVE_JOINT } from "../../src/raft/membership.ts";
import { Cluster, type CrashPoint } from "../../src/raft/testing/cluster.ts";
import { encodeTraceEvent, type TraceEvent } from "../../src/raft/trace.ts";
import type { MembershipChange, PeerId, RaftConfig } from "../../src/raft/types.ts";
import { checkTrace, describeViolation, OUR_RULES, type Violation } from "./check.ts";

const ids: readonly PeerId[] = ["a", "b", "c", "d", "e"];
/** Runs of each kind; $SHOAL_TRACE_SEEDS for more. */
const seeds = Number(process.env["SHOAL_TRACE_SEEDS"] ?? 12);
/** Per run. With saves under way a step does less. */
const steps = { sync: 1_500, async: 5_000 } as const;

interface Run {
  readonly events: TraceEvent[];
  readonly violation: Violation | null;
}

function judge(events: readonly TraceEvent[]): Violation | null {
  const lines = events.map((event) => encodeTraceEvent(event));
  return checkTrace(lines.join("\n"), OUR_RULES).violation;
}

/** A run of five peers, three of them voters at first, under everything that may go wrong. */
function run(seed: number, options: Partial<RaftConfig>): Run {
  const events: TraceEvent[] = [];
  const trace = (event: TraceEvent): number => events.push(structuredClone(event));
  const cluster = Cluster.of(ids.slice(0, 3), seed, { ...options, trace });
  for (const id of ids.slice(3)) cluster.add(id, EMPTY_STATE);
  const { random } = cluster;
  const pick = (): PeerId => ids[random.below(ids.length)] ?? "a";
  const crashes: readonly (CrashPoint | null)[] = [
    "before-save",
    "before-send",
    "before-advance",
    null,
  ];
  const count = options.asyncStorageWrites === true ? steps.async : steps.sync;
  for (let step = 0; step < count; step += 1) {
    const id = pick();
    const { core } = cluster.peer(id);
    const chance = random.below(1000);
    if (core === null) {
      if (chance < 200) cluster.restart(id);
    } else if (chance < 6) {
      cluster.work(id, crashes[random.below(4)] ?? null);
      cluster.crash(id);
    } else if (chance < 14) {
      cluster.heal();
      if (random.below(2) === 0) cluster.isolate(id);
    } else if (chance < 24) core.proposeMembership(someChange(random.below, pick));
    else if (chance < 30) core.transferLeadership(pick());
    else if (chance < 60) compact(cluster, id);
    else if (chance < 160) cluster.propose(id, `v${step}`);
    else if (chance < 330) core.tick();
    else if (chance < 600) work(cluster, id);
    else if (cluster.network.length > 0) {
      const at = random.below(Math.min(cluster.network.length, 6));
      const fate = random.below(24);
      const message = cluster.network[at];
      if (fate < 2) cluster.network.splice(at, 1);
      else {
        if (fate < 4 && message !== undefined) cluster.network.push(message);
        cluster.deliver(at);
      }
    }
  }
  return { events, violation: judge(events) };
}

function work(cluster: Cluster, id: PeerId): void {
  const part = cluster.peer(id).config.asyncStorageWrites ? cluster.random.below(3) : 0;
  if (part === 0) cluster.work(id);
  else if (part === 1) cluster.finishSave(id);
  else cluster.finishApply(id, 1 + cluster.random.below(3));
}

function compact(cluster: Cluster, id: PeerId): void {
  const { applied, firstIndex } = cluster.core(id).status();
  const snapshot = cluster.peer(id).disk.state.snapshot?.index ?? 0;
  if (applied <= snapshot || firstIndex > applied + 1) return;
  cluster.compact(id, applied + 1);
}

function someChange(below: (limit: number) => number, pick: () => PeerId): MembershipChange {
  if (below(4) === 0) return LEAVE_JOINT;
  const kinds = ["add-voter", "add-learner", "remove"] as const;
  const change = (): MembershipChange["changes"][number] => ({
    kind: kinds[below(3)] ?? "remove",
    id: pick(),
  });
  const transition = (["auto", "joint-implicit", "joint-explicit"] as const)[below(3)] ?? "auto";
  return { changes: below(2) === 0 ? [change()] : [change(), change()], transition };
}

describe("our core", () => {
  const kinds: readonly [string, Partial<RaftConfig>][] = [
    ["one save at a time", { asyncStorageWrites: false }],
    ["saves under way", { asyncStorageWrites: true }],
    [
      "etcd's timing",
      {
        asyncStorageWrites: false,
        preVote: false,
        checkQuorum: false,
        refusalsTellCommitted: false,
      },
    ],
  ];
  test.each(kinds)("is accepted with %s", { timeout: 1_000 * seeds + 30_000 }, (_name, options) => {
    const seen = new Set<string>();
    let committed = 0;
    for (let seed = 1; seed <= seeds; seed += 1) {
      const { events, violation } = run(seed, options);
      if (violation !== null)
        expect.fail(
          `seed ${seed}: ${describeViolation(violation)}\n${around(events, violation.line)}`,
        );
      for (const { name } of events) seen.add(name);
      committed += Math.max(...events.map(({ state }) => state.commit));
    }
    expect(committed).toBeGreaterThan(10 * seeds);
    expect([...seen].sort()).toEqual(allNames);
  });
});

/** Faults of a core, as they would show in its trace: each turns one kind of event into another. */
describe("a core of ours with a fault is rejected", () => {
  const faults: readonly [string, (event: TraceEvent) => TraceEvent | null][] = [
    [
      "commits without asking anybody",
      (event) =>
        event.name === "Commit"
          ? { ...event, state: { ...event.state, commit: event.log } }
          : event,
    ],
    [
      "grants every vote",
      (event) =>
        event.msg?.type === "MsgVoteResp"
          ? { ...event, msg: { ...event.msg, reject: false } }
          : event,
    ],
    [
      "acknowledges one more than it has",
      (event) =>
        event.msg?.type === "MsgAppResp" && !event.msg.reject
          ? { ...event, msg: { ...event.msg, index: event.msg.index + 1 } }
          : event,
    ],
    ["never tells that it steps down", (event) => (event.name === "BecomeFollower" ? null : event)],
    ["forgets its vote", (event) => ({ ...event, state: { ...event.state, vote: "0" } })],
  ];
  test.each(faults)("%s", { timeout: 30_000 }, (_name, fault) => {
    let rejected = 0;
    for (let seed = 1; seed <= 8; seed += 1) {
      const { events } = run(seed, { asyncStorageWrites: false, preVote: false });
      expect(judge(events)).toBeNull();
      if (judge(events.flatMap((event) => fault(event) ?? [])) !== null) rejected += 1;
    }
    expect(rejected).toBeGreaterThan(0);
  });
});

const allNames: readonly string[] = [
  "ApplyConfChange",
  "BecomeCandidate",
  "BecomeFollower",
  "BecomeLeader",
  "ChangeConf",
  "Commit",
  "InitState",
  "Ready",
  "ReceiveAppendEntriesRequest",
  "ReceiveAppendEntriesResponse",
  "ReceiveRequestVoteRequest",
  "ReceiveRequestVoteResponse",
  "ReceiveSnapshot",
  "Replicate",
  "SendAppendEntriesRequest",
  "SendAppendEntriesResponse",
  "SendRequestVoteRequest",
  "SendRequestVoteResponse",
  "SendSnapshot",
];

/** The last events of the peer that went wrong. */
function around(events: readonly TraceEvent[], line: number): string {
  const wrong = events[line - 1];
  assert(wrong !== undefined, "a violation is at an event");
  return events
    .slice(0, line)
    .filter(({ nid }) => nid === wrong.nid)
    .slice(-8)
    .map((event) => JSON.stringify(event))
    .join("\n");
}
