/** Limits of the controller loop, each with its unit. */

/** Groups of one entry. */
export const groupsPerEntryMax = 512;
/** Bytes of one entry's groups as JSON, which is longer than what is sent; one larger group still makes an entry of its own. */
export const jsonBytesPerEntryMax = 1_000_000;
/** Entries that may be under way; further decisions wait and are made together. */
export const entriesInFlightMax = 4;
/** How long to wait before an entry that could not be proposed is decided anew. */
export const proposeRetryMs = 200;
/** Keys that one pass looks at, all controllers together; the next pass follows at once. */
export const keysPerPassMax = 4_096;
