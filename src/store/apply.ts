/** Applies one log entry to the tables: each group wholly or not at all, alike on every manager. */
import { assert } from "../lib/assert.ts";
import type { InstantMs } from "../lib/clock.ts";
import type { Stored } from "../model/stored.ts";
import { type TableSet, tableOf } from "./tables.ts";
import type { Action, ActionGroup, Change, EntryBody, GroupResult, TableName } from "./types.ts";

/** A service put with this spec version gets the index of the entry: the writer cannot know it. */
export const specVersionOfThisWrite = -1;

export interface Applied {
  readonly results: readonly GroupResult[];
  /** One for each row that differs from before the entry, in the order of first touch. */
  readonly changes: readonly Change[];
}

/**
 * Applies the groups in order. A group sees what the groups before it did, and an action what the actions before it did:
 * a row that this entry wrote has the version `index`.
 */
export function applyEntry(tables: TableSet, index: number, body: EntryBody): Applied {
  const results: GroupResult[] = [];
  const steps: Step[] = [];
  for (const group of body.groups) {
    const done = steps.length;
    const result = applyGroup(tables, group, index, body.at, steps);
    if (!result.ok) undo(tables, steps, done);
    results.push(result);
  }
  return { results, changes: changesOf(steps) };
}

/** One row change that has been made. */
interface Step {
  readonly table: TableName;
  readonly before: Stored | undefined;
  readonly after: Stored | undefined;
}
type Refusal = Extract<GroupResult, { readonly ok: false }>["reason"];

function applyGroup(
  tables: TableSet,
  group: ActionGroup,
  index: number,
  at: InstantMs,
  steps: Step[],
): GroupResult {
  for (const action of group) {
    const id = action.kind === "put" ? action.row.id : action.id;
    const table = tableOf(tables, action.table);
    const before = table.get(id);
    const refused = (reason: Refusal): GroupResult => ({
      ok: false,
      reason,
      table: action.table,
      id,
    });
    const clash = versionClash(before, action.expect);
    if (clash !== null) return refused(clash);
    if (action.kind === "check") continue;
    const after = action.kind === "put" ? stamped(action, before, index, at) : undefined;
    const taken = after === undefined ? null : table.clashOf(after);
    if (taken !== null) return refused(taken);
    table.replace(before, after);
    steps.push({ table: action.table, before, after });
  }
  return { ok: true };
}

function versionClash(before: Stored | undefined, expect: number | null): Refusal | null {
  if (expect === null) return before === undefined ? null : "exists";
  if (before === undefined) return "missing";
  return before.meta.version === expect ? null : "stale";
}

/** The row as it is stored: with its version and times, and a service with its spec version. */
function stamped(
  action: Extract<Action, { readonly kind: "put" }>,
  before: Stored | undefined,
  index: number,
  at: InstantMs,
): Stored {
  const meta = { version: index, createdAt: before?.meta.createdAt ?? at, updatedAt: at };
  if (action.table === "services" && action.row.specVersion === specVersionOfThisWrite) {
    const service = { ...action.row, specVersion: index, meta };
    return service;
  }
  return { ...action.row, meta };
}

/** Takes back all steps from `keep` on, last first. */
function undo(tables: TableSet, steps: Step[], keep: number): void {
  while (steps.length > keep) {
    const step = steps.pop();
    assert(step !== undefined, "a step to undo is there");
    tableOf(tables, step.table).replace(step.after, step.before);
  }
}

/** One change a row: from what it was before the entry to what it is behind it. */
function changesOf(steps: readonly Step[]): readonly Change[] {
  const merged = new Map<
    string,
    { table: TableName; before: Stored | null; after: Stored | null }
  >();
  for (const step of steps) {
    const id = step.before?.id ?? step.after?.id ?? "";
    const key = `${step.table}/${id}`;
    const earlier = merged.get(key);
    if (earlier === undefined) {
      merged.set(key, {
        table: step.table,
        before: step.before ?? null,
        after: step.after ?? null,
      });
    } else {
      earlier.after = step.after ?? null;
    }
  }
  const changes = [...merged.values()].filter(
    (change) => change.before !== null || change.after !== null,
  );
  // Each pair came out of the table that it names.
  return changes as unknown as readonly Change[];
}
