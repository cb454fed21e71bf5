/** Limits of everything that travels between our processes, each with its unit. */

/** Longest websocket message; above the largest snapshot that one message may carry. */
export const messageBytesMax: number = 256 * 1024 * 1024;
/** Bytes that may wait to be sent on one channel before it is closed: its peer does not read. */
export const channelBufferedBytesMax: number = 64 * 1024 * 1024;
/** Bytes of Raft messages that may wait for one peer; further ones are dropped (Raft sends again). */
export const raftBufferedBytesMax: number = 16 * 1024 * 1024;
/** Body of a join or renew request. */
export const joinBodyBytesMax: number = 64 * 1024;
/** How long a connection to another node may take to open. */
export const connectTimeoutMs = 3_000;
/** How long a join, renew or CA request may take in all. */
export const requestTimeoutMs = 10_000;
/** A websocket that heard nothing for so long is asked, and closed when it stays silent for as long again. */
export const pingIntervalMs = 1_000;
/** First wait before a lost Raft connection is opened again; doubles up to the maximum. */
export const raftRedialMsMin = 50;
export const raftRedialMsMax = 1_000;
