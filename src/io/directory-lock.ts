/** A directory that one process at a time owns, even after that process died without letting go. */
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { failure } from "../lib/errors.ts";

const NAME = "lock";

/**
 * Takes `directory` for this process. The returned function lets go.
 * Throws ShoalError("conflict") naming the owner when a living process has it; what a dead one left is taken over.
 */
export async function lockDirectory(directory: string): Promise<() => Promise<void>> {
  const path = join(directory, NAME);
  const mine = JSON.stringify({ pid: process.pid, started: await startOf(process.pid) });
  const draft = join(directory, `${NAME}.${process.pid}`);
  await writeFile(draft, mine);
  try {
    // A link is made whole or not at all, and fails when the name is taken: nobody reads half a lock.
    if (await linked(draft, path)) return () => rm(path, { force: true });
    const found = await readFile(path, "utf8").catch(absent);
    if (found !== null) {
      await refuseLiving(directory, found);
      // Two processes may both find it dead. A rename moves one file once: who moved a fresh lock gives it back.
      const aside = join(directory, `${NAME}.stale.${process.pid}`);
      await rename(path, aside).catch(absent);
      const moved = await readFile(aside, "utf8").catch(absent);
      if (moved !== null && moved !== found) await linked(aside, path);
      await rm(aside, { force: true });
    }
    if (await linked(draft, path)) return () => rm(path, { force: true });
  } finally {
    await rm(draft, { force: true });
  }
  throw failure(
    "conflict",
    `opening ${directory}: another process has just taken it; stop that one first`,
  );
}

/** Writes nothing. Throws ShoalError("conflict") naming the owner when a living process has `directory`. */
export async function refuseIfLocked(directory: string): Promise<void> {
  const owner = await readFile(join(directory, NAME), "utf8").catch(absent);
  if (owner !== null) await refuseLiving(directory, owner);
}

async function refuseLiving(directory: string, owner: string): Promise<void> {
  const { pid, started } = parseOwner(owner);
  if (pid === null || (await startOf(pid)) !== started) return;
  throw failure(
    "conflict",
    `opening ${directory}: process ${pid} is using it; stop that process first, or give a second daemon its own --data-root`,
  );
}

function parseOwner(text: string): { pid: number | null; started: string | null } {
  try {
    const { pid, started } = JSON.parse(text) as { pid?: unknown; started?: unknown };
    if (typeof pid !== "number" || typeof started !== "string") return { pid: null, started: null };
    return { pid, started };
  } catch {
    // Locks are made whole: one that does not parse was damaged, and its owner cannot be found out.
    return { pid: null, started: null };
  }
}

/** When `pid` started, in clock ticks since boot (proc(5), stat field 22), or null when there is no such process. */
async function startOf(pid: number): Promise<string | null> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(absent);
  if (stat === null) return null;
  // Field 2 may hold spaces and brackets; what follows its last bracket does not.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // A zombie holds nothing open any more.
  return fields[0] === "Z" ? null : (fields[19] ?? null);
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** Turns "it is not there (any more)" into null; everything else stays an error. */
function absent(error: NodeJS.ErrnoException): null {
  if (error.code === "ENOENT" || error.code === "ESRCH") return null;
  throw error;
}
