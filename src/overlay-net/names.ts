/** The names that answer on a network, from the same table as its paths: services, tasks, containers, aliases. */
import type { Network } from "../model/network.ts";
import type { ResolverZone } from "../wire/native.ts";
import type { NetworkPeer } from "../wire/session.ts";

/** Containers come and go with other addresses: an answer is good for the moment only. */
const ttlSeconds = 0;

/** The zone of `network`: only endpoints whose tasks run. `shortIdOf` gives the 12 digits that a task's container is known by. */
export function zoneOf(
  network: Network,
  peers: readonly NetworkPeer[],
  revision: number,
  shortIdOf: (taskId: string) => string,
): ResolverZone {
  const addresses = new Map<string, Set<string>>();
  const add = (name: string, address: string) => {
    const key = name.toLowerCase();
    const known = addresses.get(key);
    if (known === undefined) addresses.set(key, new Set([address]));
    else known.add(address);
  };
  for (const peer of peers) {
    if (!peer.named || peer.networkId !== network.id) continue;
    const names = [
      peer.serviceName,
      `tasks.${peer.serviceName}`,
      peer.containerName,
      shortIdOf(peer.taskId),
      ...peer.aliases,
    ];
    for (const name of names) add(name, peer.address);
  }
  return {
    networkId: network.id,
    networkName: network.spec.name.toLowerCase(),
    revision,
    records: [...addresses]
      .map(([name, list]) => ({ name, addresses: [...list].sort(), ttlSeconds }))
      .sort((a, b) => (a.name < b.name ? -1 : 1)),
  };
}
