/** Simulated container networks of one machine: up after a while, when the assignment names them. */
import { failure } from "../src/lib/errors.ts";
import type { AssignedTask } from "../src/wire/session.ts";
import type { NetworkAssignment, Networks } from "../src/worker/networks.ts";
import type { SimRandom } from "./random.ts";
import type { Process, World } from "./world.ts";

/** Longest time that the kernel takes, in ms. */
const applyMsMax = 30;

/** The networks of one life of the daemon. */
export function createSimNetworks(
  world: World,
  random: SimRandom,
  host: string,
  process: Process,
): Networks {
  const listeners: ((revision: number) => void)[] = [];
  let assignment: NetworkAssignment | null = null;
  let started = false;

  function applied(): void {
    const { revision } = assignment ?? { revision: 0 };
    world.schedule(
      world.after(random.between(1, applyMsMax)),
      `${host}:networks`,
      () => {
        if (started) for (const listen of listeners) listen(revision);
      },
      process,
    );
  }
  function ready(task: AssignedTask): Promise<void> {
    return new Promise((resolve, reject) => {
      world.schedule(
        world.after(random.between(0, applyMsMax)),
        `${host}:attach`,
        () => {
          const missing = task.attachments.find(
            ({ networkId }) => !assignment?.networks.some((network) => network.id === networkId),
          );
          if (missing === undefined) resolve();
          else reject(failure("unavailable", `network ${missing.networkId} is not known here yet`));
        },
        process,
      );
    });
  }
  return {
    adopt: () => {},
    start: () => {
      started = true;
      if (assignment !== null) applied();
    },
    stop: () => {
      started = false;
    },
    assign: (next) => {
      assignment = next;
      if (started) applied();
    },
    prepare: ready,
    attach: (task) => ready(task),
    release: () => {},
    onApplied: (listener) => listeners.push(listener),
  };
}
