/** What a user's reference names: a full id, then a name, then an id prefix that fits one row only (moby daemon/cluster/helpers.go). */
import { failure } from "../../lib/errors.ts";
import { type Task, taskName } from "../../model/task.ts";
import type { TableName, Tables, View } from "../../store/types.ts";

const names: {
  readonly [T in TableName]: { readonly noun: string; readonly nameOf: (row: Tables[T]) => string };
} = {
  clusters: { noun: "swarm", nameOf: (row) => row.spec.name },
  nodes: { noun: "node", nameOf: (row) => row.description?.hostname ?? "" },
  services: { noun: "service", nameOf: (row) => row.spec.name },
  networks: { noun: "network", nameOf: (row) => row.spec.name },
  tasks: { noun: "task", nameOf: (row: Task) => taskName(row) },
};

/** The row that `reference` names. Throws ShoalError("not-found") or, where it fits several, ("invalid") in docker's words. */
export function lookUp<T extends TableName>(view: View, table: T, reference: string): Tables[T] {
  const rows = view.table(table);
  const exact = rows.get(reference);
  if (exact !== undefined) return exact;
  const { noun, nameOf } = names[table];
  if (reference === "") throw failure("invalid", `${noun} ID or name must not be empty`);
  const wanted = reference.toLowerCase();
  const named: Tables[T][] = [];
  const prefixed: Tables[T][] = [];
  for (const row of rows.all()) {
    if (nameOf(row).toLowerCase() === wanted) named.push(row);
    else if (row.id.startsWith(reference)) prefixed.push(row);
  }
  for (const found of [named, prefixed]) {
    const [only, another] = found;
    if (only === undefined) continue;
    if (another === undefined) return only;
    throw failure(
      "invalid",
      `${noun} ${reference} is ambiguous (${found.length} matches found): use the full ID`,
    );
  }
  throw failure("not-found", `${noun} ${reference} not found`);
}
