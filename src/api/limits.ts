/** The limits of the Engine API, each with its unit. */

/** Longest JSON body of a request, in bytes: a little over the longest entry of the log (1.5 MiB). */
export const jsonBodyBytesMax: number = 2 * 1024 * 1024;
/** Longest reference in a path, in characters. */
export const pathParameterLengthMax = 4096;
/** Longest URL and headers together, in bytes; filters travel in the URL. */
export const headerBytesMax: number = 64 * 1024;
/** How long a client may take to send its request's headers, in milliseconds. */
export const headersTimeoutMs = 60_000;
/** How long an unused connection is kept, in milliseconds. */
export const idleConnectionMs = 120_000;
/** How long closing waits for running requests before their connections are cut, in milliseconds. */
export const closeGraceMs = 2_000;
/** How long a probe of an old socket file may take before the file counts as dead, in milliseconds. */
export const socketProbeMs = 1_000;
