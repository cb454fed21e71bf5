/** Goal: Raft's simulated network keeps Transport's promises. Method: the suite that the websockets run, in simulated time. */
import { transportSuite } from "../src/raft/testing/transport-suite.ts";
import type { PeerId } from "../src/raft/types.ts";
import { SimNetwork } from "./network.ts";
import { createRandom } from "./random.ts";
import { type Process, World } from "./world.ts";

for (const encoded of [false, true]) {
  transportSuite(
    encoded ? "SimNetwork.transport() with encoding" : "SimNetwork.transport()",
    () => {
      const world = new World();
      const weather = { lossPerMille: 0, duplicatePerMille: 0, delayMsMax: 5, encoded };
      const network = new SimNetwork(world, createRandom(1), weather);
      const processes = new Map<PeerId, Process>();
      return Promise.resolve({
        async open(id) {
          const process: Process = { name: id, alive: true, pausedUntil: 0, skewMs: 0 };
          processes.set(id, process);
          return network.transport(id, id, process);
        },
        async crash(id) {
          const process = processes.get(id);
          if (process === undefined) throw new Error(`no peer ${id} is up`);
          process.alive = false;
          network.crash(process, true);
        },
        async until(holds, what) {
          for (let turn = 0; turn < 10_000; turn += 1) {
            if (holds()) return;
            await world.run(world.after(10));
          }
          throw new Error(`waited 100 simulated seconds for ${what}`);
        },
        async remove() {},
      });
    },
  );
}
