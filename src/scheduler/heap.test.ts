/** The heap against sorting. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { Heap } from "./heap.ts";

test("a heap gives its items in order, whether they were there at first or came later", () => {
  fc.assert(
    fc.property(fc.array(fc.integer()), fc.array(fc.integer()), (first, later) => {
      const heap = new Heap(first, (a, b) => a < b);
      for (const item of later) heap.push(item);
      const sorted = [...first, ...later].sort((a, b) => a - b);
      expect(heap.peek()).toBe(sorted[0] ?? null);
      const out: number[] = [];
      for (let item = heap.pop(); item !== null; item = heap.pop()) out.push(item);
      expect(out).toEqual(sorted);
    }),
  );
});
