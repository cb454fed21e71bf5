/** One manager in the simulator: production Raft, driver, store and manager over a simulated disk, clock and network. */
import { silentLog } from "../src/lib/log.ts";
import type { CertificateAuthority } from "../src/manager/ca/authority.ts";
import { electionTicks, heartbeatTicks } from "../src/manager/limits.ts";
import { createManager, type Manager } from "../src/manager/manager.ts";
import { createRaftNode, type RaftNode } from "../src/manager/raft-node.ts";
import { bootstrap } from "../src/raft/bootstrap.ts";
import { createRaft } from "../src/raft/core.ts";
import { RAFT_DEFAULTS } from "../src/raft/limits.ts";
import type { PeerId } from "../src/raft/types.ts";
import { createStore } from "../src/store/store.ts";
import type { Committed, EntryBody, Store } from "../src/store/types.ts";
import type { ToAgent, ToManager } from "../src/wire/session.ts";
import type { SimDisk } from "./disk.ts";
import type { SimNetwork } from "./network.ts";
import type { SimRandom } from "./random.ts";
import type { World } from "./world.ts";

export interface ManagerHostParts {
  readonly world: World;
  readonly network: SimNetwork;
  readonly random: SimRandom;
  readonly disk: SimDisk;
  readonly host: string;
  readonly nodeId: string;
  readonly raftId: PeerId;
  readonly founding: boolean;
  /** Entries between snapshots: small, so that a run sees many. */
  readonly snapshotInterval: number;
  /** Told of every entry that this manager applies. */
  readonly onApply: (host: string, index: number, body: EntryBody, committed: Committed) => void;
  readonly onFatal: (host: string, error: Error) => void;
}
export interface ManagerLife {
  readonly manager: Manager;
  readonly raft: RaftNode;
  readonly store: Store;
  isAlive(): boolean;
  /** Ends this life as a power cut does: nothing of it runs any more. */
  kill(): void;
}

/** No certificates are made in the simulator: nobody joins by token there. */
const noAuthority: CertificateAuthority = {
  createRoot: () => Promise.reject(new Error("the simulator signs nothing")),
  sign: () => Promise.reject(new Error("the simulator signs nothing")),
};

/** Starts a manager from what its disk holds. */
export async function startManagerHost(parts: ManagerHostParts): Promise<ManagerLife> {
  const { world, network, disk, host, raftId } = parts;
  let alive = true;
  const clock = world.clock(host, () => alive);
  const random = parts.random.fork(`${host}:${world.events}`);
  const founding = parts.founding && disk.isEmpty;
  const storage = disk.open();
  let saved = await storage.load();
  if (founding) {
    saved = bootstrap(raftId);
    await storage.save(saved);
  }
  const store = observed(createStore(), (index, body, committed) =>
    parts.onApply(host, index, body, committed),
  );
  const transport = network.transport(raftId, host);
  const core = createRaft(
    { ...RAFT_DEFAULTS, id: raftId, electionTicks, heartbeatTicks, random },
    saved,
  );
  const raft = createRaftNode({
    core,
    snapshot: saved.snapshot,
    storage,
    transport,
    store,
    clock,
    random,
    log: silentLog,
    snapshotPolicy: () => ({ interval: parts.snapshotInterval, keep: 10 }),
    onFatal: (error) => {
      if (alive) parts.onFatal(host, error);
    },
  });
  const manager = createManager({
    store,
    raft,
    clock,
    random,
    log: silentLog,
    authority: noAuthority,
  });
  network.listen<ToAgent, ToManager>(host, (channel, from) => {
    if (!alive) return;
    manager.acceptSession(channel, { nodeId: from, clusterId: "sim", role: "worker" }, from);
  });
  manager.start();
  return {
    manager,
    raft,
    store,
    isAlive: () => alive,
    kill() {
      alive = false;
      network.crash(host);
      disk.crash();
    },
  };
}

/** The store, with a look at each entry after it was applied. */
function observed(
  store: Store,
  look: (index: number, body: EntryBody, committed: Committed) => void,
): Store {
  return {
    view: () => store.view(),
    apply(index, body) {
      const committed = store.apply(index, body);
      look(index, body, committed);
      return committed;
    },
    skip: (index) => store.skip(index),
    watch: (observe) => store.watch(observe),
    save: () => store.save(),
    load: (snapshot) => store.load(snapshot),
    digest: () => store.digest(),
  };
}
