/** What one seed does to its cluster: each fault is there or not, and as bad as it was drawn. Swarm testing. */
import type { SimRandom } from "../random.ts";
import type { DiskTraits } from "./disk.ts";

/** Kinds of fault that come one by one; their weights say how often each. */
export type FaultKind =
  | "kill"
  | "power-off"
  | "blackout"
  | "pause"
  | "partition"
  | "clog"
  | "close"
  | "weather"
  | "sync-error"
  | "full-disk"
  | "slow-disk"
  | "rot"
  | "transfer"
  | "forget-leader"
  | "campaign"
  | "snapshot"
  | "rotate-key"
  | "membership";

export interface Weather {
  readonly lossPerMille: number;
  readonly doublePerMille: number;
  readonly delayMsMin: number;
  /** Mean of what comes on top, exponentially distributed. */
  readonly delayMsMean: number;
}
/** One manager's configuration and version. */
export interface HostTraits {
  readonly disk: DiskTraits;
  /** How fast its clock goes; 1 is right. */
  readonly clockRate: number;
  readonly segmentBytes: number;
  readonly snapshotInterval: number;
  readonly snapshotKeep: number;
  readonly appendBytesMax: number;
  readonly inflightMessagesMax: number;
  readonly committedBytesPerReadyMax: number;
  /** New entries that it sends to a quorum first; 0: to all at once. */
  readonly holdBackEntriesMax: number;
  /** An earlier version: one save at a time, and no hint of a committed entry in refusals. */
  readonly old: boolean;
}
export interface FaultMix {
  readonly voters: number;
  readonly spares: number;
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  /** Length of the phase with faults, in ms. */
  readonly safetyMs: number;
  /** Mean time between two faults, in ms. */
  readonly faultMsMean: number;
  /** Mean time that a fault lasts, in ms. */
  readonly repairMsMean: number;
  readonly weights: ReadonlyMap<FaultKind, number>;
  readonly weather: Weather;
  /** Messages between two peers that may be under way. */
  readonly pathCapacity: number;
  /** Each path delivers in order, as a connection does. */
  readonly ordered: boolean;
  /** Messages go through the wire's bytes. */
  readonly codec: boolean;
  /** Messages are frozen. */
  readonly frozen: boolean;
  /** Leaders answer reads by their lease; clocks then keep within what it allows. */
  readonly lease: boolean;
  /** Logs are encrypted. */
  readonly encrypted: boolean;
  /** A process that is killed closes its connections, and its peers see it. */
  readonly closesSeen: boolean;
  /** Peers are told at once how their snapshots ended, not seconds later. */
  readonly snapshotsReported: boolean;
  readonly clients: number;
  /** Mean time between two operations of a client, in ms. */
  readonly thinkMsMean: number;
  /** Writes beside the clients' whose outcome nobody watches, per mille and tick of a leader. */
  readonly noisePerMille: number;
  readonly paddingBytesMax: number;
  readonly hosts: readonly HostTraits[];
}

/** Milliseconds of a tick, by the clock of its host. */
export const TICK_MS = 10;

/** How far two clocks may be apart in rate where leaders answer by their lease. */
export const LEASE_DRIFT_MAX = 0.05;

const always: readonly (readonly [FaultKind, number, number])[] = [
  // Kind, per mille of the seeds that have it, largest weight.
  ["kill", 800, 10],
  ["power-off", 600, 10],
  ["blackout", 300, 3],
  ["pause", 500, 6],
  ["partition", 800, 10],
  ["clog", 300, 4],
  ["close", 400, 5],
  ["weather", 400, 5],
  ["sync-error", 300, 4],
  ["full-disk", 200, 3],
  ["slow-disk", 400, 4],
  ["rot", 300, 4],
  ["transfer", 500, 6],
  ["forget-leader", 300, 4],
  ["campaign", 300, 4],
  ["snapshot", 500, 6],
  ["rotate-key", 500, 5],
  ["membership", 600, 14],
];

export function drawFaultMix(random: SimRandom): FaultMix {
  const electionTicks = random.chance(700) ? random.between(10, 30) : random.between(10, 100);
  const heartbeatTicks = random.between(1, Math.min(10, Math.floor(electionTicks / 3)));
  const voters = random.pick([1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7]);
  const weights = new Map<FaultKind, number>();
  for (const [kind, perMille, most] of always) {
    if (random.chance(perMille)) weights.set(kind, random.between(1, most));
  }
  const spares = weights.has("membership") ? random.between(1, 3) : random.below(2);
  const electionMs = electionTicks * TICK_MS;
  const calm = random.chance(150);
  const mixed = random.chance(300);
  const skewed = random.chance(500);
  const lease = random.chance(250);
  const drift = lease ? Math.floor((LEASE_DRIFT_MAX / 2) * 1_000) - 1 : 200;
  const small = random.chance(400);
  const oldSeed = random.chance(80);
  const interval = random.pick([4, 10, 25, 60, 1_000]);
  const latencyMsMax = random.pick([0, 1, 2, 5, 5, 20]);
  const lostPagesLookClean = random.chance(500);
  const hosts = Array.from(
    { length: voters + spares },
    (): Omit<HostTraits, "holdBackEntriesMax"> => {
      const old = oldSeed || (mixed && random.chance(400));
      return {
        disk: { latencyMsMax, pageBytes: random.pick([512, 4096]), lostPagesLookClean },
        clockRate: skewed ? random.between(1000 - drift, 1000 + drift) / 1000 : 1,
        segmentBytes: random.pick([1024, 4096, 4096, 16384]),
        snapshotInterval: interval,
        snapshotKeep: random.pick([0, 0, 3, 20]),
        appendBytesMax: small ? random.pick([1, 100, 1000]) : 1024 * 1024,
        inflightMessagesMax: small ? random.between(1, 4) : 256,
        committedBytesPerReadyMax: small ? random.pick([1, 100, 1000]) : 4 * 1024 * 1024,
        old,
      };
    },
  );
  return {
    voters,
    spares,
    electionTicks,
    heartbeatTicks,
    safetyMs: Math.round((random.between(8_000, 32_000) * 5) / (voters + spares + 2)),
    faultMsMean: random.between(Math.floor(electionMs / 3), electionMs * 4),
    repairMsMean: random.between(Math.floor(electionMs / 4), electionMs * 4),
    weights,
    weather: calm ? fairWeather : drawWeather(random),
    pathCapacity: random.chance(200) ? random.between(2, 20) : 10_000,
    ordered: random.chance(300),
    codec: random.chance(120),
    frozen: random.chance(80),
    lease,
    encrypted: random.chance(200),
    closesSeen: random.chance(700),
    snapshotsReported: random.chance(700),
    clients: random.between(2, 5),
    thinkMsMean: random.between(50, 800),
    noisePerMille: random.pick([0, 10, 40, 150]),
    paddingBytesMax: random.pick([0, 0, 100, 400]),
    hosts: drawHoldBack(random, hosts),
  };
}

function drawHoldBack(
  random: SimRandom,
  hosts: readonly Omit<HostTraits, "holdBackEntriesMax">[],
): readonly HostTraits[] {
  const thrifty = random.chance(600);
  return hosts.map((host) => ({
    ...host,
    holdBackEntriesMax: thrifty ? random.pick([0, 1, 4, 100]) : 0,
  }));
}

export const fairWeather: Weather = {
  lossPerMille: 0,
  doublePerMille: 0,
  delayMsMin: 0,
  delayMsMean: 1,
};

export function drawWeather(random: SimRandom): Weather {
  return {
    lossPerMille: random.chance(600) ? random.below(301) : 0,
    doublePerMille: random.chance(500) ? random.below(501) : 0,
    delayMsMin: random.chance(500) ? random.below(11) : 0,
    delayMsMean: random.pick([1, 3, 10, 30, 100]),
  };
}
