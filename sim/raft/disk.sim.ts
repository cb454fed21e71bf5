// Goal: the simulated device keeps what was synced and no more than may be. Method: writes, failures of power and of syncs, by hand.
import { expect, test } from "vitest";
import type { LogDisk } from "../../src/io/log-disk.ts";
import { createRandom } from "../random.ts";
import { type Agenda, createAgenda } from "./agenda.ts";
import { type DiskTraits, SimDisk } from "./disk.ts";
import { Life } from "./life.ts";

const traits: DiskTraits = { latencyMsMax: 3, pageBytes: 512, lostPagesLookClean: true };

function disk(seed: number, change: Partial<DiskTraits> = {}) {
  const agenda = createAgenda();
  const sim = new SimDisk(agenda, createRandom(seed), { ...traits, ...change });
  const life = new Life();
  return { agenda, sim, life, log: sim.attach(life) };
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

async function made(agenda: Agenda, log: LogDisk, name: string, bytes: number) {
  await until(agenda, log.create(name, new Uint8Array(0), bytes));
  await until(agenda, log.syncDirectory());
  return until(agenda, log.open(name));
}

const read = (sim: SimDisk, name: string): Promise<Uint8Array> => sim.view().read(name);

test("what a sync returned for survives a power failure, whatever else was written", async () => {
  for (let seed = 1; seed <= 50; seed += 1) {
    const { agenda, sim, log } = disk(seed);
    const file = await made(agenda, log, "a", 4096);
    file.write(new Uint8Array(1000).fill(1), 0);
    await until(agenda, file.sync());
    file.write(new Uint8Array(1000).fill(2), 1000);
    sim.powerOff();
    const bytes = await read(sim, "a");
    expect(bytes.subarray(0, 1000).every((byte) => byte === 1)).toBe(true);
    expect(bytes.subarray(1000, 2000).every((byte) => byte === 0 || byte === 2)).toBe(true);
  }
});

test("of unsynced pages any part survives: none, some and all are seen", async () => {
  const seen = new Set<number>();
  for (let seed = 1; seed <= 60; seed += 1) {
    const { agenda, sim, log } = disk(seed);
    const file = await made(agenda, log, "a", 4096);
    file.write(new Uint8Array(1024).fill(7), 512);
    sim.powerOff();
    const bytes = await read(sim, "a");
    seen.add((bytes[512] === 7 ? 1 : 0) + (bytes[1024] === 7 ? 2 : 0));
  }
  expect([...seen].sort()).toEqual([0, 1, 2, 3]);
});

test("a name is durable only when its directory was synced", async () => {
  let kept = 0;
  for (let seed = 1; seed <= 40; seed += 1) {
    const { agenda, sim, log } = disk(seed);
    await made(agenda, log, "a", 512);
    await until(agenda, log.rename("a", "b"));
    sim.powerOff();
    const names = await sim.view().list();
    expect(names).toHaveLength(1);
    if (names[0] === "b") kept += 1;
  }
  expect(kept).toBeGreaterThan(0);
  expect(kept).toBeLessThan(40);
});

test("a failed sync loses pages that the cache still shows, and a later sync does not bring them back", async () => {
  let lost = 0;
  for (let seed = 1; seed <= 40; seed += 1) {
    const { agenda, sim, log } = disk(seed);
    const file = await made(agenda, log, "a", 512);
    file.write(new Uint8Array(100).fill(9), 0);
    sim.failNext = "sync";
    await expect(until(agenda, file.sync())).rejects.toThrow(/EIO/);
    expect(sim.syncFailed).toBe(true);
    await until(agenda, file.sync());
    expect((await read(sim, "a"))[0]).toBe(9);
    sim.powerOff();
    if ((await read(sim, "a"))[0] === 0) lost += 1;
  }
  expect(lost).toBeGreaterThan(5);
  expect(lost).toBeLessThan(35);
});

test("a page that is written again after a failed sync is durable with the next one", async () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const { agenda, sim, log } = disk(seed);
    const file = await made(agenda, log, "a", 512);
    file.write(new Uint8Array(100).fill(9), 0);
    sim.failNext = "sync";
    await expect(until(agenda, file.sync())).rejects.toThrow(/EIO/);
    file.write(new Uint8Array(1).fill(9), 0);
    await until(agenda, file.sync());
    sim.powerOff();
    expect((await read(sim, "a"))[99]).toBe(9);
  }
});

test("a full device refuses to allocate, and a dead process hears of nothing", async () => {
  const { agenda, sim, life, log } = disk(1);
  await made(agenda, log, "a", 512);
  sim.fill(100);
  await expect(until(agenda, log.create("b", new Uint8Array(0), 512))).rejects.toThrow(/ENOSPC/);
  let heard = false;
  log.list().then(
    () => {
      heard = true;
    },
    () => {},
  );
  life.end();
  sim.kill();
  await agenda.run(agenda.now + 100, () => false);
  expect(heard).toBe(false);
});
