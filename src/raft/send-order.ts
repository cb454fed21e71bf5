/** Which messages of a Ready may leave before that Ready is durable. */
import type { Message } from "./types.ts";

/**
 * Whether the driver may send `message` while the Ready it came with is still being saved (Raft thesis 10.2.1).
 * True of what a leader sends down: its own copy counts only when advance() is called, and its term was durable before
 * it was elected. Votes, acknowledgements and answers promise something of this disk, and wait for it.
 */
export function mayOvertakeSave(message: Message): boolean {
  switch (message.kind) {
    case "append":
    case "heartbeat":
    case "snapshot":
    case "propose":
    case "read-index":
      return true;
    default:
      return false;
  }
}
