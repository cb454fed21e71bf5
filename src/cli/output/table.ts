/** Tables as Go's tabwriter lays them out for docker: columns at least 10 wide, 3 spaces between. */

const columnWidthMin = 10;
const padding = 3;

/** The lines of a table; every row has as many cells as the header. The last cell is not padded. */
export function renderTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  minimum: number = columnWidthMin,
): string {
  return renderColumns([header, ...rows], minimum, padding);
}

/**
 * Cells in aligned columns. As in tabwriter a column is made of the lines that follow each other and have it:
 * a line with fewer cells ends the columns beyond.
 */
export function renderColumns(
  lines: readonly (readonly string[])[],
  minimum: number,
  pad: number,
): string {
  return lines
    .map((cells, row) =>
      cells
        .map((cell, column) =>
          column === cells.length - 1
            ? cell
            : cell + " ".repeat(columnWidth(lines, row, column, minimum, pad) - width(cell)),
        )
        .join(""),
    )
    .map((line) => `${line}\n`)
    .join("");
}

function columnWidth(
  lines: readonly (readonly string[])[],
  row: number,
  column: number,
  minimum: number,
  pad: number,
): number {
  const has = (at: number): boolean => (lines[at]?.length ?? 0) > column + 1;
  let first = row;
  while (has(first - 1)) first -= 1;
  let widest = minimum;
  for (let at = first; has(at); at += 1) {
    widest = Math.max(widest, width(lines[at]?.[column] ?? "") + pad);
  }
  return widest;
}

/** Code points: tabwriter counts those, whatever the terminal shows. */
function width(text: string): number {
  return [...text].length;
}
