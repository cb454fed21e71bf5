/** Opens what a manager is made of on this machine: its log, its Raft, its transport, its store. */
import { mkdir, readdir } from "node:fs/promises";
import { certificateAuthority } from "../io/certificates.ts";
import { openDataKeyCipher } from "../io/data-key-cipher.ts";
import type { NodeKeyFile } from "../io/node-key-file.ts";
import { openRaftLog } from "../io/raft-log.ts";
import { lostLogRemedy } from "../io/raft-log-recovery.ts";
import { createRaftTransport, type Dial, type RaftTransport } from "../io/raft-transport.ts";
import { byCertificate } from "../io/raft-transport-identity.ts";
import type { Clock } from "../lib/clock.ts";
import { failure } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { electionTicks, heartbeatTicks, holdBackEntriesMax } from "../manager/limits.ts";
import { createManager, type Manager } from "../manager/manager.ts";
import { peerObjection } from "../manager/raft-identity.ts";
import { createRaftNode, peerAddresses } from "../manager/raft-node.ts";
import { defaultClusterSpec } from "../model/defaults.ts";
import { bootstrap } from "../raft/bootstrap.ts";
import { createRaft } from "../raft/core.ts";
import { RAFT_DEFAULTS } from "../raft/limits.ts";
import { createStore } from "../store/store.ts";

/** Entries between snapshots while the log holds some that are under an old data key, or were written before encryption. */
const coverIntervalEntries = 100;

export interface ManagerParts {
  readonly manager: Manager;
  readonly transport: RaftTransport;
  stop(): Promise<void>;
}
export interface ManagerPartsOptions {
  readonly directory: string;
  /** Holds the data keys that the log is encrypted with. */
  readonly keyFile: NodeKeyFile;
  readonly raftId: string;
  /** Found a cluster of one: only with an empty directory. */
  readonly founding: boolean;
  /** The log was made before: its files must be there. */
  readonly begun: boolean;
  readonly dial: Dial;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly onFatal: (error: Error) => void;
}

/** Opens the log and wires the manager; `manager.start()` sets it going. Throws naming the file when the log is damaged. */
export async function openManager(options: ManagerPartsOptions): Promise<ManagerParts> {
  const { directory, raftId, clock, random, log } = options;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  // A log without records is one that was made just before a crash: it never voted. One without files was taken away.
  const isGone = !(await readdir(directory)).some((name) => /^(segment|snapshot)-/.test(name));
  if (options.begun && !options.founding && isGone) throw lost(directory);
  const cipher = await openDataKeyCipher(options.keyFile);
  const storage = await openRaftLog({ directory, log, cipher });
  const store = createStore();
  /** A leader keeps this manager's rows up to date. */
  let hasLeader = (): boolean => false;
  const mayNotBe = byCertificate((nodeId, peer) =>
    peerObjection(store.view(), hasLeader(), nodeId, peer),
  );
  const transport = createRaftTransport(raftId, options.dial, log, {}, mayNotBe);
  try {
    let saved = await storage.load();
    if (options.founding && saved.hardState.term === 0) {
      saved = bootstrap(raftId);
      await storage.save(saved);
    }
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
    hasLeader = () => {
      const { leader, id, membership } = core.status();
      // Only a voter notices in time that its leader is one no more.
      return leader !== null && membership.voters.includes(id);
    };
    const raft = createRaftNode({
      core,
      snapshot: saved.snapshot,
      storage,
      transport,
      store,
      clock,
      random,
      log,
      // Once all sockets were read, and all timers and finished syncs served.
      endOfTurn: setImmediate,
      snapshotPolicy: () => {
        const [cluster] = store.view().table("clusters").all();
        const spec = cluster?.spec ?? defaultClusterSpec;
        // Entries under an old data key keep that key alive: they are covered soon.
        const stale = storage.staleThrough();
        const isDue = stale !== null && stale <= store.view().index;
        return {
          interval: isDue
            ? Math.min(spec.snapshotInterval, coverIntervalEntries)
            : spec.snapshotInterval,
          keep: spec.logEntriesForSlowFollowers,
        };
      },
      onFatal: options.onFatal,
    });
    store.watch((committed) => {
      if (committed.changes.some((change) => change.table === "nodes")) {
        transport.setPeers(peerAddresses(store));
      }
    });
    if (saved.snapshot !== null) transport.setPeers(peerAddresses(store));
    const manager = createManager({
      store,
      raft,
      clock,
      random,
      log,
      authority: certificateAuthority,
    });
    return {
      manager,
      transport,
      async stop() {
        await manager.stop();
        transport.close();
      },
    };
  } catch (error) {
    transport.close();
    await storage.close();
    throw error;
  }
}

function lost(directory: string): Error {
  return failure(
    "internal",
    `opening the raft log: ${directory} is empty, though this manager has run before; to go on without its votes and entries could undo what the cluster acknowledged. ${lostLogRemedy}`,
  );
}
