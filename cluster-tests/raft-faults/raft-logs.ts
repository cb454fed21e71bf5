/** Compares the Raft logs on the disks of all managers, offline: entries of one index and term are the same, and so is everything committed. */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { openDataKeyCipher } from "../../src/io/data-key-cipher.ts";
import { nodeKeyFile } from "../../src/io/node-key-file.ts";
import { openRaftLog } from "../../src/io/raft-log.ts";
import { silentLog } from "../../src/lib/log.ts";
import { checkRaft } from "../../src/node/raft-offline.ts";
import type { SavedState } from "../../src/raft/types.ts";
import type { FaultyManager } from "./manager.ts";

interface NamedLog {
  readonly name: string;
  readonly state: SavedState;
}

/**
 * What is wrong with a log (as `shoal raft check` finds it) or differs between two, in words; empty when all is well.
 * The daemons must have ended, and the machines must still be there.
 */
export async function disagreements(managers: readonly FaultyManager[]): Promise<string[]> {
  const found: string[] = [];
  const logs: NamedLog[] = [];
  for (const manager of managers) {
    const directories = manager.raftDirectories();
    const [directory] = directories;
    if (directory === undefined || directories.length > 1) {
      found.push(`${manager.name} has ${directories.length} Raft logs, not one`);
      continue;
    }
    try {
      const { problems } = await checkRaft({ path: directory, keyFile: null });
      for (const { file, offset, why } of problems)
        found.push(`the Raft log of ${manager.name}: ${file} at byte ${offset}: ${why}`);
      logs.push({ name: manager.name, state: await read(directory) });
    } catch (error) {
      found.push(`the Raft log of ${manager.name} cannot be read: ${String(error)}`);
    }
  }
  return [...found, ...differences(logs)];
}

async function read(directory: string): Promise<SavedState> {
  const keyFile = nodeKeyFile(join(dirname(directory), "certificates", "swarm-node.pem"));
  const cipher = await openDataKeyCipher(keyFile);
  const log = await openRaftLog({ directory, log: silentLog, cipher });
  try {
    return await log.load();
  } finally {
    await log.close();
  }
}

function differences(logs: readonly NamedLog[]): string[] {
  const found: string[] = [];
  const known = new Map<
    number,
    { readonly log: NamedLog; term: number; readonly digest: string }
  >();
  for (const log of logs) {
    for (const { index, term, kind, data } of log.state.entries) {
      const digest = createHash("sha256").update(kind).update(data).digest("hex");
      const first = known.get(index);
      if (first === undefined) known.set(index, { log, term, digest });
      else if (first.term === term && first.digest !== digest)
        found.push(`entry ${index} of term ${term} differs on ${first.log.name} and ${log.name}`);
      // Beyond what both know to be committed, logs may differ.
      else if (first.term !== term && index <= Math.min(commitOf(first.log), commitOf(log)))
        found.push(
          `committed entry ${index} has term ${first.term} on ${first.log.name} and ${term} on ${log.name}`,
        );
    }
  }
  return found;
}

function commitOf({ state }: NamedLog): number {
  return state.hardState.commit;
}
