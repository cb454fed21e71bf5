// Goal: what the driver promises about order, time and limits. Method: a core that hands out scripted Readys and notes
// what it is told, a storage whose saves end when the test says so, and turns of the event loop that the test runs.
import { expect, test } from "vitest";
import { failure } from "../lib/errors.ts";
import type { Entry, Ready } from "../raft/types.ts";
import {
  appliesPerTurnBytesMax,
  appliesPerTurnMax,
  commitNoticeMs,
  hedgeMs,
  holdBackMs,
  savesBytesMax,
  savesUnderWayMax,
  tickMs,
} from "./limits.ts";
import { settle } from "./testing/clock.ts";
import {
  append,
  Bench,
  entries,
  entry,
  membership,
  nothing,
  reply,
  saving,
  snapshotAt,
  token,
} from "./testing/driver-bench.ts";
import { createTestRandom } from "./testing/random.ts";

test("sends before it saves, and what promises something after", async () => {
  const bench = await new Bench().started();
  const list = [entry(1)];
  expect(await bench.turn(saving(list, { messages: [append(list)] }))).toEqual([
    "send append 1 commit 0",
    "save 1",
  ]);
  expect(await bench.ended(0)).toEqual(["send reply 1", "saved 1"]);
});

test("what a quick disk saved in place is told at once, before anything is applied", async () => {
  const bench = await new Bench().started();
  bench.inPlace = true;
  const committed = { committed: [entry(1)] };
  expect(await bench.turn(saving([entry(1)]), saving([entry(2)], committed))).toEqual([
    "save now 1",
    "send reply 1",
    "saved 1",
    "save now 2",
    "send reply 2",
    "saved 2",
    "apply 1-1",
    "applied 1",
  ]);
});

test("nothing is saved in place for the leader, nor while another save is under way", async () => {
  const bench = await new Bench().started();
  bench.inPlace = true;
  expect(await bench.turn(saving([entry(1)], { afterSave: [] }))).toEqual(["save 1"]);
  expect(await bench.turn(saving([entry(2)]))).toEqual(["save 2"]);
  expect(await bench.ended(0, 1)).toEqual(["saved 1", "send reply 2", "saved 2"]);
  expect(await bench.turn(saving([entry(3)]))).toEqual(["save now 3", "send reply 3", "saved 3"]);
});

test("a save in place that fails is the end: nothing is told, sent or applied after it", async () => {
  const bench = await new Bench().started();
  bench.inPlace = failure("internal", "the disk");
  const next = saving([entry(2)], { messages: [append([entry(2)])], committed: [entry(1)] });
  expect(await bench.turn(saving([entry(1)], { committed: [entry(1)] }), next)).toEqual([
    "save now 1",
    "fatal the disk",
  ]);
  expect(bench.driver.running).toBe(false);
  expect(await bench.turn(next)).toEqual([]);
});

test("goes on while a save is under way, and acknowledges saves in order", async () => {
  const bench = await new Bench().started();
  await bench.turn(saving([entry(1)]));
  expect(await bench.turn(saving([entry(2)], { messages: [append([entry(2)])] }))).toEqual([
    "send append 1 commit 0",
    "save 2",
  ]);
  // Even if a storage should answer out of order, nobody hears of the second before the first.
  expect(await bench.ended(1)).toEqual([]);
  expect(await bench.ended(0)).toEqual(["send reply 1", "saved 1", "send reply 2", "saved 2"]);
});

test("what only waits for earlier saves leaves with the last of them, and at once when there is none", async () => {
  const bench = await new Bench().started();
  await bench.turn(saving([entry(1)]));
  const waits: Ready = { ...nothing, afterSave: [reply(9)], save: token(9) };
  expect(await bench.turn(waits)).toEqual([]);
  expect(await bench.ended(0)).toEqual(["send reply 1", "saved 1", "send reply 9", "saved 9"]);
  expect(await bench.turn(waits)).toEqual(["send reply 9", "saved 9"]);
});

test("a commit index alone costs no save; it goes with the next one, and on stop", async () => {
  const bench = await new Bench().started();
  const commit = (index: number) => ({ term: 1, vote: null, commit: index });
  expect(await bench.turn({ ...nothing, hardState: commit(5) })).toEqual([]);
  await bench.turn(saving([entry(6)]));
  expect(bench.saves[0]?.change.hardState).toEqual(commit(5));
  await bench.ended(0);
  await bench.turn({ ...nothing, hardState: commit(6) });
  const stopped = bench.driver.stop();
  await bench.ended(1);
  await stopped;
  expect(bench.saves[1]?.change.hardState).toEqual(commit(6));
});

test(`beyond ${savesUnderWayMax} saves the rest is gathered into one, and ends as if saved one by one`, async () => {
  const bench = await new Bench().started();
  const random = createTestRandom(7);
  /** What a disk would hold: the reference for what is gathered. */
  const oneByOne: Entry[] = [];
  const write = (to: Entry[], list: readonly Entry[]): void => {
    const first = list[0];
    if (first !== undefined) to.length = first.index - 1;
    to.push(...list);
  };
  for (let n = 0; n < savesUnderWayMax + 200; n += 1) {
    // Now and then a new leader's entries replace some of the tail.
    const from = Math.max(1, oneByOne.length + 1 - (random.below(5) === 0 ? random.below(4) : 0));
    const list = Array.from({ length: 1 + random.below(3) }, (_, at) => entry(from + at, 1, n + 1));
    write(oneByOne, list);
    await bench.turn(saving(list));
  }
  expect(bench.saves.length).toBe(savesUnderWayMax);
  bench.news();
  await bench.ended(...bench.saves.keys());
  expect(bench.saves.length).toBe(savesUnderWayMax + 1);
  await bench.ended(savesUnderWayMax);
  const disk: Entry[] = [];
  for (const { change } of bench.saves) write(disk, change.entries);
  expect(disk).toEqual(oneByOne);
});

test("a gathered save that a snapshot follows keeps the snapshot and what is behind it", async () => {
  const bench = await new Bench().started();
  for (let n = 1; n <= savesUnderWayMax; n += 1) await bench.turn(saving([entry(n)]));
  await bench.turn(saving([entry(savesUnderWayMax + 1)]));
  const arrived = { ...token(0), snapshotIndex: 500 };
  await bench.turn({ ...saving([]), snapshot: snapshotAt(500), save: arrived });
  await bench.turn(saving([entry(501)]));
  await bench.ended(...bench.saves.keys());
  bench.news();
  const last = bench.saves.at(-1)?.change;
  expect(last?.snapshot?.index).toBe(500);
  expect(last?.entries.map(({ index }) => index)).toEqual([501]);
  expect(await bench.ended(savesUnderWayMax)).toContain("install 500");
});

test(`takes no new work while more than ${savesBytesMax} bytes are being saved`, async () => {
  const bench = await new Bench().started();
  await bench.turn(saving([entry(1, savesBytesMax)]));
  expect(await bench.turn(saving([entry(2)]))).toEqual([]);
  await bench.ended(0);
  expect(await bench.turn()).toEqual(["save 2"]);
});

test("a failed save is the end: nothing is sent, applied or told after it", async () => {
  const bench = await new Bench().started();
  expect(await bench.turn(saving([entry(1)]), saving([entry(2)]))).toEqual(["save 1", "save 2"]);
  bench.saves[0]?.end(new Error("EIO"));
  await settle();
  expect(bench.news()).toEqual(["fatal EIO"]);
  expect(await bench.ended(1)).toEqual([]);
  expect(await bench.turn({ ...nothing, committed: [entry(1)] })).toEqual([]);
  bench.receive(append([]));
  await bench.clock.advance(10 * tickMs);
  expect(bench.news()).toEqual([]);
  expect(bench.driver.running).toBe(false);
  await bench.driver.stop();
});

test("a broken promise of the core is the end too", async () => {
  const bench = await new Bench().started();
  expect(await bench.turn({ ...nothing, committed: [entry(5)] })).toEqual([
    expect.stringMatching(/^fatal .*entries are applied in order/),
  ]);
});

test("a long run is applied in slices, and time goes on between them", async () => {
  const bench = await new Bench().started();
  const count = 2 * appliesPerTurnMax + 1;
  expect(await bench.turn({ ...nothing, committed: entries(1, count) })).toEqual([
    `apply 1-${appliesPerTurnMax}`,
    `applied ${appliesPerTurnMax}`,
  ]);
  await bench.clock.advance(tickMs);
  expect(bench.news()).toEqual(["tick"]);
  expect(await bench.turn()).toEqual([
    `apply ${appliesPerTurnMax + 1}-${2 * appliesPerTurnMax}`,
    `applied ${2 * appliesPerTurnMax}`,
  ]);
  expect(await bench.turn()).toEqual([`apply ${count}-${count}`, `applied ${count}`]);
  expect(bench.driver.applied).toBe(count);
});

test("slices are bounded by bytes as well, and one large entry is still applied", async () => {
  const bench = await new Bench().started();
  const large = [entry(1, appliesPerTurnBytesMax + 1), entry(2), entry(3)];
  expect(await bench.turn({ ...nothing, committed: large })).toEqual(["apply 1-1", "applied 1"]);
  expect(await bench.turn()).toEqual(["apply 2-3", "applied 3"]);
});

test("who waits for a commit is answered before the peers are told of it", async () => {
  const bench = await new Bench().started();
  expect(
    await bench.turn({
      ...nothing,
      committed: [entry(1)],
      messages: [{ kind: "heartbeat", from: "a", to: "b", term: 1, commit: 1, readId: null }],
    }),
  ).toEqual(["apply 1-1", "applied 1", "send heartbeat"]);
});

test(`news of a commit waits ${commitNoticeMs} ms for entries to travel with`, async () => {
  const bench = await new Bench().started();
  const commits = (index: number): Ready => ({
    ...nothing,
    committed: [entry(index)],
    messages: [append([], index)],
  });
  expect(await bench.turn(commits(1))).toEqual(["apply 1-1", "applied 1"]);
  // The next entries say it too.
  const list = [entry(2)];
  expect(await bench.turn(saving(list, { messages: [append(list, 1)] }))).toContain(
    "send append 1 commit 1",
  );
  await bench.clock.advance(commitNoticeMs);
  expect(bench.news()).toEqual([]);
  await bench.turn(commits(2));
  await bench.clock.advance(commitNoticeMs);
  expect(bench.news()).toEqual(["send append 0 commit 2"]);
});

test("news of a commit that waits for this disk travels with entries too", async () => {
  const bench = await new Bench().started();
  expect(await bench.turn({ ...nothing, messages: [append([], 1)] })).toEqual([]);
  await bench.clock.advance(commitNoticeMs);
  expect(bench.news()).toEqual(["send append 0 commit 1"]);
});

test("each piece of news waits as long, and one that entries overtook is not sent", async () => {
  const bench = await new Bench().started();
  const news = (index: number): Ready => ({ ...nothing, messages: [append([], index)] });
  await bench.turn(news(1));
  await bench.clock.advance(commitNoticeMs - 1);
  // Overtaken, and new news since: what is young goes on waiting when the first one would have been due.
  await bench.turn(saving([entry(2)], { messages: [append([entry(2)], 1)] }));
  await bench.turn(news(2));
  bench.news();
  await bench.clock.advance(1);
  expect(bench.news()).toEqual([]);
  await bench.clock.advance(commitNoticeMs - 1);
  expect(bench.news()).toEqual(["send append 0 commit 2"]);
});

test(`what the core holds back and is committed is asked for ${holdBackMs} ms later, all together`, async () => {
  const bench = await new Bench().started();
  for (const [index, waitMs] of [
    [1, hedgeMs],
    [2, holdBackMs - hedgeMs - 1],
  ] as const) {
    bench.heldBack = index;
    await bench.turn(saving([entry(index)], { messages: [append([entry(index)], index - 1)] }));
    await bench.turn({ ...nothing, committed: [entry(index)] });
    bench.news();
    await bench.clock.advance(waitMs);
    expect(bench.news()).toEqual([]);
  }
  bench.readys.push({ ...nothing, messages: [append([entry(1), entry(2)], 2)] });
  await bench.clock.advance(hedgeMs);
  expect(bench.news()).toEqual(["send held back"]);
  expect(await bench.turn()).toEqual(["send append 2 commit 2"]);
  await bench.clock.advance(2 * holdBackMs);
  expect(bench.news()).toEqual([]);
  // And again when there is more.
  bench.heldBack = 3;
  await bench.turn(nothing);
  await bench.clock.advance(holdBackMs);
  expect(bench.news()).toEqual(["send held back"]);
});

test(`what is not committed after ${hedgeMs} ms is not held back longer`, async () => {
  const bench = await new Bench().started();
  bench.heldBack = 1;
  await bench.turn(nothing);
  await bench.turn({ ...nothing, committed: [entry(1)] });
  await bench.clock.advance(hedgeMs - 1);
  // The first one was in time. This one is not: its time begins with it.
  bench.heldBack = 2;
  await bench.turn(nothing);
  bench.news();
  await bench.clock.advance(hedgeMs - 1);
  expect(bench.news()).toEqual([]);
  await bench.clock.advance(1);
  expect(bench.news()).toEqual(["send held back"]);
});

test("what the core let go by itself is not asked for", async () => {
  const bench = await new Bench().started();
  bench.heldBack = 1;
  await bench.turn(nothing);
  bench.heldBack = null;
  await bench.turn(nothing);
  await bench.clock.advance(2 * holdBackMs);
  expect(bench.news()).toEqual([]);
});

test("a read is answered when what it must see is applied", async () => {
  const bench = await new Bench().started();
  expect(await bench.turn({ ...nothing, reads: [{ readId: 7, index: 2 }] })).toEqual([]);
  expect(await bench.turn({ ...nothing, committed: [entry(1)] })).toEqual([
    "apply 1-1",
    "applied 1",
  ]);
  expect(
    await bench.turn({ ...nothing, committed: [entry(2)], reads: [{ readId: 8, index: 1 }] }),
  ).toEqual(["apply 2-2", "applied 2", "reads 7 8"]);
});

test("a snapshot is installed when it is durable, and replaces what was still to be applied", async () => {
  const bench = await new Bench().started();
  const count = appliesPerTurnMax + 1;
  await bench.turn({ ...nothing, committed: entries(1, count) });
  const arrived = { ...token(0), snapshotIndex: 5_000 };
  const ready: Ready = {
    ...nothing,
    snapshot: snapshotAt(5_000),
    save: arrived,
    mustSync: true,
    afterSave: [reply(5_000)],
  };
  bench.readys.push(ready);
  await bench.turn();
  bench.news();
  expect(await bench.ended(0)).toEqual(["install 5000", "send reply 5000", "saved 5000"]);
  expect(await bench.turn({ ...nothing, committed: [entry(5_001)] })).toEqual([
    "apply 5001-5001",
    "applied 5001",
  ]);
});

test("a process that was held up counts one tick, after what its peers had sent meanwhile", async () => {
  const bench = await new Bench().started();
  bench.news();
  // Stopped for twenty ticks: the system's timer fires once, late, before the sockets are read.
  bench.lateMs = 20 * tickMs;
  await bench.clock.advance(tickMs);
  expect(bench.news()).toEqual([]);
  bench.receive(append([]));
  expect(bench.news()).toEqual(["step append"]);
  expect(await bench.turn()).toEqual(["tick"]);
  await bench.clock.advance(tickMs - 1);
  expect(bench.news()).toEqual([]);
  await bench.clock.advance(1);
  expect(bench.news()).toEqual(["tick"]);
});

test("keeps its pace when timers fire a little late", async () => {
  const bench = await new Bench().started();
  bench.news();
  await bench.clock.advance(10 * tickMs);
  expect(bench.news().filter((what) => what === "tick")).toHaveLength(10);
});

test("tells the core what the transport saw", async () => {
  const bench = await new Bench().started();
  bench.closed("b");
  bench.snapshotSent("c", false);
  expect(bench.news()).toEqual(["unreachable b", "snapshot sent c false"]);
});

test("the only voter campaigns as soon as it has no leader", async () => {
  const bench = new Bench();
  bench.status = {
    ...bench.status,
    role: "follower",
    leader: null,
    membership: { ...membership, voters: ["a"] },
  };
  bench.driver.start();
  expect(bench.news()).toEqual(["tick", "campaign"]);
});

test("compacts when the snapshot is durable; goes on when there is no room; stops when the log failed", async () => {
  const bench = await new Bench().started();
  await bench.turn({ ...nothing, committed: entries(1, 10) });
  bench.news();
  expect(await bench.driver.compact(snapshotAt(10), 5)).toBe(true);
  expect(bench.news()).toEqual(["compact 10", "core compact 10 5"]);
  bench.compactionError = failure("unavailable", "no room");
  expect(await bench.driver.compact(snapshotAt(10), 5)).toBe(false);
  expect(bench.driver.running).toBe(true);
  bench.compactionError = failure("internal", "EIO");
  expect(await bench.driver.compact(snapshotAt(10), 5)).toBe(false);
  expect(bench.news()).toEqual(["compact 10", "compact 10", "fatal EIO"]);
});

test("stop() waits for the save that is under way", async () => {
  const bench = await new Bench().started();
  await bench.turn(saving([entry(1)]));
  let stopped = false;
  const stopping = bench.driver.stop().then(() => {
    stopped = true;
  });
  await settle();
  expect(stopped).toBe(false);
  expect(await bench.ended(0)).toEqual([]);
  await stopping;
  expect(stopped).toBe(true);
});
