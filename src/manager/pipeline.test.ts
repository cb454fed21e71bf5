// Goal: a service gets from its row to assigned tasks in few commits. Method: the leader's real controllers over one store.
import { expect, test } from "vitest";
import { silentLog } from "../lib/log.ts";
import { createStore } from "../store/store.ts";
import { allocatorController } from "./allocator/allocator.ts";
import { createControllerLoop } from "./controller-loop.ts";
import { orchestratorControllers } from "./orchestrator/controllers.ts";
import { placementController } from "./placement/placement.ts";
import { createTestClock } from "./testing/clock.ts";
import { createTestProposer } from "./testing/proposer.ts";
import { createTestRandom } from "./testing/random.ts";
import { add, testCluster, testNode, testService, testServiceSpec } from "./testing/rows.ts";

test("50 tasks are assigned four commits after their service is asked for", async () => {
  const clock = createTestClock();
  const store = createStore();
  const proposer = createTestProposer(store, clock);
  const loop = createControllerLoop({
    store,
    proposer,
    clock,
    random: createTestRandom(),
    log: silentLog,
    controllers: [...orchestratorControllers, allocatorController, placementController],
  });
  proposer.commit([add("clusters", testCluster())]);
  for (const id of ["n1", "n2", "n3", "n4", "n5"]) proposer.commit([add("nodes", testNode(id))]);
  loop.start();
  await clock.advance(0);
  const before = proposer.entries.length;
  const mode = { kind: "replicated", replicas: 50 } as const;
  proposer.commit([add("services", testService("web", testServiceSpec({ mode })))]);
  await clock.advance(0);
  const tasks = [...store.view().table("tasks").by("service", "web")];
  expect(tasks.filter(({ status }) => status.state === "assigned")).toHaveLength(50);
  const perNode = ["n1", "n2", "n3", "n4", "n5"].map(
    (id) => tasks.filter(({ nodeId }) => nodeId === id).length,
  );
  expect(perNode).toEqual([10, 10, 10, 10, 10]);
  expect(proposer.entries.length - before).toBe(4);
  expect(loop.isIdle()).toBe(true);
  loop.stop();
});
