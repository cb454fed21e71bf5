/** One manager in the simulator: production Raft, driver, store and manager over a simulated disk, clock and network. */
import { silentLog } from "../src/lib/log.ts";
import type { CertificateAuthority } from "../src/manager/ca/authority.ts";
import { electionTicks, heartbeatTicks, holdBackEntriesMax } from "../src/manager/limits.ts";
import { createManager, type Manager } from "../src/manager/manager.ts";
import { createRaftNode, type RaftNode } from "../src/manager/raft-node.ts";
import { bootstrap } from "../src/raft/bootstrap.ts";
import { createRaft } from "../src/raft/core.ts";
import { RAFT_DEFAULTS } from "../src/raft/limits.ts";
import type { PeerId } from "../src/raft/types.ts";
import { createStore } from "../src/store/store.ts";
import type { Store } from "../src/store/types.ts";
import type { SafetyChecker } from "./checkers/safety.ts";
import type { SimDisk } from "./disk.ts";
import type { SimNetwork } from "./network.ts";
import type { SimRandom } from "./random.ts";
import type { Process, World } from "./world.ts";

export interface ManagerHostParts {
  readonly world: World;
  readonly network: SimNetwork;
  readonly random: SimRandom;
  readonly disk: SimDisk;
  readonly safety: SafetyChecker;
  readonly process: Process;
  readonly host: string;
  readonly raftId: PeerId;
  readonly founding: boolean;
  /** Entries between snapshots, and entries kept behind one: small, so that a run sees many. */
  readonly snapshots: { readonly interval: number; readonly keep: number };
  readonly onFatal: (error: Error) => void;
}
export interface SimManager {
  readonly manager: Manager;
  readonly raft: RaftNode;
  readonly store: Store;
  readonly raftId: PeerId;
}

/** No certificates are made in the simulator: nodes join by the rows that a join writes. */
const noAuthority: CertificateAuthority = {
  createRoot: () => Promise.reject(new Error("the simulator signs nothing")),
  sign: () => Promise.reject(new Error("the simulator signs nothing")),
};

/** A manager over what its disk holds; not started. */
export async function openManager(parts: ManagerHostParts): Promise<SimManager> {
  const { world, network, disk, process, host, raftId, safety, random } = parts;
  const clock = world.clock(process);
  const storage = disk.open(process);
  let saved = await storage.load();
  if (parts.founding && disk.isEmpty) {
    saved = bootstrap(raftId);
    await storage.save(saved);
  }
  const store = observed(createStore(), host, safety);
  const core = createRaft(
    {
      ...RAFT_DEFAULTS,
      id: raftId,
      electionTicks,
      heartbeatTicks,
      holdBackEntriesMax,
      asyncStorageWrites: true,
      random,
    },
    saved,
  );
  const raft = createRaftNode({
    core,
    snapshot: saved.snapshot,
    storage,
    transport: network.transport(raftId, host, process),
    store,
    clock,
    random,
    log: silentLog,
    endOfTurn: (work) => {
      world.schedule(world.now(), `${host}:turn`, work, process);
    },
    snapshotPolicy: () => parts.snapshots,
    onFatal: parts.onFatal,
  });
  const manager = createManager({
    store,
    raft,
    clock,
    random,
    log: silentLog,
    authority: noAuthority,
  });
  return { manager, raft, store, raftId };
}

/** The store, with a look at each entry after it was applied. */
function observed(store: Store, host: string, safety: SafetyChecker): Store {
  return {
    view: () => store.view(),
    apply(index, body) {
      const committed = store.apply(index, body);
      safety.applied(host, index, body, committed, store);
      return committed;
    },
    skip(index) {
      store.skip(index);
      safety.skipped(host, index);
    },
    watch: (observe) => store.watch(observe),
    save: () => store.save(),
    load(snapshot) {
      store.load(snapshot);
      safety.digest(host, store);
    },
    digest: () => store.digest(),
  };
}
