/** What every replicated row carries. */
import type { InstantMs } from "../lib/clock.ts";

export interface Meta {
  /** Raft index of the last write; what an update must name. */
  readonly version: number;
  readonly createdAt: InstantMs;
  readonly updatedAt: InstantMs;
}
export interface Stored {
  /** 25 characters of base 36. */
  readonly id: string;
  readonly meta: Meta;
}
export type Labels = Readonly<Record<string, string>>;
