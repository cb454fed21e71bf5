/** Limits of everything that travels between our processes, each with its unit. */

/** Longest websocket message of a session. */
export const messageBytesMax: number = 256 * 1024 * 1024;
/** Bytes that may wait to be sent on one channel before it is closed: its peer does not read. */
export const channelBufferedBytesMax: number = 64 * 1024 * 1024;
/** Body of a join or renew request. */
export const joinBodyBytesMax: number = 64 * 1024;
/** How long a connection to another node may take to open. */
export const connectTimeoutMs = 3_000;
/** How long a join, renew or CA request may take in all. */
export const requestTimeoutMs = 10_000;
/** A websocket that heard nothing for so long is asked, and closed when it stays silent for as long again. */
export const pingIntervalMs = 1_000;
/** First wait before a lost Raft connection is opened again; doubles up to the maximum. A connection that lived so long starts anew. */
export const raftRedialMsMin = 50;
export const raftRedialMsMax = 1_000;
/** Wire versions of Raft connections that this program speaks, oldest and newest. Two managers use the newest that both speak. */
export const raftVersionMin = 2;
export const raftVersionMax = 2;
/** How long two managers may take to greet each other on an open connection. */
export const raftGreetingMsMax = 3_000;
/** How long an open Raft connection outlives the removal of its peer from the cluster: for the last messages to it. */
export const raftFarewellMsMax = 10_000;
/** Connections of other managers that may be open at once; above two for each of the most members. */
export const raftConnectionsMax = 128;
/** Longest frame between managers: one entry of the largest size, and what surrounds it. A longer one ends the connection. */
export const raftFrameBytesMax: number = 16 * 1024 * 1024;
/** Messages in one frame; more go in several. */
export const raftFrameMessagesMax = 8_192;
/** Entries of one append or proposal: an append of 8 MiB of entries without any payload. */
export const raftEntriesMax: number = 256 * 1024;
/** Bytes handed to a socket that it has not passed on, above which appends and proposals wait in a queue, so that votes and heartbeats are not behind them. */
export const raftSocketBytesMax: number = 512 * 1024;
/** Bytes of appends and proposals that may wait in the queue of one peer; further ones are dropped (Raft sends again). */
export const raftQueueBytesMax: number = 16 * 1024 * 1024;
/** As raftSocketBytesMax, but for votes, heartbeats and answers: above it they are dropped too, for the peer reads nothing. One frame of the largest size fits. */
export const raftSocketControlBytesMax: number = raftSocketBytesMax + raftFrameBytesMax;
/** A Raft connection that heard nothing for so long asks for a sign of life. A leader's heartbeats make this rare. */
export const raftPingMs = 250;
/** Silent intervals of raftPingMs after which a connection is taken for dead: 1.5 s, the middle of an election timeout of 1 to 2 s. A process that was stopped itself counts one. */
export const raftSilentPingsMax = 6;
/** Bytes of one piece of a snapshot. */
export const raftSnapshotChunkBytesMax: number = 256 * 1024;
/** Bytes of a snapshot that may be under way unacknowledged: between these, by how quickly the peer acknowledges. */
export const raftSnapshotWindowBytesMin: number = 32 * 1024;
export const raftSnapshotWindowBytesMax: number = 4 * 1024 * 1024;
/** An acknowledgement that took longer halves the window: a heartbeat behind a snapshot waits about so long. */
export const raftSnapshotAckMsGoal = 50;
/** Largest snapshot that is accepted from a peer. */
export const raftSnapshotBytesMax: number = 512 * 1024 * 1024;
/** A snapshot of which a peer took nothing for so long, connected or not, has failed. */
export const raftSnapshotStallMsMax = 10_000;
/** How long a part of a snapshot is kept for a sender that comes back. */
export const raftSnapshotPartMsMax = 60_000;
