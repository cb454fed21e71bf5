/** Every scenario by name; full-chaos is what runs when none is named. */
import { calmTasks } from "../executor.ts";
import type { FaultMix } from "../fault-mix.ts";
import type { Scenario } from "./scenario.ts";

function scenario(name: string, about: string, mix: (drawn: FaultMix) => FaultMix): Scenario {
  return { name, about, mix };
}

export const fullChaos: Scenario = scenario(
  "full-chaos",
  "whatever the seed draws",
  (drawn) => drawn,
);

export const scenarios: readonly Scenario[] = [
  fullChaos,
  scenario(
    "leader-crash",
    "three managers, two workers; the leader dies again and again",
    (drawn) => ({
      ...drawn,
      managers: 3,
      workers: 2,
      faults: ["crash-leader"],
      everyMs: 5_000,
      faultMs: 40_000,
    }),
  ),
  scenario("rolling-restart", "every daemon is restarted, one after the other", (drawn) => ({
    ...drawn,
    managers: 3,
    workers: 3,
    faults: ["roll"],
    everyMs: 12_000,
    faultMs: 40_000,
  })),
  scenario("partition-minority", "splits of five managers and isolated leaders", (drawn) => ({
    ...drawn,
    managers: 5,
    faults: ["split", "isolate-leader"],
    everyMs: 4_000,
    faultMs: 40_000,
  })),
  scenario("bridge", "two halves that one machine joins, and cuts that go one way", (drawn) => ({
    ...drawn,
    managers: 5,
    workers: 0,
    faults: ["bridge", "one-way", "deaf-leader"],
    everyMs: 4_000,
    faultMs: 40_000,
  })),
  scenario("worker-power-off", "machines lose power while services run", (drawn) => ({
    ...drawn,
    managers: 3,
    workers: 4,
    faults: ["power-off"],
    everyMs: 4_000,
    faultMs: 40_000,
  })),
  scenario("promote-demote", "users change roles while daemons crash", (drawn) => ({
    ...drawn,
    managers: 3,
    workers: 3,
    faults: ["promote-demote", "promote-demote", "crash", "power-off", "split"],
    everyMs: 4_000,
    faultMs: 40_000,
    thinkMs: 300,
  })),
  scenario("managers", "managers alone, few requests: most time goes to consensus", (drawn) => ({
    ...drawn,
    workers: 0,
    clients: 1,
    thinkMs: 3_000,
    tasks: calmTasks,
    faultMs: 120_000,
    everyMs: Math.max(drawn.everyMs, 1_000),
  })),
];

/** The scenario of this name. */
export function scenarioNamed(name: string): Scenario | undefined {
  return scenarios.find((one) => one.name === name);
}
