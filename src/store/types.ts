/** The replicated tables as everybody sees them: rows, actions, changes, views. */
import type { InstantMs } from "../lib/clock.ts";
import type { Cluster } from "../model/cluster.ts";
import type { Network } from "../model/network.ts";
import type { Node } from "../model/node.ts";
import type { Service } from "../model/service.ts";
import type { Task } from "../model/task.ts";

/** The tables of the cluster. Adding a table here is the only way to add one. */
export interface Tables {
  clusters: Cluster;
  nodes: Node;
  services: Service;
  tasks: Task;
  networks: Network;
}
export type TableName = keyof Tables;

/** One row change. `expect` is the version the writer saw (null: there must be no such row); a stale action rejects its whole group, on every manager alike. */
export type Action = {
  [T in TableName]:
    | {
        readonly table: T;
        readonly kind: "put";
        readonly row: Omit<Tables[T], "meta">;
        readonly expect: number | null;
      }
    | { readonly table: T; readonly kind: "remove"; readonly id: string; readonly expect: number }
    /** The writer decided on what this row said, and does not change it. */
    | { readonly table: T; readonly kind: "check"; readonly id: string; readonly expect: number };
}[TableName];

/** Actions that hold together: all or none. */
export type ActionGroup = readonly Action[];

/** What one log entry carries. `at` is the proposer's clock: apply reads no clock. */
export interface EntryBody {
  /** Names the proposal to whoever waits for it. */
  readonly proposalId: string;
  readonly at: InstantMs;
  readonly groups: readonly ActionGroup[];
}

export type Change = {
  [T in TableName]: {
    readonly table: T;
    readonly before: Tables[T] | null;
    readonly after: Tables[T] | null;
  };
}[TableName];

/** Named indexes of each table; `by` of any other name is a bug. */
export interface Indexes {
  clusters: "name";
  nodes: "hostname";
  services: "name" | "network";
  tasks: "service" | "node" | "network" | "slot" | "waits-for" | "state";
  networks: "name" | "vni" | "subnet";
}
export interface TableView<T extends TableName> {
  readonly size: number;
  get(id: string): Tables[T] | undefined;
  /** In id order. */
  all(): IterableIterator<Tables[T]>;
  /** Rows whose named index holds this value, in id order. Names are lower-cased; a task's slot is `serviceId/slotKey`. */
  by(index: Indexes[T], value: string): IterableIterator<Tables[T]>;
  /** Stands for exactly the rows that `by` gives: the same object as long as they are the same rows. A key for what is worked out from them. */
  stamp(index: Indexes[T], value: string): object;
}
/** The cluster at one index. Good until the next apply: read it in one go; reading a stale one is a bug that asserts. */
export interface View {
  readonly index: number;
  table<T extends TableName>(name: T): TableView<T>;
}

export type GroupResult =
  | { readonly ok: true }
  | {
      readonly ok: false;
      readonly reason: "stale" | "exists" | "missing" | "name-taken";
      readonly table: TableName;
      readonly id: string;
    };
export interface Committed {
  readonly index: number;
  readonly proposalId: string;
  readonly results: readonly GroupResult[];
  readonly changes: readonly Change[];
}
/** All rows, as plain data; wire/ encodes it. */
export interface StoreSnapshot {
  readonly index: number;
  readonly tables: { readonly [T in TableName]: readonly Tables[T][] };
}
export interface Store {
  view(): View;
  /** Deterministic; called by the raft driver for each committed entry on every manager, with rising indexes. */
  apply(index: number, body: EntryBody): Committed;
  /** An index without rows (an empty or membership entry). */
  skip(index: number): void;
  /** Called after each apply, in order, before the next one. */
  watch(observe: (committed: Committed) => void): () => void;
  save(): StoreSnapshot;
  /** Replaces everything; watchers get one Committed with the difference. */
  load(snapshot: StoreSnapshot): void;
  /** A hash of all rows, alike on every manager at the same index. */
  digest(): string;
}

/** Resolves when the groups are committed and applied here. */
export interface Proposer {
  /** Rejects with ShoalError("unavailable") when there is no leader or no answer in time. */
  propose(groups: readonly ActionGroup[]): Promise<Committed>;
}
