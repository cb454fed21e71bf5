/** Goal: a transcript passes only when our core says what it says. How: small transcripts of our own, right and spoiled. */
import { describe, expect, test } from "vitest";
import { runInteraction } from "./run.ts";

const ELECTION = `add-nodes 3 voters=(1,2,3) index=2
----
INFO 1 switched to configuration voters=(1 2 3)
INFO 1 became follower at term 0
INFO newRaft 1 [peers: [1,2,3], term: 0, commit: 2, applied: 2, lastindex: 2, lastterm: 1]
INFO 2 switched to configuration voters=(1 2 3)
INFO 2 became follower at term 0
INFO newRaft 2 [peers: [1,2,3], term: 0, commit: 2, applied: 2, lastindex: 2, lastterm: 1]
INFO 3 switched to configuration voters=(1 2 3)
INFO 3 became follower at term 0
INFO newRaft 3 [peers: [1,2,3], term: 0, commit: 2, applied: 2, lastindex: 2, lastterm: 1]

log-level none
----
ok

campaign 1
----
ok

stabilize
----
ok

propose 1 hello
----
ok

log-level info
----
ok

process-ready 1
----
Ready MustSync=true:
Entries:
1/4 EntryNormal "hello"
Messages:
1->2 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "hello"]
1->3 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "hello"]

deliver-msgs 2 drop=(3)
----
1->2 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "hello"]
dropped: 1->3 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "hello"]

status 1
----
1: StateReplicate match=4 next=5
2: StateReplicate match=3 next=5 inflight=1
3: StateReplicate match=3 next=5 inflight=1

raft-state
----
1: StateLeader (Voter) Term:1 Lead:1
2: StateFollower (Voter) Term:1 Lead:1
3: StateFollower (Voter) Term:1 Lead:1
`;

test.each([1, 2, 3] as const)("a true transcript passes at level %i", (level) => {
  expect(runInteraction(ELECTION, level)).toEqual({ commands: 10, failed: [] });
});

describe("a spoiled one fails, at the command that is spoiled", () => {
  const spoil = (from: string, to: string): string => {
    expect(ELECTION).toContain(from);
    return ELECTION.replace(from, to);
  };
  test.each([
    { name: "another term", from: "MsgApp Term:1 Log:1/3", to: "MsgApp Term:2 Log:1/3", level: 1 },
    {
      name: "another payload",
      from: '1/4 EntryNormal "hello"\n',
      to: '1/4 EntryNormal "bye"\n',
      level: 1,
    },
    { name: "another match", from: "match=4", to: "match=3", level: 1 },
    { name: "another leader", from: "Lead:1\n2:", to: "Lead:0\n2:", level: 1 },
    {
      name: "one line less",
      from: '1->3 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "hello"]\n\ndeliver',
      to: "\ndeliver",
      level: 1,
    },
    { name: "log lines left out", from: "INFO 2 became follower at term 0\n", to: "", level: 3 },
  ] as const)("$name", ({ from, to, level }) => {
    const { failed } = runInteraction(spoil(from, to), level);
    expect(failed).toHaveLength(1);
  });

  test("order counts from level 2 on, log lines only at level 3", () => {
    const lines = ELECTION.replace(/(dropped: .*)\n/, "").replace(
      '1->2 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "hello"]\n\nstatus',
      'dropped: 1->3 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "hello"]\n1->2 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "hello"]\n\nstatus',
    );
    expect(lines).not.toBe(ELECTION);
    expect(runInteraction(lines, 1).failed).toEqual([]);
    expect(runInteraction(lines, 2).failed).toHaveLength(1);
    const quiet = ELECTION.replace("INFO 2 became follower at term 0\n", "");
    expect(runInteraction(quiet, 2).failed).toEqual([]);
  });
});

test("a directive that nobody knows is answered as etcd answers it", () => {
  const { failed } = runInteraction("fly 1\n----\nok\n", 1);
  expect(failed).toMatchObject([{ line: 1, actual: "unknown command" }]);
});

test("a core that breaks fails the command and does not stop the run", () => {
  const { commands, failed } = runInteraction("campaign 7\n----\nok\n\nraft-state\n----\nok\n", 2);
  expect(commands).toBe(2);
  expect(failed).toHaveLength(1);
  expect(failed[0]?.actual).toContain("it threw");
});
