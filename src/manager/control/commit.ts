/** From a use case's actions to the user's answer: proposes, and says a conflict in docker's words. */
import { type ErrorCode, failure, type ShoalError } from "../../lib/errors.ts";
import type { Stored } from "../../model/stored.ts";
import type {
  Action,
  ActionGroup,
  Committed,
  GroupResult,
  Proposer,
  TableName,
  Tables,
} from "../../store/types.ts";

/** What every use case is handed. */
export interface Control {
  readonly proposer: Proposer;
}

/** The word for one row of each table in messages. */
const nouns: Readonly<Record<TableName, string>> = {
  clusters: "cluster",
  nodes: "node",
  services: "service",
  tasks: "task",
  networks: "network",
};

/** An error in the form in which dockerd passes on swarmkit's: scripts match on it. */
export function rpcError(code: ErrorCode, text: string): ShoalError {
  return failure(code, `rpc error: code = ${grpcNames[code]} desc = ${text}`);
}

const grpcNames: Readonly<Record<ErrorCode, string>> = {
  invalid: "InvalidArgument",
  unauthorized: "Unauthenticated",
  forbidden: "PermissionDenied",
  "not-found": "NotFound",
  conflict: "AlreadyExists",
  "out-of-sequence": "Unknown",
  "not-implemented": "Unimplemented",
  unavailable: "Unavailable",
  internal: "Internal",
  "failed-precondition": "FailedPrecondition",
};

/** Commits one group. Throws in docker's words when another write came first or the name is taken. */
export async function commit(
  proposer: Proposer,
  group: ActionGroup,
  name: string,
): Promise<Committed> {
  const committed = await proposer.propose([group]);
  const result = committed.results[0];
  if (result !== undefined && !result.ok) throw refusalOf(result, name);
  return committed;
}

function refusalOf(result: Extract<GroupResult, { ok: false }>, name: string): ShoalError {
  const noun = nouns[result.table];
  switch (result.reason) {
    case "name-taken":
    case "exists":
      return result.table === "networks"
        ? failure("conflict", `network with name ${name} already exists`)
        : rpcError(
            "conflict",
            `name conflicts with an existing object: ${noun} ${name} already exists`,
          );
    case "stale":
      return rpcError("out-of-sequence", "update out of sequence");
    case "missing":
      return failure("not-found", `${noun} ${name} not found`);
    default:
      return result.reason satisfies never;
  }
}

/** A row as an action carries it. */
export function withoutMeta<R extends Stored>(row: R): Omit<R, "meta"> {
  const { meta: _, ...rest } = row;
  return rest;
}

/** The action that writes `row`; `expect` null makes it new. */
export function put<T extends TableName>(
  table: T,
  row: Omit<Tables[T], "meta">,
  expect: number | null,
): Action {
  // TypeScript does not distribute a generic table over the union; the parameters make the pair right.
  return { table, kind: "put", row, expect } as unknown as Action;
}

/** The action that removes a row as it was seen. */
export function removal<T extends TableName>(table: T, row: Tables[T]): Action {
  return { table, kind: "remove", id: row.id, expect: row.meta.version } as unknown as Action;
}

/** The action that only asks for a row to be as it was seen. */
export function unchanged<T extends TableName>(table: T, row: Tables[T]): Action {
  return { table, kind: "check", id: row.id, expect: row.meta.version } as unknown as Action;
}
