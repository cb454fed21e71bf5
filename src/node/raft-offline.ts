/** Finds the Raft log of a node that is not running, and looks at it or repairs it: what `shoal raft` does. */
import { readdir, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { openDataKeyCipher } from "../io/data-key-cipher.ts";
import { lockDirectory, refuseIfLocked } from "../io/directory-lock.ts";
import { type OpenLogDisk, openLogDisk } from "../io/log-disk.ts";
import { nodeKeyFile } from "../io/node-key-file.ts";
import { type Checked, checkLog, type LogReport } from "../io/raft-log-check.ts";
import { planRepair, type RepairStep, repairLog } from "../io/raft-log-repair.ts";
import { failure, messageOf } from "../lib/errors.ts";

export type { LogProblem, LogReport, Range, SegmentReport } from "../io/raft-log-check.ts";
export type { RepairStep } from "../io/raft-log-repair.ts";

/** Where a daemon without `--data-root` keeps its state. */
export const defaultDataRoot = "/var/lib/shoal";

export interface RaftFiles {
  /** A log's directory, or the data root of a node; null: defaultDataRoot. */
  readonly path: string | null;
  /** Null: the key file of the node that the log belongs to. */
  readonly keyFile: string | null;
}

/**
 * What is in the log and what is wrong with it; changes nothing. Throws ShoalError "not-found" when there is no log,
 * "conflict" naming the process that uses it, "internal" when it cannot be read.
 */
export async function checkRaft(files: RaftFiles): Promise<LogReport> {
  const directory = await findLog(files.path);
  await refuseIfLocked(directory);
  return await looked(directory, files, async (_disk, checked) => checked.report);
}

/**
 * Says what a repair does, and does it when `confirm` answers true. Returns the steps and whether they were done.
 * Throws as checkRaft() does, and "failed-precondition" for what is not repaired.
 */
export async function repairRaft(
  files: RaftFiles,
  confirm: (directory: string, steps: readonly RepairStep[]) => boolean,
): Promise<{ readonly directory: string; readonly done: boolean }> {
  const directory = await findLog(files.path);
  const unlock = await lockDirectory(directory);
  try {
    return await looked(directory, files, async (disk, checked) => {
      const steps = planRepair(checked);
      const done = confirm(directory, steps) && steps.length > 0;
      if (done) await repairLog(disk, checked);
      return { directory, done };
    });
  } finally {
    await unlock();
  }
}

async function looked<T>(
  directory: string,
  files: RaftFiles,
  use: (disk: OpenLogDisk, checked: Checked) => Promise<T>,
): Promise<T> {
  const keyPath = files.keyFile ?? join(dirname(directory), "certificates", "swarm-node.pem");
  if (files.keyFile !== null) await mustBe(files.keyFile, "isFile");
  const cipher = await openDataKeyCipher(nodeKeyFile(resolve(keyPath)));
  const disk = await openLogDisk(directory);
  try {
    return await use(disk, await checkLog(disk, cipher));
  } finally {
    await disk.close();
  }
}

/** `path` when it holds a log, else the one log of the node whose data root it is. */
async function findLog(path: string | null): Promise<string> {
  const given = resolve(path ?? defaultDataRoot);
  await mustBe(given, "isDirectory");
  const names = await readdir(given);
  if (names.some((name) => /^(segment|snapshot)-\d/.test(name))) return given;
  const swarm = join(given, "swarm");
  const logs = (await readdir(swarm).catch(() => [] as string[])).filter((name) =>
    name.startsWith("raft-"),
  );
  const [only] = logs;
  if (only !== undefined && logs.length === 1) return join(swarm, only);
  throw failure(
    "not-found",
    logs.length === 0
      ? `${given} holds no raft log: give the directory of one, or the data root of a manager`
      : `${swarm} holds ${logs.length} raft logs (${logs.join(", ")}): give the directory of one`,
  );
}

async function mustBe(path: string, kind: "isFile" | "isDirectory"): Promise<void> {
  try {
    if ((await stat(path))[kind]()) return;
  } catch (error) {
    throw failure("not-found", `reading ${path}: ${messageOf(error)}`, error);
  }
  throw failure("not-found", `${path} is no ${kind === "isFile" ? "file" : "directory"}`);
}
