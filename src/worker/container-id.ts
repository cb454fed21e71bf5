/** The id of a task's container follows from the task's id: made once, however often we crash, and every node knows it. */
import { createHash } from "node:crypto";

/** 64 hex digits. */
export function containerIdOf(taskId: string): string {
  return createHash("sha256").update(`shoal task ${taskId}`).digest("hex");
}
