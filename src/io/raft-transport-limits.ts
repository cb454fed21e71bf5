/** The limits of one Raft transport, and the relations between them; tests make them small. */
import { assert } from "../lib/assert.ts";
import { ENTRY_BYTES_MAX, ENTRY_OVERHEAD_BYTES, RAFT_DEFAULTS } from "../raft/limits.ts";
import {
  raftConnectionsMax,
  raftFarewellMsMax,
  raftFrameBytesMax,
  raftGreetingMsMax,
  raftPingMs,
  raftQueueBytesMax,
  raftRedialMsMax,
  raftRedialMsMin,
  raftSilentPingsMax,
  raftSnapshotAckMsGoal,
  raftSnapshotChunkBytesMax,
  raftSnapshotPartMsMax,
  raftSnapshotStallMsMax,
  raftSnapshotWindowBytesMax,
  raftSnapshotWindowBytesMin,
  raftSocketBytesMax,
  raftSocketControlBytesMax,
  raftVersionMax,
  raftVersionMin,
} from "../wire/limits.ts";

/** Each is the constant of wire/limits.ts whose name it ends. */
export interface RaftTransportLimits {
  readonly versionMin: number;
  readonly versionMax: number;
  readonly connectionsMax: number;
  readonly greetingMsMax: number;
  readonly farewellMsMax: number;
  readonly redialMsMin: number;
  readonly redialMsMax: number;
  readonly pingMs: number;
  readonly silentPingsMax: number;
  readonly socketBytesMax: number;
  readonly socketControlBytesMax: number;
  readonly queueBytesMax: number;
  readonly snapshotChunkBytesMax: number;
  readonly snapshotWindowBytesMin: number;
  readonly snapshotWindowBytesMax: number;
  readonly snapshotAckMsGoal: number;
  readonly snapshotStallMsMax: number;
  readonly snapshotPartMsMax: number;
}

export const raftTransportLimits: RaftTransportLimits = {
  versionMin: raftVersionMin,
  versionMax: raftVersionMax,
  connectionsMax: raftConnectionsMax,
  greetingMsMax: raftGreetingMsMax,
  farewellMsMax: raftFarewellMsMax,
  redialMsMin: raftRedialMsMin,
  redialMsMax: raftRedialMsMax,
  pingMs: raftPingMs,
  silentPingsMax: raftSilentPingsMax,
  socketBytesMax: raftSocketBytesMax,
  socketControlBytesMax: raftSocketControlBytesMax,
  queueBytesMax: raftQueueBytesMax,
  snapshotChunkBytesMax: raftSnapshotChunkBytesMax,
  snapshotWindowBytesMin: raftSnapshotWindowBytesMin,
  snapshotWindowBytesMax: raftSnapshotWindowBytesMax,
  snapshotAckMsGoal: raftSnapshotAckMsGoal,
  snapshotStallMsMax: raftSnapshotStallMsMax,
  snapshotPartMsMax: raftSnapshotPartMsMax,
};

/** Asserts that limits can work together: wrong ones are a bug in the program that made them. */
export function validateTransportLimits(limits: RaftTransportLimits): void {
  const longest = Math.max(ENTRY_BYTES_MAX + ENTRY_OVERHEAD_BYTES, RAFT_DEFAULTS.appendBytesMax);
  assert(
    2 * limits.snapshotChunkBytesMax < raftFrameBytesMax,
    "a piece of a snapshot fits a frame",
  );
  assert(longest < raftFrameBytesMax, "an append of the largest entry fits a frame");
  assert(limits.versionMin <= limits.versionMax, "wire versions are from the oldest to the newest");
  assert(limits.redialMsMin <= limits.redialMsMax, "waits before redialing grow");
  assert(
    limits.snapshotWindowBytesMin > 0 &&
      limits.snapshotWindowBytesMin <= limits.snapshotWindowBytesMax,
    "a snapshot's window has room for a piece",
  );
  assert(
    limits.socketBytesMax < limits.socketControlBytesMax,
    "votes and heartbeats go on when appends no longer do",
  );
  assert(
    limits.snapshotStallMsMax > limits.pingMs * limits.silentPingsMax + limits.redialMsMax,
    "a snapshot outlives one lost connection",
  );
}
