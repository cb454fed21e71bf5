/** What this node answers on the cluster's port: as a manager where it is one, its tasks' logs always. */
import type { ClusterHandlers } from "../io/cluster-listener.ts";
import { channelOf } from "../io/ws-channel.ts";
import { failure } from "../lib/errors.ts";
import type { Manager } from "../manager/manager.ts";
import type { JoinRequest, RenewRequest, ToAgent, ToManager } from "../wire/session.ts";
import type { ManagerParts } from "./manager-parts.ts";

/** Handlers over whatever this node is when it is asked. */
export function clusterHandlers(parts: {
  readonly caPem: () => string;
  readonly parts: () => ManagerParts | null;
  /** `host:port` of another manager that this node knows. */
  readonly anyManager: () => string | null;
  readonly taskLogs: ClusterHandlers["logs"];
}): ClusterHandlers {
  function managerHere(): Manager {
    const manager = parts.parts()?.manager;
    if (manager === undefined)
      throw failure("unavailable", "this node is not a manager; ask another one");
    return manager;
  }

  return {
    ca: () => ({ certificatePem: parts.caPem() }),
    join: (body: unknown, seen: string) => managerHere().join(body as JoinRequest, seen),
    renew: (body: unknown, peer: Parameters<Manager["renew"]>[1]) =>
      managerHere().renew(body as RenewRequest, peer),
    session(
      socket: Parameters<typeof channelOf>[0],
      peer: Parameters<Manager["renew"]>[1],
      address: string,
    ) {
      const channel = channelOf<ToAgent, ToManager>(socket);
      const manager = parts.parts()?.manager;
      if (manager === undefined) {
        channel.send({ kind: "goodbye", reason: "not-leader", leader: parts.anyManager() });
        channel.close("not a manager");
      } else manager.acceptSession(channel, peer, address);
    },
    raft(socket: Parameters<typeof channelOf>[0]) {
      const transport = parts.parts()?.transport;
      if (transport === undefined) socket.close(1013, "not a manager");
      else transport.accept(socket);
    },
    logs: parts.taskLogs,
    isRemoved(nodeId: string) {
      const manager = parts.parts()?.manager;
      if (manager === undefined) return false;
      for (const cluster of manager.store.view().table("clusters").all()) {
        if (cluster.removedNodes.includes(nodeId)) return true;
      }
      return false;
    },
  };
}
