/**
 * What goes wrong, and when, from a seed. Two lanes at the same time: one for processes and disks, one for the network. Each
 * deals all of its faults in a random order before it deals them again, so that a run of any length has had every kind.
 */

import type { SimRandom } from "../../sim/random.ts";
import { until } from "../lib/command.ts";
import type { End, FaultyManager } from "./manager.ts";
import type { Direction, FaultyNetwork } from "./network.ts";
import { pause } from "./workload.ts";

/** How long faults and the pauses between them last, in milliseconds. */
const stoppedMs = { least: 200, most: 6_000 } as const;
const downMs = { least: 0, most: 1_000 } as const;
const partedMs = { least: 500, most: 4_000 } as const;
const fullMs = { least: 1_000, most: 3_000 } as const;
const restMs = { least: 200, most: 1_000 } as const;
/** Tries of one fault before it is left out. */
const attemptsMax = 8;
/** A short run has shorter faults: each lasts at most this part of it. */
const faultPart = 1 / 7;
/** How soon a daemon must have ended after a sync of its Raft log failed, in milliseconds. */
const failStopMs = 5_000;
/** How long a failing sync is waited for; a manager without a leader has nothing to sync. */
const syncWaitMs = 3_000;
/** How long the next fault waits for daemons that start. */
const settleMs = 8_000;
/** How long a kill waits for a write to be acknowledged just before it. */
const writeWaitMs = 1_500;
/** Exit code of a manager whose log cannot be written any more (src/node/main.ts: EX_IOERR). */
const failStopCode = 74;
/** Exit code of a daemon that found a bug in itself. */
const bugCode = 70;

export const processFaults = ["kill", "kill-all", "stop", "disk-full", "sync-fails"] as const;
export const networkFaults = ["split", "isolate", "one-way", "half-open", "bridge"] as const;
export type FaultKind = (typeof processFaults)[number] | (typeof networkFaults)[number];

export interface NemesisOptions {
  readonly managers: readonly FaultyManager[];
  readonly network: FaultyNetwork;
  readonly random: SimRandom;
  readonly seconds: number;
  /** The manager that leads as far as its log says; null while none does. */
  readonly leader: () => FaultyManager | null;
  /** Resolves when the next write is acknowledged, or after so many milliseconds. */
  readonly nextAcknowledged: (ms: number) => Promise<void>;
  readonly say: (line: string) => void;
  readonly violation: (text: string) => void;
}

export class Nemesis {
  readonly #options: NemesisOptions;
  /** Faults by kind, as far as they took place. */
  readonly counts: Map<FaultKind, number> = new Map();
  readonly #deadline: number;
  #failed = false;

  constructor(options: NemesisOptions) {
    this.#options = options;
    this.#deadline = performance.now() + options.seconds * 1_000;
  }

  /** Resolves when the time is over and every kind of fault has been; then everything is healed. */
  async run(): Promise<void> {
    const { managers, random } = this.#options;
    // A bridge needs two sides that are each a minority.
    const inNetwork = networkFaults.filter((kind) => kind !== "bridge" || managers.length >= 5);
    // When one lane fails, the other ends its fault and stops.
    const processes = random.fork("processes");
    const lanes = await Promise.allSettled([
      this.#lane(processFaults, processes, async () => await this.#settled(processes)),
      this.#lane(inNetwork, random.fork("network"), async () => {}),
    ]);
    for (const lane of lanes) if (lane.status === "rejected") throw lane.reason;
    await this.#heal();
  }

  /** Most of the time a daemon that was started is there before the next one is hurt; sometimes it is hurt while it starts. */
  async #settled(random: SimRandom): Promise<void> {
    if (random.chance(300)) return;
    const areUp = async (): Promise<true | null> => {
      const up = await Promise.all(this.#options.managers.map((manager) => manager.isUp()));
      return up.every(Boolean) ? true : null;
    };
    // A busy box may need longer: then the next fault comes all the same.
    await until("all managers to be up", areUp, settleMs).catch(() => null);
  }

  async #lane(
    kinds: readonly FaultKind[],
    random: SimRandom,
    before: () => Promise<void>,
  ): Promise<void> {
    try {
      for (let deal = 0; deal === 0 || performance.now() < this.#deadline; deal += 1) {
        for (const kind of shuffled(kinds, random)) {
          if (this.#failed || (deal > 0 && performance.now() >= this.#deadline)) return;
          // Most of the time somebody should be there to write to.
          if (kind === "kill-all" && deal > 0 && random.chance(600)) continue;
          await before();
          await this.#inflictOnce(kind, random);
        }
      }
    } catch (error) {
      this.#failed = true;
      throw error;
    }
  }

  /** Tries until the fault has taken place: there is not always a connection to silence or a log to sync. */
  async #inflictOnce(kind: FaultKind, random: SimRandom): Promise<void> {
    for (let attempt = 1; attempt <= attemptsMax && !this.#failed; attempt += 1) {
      await pause(this.#between(restMs, random));
      if (!(await this.#inflict(kind, random))) continue;
      this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
      return;
    }
  }

  /** One fault from beginning to end; false when there was nothing to do it to. */
  async #inflict(kind: FaultKind, random: SimRandom): Promise<boolean> {
    switch (kind) {
      case "kill":
        return await this.#kill([this.#victim(random)], random);
      case "kill-all":
        return await this.#kill(this.#options.managers, random);
      case "stop":
        return await this.#stop(random);
      case "disk-full":
        return await this.#fillDisk(random);
      case "sync-fails":
        return await this.#failSync(random);
      default:
        return await this.#part(kind, random);
    }
  }

  async #kill(victims: readonly FaultyManager[], random: SimRandom): Promise<boolean> {
    // A write that was just acknowledged is the one to lose.
    await this.#options.nextAcknowledged(writeWaitMs);
    this.#options.say(`kill -9 ${names(victims)}`);
    await Promise.all(victims.map((victim) => victim.kill()));
    await pause(this.#between(downMs, random));
    await Promise.all(victims.map((victim) => victim.start()));
    return true;
  }

  async #stop(random: SimRandom): Promise<boolean> {
    const victim = this.#victim(random);
    const ms = this.#between(stoppedMs, random);
    this.#options.say(`SIGSTOP ${victim.name} for ${ms} ms`);
    victim.pause();
    await pause(ms);
    victim.resume();
    return true;
  }

  /** A full disk, sometimes met by a restart. The manager may refuse and may stop in order; it must come back when there is room. */
  async #fillDisk(random: SimRandom): Promise<boolean> {
    const victim = this.#victim(random);
    const restarts = random.chance(300);
    this.#options.say(`disk of ${victim.name} full${restarts ? ", kill -9, start on it" : ""}`);
    victim.endExpected = true;
    await victim.fillDisk();
    if (restarts) {
      await victim.kill();
      await victim.start();
      victim.endExpected = true;
    }
    const end = await victim.waitEnd(this.#between(fullMs, random));
    if (end !== null) {
      this.#mustSay(victim, "a full disk", end, /no space|ENOSPC/i);
      if (end.code === bugCode)
        this.#options.violation(
          `${victim.name} took a full disk for a bug: ${end.said.slice(-600)}`,
        );
    }
    await victim.freeDisk();
    victim.endExpected = false;
    await victim.start();
    return true;
  }

  /** Syncs of a Raft log fail: the manager must end, say why and what to do, and come back with all that it acknowledged. */
  async #failSync(random: SimRandom): Promise<boolean> {
    const victim = this.#victim(random);
    const mode = random.chance(500) ? "always" : "once";
    this.#options.say(`syncs of ${victim.name} fail: ${mode}`);
    await victim.answers();
    victim.endExpected = true;
    await victim.failSyncs(mode);
    const met = await until(
      "a sync",
      async () => ((await victim.failedSyncs()).length > 0 ? true : null),
      syncWaitMs,
    ).catch(() => false);
    let end = met ? await victim.waitEnd(failStopMs) : null;
    const failed = await victim.healSyncs();
    // A sync can meet it at the last moment.
    if (!met && failed.length > 0) end = await victim.waitEnd(failStopMs);
    const segments = failed.filter((path) => path.includes("/segment-"));
    if (segments.length > 0 && end === null && victim.runs) {
      this.#options.violation(
        `${victim.name} went on for ${failStopMs} ms after a sync of ${segments[0]} had failed`,
      );
      await victim.kill();
    }
    if (end !== null) {
      this.#options.say(`${victim.name} stopped itself: exit ${end.code ?? end.signal}`);
      this.#mustSay(victim, "a failed sync", end, /EIO[^"]*check the device and start/i);
      if (end.code !== failStopCode)
        this.#options.violation(
          `${victim.name} ended with ${end.code ?? end.signal} after a failed sync, not with ${failStopCode}`,
        );
    }
    if (segments.length > 1)
      this.#options.violation(`${victim.name} synced a segment again after it failed: ${segments}`);
    await pause(this.#between(downMs, random));
    victim.endExpected = false;
    await victim.start();
    return segments.length > 0;
  }

  async #part(kind: FaultKind, random: SimRandom): Promise<boolean> {
    const { managers, network, say } = this.#options;
    const ms = this.#between(partedMs, random);
    if (kind === "half-open") {
      const victim = this.#victim(random);
      const count = await network.loseConnectionsOf(victim.index);
      say(`${count} connections of ${victim.name} go silent for ${ms} ms`);
      await pause(ms);
      await network.lose([]);
      return count > 0;
    }
    const { what, lost } = partition(kind, managers, this.#victim(random), random);
    say(`${what} for ${ms} ms`);
    await network.lose(lost);
    await pause(ms);
    await network.lose([]);
    return true;
  }

  /** The leader half of the time, if there is one; any manager otherwise. */
  #victim(random: SimRandom): FaultyManager {
    const leader = this.#options.leader();
    const any = random.pick(this.#options.managers);
    return random.chance(500) && leader !== null ? leader : any;
  }

  #mustSay(victim: FaultyManager, what: string, { said }: End, pattern: RegExp): void {
    if (!pattern.test(said))
      this.#options.violation(
        `${victim.name} ended because of ${what}, but did not say so: ${said.slice(-600)}`,
      );
  }

  #between({ least, most }: { least: number; most: number }, random: SimRandom): number {
    const longest = Math.max(least, Math.min(most, this.#options.seconds * 1_000 * faultPart));
    return random.between(least, Math.round(longest));
  }

  async #heal(): Promise<void> {
    const { managers, network } = this.#options;
    await network.lose([]);
    for (const manager of managers) {
      await manager.healSyncs();
      await manager.freeDisk();
      manager.resume();
      await manager.start();
    }
  }
}

/** Which directions a partition loses. */
function partition(
  kind: FaultKind,
  managers: readonly FaultyManager[],
  victim: FaultyManager,
  random: SimRandom,
): { readonly what: string; readonly lost: readonly Direction[] } {
  const all = managers.map(({ index }) => index);
  const others = all.filter((index) => index !== victim.index);
  if (kind === "isolate")
    return { what: `${victim.name} cut off`, lost: between([victim.index], others) };
  if (kind === "one-way") {
    const deaf = random.chance(500);
    // Half of the time towards all others, half of the time towards one.
    const far = random.chance(500) ? others : [random.pick(others)];
    const lost = far.map((other) =>
      deaf ? { from: other, to: victim.index } : { from: victim.index, to: other },
    );
    const whom = far.length === 1 ? `manager ${(far[0] ?? 0) + 1}` : "all others";
    return { what: `${victim.name} ${deaf ? "does not hear" : "is not heard by"} ${whom}`, lost };
  }
  const order = shuffled(all, random);
  if (kind === "bridge") {
    const [middle = 0, ...rest] = order;
    const half = Math.floor(rest.length / 2);
    const [left, right] = [rest.slice(0, half), rest.slice(half)];
    return {
      what: `only manager ${middle + 1} sees both ${numbers(left)} and ${numbers(right)}`,
      lost: between(left, right),
    };
  }
  const size = random.between(1, Math.floor(all.length / 2));
  const [left, right] = [order.slice(0, size), order.slice(size)];
  return { what: `${numbers(left)} parted from ${numbers(right)}`, lost: between(left, right) };
}

/** Both directions between every one here and every one there. */
function between(here: readonly number[], there: readonly number[]): Direction[] {
  return here.flatMap((one) =>
    there.flatMap((other) => [
      { from: one, to: other },
      { from: other, to: one },
    ]),
  );
}

function shuffled<T>(items: readonly T[], random: SimRandom): T[] {
  const left = [...items];
  const dealt: T[] = [];
  while (left.length > 0) dealt.push(...left.splice(random.below(left.length), 1));
  return dealt;
}

function names(managers: readonly FaultyManager[]): string {
  return managers.map(({ name }) => name).join(" ");
}
function numbers(indexes: readonly number[]): string {
  return `{${indexes.map((index) => index + 1).join(" ")}}`;
}
