/** Limits of the dispatcher, each with its unit. */

/** Longest time between two heartbeats of a node, whatever the cluster's spec allows: with the misses below, a node that lost power is down in 3 s. */
export const heartbeatMsMax = 1_000;
/** Shortest; a spec below it would be all heartbeats. */
export const heartbeatMsMin = 100;
/** Heartbeats are spread by so much either way, so that nodes do not beat together. */
export const heartbeatSpread = 0.1;
/** A node that missed so many heartbeats in a row is down. */
export const missedHeartbeatsMax = 3;
/** How long a node whose session closed may take to come back (a daemon restarts) before it is down. */
export const reconnectGraceMs = 3_000;
/** How long a new leader waits for nodes that it has not heard of before they are down: they must find it first. */
export const leaderGraceMs = 6_000;
/** How long a new connection may take to say hello. */
export const helloTimeoutMs = 5_000;
/** Changes of assignments that come within this time of the first go out together. */
export const assignWindowMs = 2;
/** Statuses and node states that come within this time of the first are proposed together. */
export const writeWindowMs = 4;
/** Rows of one proposal. */
export const writesPerProposalMax = 1_000;
/** Proposals of the dispatcher that may be under way; more would only conflict. */
export const writesInFlightMax = 2;
/** How long to wait before a write that could not be proposed is tried again. */
export const writeRetryMs = 200;
/** Longest message and error text of a task's status that is stored, in characters. */
export const statusTextLengthMax = 4_096;
/** Statuses of one message that are looked at; an agent sends far fewer. */
export const statusesPerMessageMax = 10_000;
/** Longest id of a container, in characters. */
export const idLengthMax = 256;
/** Longest description of a node as JSON, in characters: it is a row that every manager keeps. */
export const descriptionLengthMax = 65_536;
