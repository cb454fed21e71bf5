/** Lists: a table by default, or what --format and --quiet say, as docker's formatter. */

import { renderColumns, renderTable } from "./table.ts";
import { goJsonForHtml, parseTemplate } from "./template.ts";

export interface Column<Row> {
  readonly header: string;
  value(row: Row): string;
  /** In json the value is true or false. */
  readonly bool?: true;
}
export interface ListLayout<Row> {
  /** By the name that templates use, in the order of docker's json. */
  readonly columns: Readonly<Record<string, Column<Row>>>;
  /** Columns of the table when no format is given. */
  readonly table: readonly string[];
  /** The column that --quiet prints alone. */
  readonly quiet: string;
}
export interface ListFormat {
  /** Null and "table" are the default table. */
  readonly format: string | null;
  readonly quiet: boolean;
}

/** The text of a list. Throws `invalid` for a template that is none. */
export function renderList<Row>(
  layout: ListLayout<Row>,
  rows: readonly Row[],
  how: ListFormat,
): string {
  const format = how.format === null || how.format === "" ? "table" : how.format.trim();
  if (how.quiet && (format === "table" || format === "raw")) {
    const column = layout.columns[layout.quiet];
    return rows.map((row) => `${column?.value(row) ?? ""}\n`).join("");
  }
  if (format === "table") {
    const columns = layout.table.flatMap((name) => layout.columns[name] ?? []);
    return renderTable(
      columns.map((column) => column.header),
      rows.map((row) => columns.map((column) => column.value(row))),
    );
  }
  if (format === "json") {
    return rows.map((row) => `${goJsonForHtml(jsonFields(layout, row))}\n`).join("");
  }
  const unescaped = format.replaceAll("\\t", "\t").replaceAll("\\n", "\n");
  if (/^table\s/.test(unescaped)) {
    const template = parseTemplate(unescaped.replace(/^table\s+/, ""));
    const headers = Object.fromEntries(
      Object.entries(layout.columns).map(([name, column]) => [name, column.header]),
    );
    const lines = [headers, ...rows.map((row) => fields(layout, row))].map((value) =>
      template(value).split("\t"),
    );
    return renderColumns(lines, 10, 3);
  }
  const template = parseTemplate(unescaped);
  return rows.map((row) => `${template(fields(layout, row))}\n`).join("");
}

function fields<Row>(layout: ListLayout<Row>, row: Row): Record<string, string> {
  return Object.fromEntries(
    Object.entries(layout.columns).map(([name, column]) => [name, column.value(row)]),
  );
}
function jsonFields<Row>(layout: ListLayout<Row>, row: Row): Record<string, string | boolean> {
  const entries = Object.entries(layout.columns).map(([name, column]) => {
    const text = column.value(row);
    return [name, column.bool === true ? text === "true" : text] as const;
  });
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}
