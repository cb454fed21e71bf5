/** Goal: several saves and applications under way at once break no promise. Method: one core, driven by hand, save by save. */
import { expect, test } from "vitest";
import { present } from "../lib/assert.ts";
import { createRaft } from "./core.ts";
import { RAFT_DEFAULTS, SAVES_UNDER_WAY_MAX } from "./limits.ts";
import { ABC } from "./testing/by-hand.ts";
import { startedWith } from "./testing/cluster.ts";
import { seededRandom } from "./testing/seeded-random.ts";
import type { Message, PeerId, RaftConfig, RaftCore, Ready } from "./types.ts";

function asyncCore(id: PeerId, options: Partial<RaftConfig> = {}): RaftCore {
  const config = { ...RAFT_DEFAULTS, asyncStorageWrites: true, id, random: seededRandom(3) };
  return createRaft({ ...config, ...options }, startedWith(ABC));
}

function finish(core: RaftCore, ready: Ready): void {
  core.saved(present(ready.save, "the save of this Ready"));
}

/** An append of entries of `entryTerm` behind (prevIndex, prevTerm), from `from`, which leads `term`. */
function append(
  [from, term]: readonly [PeerId, number],
  [prevIndex, prevTerm]: readonly [number, number],
  [entryTerm, count]: readonly [number, number],
): Message {
  const entries = Array.from({ length: count }, (_, at) => ({
    index: prevIndex + 1 + at,
    term: entryTerm,
    kind: "normal" as const,
    data: new Uint8Array(1),
  }));
  return { kind: "append", from, to: "a", term, prevIndex, prevTerm, entries, commit: 1 };
}

function lead(core: RaftCore): number {
  core.campaign();
  finish(core, core.ready());
  core.step({ kind: "prevote-reply", from: "b", to: "a", term: 2, granted: true });
  finish(core, core.ready());
  core.step({ kind: "vote-reply", from: "b", to: "a", term: 2, granted: true });
  expect(core.status()).toMatchObject({ role: "leader", term: 2 });
  return 2;
}

test("each entry is given once to save, and several saves may be under way", () => {
  const core = asyncCore("a");
  core.step(append(["b", 1], [1, 1], [1, 2]));
  const first = core.ready();
  core.step(append(["b", 1], [3, 1], [1, 1]));
  const second = core.ready();
  expect(first.entries.map((entry) => entry.index)).toEqual([2, 3]);
  expect(second.entries.map((entry) => entry.index)).toEqual([4]);
  expect(core.hasReady()).toBe(false);
  expect(() => finish(core, second)).toThrow("in order");
});

test("an acknowledgement waits for the save, a leader's append does not", () => {
  const core = asyncCore("a");
  core.step(append(["b", 1], [1, 1], [1, 1]));
  const ready = core.ready();
  expect(ready.messages).toEqual([]);
  expect(ready.afterSave).toMatchObject([{ kind: "append-reply", index: 2 }]);
  const leader = asyncCore("a");
  lead(leader);
  const first = leader.ready();
  expect(first.messages.map((message) => message.kind)).toEqual(["append", "append"]);
  expect(first.toSelf).toMatchObject([{ kind: "append-reply", to: "a", index: 2 }]);
  expect(leader.status().commit).toBe(1);
});

test("the leader's own disk counts only when the save is done, and nothing is applied before that", () => {
  const core = asyncCore("a");
  const term = lead(core);
  const ready = core.ready();
  const ack = { index: 2, rejected: false, hintIndex: 0, hintTerm: 0 };
  core.step({ kind: "append-reply", from: "b", to: "a", term, ...ack });
  expect(core.status().commit, "one of three").toBe(1);
  core.step({ kind: "append-reply", from: "c", to: "a", term, ...ack });
  expect(core.status().commit, "a quorum without this disk").toBe(2);
  const next = core.ready();
  expect(next.committed, "not yet on this disk").toEqual([]);
  finish(core, ready);
  if (next.save !== null) core.saved(next.save);
  expect(core.ready().committed.map((entry) => entry.index)).toEqual([2]);
});

test("append ABA: a late acknowledgement does not vouch for what replaced the entry and came back", () => {
  const core = asyncCore("a");
  core.step(append(["b", 1], [1, 1], [1, 1]));
  const first = core.ready();
  // A leader of term 2 replaces entry 2, one of term 3 brings the entry of term 1 back.
  core.step(append(["c", 2], [1, 1], [2, 1]));
  const second = core.ready();
  core.step(append(["b", 3], [1, 1], [1, 1]));
  core.step({ kind: "heartbeat", from: "b", to: "a", term: 3, commit: 2, readId: null });
  finish(core, first);
  finish(core, second);
  const third = core.ready();
  expect(third.entries.map((entry) => [entry.index, entry.term])).toEqual([[2, 1]]);
  expect(third.committed, "entry 2 is committed, but not on this disk").toEqual([]);
  finish(core, third);
  expect(core.ready().committed.map((entry) => entry.index)).toEqual([2]);
});

test("a save of a commit index alone needs no sync and is not waited for", () => {
  const core = asyncCore("a");
  core.step(append(["b", 1], [1, 1], [1, 1]));
  finish(core, core.ready());
  core.step({ kind: "heartbeat", from: "b", to: "a", term: 1, commit: 2, readId: null });
  const ready = core.ready();
  expect(ready).toMatchObject({ mustSync: false, save: null, hardState: { commit: 2 } });
  expect(ready.messages).toMatchObject([{ kind: "heartbeat-reply" }]);
  expect(ready.committed).toHaveLength(1);
});

test("applications may lag: pages are bounded by what is given and not applied yet", () => {
  const core = asyncCore("a", { committedBytesPerReadyMax: 70 });
  core.step(append(["b", 1], [1, 1], [1, 5]));
  finish(core, core.ready());
  core.step({ kind: "heartbeat", from: "b", to: "a", term: 1, commit: 6, readId: null });
  const page = (): number[] => core.ready().committed.map((entry) => entry.index);
  expect(page()).toEqual([2, 3]);
  expect(core.hasReady()).toBe(false);
  core.applied(3);
  expect(core.status().applied).toBe(3);
  expect(page()).toEqual([4, 5]);
  core.applied(4);
  core.applied(5);
  expect(page()).toEqual([6]);
});

test("a snapshot is offered once, holds back applications, and counts when its save is done", () => {
  const core = asyncCore("a");
  const snapshot = { ...present(startedWith(ABC).snapshot, "a snapshot"), index: 9, term: 2 };
  core.step({ kind: "snapshot", from: "b", to: "a", term: 2, snapshot });
  const ready = core.ready();
  expect(ready.snapshot).toEqual(snapshot);
  core.step(append(["b", 2], [9, 2], [2, 1]));
  core.step({ kind: "heartbeat", from: "b", to: "a", term: 2, commit: 10, readId: null });
  const next = core.ready();
  expect(next).toMatchObject({ snapshot: null, committed: [] });
  finish(core, ready);
  expect(core.status().applied).toBe(9);
  finish(core, next);
  expect(core.ready().committed.map((entry) => entry.index)).toEqual([10]);
});

test("vote requests wait for this disk: a grant may outlive a crash that takes back the log it was given to", () => {
  for (const voteRequestsAtOnce of [false, true]) {
    const core = asyncCore("a", { voteRequestsAtOnce });
    core.campaign();
    finish(core, core.ready());
    core.step({ kind: "prevote-reply", from: "b", to: "a", term: 2, granted: true });
    const ready = core.ready();
    const asked = voteRequestsAtOnce ? ready.messages : ready.afterSave;
    expect(asked.map((message) => message.kind)).toEqual(["vote", "vote"]);
    expect(ready.toSelf.map((message) => message.kind)).toEqual(["vote-reply"]);
  }
});

test("saves under way are bounded: a hanging disk is waited for", () => {
  const core = asyncCore("a");
  let drawn = 0;
  for (let i = 0; i < 2 * SAVES_UNDER_WAY_MAX; i += 1) {
    core.step(append(["b", 1], [1 + i, 1], [1, 1]));
    if (!core.hasReady()) continue;
    core.ready();
    drawn += 1;
  }
  expect(drawn).toBe(SAVES_UNDER_WAY_MAX);
});

test("a leader acknowledges many proposals of one turn to itself at once", () => {
  const core = asyncCore("a");
  lead(core);
  finish(core, core.ready());
  for (let i = 0; i < 50; i += 1) core.propose(new Uint8Array(1));
  const { toSelf, entries } = core.ready();
  expect(entries).toHaveLength(50);
  expect(toSelf).toMatchObject([{ kind: "append-reply", index: 52 }]);
});

test("forgetLeader() lets a follower grant another's vote at once", () => {
  const core = asyncCore("a");
  core.step(append(["b", 1], [1, 1], [1, 1]));
  const ask = { from: "c", to: "a", term: 2, lastIndex: 9, lastTerm: 1, transfer: false } as const;
  core.step({ kind: "vote", ...ask });
  expect(core.status()).toMatchObject({ term: 1, leader: "b" });
  core.forgetLeader();
  core.step({ kind: "vote", ...ask });
  expect(core.status()).toMatchObject({ term: 2, leader: null });
  expect(core.ready().afterSave.at(-1)).toMatchObject({ kind: "vote-reply", granted: true });
});
