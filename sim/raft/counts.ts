/** What was done to the clusters and what they did, counted: the table of faults. */

const names = [
  "kills",
  "power-offs",
  "power failures of all",
  "restarts",
  "pauses",
  "partitions, symmetric",
  "partitions, one isolated",
  "partitions, leader isolated",
  "partitions, one-way",
  "partitions, partial",
  "partitions, bridge",
  "partitions, leader and bridge (openraft #2080)",
  "clogged paths",
  "closed connections",
  "changes of weather",
  "messages delivered",
  "messages lost",
  "messages cut off",
  "messages over capacity",
  "messages doubled",
  "torn or lost pages",
  "lost names",
  "failed syncs",
  "other failed disk operations",
  "full disks",
  "slow disks",
  "turned bits",
  "logs refused as damaged",
  "stops for want of a disk",
  "data keys rotated",
  "leaderships",
  "leadership transfers asked",
  "leaders forgotten",
  "elections forced",
  "membership changes asked",
  "membership changes applied",
  "managers replaced by new ones",
  "snapshots taken",
  "snapshots installed",
  "saves done in place",
  "entries held back",
  "entries committed",
  "client operations",
  "linearizable reads",
  "histories judged",
  "histories too dear to judge",
  "clusters healed",
  "clusters beyond healing",
] as const;

export type Counted = (typeof names)[number];
export type Counts = Record<Counted, number>;

export function noCounts(): Counts {
  return Object.fromEntries(names.map((name) => [name, 0])) as Counts;
}

/** Adds `more` to `total`. */
export function addCounts(total: Counts, more: Counts): void {
  for (const name of names) total[name] += more[name];
}

/** In the order of the table. */
export function countedNames(): readonly Counted[] {
  return names;
}
