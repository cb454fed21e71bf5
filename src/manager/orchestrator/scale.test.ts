import { expect, test } from "vitest";
import type { Service } from "../../model/service.ts";
import type { Task } from "../../model/task.ts";
import type { TaskState } from "../../model/task-state.ts";
import { testService, testServiceSpec, testTask } from "../testing/rows.ts";
import { freeNumbers, keepOrder } from "./scale.ts";
import { type Slot, slotOf } from "./slots.ts";

const service: Service = {
  ...testService("web", testServiceSpec()),
  specVersion: 1,
  meta: {
    version: 1,
    createdAt: 0 as Service["meta"]["createdAt"],
    updatedAt: 0 as Service["meta"]["updatedAt"],
  },
};
function task(slot: number, nodeId: string | null, state: TaskState): Task {
  const row = testTask(`t${slot}${nodeId}${state}`, service, { slot, nodeId });
  return { ...row, status: { ...row.status, state }, meta: service.meta };
}
const slot = (number: number, nodeId: string | null, state: TaskState = "running"): Slot =>
  slotOf(String(number), [task(number, nodeId, state)]);

test.each<[string, readonly Slot[], readonly number[]]>([
  ["higher numbers go first", [slot(3, "a"), slot(1, "a"), slot(2, "a")], [1, 2, 3]],
  ["the fullest node gives first", [slot(1, "a"), slot(2, "a"), slot(3, "b")], [1, 3, 2]],
  [
    "what does not run goes before what runs",
    [slot(1, "a", "assigned"), slot(2, "a"), slot(3, "b")],
    [2, 3, 1],
  ],
  [
    "what has no node, or two tasks, goes first of all",
    [
      slot(1, null, "new"),
      slotOf("2", [task(2, "a", "running"), task(2, "b", "running")]),
      slot(3, "a"),
      slot(4, "a"),
    ],
    [3, 4, 2, 1],
  ],
])("order of keeping: %s", (_what, slots, expected) => {
  expect(keepOrder(slots).map(({ number }) => number)).toEqual(expected);
});

test("free numbers fill the gaps from 1", () => {
  expect(freeNumbers(new Set([1, 3]), 3)).toEqual([2, 4, 5]);
  expect(freeNumbers(new Set(), 0)).toEqual([]);
});
