/** Every limit of consensus, named with its unit, and the relations between them that must hold at start-up. */
import { assert } from "../lib/assert.ts";
import type { RaftConfig } from "./types.ts";

/** Largest payload of one entry. A proposal above it is refused as invalid: it would stall replication behind it. */
export const ENTRY_BYTES_MAX: number = 8 * 1024 * 1024;
/** What an entry costs on the wire and on disk besides its payload; an upper estimate. */
export const ENTRY_OVERHEAD_BYTES: number = 32;
/** Reads that wait for a heartbeat round or for the leader's first commit. One more is dropped; the asker asks again. */
export const READS_WAITING_MAX: number = 16_384;
/** Empty read rounds (heartbeats with a lease to renew) that wait for a quorum. */
export const READ_ROUNDS_MAX: number = 1_024;
/** Saves that the driver is busy with at a time, with asyncStorageWrites: beyond it hasReady() waits for the disk. */
export const SAVES_UNDER_WAY_MAX: number = 1_024;
/** Voters and learners together: quorum work is linear in it, and nobody gains from more managers. */
export const MEMBERS_MAX: number = 31;
/** Changes in one MembershipChange. */
export const MEMBERSHIP_CHANGES_MAX: number = 2 * MEMBERS_MAX;
/** Longest PeerId, in UTF-16 code units. */
export const PEER_ID_LENGTH_MAX: number = 64;
/**
 * Election timeouts without any word on a snapshot sent, after which it counts as lost and the peer is probed again. The
 * transport reports how each one ended, so this is only a net below it; it is long, because a snapshot of gigabytes takes
 * minutes, and one that is sent anew before it arrived never arrives.
 */
export const SNAPSHOT_WAIT_ELECTIONS_MAX: number = 120;
/** Most ticks that a follower waits, by its rank among the voters, after it saw its leader's connection close. */
export const CAMPAIGN_SOON_TICKS_MAX: number = 4;

/** Entries that a peer may be behind by and still be held back from: one that is further behind gets them at once. */
export const HELD_BACK_LAG_MAX: number = 256;

/** Heartbeat rounds that a lease waits for at a time. */
export const LEASE_ROUNDS_MAX: number = 1_024;
/** Smallest leaseMarginTicks: one for the phase of ticks between two peers, one for the difference of their clock rates. */
export const LEASE_MARGIN_TICKS_MIN: number = 2;

/** Good values for a cluster on one network with a tick of 50 to 100 ms; `id` and `random` are the caller's. */
export const RAFT_DEFAULTS: Omit<RaftConfig, "id" | "random"> = {
  electionTicks: 10,
  heartbeatTicks: 1,
  appendBytesMax: 1024 * 1024,
  inflightMessagesMax: 256,
  inflightBytesMax: 16 * 1024 * 1024,
  uncommittedBytesMax: 64 * 1024 * 1024,
  committedBytesPerReadyMax: 4 * 1024 * 1024,
  asyncStorageWrites: false,
  voteRequestsAtOnce: false,
  appendsAtOnce: false,
  holdBackEntriesMax: 0,
  preVote: true,
  checkQuorum: true,
  stepDownOnRemoval: true,
  disableProposalForwarding: false,
  disableMembershipValidation: false,
  refusedMembership: "told",
  refusalsTellCommitted: true,
  readMode: "quorum",
  leaseMarginTicks: 2,
};

/** Asserts that a configuration can work: a wrong one is a bug in the daemon that made it. */
export function validateConfig(config: RaftConfig): void {
  const counts: readonly (keyof RaftConfig)[] = [
    "electionTicks",
    "heartbeatTicks",
    "appendBytesMax",
    "inflightMessagesMax",
    "inflightBytesMax",
    "uncommittedBytesMax",
    "committedBytesPerReadyMax",
    "leaseMarginTicks",
  ];
  for (const name of counts) {
    const value = config[name];
    assert(Number.isSafeInteger(value) && Number(value) > 0, `raft ${name} is a positive integer`);
  }
  const heldBack = config.holdBackEntriesMax;
  assert(
    Number.isSafeInteger(heldBack) && heldBack >= 0 && (heldBack === 0 || !config.appendsAtOnce),
    "raft holdBackEntriesMax is a count, and nothing is held back where appends go at once",
  );
  assert(isPeerId(config.id), "raft id is a name of 1 to 64 characters");
  assert(
    config.electionTicks > config.heartbeatTicks,
    "raft electionTicks is above heartbeatTicks, or every follower would lose its leader between heartbeats",
  );
  assert(
    config.inflightBytesMax >= config.appendBytesMax,
    "raft inflightBytesMax holds at least one full append",
  );
  if (config.readMode === "lease") {
    assert(
      config.checkQuorum,
      "raft lease reads need checkQuorum: else a leader may be replaced at any moment",
    );
    assert(config.leaseClock !== undefined, "raft lease reads need a leaseClock");
    assert(config.leaseClock.tickMs > 0, "raft leaseClock.tickMs is positive");
    assert(
      config.leaseMarginTicks >= LEASE_MARGIN_TICKS_MIN &&
        config.leaseMarginTicks < config.electionTicks,
      "raft leaseMarginTicks leaves a lease, and a tick for the phase of ticks and one for clock rates",
    );
  }
}

/** Whether `id` can name a peer. */
export function isPeerId(id: unknown): id is string {
  return typeof id === "string" && id.length > 0 && id.length <= PEER_ID_LENGTH_MAX;
}
