/** Goal: the trace checker accepts etcd's example and rejects what is wrong. How: mutated copies of the example, and small traces by hand. */
import { describe, expect, test } from "vitest";
import { encodeTraceEvent, type TraceEvent } from "../../src/raft/trace.ts";
import { dataFiles, missingData } from "../data.ts";
import { checkTrace, TraceChecker } from "./check.ts";
import { parseTraceLine } from "./parse.ts";

const missing = missingData();

/** The one file, as events. Mutations change a copy. */
function example(): Mutable[] {
  const [file] = dataFiles("tla-example-trace");
  return (file?.text ?? "")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const parsed = parseTraceLine(line);
      if (parsed.kind !== "event") throw new Error(`no event: ${line}`);
      return parsed.event as Mutable;
    });
}

type Writable<T> = T extends object ? { -readonly [K in keyof T]: Writable<T[K]> } : T;
type Mutable = Writable<TraceEvent>;

function violationIn(events: readonly TraceEvent[]): string {
  const { violation } = checkTrace(events.map((event) => encodeTraceEvent(event, 1)).join("\n"));
  return violation === null ? "accepted" : `${violation.rule}: ${violation.why}`;
}

function first(
  events: readonly Mutable[],
  from: number,
  wanted: (event: Mutable) => boolean,
): number {
  const at = events.findIndex((event, index) => index >= from && wanted(event));
  expect(at, "the example has such an event").toBeGreaterThanOrEqual(0);
  return at;
}
function at(events: readonly Mutable[], index: number): Mutable {
  const event = events[index];
  if (event === undefined) throw new Error(`no event ${index}`);
  return event;
}

/** Name, what to change, and what the checker must say. Each takes the example and returns another trace. */
const mutations: readonly [string, (events: Mutable[]) => void, RegExp][] = [
  [
    "a commit beyond what a quorum acknowledged",
    (events) => {
      const index = first(
        events,
        200,
        ({ name, state, log }) => name === "Commit" && state.commit < log,
      );
      raiseFrom(events, index, (event) => {
        event.state.commit = at(events, index).log;
      });
    },
    /no quorum/,
  ],
  [
    "a commit beyond the log",
    (events) => {
      at(
        events,
        first(events, 200, ({ name }) => name === "Commit"),
      ).state.commit = 10_000;
    },
    /beyond the log/,
  ],
  [
    "a commit index that falls",
    (events) => {
      const index = first(events, 600, ({ name, state }) => name === "Commit" && state.commit > 10);
      at(events, index).state.commit -= 1;
    },
    /commit index/,
  ],
  [
    "a second leader in the same term",
    (events) => {
      const lead = at(
        events,
        first(events, 0, ({ name }) => name === "BecomeLeader"),
      );
      const index = first(events, 150, ({ name, nid }) => name === "Ready" && nid === "3");
      events.splice(index, 0, {
        ...at(events, index),
        name: "BecomeLeader",
        role: "StateLeader",
        state: { ...lead.state },
      });
    },
    /candidate|leader/,
  ],
  [
    "a leader without a quorum of votes",
    (events) => {
      drop(events, ({ name, msg }) => name === "ReceiveRequestVoteResponse" && msg?.from !== "2");
    },
    /votes of a quorum/,
  ],
  [
    "a vote given twice in a term",
    (events) => {
      const index = first(
        events,
        0,
        ({ name, nid }) => name === "SendRequestVoteResponse" && nid === "5",
      );
      const vote = at(events, index);
      events.splice(index + 1, 0, {
        ...vote,
        state: { ...vote.state, vote: "2" },
        msg: { ...message(vote), to: "3" },
      });
    },
    /did not ask|was given/,
  ],
  [
    "a vote that changes",
    (events) => {
      const index = first(events, 100, ({ name, nid }) => name === "Ready" && nid === "4");
      at(events, index).state.vote = "3";
    },
    /vote is 2, not 3/,
  ],
  [
    "a vote for a log that ends before ours",
    (events) => {
      for (const event of events) if (event.msg?.type === "MsgVote") event.msg.index = 4;
    },
    /asks with a log/,
  ],
  [
    "a term that falls",
    (events) => {
      raiseFrom(
        events,
        first(events, 200, ({ name, nid }) => name === "Ready" && nid === "3"),
        (event) => {
          event.state.term = 1;
        },
      );
    },
    /term is 2, not 1/,
  ],
  [
    "a term that comes from nobody",
    (events) => {
      const index = first(events, 200, ({ name, nid }) => name === "Ready" && nid === "3");
      const event = at(events, index);
      events.splice(index, 0, {
        ...event,
        name: "BecomeFollower",
        state: { ...event.state, term: 9, vote: "0" },
      });
    },
    /comes from nobody/,
  ],
  [
    "entries that conflict: a follower appends one too many",
    (events) => {
      const index = first(
        events,
        100,
        ({ name, nid, msg }) =>
          name === "SendAppendEntriesResponse" && nid === "3" && msg?.type === "MsgAppResp",
      );
      const event = at(events, index);
      event.log += 1;
      message(event).index += 1;
    },
    /acknowledged|log ends/,
  ],
  [
    "an acknowledgement of what is not there",
    (events) => {
      const index = first(
        events,
        300,
        ({ name, nid, msg }) =>
          name === "SendAppendEntriesResponse" && nid !== "2" && msg?.type === "MsgAppResp",
      );
      message(at(events, index)).index += 3;
    },
    /is acknowledged, but the log ends/,
  ],
  [
    "a message that nobody sent",
    (events) => {
      message(
        at(
          events,
          first(events, 300, ({ name }) => name === "ReceiveAppendEntriesRequest"),
        ),
      ).logTerm = 1;
    },
    /nobody sent/,
  ],
  [
    "entries sent with a wrong term before them",
    (events) => {
      const index = first(
        events,
        1_000,
        ({ name, msg }) => name === "SendAppendEntriesRequest" && msg?.type === "MsgApp",
      );
      message(at(events, index)).logTerm = 1;
    },
    /is of term 2, not 1/,
  ],
  [
    "a heartbeat that tells of more than was acknowledged",
    (events) => {
      const index = first(
        events,
        600,
        ({ name, msg }) =>
          name === "SendAppendEntriesRequest" && msg?.type === "MsgHeartbeat" && msg.commit === 0,
      );
      message(at(events, index)).commit = 5;
    },
    /heartbeat tells/,
  ],
  [
    "a follower that appends as if it led",
    (events) => {
      const index = first(events, 300, ({ name, nid }) => name === "Ready" && nid === "4");
      events.splice(index, 0, { ...at(events, index), name: "Replicate" });
    },
    /only a leader/,
  ],
  [
    "a log that grows by itself",
    (events) => {
      at(
        events,
        first(events, 300, ({ name, nid }) => name === "Ready" && nid === "4"),
      ).log += 1;
    },
    /its log ends at/,
  ],
  [
    "an acknowledgement that was never received, but is counted",
    (events) => {
      drop(events, ({ name, msg }) => name === "ReceiveAppendEntriesResponse" && msg?.from !== "2");
    },
    /no quorum|acknowledged/,
  ],
  [
    "a change of membership that nobody committed",
    (events) => {
      const index = first(events, 200, ({ name, nid }) => name === "Ready" && nid === "3");
      events.splice(index, 0, {
        ...at(events, index),
        name: "ApplyConfChange",
        prop: { cc: { newconf: ["3"] } },
      });
    },
    /no committed change/,
  ],
  [
    "another membership than the one that was proposed",
    (events) => {
      const index = first(events, 1_000, ({ name }) => name === "ApplyConfChange");
      at(events, index).prop = { cc: { newconf: ["1", "2", "3"] } };
    },
    /no committed change/,
  ],
  [
    "voters that change by themselves",
    (events) => {
      at(
        events,
        first(events, 300, ({ name, nid }) => name === "Ready" && nid === "4"),
      ).conf = [["4"], []];
    },
    /its voters are/,
  ],
  [
    "a leader that commits what its disk was not given",
    (events) => {
      drop(events, ({ name, nid }) => name === "Ready" && nid === "2");
    },
    /nobody sent|CommittedIsDurableInv/,
  ],
  [
    "a restart that forgets a committed log",
    (events) => {
      // Peers 3, 4 and 5 of five start again without a log: a quorum lacks what was committed.
      const index = first(events, 700, ({ name, nid }) => name === "Ready" && nid === "2");
      const forgotten = ["3", "4", "5"].map((nid): Mutable => {
        const last = events.slice(0, index).findLast((event) => event.nid === nid);
        return {
          name: "InitState",
          nid,
          state: { term: 2, vote: "2", commit: 0 },
          role: "StateFollower",
          log: 0,
          conf: last?.conf ?? [[], []],
        };
      });
      events.splice(index, 0, ...forgotten);
    },
    /QuorumLogInv|MoreUpToDateCorrectInv/,
  ],
  [
    "a restart with a term that was never saved",
    (events) => {
      const index = first(events, 700, ({ name, nid }) => name === "Ready" && nid === "3");
      events.splice(index, 0, {
        ...at(events, index),
        name: "InitState",
        state: { term: 7, vote: "0", commit: 0 },
      });
    },
    /never saved/,
  ],
];

function message(event: Mutable): NonNullable<Mutable["msg"]> {
  if (event.msg === undefined) throw new Error(`${event.name} has no message`);
  return event.msg;
}

/** Changes the event at `index` and all later ones of its peer. */
function raiseFrom(
  events: readonly Mutable[],
  index: number,
  change: (event: Mutable) => void,
): void {
  const { nid } = at(events, index);
  for (const event of events.slice(index)) if (event.nid === nid) change(event);
}

function drop(events: Mutable[], unwanted: (event: Mutable) => boolean): void {
  const kept = events.filter((event) => !unwanted(event));
  events.splice(0, events.length, ...kept);
}

describe.skipIf(missing !== null)(
  `etcd's example${missing === null ? "" : ` [SKIPPED: ${missing}]`}`,
  () => {
    test("is accepted, all 4,888 events of it", () => {
      const [file] = dataFiles("tla-example-trace");
      expect(file?.complaint).toBeNull();
      expect(checkTrace(file?.text ?? "")).toEqual({ events: 4_888, violation: null });
    });

    test("is still accepted after it went through our encoder", () => {
      expect(violationIn(example())).toBe("accepted");
    });

    test.each(mutations)("is rejected with %s", (_name, mutate, why) => {
      const events = example();
      mutate(events);
      expect(violationIn(events)).toMatch(why);
    });
  },
);

describe("invariants, where each single step looks possible", () => {
  const conf: TraceEvent["conf"] = [["a", "b", "c"], []];
  const ids = ["a", "b", "c"] as const;

  class Story {
    readonly checker = new TraceChecker();
    line = 0;
    readonly told: string[] = [];
    tell(
      nid: string,
      name: TraceEvent["name"],
      term: number,
      rest: Partial<TraceEvent> & { vote?: string; commit?: number } = {},
    ): void {
      const { vote = "0", commit = 1, ...fields } = rest;
      const state = { term, vote, commit };
      this.line += 1;
      const violation = this.checker.take(
        { name, nid, state, role: "StateFollower", log: 1, conf, ...fields },
        this.line,
      );
      if (violation !== null) this.told.push(`${violation.rule}: ${violation.why}`);
    }
    /** Three peers with one entry. */
    static begun(): Story {
      const story = new Story();
      for (const nid of ids) {
        story.tell(nid, "InitState", 1);
        story.tell(nid, "Ready", 1);
      }
      return story;
    }
    elect(nid: string, voter: string, term: number, log = 1, lastTerm = 1): void {
      const own = { vote: nid, role: "StateCandidate", log } as const;
      const ask = {
        type: "MsgVote",
        term,
        from: nid,
        to: voter,
        entries: 0,
        logTerm: lastTerm,
        index: log,
        commit: 0,
        vote: "0",
        reject: false,
        rejectHint: 0,
      } as const;
      const grant = {
        ...ask,
        type: "MsgVoteResp",
        from: voter,
        to: nid,
        logTerm: 0,
        index: 0,
      } as const;
      this.tell(nid, "BecomeCandidate", term, own);
      this.tell(nid, "SendRequestVoteRequest", term, { ...own, msg: ask });
      this.tell(nid, "Ready", term, own);
      this.tell(voter, "ReceiveRequestVoteRequest", 1, { msg: ask });
      this.tell(voter, "BecomeFollower", term);
      this.tell(voter, "SendRequestVoteResponse", term, { msg: grant });
      this.tell(voter, "Ready", term, { vote: nid });
      this.tell(nid, "ReceiveRequestVoteResponse", term, { ...own, msg: grant });
      this.tell(nid, "BecomeLeader", term, { ...own, role: "StateLeader" });
    }
  }

  test("a sound election is accepted", () => {
    const story = Story.begun();
    story.elect("a", "b", 2);
    expect(story.told).toEqual([]);
  });

  test("a vote counted for two candidates, over a restart that forgot it", () => {
    const story = Story.begun();
    story.elect("a", "b", 2);
    story.tell("b", "InitState", 1);
    story.elect("c", "b", 2);
    expect(story.told[0]).toMatch(/b gave another vote in term 2/);
  });

  test("a leader that commits by counting an entry of an earlier term (Figure 8)", () => {
    const story = Story.begun();
    story.elect("a", "b", 2);
    const lead = { vote: "a", role: "StateLeader" } as const;
    story.tell("a", "Replicate", 2, lead);
    story.tell("a", "Ready", 2, { ...lead, log: 2 });
    story.tell("a", "InitState", 2, { vote: "a", log: 2, prop: { lastTerm: 2 } });
    story.elect("a", "c", 3, 2, 2);
    expect(story.told).toEqual([]);
    story.tell("a", "Commit", 3, { ...lead, log: 2, commit: 2 });
    expect(story.told[0]).toMatch(/entry 2 of term 2 is committed by counting in term 3/);
  });
});

test("what is no trace is refused with its line", () => {
  expect(checkTrace("").violation).toMatchObject({ line: 1, rule: "format" });
  expect(checkTrace("{}\nx").violation).toMatchObject({ line: 2, rule: "format" });
  expect(checkTrace('{"tag":"trace","event":{"name":"Nap"}}').violation?.why).toBe(
    '"Nap" is the name of no event',
  );
});
