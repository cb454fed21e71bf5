/** Logs of containers as the engine reads them; io/json-file-log.ts reads docker's json-file. */

export interface ContainerLogLine {
  readonly stream: "stdout" | "stderr";
  /** RFC 3339 with nanoseconds. */
  readonly time: string;
  /** As written, with its line end; a line longer than 16 KiB comes in parts. */
  readonly line: Uint8Array;
}
export interface ContainerLogQuery {
  /** Null: what is there now. Otherwise new lines too, until this resolves (the container ended) or `signal`. */
  readonly follow: Promise<void> | null;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Lines from the end, before any other filter; -1: all. */
  readonly tail: number;
  /** Unix nanoseconds. */
  readonly sinceNs: bigint | null;
  readonly untilNs: bigint | null;
  readonly signal: AbortSignal;
}
export interface ContainerLogs {
  /** Lines of the log whose current file is `path`; a file that is not there yet is empty. */
  read(path: string, query: ContainerLogQuery): AsyncIterable<ContainerLogLine>;
}
