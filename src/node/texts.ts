/** What docker says where this node is not what was asked for; scripts match on these words. */
import type { Manager } from "../manager/manager.ts";

export const notManagerText: string =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';
export const workerText: string =
  "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
export const alreadyText: string =
  'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.';

/** Why a manager should not just leave, in docker's words (moby daemon/cluster/swarm.go). */
export function leaveText(manager: Manager): string {
  const status = manager.raft.status();
  const { voters } = status.membership;
  const reachable =
    status.role === "leader"
      ? voters.filter(
          (id) => id === status.id || status.progress.some((p) => p.id === id && p.active),
        ).length
      : voters.length;
  const text =
    "You are attempting to leave the swarm on a node that is participating as a manager. ";
  if (voters.length <= 1) {
    return `${text}Removing the last manager erases all current state of the swarm. Use \`--force\` to ignore this message. `;
  }
  const loses = reachable - 1 < Math.floor(voters.length / 2) + 1;
  return `${text}${
    loses
      ? `Removing this node leaves ${reachable - 1} managers out of ${voters.length}. Without a Raft quorum your swarm will be inaccessible. `
      : ""
  }The only way to restore a swarm that has lost consensus is to reinitialize it with \`--force-new-cluster\`. Use \`--force\` to suppress this message.`;
}
