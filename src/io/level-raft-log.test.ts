/** Goal: the twin on level keeps the same promises as the own log. Method: the same suite. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { storageSuite } from "../raft/testing/storage-suite.ts";
import { openLevelRaftLog } from "./level-raft-log.ts";

storageSuite("the raft log on level", async () => {
  const directory = await mkdtemp(join(tmpdir(), "shoal-level-raft-"));
  return {
    open: () => openLevelRaftLog(directory),
    remove: () => rm(directory, { recursive: true }),
  };
});
