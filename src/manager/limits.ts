/** Limits of a manager, each with its unit. */

/** One Raft tick. With the ticks below: heartbeats each 100 ms, an election after 1 to 2 s of silence. */
export const tickMs = 100;
export const heartbeatTicks = 1;
export const electionTicks = 10;
/** How long a proposal, or the wait for a leader before it, may take before its caller is told that the outcome is unknown. */
export const proposeTimeoutMs = 10_000;
/** A proposal that was not seen applied for so long is handed to the leader again; its versions make that harmless. */
export const proposeAgainMs = 1_000;
/** How long a linearizable read waits for a leader that a majority follows. */
export const readTimeoutMs = 5_000;
export const readAgainMs = 300;
/** Proposals of one manager that may be under way. */
export const proposalsMax = 4_096;
/** Bytes of one entry: several fit an append message. */
export const entryBytesMax: number = 1_500_000;
/** A learner whose log is within so many entries of the leader's becomes a voter. */
export const learnerLagMax = 64;
/** Least time between two looks at whether the Raft membership is as the node rows say. */
export const membershipLookMs = 200;
/** Least room on the log's disk for new work, in bytes; below it a manager refuses proposals and keeps what it has. */
export const diskReserveBytes: number = 32 * 1024 * 1024;
/** How often a manager looks whether its log's disk has that room. */
export const diskLookMs = 1_000;
/** A certificate is renewed when this part of what is left of its life is over. */
export const certificateRenewFraction = 0.6;
/** Saves of the Raft log that may be under way at once; what comes meanwhile is gathered into one more. */
export const savesUnderWayMax = 64;
/** Bytes of entries and snapshots being saved, above which a manager takes no new work from its core. */
export const savesBytesMax: number = 64 * 1024 * 1024;
/** Entries, and bytes of them, applied in one turn of the event loop, so that ticks and heartbeats go on meanwhile. */
export const appliesPerTurnMax = 1_024;
export const appliesPerTurnBytesMax: number = 1024 * 1024;
/** How long the news that something is committed may wait for new entries to travel with, in ms. A read of a follower does not wait for it: the heartbeat that confirms the read carries it too. */
export const commitNoticeMs = 5;
/** New entries that go at once only to as many managers as a quorum needs, while nothing else is under way (raft/hold-back.ts). */
export const holdBackEntriesMax = 4;
/** How long they may be held back from the others, in ms. */
export const holdBackMs = 20;
/** The same where they are not committed by then: the first ones do not answer. About ten times what a commit takes. */
export const hedgeMs = 2;
