/** SortedIds against a plain sorted set, with reads at any time. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { SortedIds } from "./sorted-ids.ts";

test("ids are read in order, however many came or went since the last reading", () => {
  const batch = fc.record({
    add: fc.uniqueArray(fc.nat(200), { maxLength: 60 }),
    remove: fc.uniqueArray(fc.nat(200), { maxLength: 30 }),
    read: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(batch, { maxLength: 8 }), (batches) => {
      const ids = new SortedIds();
      const model = new Set<string>();
      for (const { add, remove, read } of batches) {
        for (const id of add.map(String)) {
          if (!model.has(id)) ids.add(id);
          model.add(id);
        }
        for (const id of remove.map(String)) if (model.delete(id)) ids.delete(id);
        expect(ids.size).toBe(model.size);
        if (read) expect(ids.read()).toEqual([...model].sort());
      }
      expect(ids.read()).toEqual([...model].sort());
    }),
  );
});

test("taking out an id that is not there is a bug", () => {
  const ids = new SortedIds();
  ids.add("a");
  expect(() => ids.delete("b")).toThrow("id b is in the set");
});
