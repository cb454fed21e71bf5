// Goal: a leader's snapshot that comes while entries are under way is no reason to stop. Method: a core that says what one says then.
import { expect, test } from "vitest";
import { silentLog } from "../lib/log.ts";
import type { RaftCore, RaftStatus, Ready, Storage, Transport } from "../raft/types.ts";
import { createStore } from "../store/store.ts";
import { createRaftNode } from "./raft-node.ts";
import { createTestClock, settle } from "./testing/clock.ts";
import { createTestRandom } from "./testing/random.ts";

test("takes no snapshot of its own while a newer one waits to be installed", async () => {
  const membership = {
    voters: ["a", "b"],
    outgoing: [],
    learners: [],
    learnersNext: [],
    autoLeave: false,
  };
  // The core dropped its log for a snapshot up to 9; the entry it had handed out before counts as covered by it.
  const status: RaftStatus = {
    id: "a",
    role: "follower",
    term: 1,
    leader: "b",
    commit: 9,
    applied: 0,
    lastIndex: 9,
    firstIndex: 10,
    membership,
    transferee: null,
    progress: [],
  };
  const ready: Ready = {
    leader: "b",
    role: "follower",
    hardState: null,
    entries: [],
    snapshot: null,
    messages: [],
    afterSave: [],
    toSelf: [],
    save: null,
    mustSync: false,
    committed: [{ index: 1, term: 1, kind: "empty", data: new Uint8Array() }],
    reads: [],
  };
  let waiting = true;
  const core: RaftCore = {
    tick: () => {},
    step: () => {},
    campaign: () => {},
    propose: () => ({ ok: false, reason: "no-leader", leader: null }),
    proposeMembership: () => ({ ok: false, reason: "no-leader", leader: null }),
    readIndex: () => {},
    transferLeadership: () => {},
    peerUnreachable: () => {},
    snapshotSent: () => {},
    compact: () => {},
    hasReady: () => waiting,
    ready: () => {
      waiting = false;
      return ready;
    },
    advance: () => {},
    saved: () => {},
    applied: () => {},
    forgetLeader: () => {},
    heldBackThrough: () => null,
    sendHeldBack: () => {},
    status: () => status,
  };
  const compacted: number[] = [];
  const storage: Storage = {
    load: async () => ({
      hardState: { term: 1, vote: null, commit: 0 },
      snapshot: null,
      entries: [],
    }),
    save: async () => {},
    compact: async (snapshot) => {
      compacted.push(snapshot.index);
    },
    close: async () => {},
  };
  const transport: Transport = {
    send: () => {},
    onMessage: () => () => {},
    onClosed: () => () => {},
    onSnapshotSent: () => () => {},
    setPeers: () => {},
  };
  const fatal: string[] = [];
  const store = createStore();
  const node = createRaftNode({
    core,
    snapshot: null,
    storage,
    transport,
    store,
    clock: createTestClock(),
    random: createTestRandom(),
    log: silentLog,
    endOfTurn: queueMicrotask,
    snapshotPolicy: () => ({ interval: 1, keep: 0 }),
    onFatal: (error) => fatal.push(error.message),
  });
  node.start();
  await settle();
  expect(store.view().index).toBe(1);
  expect(fatal).toEqual([]);
  expect(compacted).toEqual([]);
  await node.stop();
});
