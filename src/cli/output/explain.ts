/** `service explain`: for each task where it is or what it waits for, and why. */
import type { ExplanationJson } from "../engine-types.ts";
import { renderTable } from "./table.ts";
import { ago, naturalOrder } from "./units.ts";

/** One line a task; with `verbose` below it one line for each node, with the filter that refused it. */
export function explainText(
  tasks: readonly ExplanationJson[],
  verbose: boolean,
  nowMs: number,
): string {
  const ordered = [...tasks].sort((a, b) => naturalOrder(a.TaskName, b.TaskName));
  const row = (task: ExplanationJson): string[] => [
    shortName(task),
    capital(task.State),
    task.NodeName || task.NodeID || "-",
    task.Since ? ago(task.Since, nowMs).toLowerCase() : "-",
    task.Reason,
  ];
  const header = ["NAME", "STATE", "NODE", "SINCE", "WHY"];
  if (!verbose) return renderTable(header, ordered.map(row));
  return ordered
    .map((task) => {
      const nodes = (task.Nodes ?? []).map((node) => [
        `  ${node.NodeName || node.NodeID}`,
        node.Fits ? "yes" : "no",
        node.Filter ?? "-",
        node.Reason,
      ]);
      const below =
        nodes.length === 0 ? "" : renderTable(["  NODE", "FITS", "FILTER", "WHY"], nodes);
      return `${renderTable(header, [row(task)])}${below}`;
    })
    .join("\n");
}

/** `web.1` of `web.1.TASKID`. */
function shortName(task: ExplanationJson): string {
  const end = `.${task.TaskID}`;
  return task.TaskName.endsWith(end) ? task.TaskName.slice(0, -end.length) : task.TaskName;
}
function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
