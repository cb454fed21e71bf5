/** What docker's JSON of every replicated row begins with. */
import type { Stored } from "../../model/stored.ts";
import { timeText } from "./time.ts";

/** ID, version and times of a row. */
export function writeMeta(row: Stored): {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly CreatedAt: string;
  readonly UpdatedAt: string;
} {
  return {
    ID: row.id,
    Version: { Index: row.meta.version },
    CreatedAt: timeText(row.meta.createdAt),
    UpdatedAt: timeText(row.meta.updatedAt),
  };
}
