/** Goal: no read under a lease is stale, whatever is paused, delayed, cut off or restarted. Method: seeded runs in one true time, with peers whose ticks are late, and the same with a clock that breaks the rule. */
import { expect, test } from "vitest";
import { assert } from "../lib/assert.ts";
import type { Random } from "../lib/random.ts";
import { Cluster } from "./testing/cluster.ts";
import type { Message, PeerId } from "./types.ts";

const IDS = ["a", "b", "c"];
const TICK_MS = 10;
/** Of true time, in each run. */
const RUN_MS = 6_000;
const STEP_MS = 2;

interface Outcome {
  readonly reads: number;
  readonly stale: number;
  readonly leaders: number;
}

/** One run. `clockStops`: the clock of a paused peer stands still, which raft/lease.ts forbids. */
function run(seed: number, clockStops: boolean): Outcome {
  const world = new World(seed, clockStops);
  for (world.now = 1; world.now < RUN_MS; world.now += STEP_MS) world.step();
  return world.outcome();
}

class World {
  now = 0;
  /** Whose turn it is: its clock is the one that is read. */
  #speaker: PeerId = "a";
  readonly #cluster: Cluster;
  readonly #random: Random;
  readonly #clockStops: boolean;
  readonly #nextTick = new Map<PeerId, number>();
  /** Peers that stand still, until when; and how long each has stood still in all. */
  readonly #pausedUntil = new Map<PeerId, number>();
  readonly #lostMs = new Map<PeerId, number>();
  readonly #under: { readonly due: number; readonly message: Message }[] = [];
  readonly #asked = new Map<number, number>();
  readonly #terms = new Set<number>();
  #reads = 0;
  #stale = 0;
  #nextRead = 1;

  constructor(seed: number, clockStops: boolean) {
    this.#clockStops = clockStops;
    this.#cluster = Cluster.of(IDS, seed, {
      asyncStorageWrites: true,
      readMode: "lease",
      leaseClock: { now: () => this.#clockOf(this.#speaker), tickMs: TICK_MS },
    });
    this.#random = this.#cluster.random;
    for (const id of IDS) this.#nextTick.set(id, this.#random.below(TICK_MS));
  }

  #clockOf(id: PeerId): number {
    return this.now - (this.#clockStops ? (this.#lostMs.get(id) ?? 0) : 0);
  }

  step(): void {
    this.#disturb();
    for (const message of this.#cluster.network.splice(0)) {
      this.#under.push({ due: this.now + this.#random.below(3 * TICK_MS), message });
    }
    for (const id of IDS) if (!this.#paused(id)) this.#turn(id);
  }

  #paused(id: PeerId): boolean {
    const paused = (this.#pausedUntil.get(id) ?? 0) > this.now;
    if (paused) this.#lostMs.set(id, (this.#lostMs.get(id) ?? 0) + STEP_MS);
    return paused;
  }

  #disturb(): void {
    const { below } = this.#random;
    const id = IDS[below(IDS.length)] ?? "a";
    const chance = below(10_000);
    if (chance < 40) this.#pausedUntil.set(id, this.now + below(60 * TICK_MS));
    else if (chance < 60) this.#cluster.isolate(id);
    else if (chance < 130) this.#cluster.heal();
    else if (chance < 140) {
      this.#cluster.crash(id);
      this.#cluster.restart(id);
    } else if (chance < 150) this.#cluster.peer(id).core?.peerUnreachable(IDS[below(3)] ?? "b");
    else if (chance < 155) this.#cluster.peer(id).core?.transferLeadership(IDS[below(3)] ?? "b");
  }

  #turn(id: PeerId): void {
    this.#speaker = id;
    const peer = this.#cluster.peer(id);
    const core = peer.up;
    const due = this.#nextTick.get(id) ?? 0;
    if (due <= this.now) {
      core.tick();
      // Never sooner than a tick, often a little later.
      this.#nextTick.set(id, this.now + TICK_MS + this.#random.below(2));
    }
    // A peer that was paused asks before it has heard what came meanwhile: the worst moment.
    if (this.#random.below(6) === 0) this.#ask(id);
    this.#work(id);
    for (let at = 0; at < this.#under.length; at += 1) {
      const parcel = this.#under[at];
      if (parcel === undefined || parcel.due > this.now || parcel.message.to !== id) continue;
      this.#under.splice(at, 1);
      at -= 1;
      const { from } = parcel.message;
      if (!this.#cluster.cut.has(`${from}>${id}`)) core.step(parcel.message);
    }
    if (this.#random.below(4) === 0) this.#cluster.propose(id, `${this.now}`);
    this.#work(id);
    const { role, term } = core.status();
    if (role === "leader") this.#terms.add(term);
  }

  #ask(id: PeerId): void {
    const { core } = this.#cluster.peer(id);
    if (core?.status().role !== "leader") return;
    this.#asked.set(this.#nextRead, this.#cluster.committedMax);
    core.readIndex(this.#nextRead);
    this.#nextRead += 1;
  }

  #work(id: PeerId): void {
    const peer = this.#cluster.peer(id);
    while (peer.core?.hasReady() === true || peer.saving.length > 0 || peer.applying.length > 0) {
      this.#cluster.work(id);
      this.#cluster.finishSave(id);
      this.#cluster.finishApply(id);
    }
    for (const { readId, index } of peer.reads.splice(0)) {
      const before = this.#asked.get(readId);
      assert(before !== undefined, "only what was asked is answered");
      this.#reads += 1;
      if (index < before) this.#stale += 1;
    }
  }

  outcome(): Outcome {
    return { reads: this.#reads, stale: this.#stale, leaders: this.#terms.size };
  }
}

function total(clockStops: boolean, seeds: number): Outcome {
  const sum = { reads: 0, stale: 0, leaders: 0 };
  for (let seed = 1; seed <= seeds; seed += 1) {
    const one = run(seed, clockStops);
    sum.reads += one.reads;
    sum.stale += one.stale;
    sum.leaders += one.leaders;
  }
  return sum;
}

test("no read under a lease is stale, under pauses, cuts, restarts and hand-overs", () => {
  const { reads, stale, leaders } = total(false, 30);
  expect(reads).toBeGreaterThan(1_000);
  expect(leaders).toBeGreaterThan(100);
  expect(stale).toBe(0);
}, 60_000);

test("the same with a clock that stands still during a pause is stale: the rule of raft/lease.ts is needed", () => {
  expect(total(true, 20).stale).toBeGreaterThan(0);
}, 60_000);
