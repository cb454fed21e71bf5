/** Networks that this node knows without a manager: docker's predefined ones, and those that its tasks use. */
import { createHash } from "node:crypto";
import type { LocalNetwork } from "../../api/backend.ts";
import type { Network } from "../../model/network.ts";

export interface LocalNetworks {
  predefined(): readonly LocalNetwork[];
  find(reference: string): LocalNetwork | null;
  ofTasks(): Promise<readonly Network[]>;
}

/** `ofTasks` is asked of the worker's agent. */
export function createLocalNetworks(
  engineId: string,
  createdAtMs: number,
  ofTasks: () => Promise<readonly Network[]>,
): LocalNetworks {
  const networks = [
    { name: "host", driver: "host" },
    { name: "none", driver: "null" },
  ].map(({ name, driver }) => ({
    id: createHash("sha256").update(`${engineId}/${name}`).digest("hex"),
    name,
    driver,
    createdAtMs,
  }));
  return {
    predefined: () => networks,
    find: (reference) =>
      networks.find(
        (network) =>
          network.name === reference || (reference.length >= 4 && network.id.startsWith(reference)),
      ) ?? null,
    ofTasks,
  };
}
