/** Repairing a Raft log that nobody uses: only what loses nothing that was acknowledged. */
import { assert } from "../lib/assert.ts";
import { failure } from "../lib/errors.ts";
import type { LogDisk } from "./log-disk.ts";
import type { Checked, LogProblem } from "./raft-log-check.ts";
import { lostLogRemedy, SPARE_NAME } from "./raft-log-recovery.ts";

/** One thing that a repair does. */
export interface RepairStep {
  readonly what: string;
  readonly loses: string;
}

/**
 * What repairLog() would do, first thing first; empty when there is nothing to repair.
 * Throws ShoalError("failed-precondition") when the log is broken before its tail or cannot be opened: no repair can
 * bring back what was acknowledged, and to go on without it could undo what the cluster decided.
 */
export function planRepair(checked: Checked): readonly RepairStep[] {
  const { report } = checked;
  const broken = report.problems.filter(({ kind }) => kind === "damage" || kind === "sealed");
  const [first] = broken;
  if (first !== undefined) {
    const way = first.kind === "sealed" ? first.remedy : lostLogRemedy;
    throw failure(
      "failed-precondition",
      `repairing ${report.directory}: ${first.file}, byte ${first.offset}: ${first.why}${more(broken)}. ` +
        `This is not repaired: what was acknowledged would be lost, and nothing was changed. ${way}`,
    );
  }
  const steps = report.problems.map((problem) => stepOf(problem, checked));
  if (steps.length > 0 && report.spareBytes > 0) {
    const what = `remove ${SPARE_NAME} (${report.spareBytes} bytes, allocated ahead; the next start makes it again)`;
    steps.push({ what, loses: "nothing" });
  }
  return steps;
}

/** Does what planRepair() said. What is cut is kept beside the log. A stop at any moment leaves a log that can be repaired again. */
export async function repairLog(disk: LogDisk, checked: Checked): Promise<void> {
  const { found, report } = checked;
  if (planRepair(checked).length === 0) return;
  assert(found !== null, "a log that can be repaired can be read");
  const last = found.segments.at(-1);
  if (found.cutBytes > 0 && last !== undefined) {
    const bytes = (await disk.read(last.name)).slice(found.writeAt, found.writeAt + found.cutBytes);
    await disk.create(copyName(last.name, found.writeAt), bytes, bytes.length);
    await disk.syncDirectory();
    const file = await disk.open(last.name);
    try {
      file.write(new Uint8Array(found.cutBytes), found.writeAt);
      await file.sync();
    } finally {
      await file.close();
    }
  }
  for (const name of found.leftovers) await disk.remove(name);
  if (report.spareBytes > 0) await disk.remove(SPARE_NAME);
  await disk.syncDirectory();
}

function stepOf(problem: LogProblem, { found, report }: Checked): RepairStep {
  const name = problem.file.slice(report.directory.length + 1);
  if (problem.kind === "torn") {
    const what = `cut ${name} at byte ${problem.offset}: ${found?.cutBytes ?? 0} bytes, kept as ${copyName(name, problem.offset)}`;
    return { what, loses: problem.loss };
  }
  return { what: `remove ${name}: ${problem.why}`, loses: problem.loss };
}

/** A name that the log itself never reads. */
function copyName(segment: string, offset: number): string {
  return `cut-${segment}-${offset}`;
}

function more(problems: readonly LogProblem[]): string {
  return problems.length === 1
    ? ""
    : ` (and ${problems.length - 1} more, see \`shoal raft check\`)`;
}
