// Goal: the checkers of the Raft simulator see what must not be. Method: a healthy observer is shown one wrong thing at a time.
import { expect, test } from "vitest";
import type { Entry, Message, Ready } from "../../src/raft/types.ts";
import { Claims } from "./claims.ts";
import { noCounts } from "./counts.ts";
import { Ledger, Watch } from "./ledger.ts";

const membership = {
  voters: ["a", "b", "c"],
  outgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
};
const nothing = new Uint8Array(0);
const entry = (index: number, term: number): Entry => ({
  index,
  term,
  kind: "empty",
  data: nothing,
});

function world() {
  const claims = new Map(membership.voters.map((id) => [id, new Claims()]));
  const ledger = new Ledger(
    membership,
    noCounts(),
    (id) => claims.get(id) ?? null,
    () => {},
  );
  const watch = (id: string, life = 1): Watch =>
    new Watch(id, life, claims.get(id) as Claims, {
      hardState: { term: 0, commit: 0 },
      snapshot: null,
      entries: [],
    });
  const ready = (of: Watch, part: Partial<Ready>): void =>
    ledger.onReady(of, { ...empty, ...part }, () => membership);
  const save = (id: string, change: Partial<Pick<Ready, "hardState" | "entries">>): void => {
    const whole = { hardState: null, entries: [], snapshot: null, ...change };
    claims.get(id)?.asked(whole);
    claims.get(id)?.resolved(whole);
  };
  return { ledger, watch, ready, save };
}
const empty: Ready = {
  leader: null,
  role: "follower",
  hardState: null,
  entries: [],
  snapshot: null,
  messages: [],
  afterSave: [],
  toSelf: [],
  save: null,
  mustSync: false,
  committed: [],
  reads: [],
};
const hard = (term: number, vote: string | null, commit: number) => ({ term, vote, commit });
/** `a` leads term 1 with one entry of it. */
function led() {
  const it = world();
  const a = it.watch("a");
  it.ready(a, { role: "leader", leader: "a", hardState: hard(1, "a", 0), entries: [entry(1, 1)] });
  return { ...it, a };
}

test("a healthy commit is no violation", () => {
  const { ledger, ready, save, a } = led();
  save("a", { hardState: hard(1, "a", 0), entries: [entry(1, 1)] });
  save("b", { hardState: hard(1, "a", 0), entries: [entry(1, 1)] });
  ready(a, { role: "leader", leader: "a", hardState: hard(1, "a", 1), committed: [entry(1, 1)] });
  ledger.onApply(a, entry(1, 1), 7);
  expect(ledger.violation).toBeNull();
});

test("two leaders of a term are seen, also when one was restarted", () => {
  for (const [id, life] of [
    ["b", 1],
    ["a", 2],
  ] as const) {
    const { ledger, watch, ready } = led();
    ready(watch(id, life), { role: "leader", leader: id, hardState: hard(1, id, 0) });
    expect(ledger.violation).toMatch(/term 1 has two leaders/);
  }
});

test("a leadership that is over before its first Ready is one, and the only one of its term", () => {
  const heartbeat: Message = {
    kind: "heartbeat",
    from: "b",
    to: "c",
    term: 2,
    commit: 0,
    readId: null,
  };
  const over = { hardState: hard(2, "b", 0), entries: [entry(2, 2)], messages: [heartbeat] };
  const { ledger, watch, ready } = led();
  const b = watch("b");
  ready(b, { hardState: hard(1, "a", 0), entries: [entry(1, 1)] });
  ready(b, over);
  ledger.onSend(b, heartbeat);
  expect(ledger.violation).toBeNull();
  ready(watch("c"), { role: "leader", leader: "c", hardState: hard(2, "c", 0) });
  expect(ledger.violation).toMatch(/term 2 has two leaders/);
});

test("heartbeats of who never led are seen", () => {
  const { ledger, watch, ready } = led();
  const b = watch("b");
  const beat: Message = { kind: "heartbeat", from: "b", to: "c", term: 1, commit: 0, readId: null };
  ready(b, { hardState: hard(1, "a", 0), entries: [entry(1, 1)] });
  ledger.onSend(b, beat);
  expect(ledger.violation).toMatch(/b sends heartbeat as leader of term 1/);
});

test("a commit that a minority has on disk is seen", () => {
  const { ledger, ready, save, a } = led();
  save("a", { hardState: hard(1, "a", 0), entries: [entry(1, 1)] });
  ready(a, { role: "leader", leader: "a", hardState: hard(1, "a", 1) });
  expect(ledger.violation).toMatch(/1 of 3 voters have on disk/);
});

test("only an earlier version may count by the membership that its last Ready replaced", () => {
  for (const early of [true, false]) {
    const { ledger, ready, save, a } = led();
    for (const id of ["a", "b"]) {
      save(id, { hardState: hard(1, "a", 0), entries: [entry(1, 1), entry(2, 1)] });
    }
    a.countsMeanwhile = early;
    ledger.onMembership(a, { ...membership, voters: ["a", "b"] });
    ready(a, { role: "leader", leader: "a", hardState: hard(1, "a", 0), entries: [entry(2, 1)] });
    const now = { ...membership, voters: ["b", "c"] };
    a.membershipIndex = 1;
    ledger.onMembership(a, now);
    const commit = { ...empty, role: "leader", leader: "a", hardState: hard(1, "a", 2) } as const;
    ledger.onReady(a, commit, () => now);
    if (early) expect(ledger.violation).toBeNull();
    else expect(ledger.violation).toMatch(/entry 2, which 1 of 2 voters have on disk/);
  }
});

test("a leader that commits an entry of an earlier term by counting is seen", () => {
  const { ledger, ready, save, a } = led();
  for (const id of ["a", "b"]) save(id, { hardState: hard(2, "a", 0), entries: [entry(1, 1)] });
  ready(a, { role: "leader", leader: "a", hardState: hard(2, "a", 1) });
  expect(ledger.violation).toMatch(/first to commit entry 1 of term 1/);
});

test("a leader without a committed entry is seen", () => {
  const { ledger, watch, ready, save, a } = led();
  for (const id of ["a", "b"]) save(id, { hardState: hard(1, "a", 0), entries: [entry(1, 1)] });
  ready(a, { role: "leader", leader: "a", hardState: hard(1, "a", 1) });
  ready(watch("c"), { role: "leader", leader: "c", hardState: hard(2, "c", 0) });
  expect(ledger.violation).toMatch(/leads term 2 without committed entry 1/);
});

test("two entries of one index and term, and a falling term, are seen", () => {
  const other = led();
  const twin: Entry = { ...entry(1, 1), data: new Uint8Array([1]) };
  other.ready(other.watch("b"), { hardState: hard(1, null, 0), entries: [twin] });
  expect(other.ledger.violation).toMatch(/two entries 1 of term 1/);
  const { ledger, ready, a } = led();
  ready(a, { hardState: hard(0, null, 0) });
  expect(ledger.violation).toMatch(/term fell/);
});

test("votes told before they are durable, and second votes, are seen", () => {
  const vote = (to: string): Message => ({
    kind: "vote-reply",
    from: "b",
    to,
    term: 2,
    granted: true,
  });
  const early = world();
  early.ledger.onSend(early.watch("b"), vote("a"));
  expect(early.ledger.violation).toMatch(/before it is durable/);
  const { ledger, watch, save } = world();
  save("b", { hardState: hard(2, "a", 0) });
  ledger.onSend(watch("b"), vote("a"));
  expect(ledger.violation).toBeNull();
  ledger.onSend(watch("b", 2), vote("c"));
  expect(ledger.violation).toMatch(/votes for a and c in term 2/);
});

test("an acknowledgement of what the disk does not have is seen", () => {
  const { ledger, watch, save } = world();
  save("b", { hardState: hard(1, null, 0) });
  ledger.onSend(watch("b"), {
    kind: "append-reply",
    from: "b",
    to: "a",
    term: 1,
    index: 1,
    rejected: false,
    hintIndex: 0,
    hintTerm: 0,
  });
  expect(ledger.violation).toMatch(/acknowledges entry 1/);
});

test("another state after the same entry, and a command that counts twice, are seen", () => {
  const { ledger, ready, save, watch, a } = led();
  for (const id of ["a", "b"]) save(id, { hardState: hard(1, "a", 0), entries: [entry(1, 1)] });
  ready(a, { role: "leader", leader: "a", hardState: hard(1, "a", 1) });
  ledger.onApply(a, entry(1, 1), 7);
  ledger.onApply(watch("b"), entry(1, 1), 8);
  expect(ledger.violation).toMatch(/another state/);
  const twice = world().ledger;
  twice.onEffect(1, 5, 1, 1);
  twice.onEffect(2, 5, 1, 1);
  expect(twice.violation).toMatch(/took effect twice/);
  const told = world().ledger;
  told.onAcknowledged(5, 1, 1);
  expect(told.violation).toMatch(/which did nothing/);
});

test("a log that loads less than it promised is seen, and a first part of what was under way is not", () => {
  const saved = (last: number) => ({
    hardState: hard(1, null, 0),
    snapshot: null,
    entries: Array.from({ length: last }, (_, at) => entry(at + 1, 1)),
  });
  const change = (index: number) => ({
    hardState: index === 1 ? hard(1, null, 0) : null,
    entries: [entry(index, 1)],
    snapshot: null,
  });
  for (const [loaded, wrong] of [
    [1, true],
    [2, false],
    [3, false],
    [4, true],
  ] as const) {
    const claims = new Claims();
    const changes = [1, 2, 3].map(change);
    for (const each of changes) claims.asked(each);
    for (const each of changes.slice(0, 2)) expect(claims.resolved(each)).toBe(true);
    expect(claims.loaded(saved(loaded)) !== null).toBe(wrong);
  }
});
