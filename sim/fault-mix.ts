/** What a run does to its cluster: each seed draws its own mix, so that some see much of one fault and nothing of another. */
import type { TaskChaos } from "./executor.ts";
import type { SimRandom } from "./random.ts";

export type Fault =
  | "crash"
  | "power-off"
  | "pause"
  | "sync-error"
  | "slow-disk"
  | "split"
  | "one-way"
  | "bridge"
  | "isolate-leader"
  | "deaf-leader"
  | "crash-leader"
  | "clog"
  | "weather"
  | "transfer"
  | "roll"
  | "promote-demote";

export interface FaultMix {
  readonly managers: number;
  readonly workers: number;
  /** How long faults go on, in ms. */
  readonly faultMs: number;
  /** Mean time between two faults, in ms; 0: none. */
  readonly everyMs: number;
  readonly faults: readonly Fault[];
  readonly lossPerMilleMax: number;
  readonly duplicatePerMilleMax: number;
  readonly delayMsMax: number;
  readonly encoded: boolean;
  readonly diskMsMax: number;
  readonly skewMsMax: number;
  readonly snapshots: { readonly interval: number; readonly keep: number };
  readonly tasks: TaskChaos;
  readonly clients: number;
  /** Mean pause of a client between two requests, in ms. */
  readonly thinkMs: number;
  /** Behind the faults, power off what a quorum can spare for good, and converge again. */
  readonly losesMinority: boolean;
}

const all: readonly Fault[] = [
  "crash",
  "power-off",
  "pause",
  "sync-error",
  "slow-disk",
  "split",
  "one-way",
  "bridge",
  "isolate-leader",
  "deaf-leader",
  "crash-leader",
  "clog",
  "weather",
  "transfer",
  "promote-demote",
];

/** The mix of a seed. */
export function drawMix(random: SimRandom): FaultMix {
  const some = all.filter(() => random.chance(450));
  const quietNet = random.chance(250);
  const quietTasks = random.chance(400);
  return {
    managers: random.pick([1, 2, 3, 3, 3, 4, 5, 5]),
    workers: random.between(0, 5),
    faultMs: random.between(10_000, 60_000),
    everyMs: random.pick([300, 1_000, 1_000, 3_000, 8_000]),
    faults: some.length > 0 ? some : [random.pick(all)],
    lossPerMilleMax: quietNet ? 0 : random.pick([0, 10, 100, 300]),
    duplicatePerMilleMax: quietNet ? 0 : random.pick([0, 50, 500]),
    delayMsMax: quietNet ? 2 : random.pick([1, 5, 20, 100]),
    encoded: random.chance(150),
    diskMsMax: random.pick([0, 1, 3, 20, 100]),
    skewMsMax: random.pick([0, 0, 100, 1_500]),
    snapshots: {
      interval: random.pick([5, 20, 100, 1_000]),
      keep: random.pick([0, 3, 10, 100]),
    },
    tasks: {
      missingPerMille: quietTasks ? 0 : random.pick([0, 20, 200]),
      failPerMille: quietTasks ? 0 : random.pick([0, 20, 200]),
      exitPerMille: quietTasks ? 0 : random.pick([0, 100, 500]),
      unavailablePerMille: quietTasks ? 0 : random.pick([0, 50, 300]),
    },
    clients: random.between(1, 3),
    thinkMs: random.pick([150, 500, 1_000, 1_000]),
    losesMinority: random.chance(350),
  };
}
