// Goal: what the simulator found in the log stays found. Method: each sequence of events again, by hand, on the simulated disk.
import { expect, test } from "vitest";
import { openLogOn, type RaftLog } from "../../src/io/raft-log.ts";
import { silentLog } from "../../src/lib/log.ts";
import type { Entry, Snapshot } from "../../src/raft/types.ts";
import { createRandom } from "../random.ts";
import { type Agenda, createAgenda } from "./agenda.ts";
import { SimDisk } from "./disk.ts";
import { Life } from "./life.ts";

const snapshot: Snapshot = {
  index: 1,
  term: 1,
  membership: { voters: ["a"], outgoing: [], learners: [], learnersNext: [], autoLeave: false },
  data: new Uint8Array(0),
};
const big: Entry = { index: 2, term: 2, kind: "normal", data: new Uint8Array(900).fill(3) };

function place(seed: number) {
  const agenda = createAgenda();
  const traits = { latencyMsMax: 5, pageBytes: 512, lostPagesLookClean: true };
  const disk = new SimDisk(agenda, createRandom(seed), traits);
  let life = new Life();
  return {
    agenda,
    disk,
    open: (): Promise<RaftLog> =>
      until(agenda, openLogOn(disk.attach(life), silentLog, { segmentBytes: 1024 })),
    powerOff(): void {
      life.end();
      disk.powerOff();
      life = new Life();
    },
    kill(): void {
      life.end();
      disk.kill();
      life = new Life();
    },
  };
}

async function until<T>(agenda: Agenda, work: Promise<T>): Promise<T> {
  let over = false;
  const ended = work.finally(() => {
    over = true;
  });
  ended.catch(() => {});
  agenda.stir();
  await agenda.run(agenda.now + 5_000, () => over);
  return ended;
}

test("a segment whose first record was torn does not outlive the one that holds term and snapshot", async () => {
  let begun = 0;
  for (let seed = 1; seed <= 60; seed += 1) {
    const { agenda, disk, open, powerOff } = place(seed);
    const first = await open();
    await first.load();
    const hardState = { term: 1, vote: null, commit: 1 };
    await until(agenda, first.save({ hardState, entries: [], snapshot }));
    const voted = { term: 2, vote: "a", commit: 1 };
    await until(agenda, first.save({ hardState: voted, entries: [], snapshot: null }));
    // Too large for what is left: a new segment is begun for it.
    first.save({ hardState: null, entries: [big], snapshot: null }).catch(() => {});
    agenda.stir();
    for (let ms = 0; ms < 40 && (await disk.view().list()).length < 4; ms += 1)
      await agenda.run(agenda.now + 1, () => false);
    powerOff();
    if ((await disk.view().list()).includes("segment-0000000000000002")) begun += 1;
    for (let again = 0; again < 2; again += 1) {
      const log = await open();
      const state = await log.load();
      expect(state.hardState).toEqual(voted);
      expect(state.snapshot?.index).toBe(1);
      await agenda.run(agenda.now + 100, () => false);
      powerOff();
    }
  }
  expect(begun).toBeGreaterThan(5);
});

test("what a failed sync left in the cache alone is durable after the next start", async () => {
  let read = 0;
  for (let seed = 1; seed <= 40; seed += 1) {
    const { agenda, disk, open, kill, powerOff } = place(seed);
    const first = await open();
    await first.load();
    disk.failNext = "sync";
    const hardState = { term: 5, vote: "a", commit: 0 };
    const saved = until(agenda, first.save({ hardState, entries: [], snapshot: null }));
    await expect(saved).rejects.toThrow(/EIO/);
    kill();
    const second = await open();
    const { term } = (await second.load()).hardState;
    if (term === 5) read += 1;
    powerOff();
    const third = await open();
    expect((await third.load()).hardState.term).toBe(term);
  }
  expect(read).toBeGreaterThan(5);
});
