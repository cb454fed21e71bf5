/** Streams of JSON objects, one after the other, as load and events send them. */

/** Objects of `source` as they come; each ends at a line end. */
export async function* readJsonLines<T>(source: AsyncIterable<Buffer>): AsyncGenerator<T> {
  let held = "";
  const decoder = new TextDecoder();
  for await (const piece of source) {
    held += decoder.decode(piece, { stream: true });
    const lines = held.split("\n");
    held = lines.pop() ?? "";
    for (const line of lines) if (line.trim() !== "") yield JSON.parse(line) as T;
  }
  if (held.trim() !== "") yield JSON.parse(held) as T;
}
