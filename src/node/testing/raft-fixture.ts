/** A manager's Raft log as a daemon leaves it, below a data root of its own. */
import { join } from "node:path";
import { openDataKeyCipher } from "../../io/data-key-cipher.ts";
import { lockDirectory } from "../../io/directory-lock.ts";
import { openRaftLog } from "../../io/raft-log.ts";
import { silentLog } from "../../lib/log.ts";
import { swarmFiles } from "../swarm-state.ts";

/** Makes the log of `raftId` with `count` entries of term 1, one save each; returns its first segment's path. */
export async function makeLog(dataRoot: string, raftId: string, count: number): Promise<string> {
  const files = swarmFiles(dataRoot);
  const directory = files.raftDirectory(raftId);
  const cipher = await openDataKeyCipher(files.keyFile);
  const log = await openRaftLog({ directory, log: silentLog, cipher });
  for (let index = 1; index <= count; index += 1) {
    const data = new TextEncoder().encode(`entry ${index}`);
    await log.save({
      hardState: { term: 1, vote: raftId, commit: index },
      entries: [{ index, term: 1, kind: "normal", data }],
      snapshot: null,
    });
  }
  await log.close();
  return join(directory, "segment-0000000000000001");
}

/** Takes the log's directory as a running daemon does. */
export async function lockLog(directory: string): Promise<() => Promise<void>> {
  return await lockDirectory(directory);
}
