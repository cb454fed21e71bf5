/** Logs as docker streams them: frames of stdout and stderr, each line with its time and details in front (moby httputils/write_log_stream.go, stdcopy). */
import { failure, messageOf } from "../lib/errors.ts";
import type { LogsQuery, TaskLogLine } from "./backend.ts";
import { parseTimestamp, withNineDigits } from "./convert/time.ts";
import type { OpenStream } from "./reply.ts";
import type { Query } from "./request.ts";
import { compareVersions } from "./version.ts";

/** Stream numbers of a frame's header. */
const streams = { stdout: 1, stderr: 2, systemError: 3 } as const;

/** How lines are written. */
export interface LineFormat {
  readonly timestamps: boolean;
  readonly details: boolean;
}

/** Reads the query of a logs request. Throws ShoalError("invalid") in docker's words. */
export function readLogsQuery(
  query: Query,
  signal: AbortSignal,
): { readonly logs: LogsQuery; readonly format: LineFormat } {
  const stdout = query.flag("stdout");
  const stderr = query.flag("stderr");
  if (!stdout && !stderr) {
    throw failure("invalid", "Bad parameters: you must choose at least one stream");
  }
  return {
    logs: {
      follow: query.flag("follow"),
      stdout,
      stderr,
      tail: readTail(query.get("tail")),
      sinceNs: parseTimestamp("since", zeroAsUnset(query.get("since"))),
      untilNs: parseTimestamp("until", zeroAsUnset(query.get("until"))),
      signal,
    },
    format: { timestamps: query.flag("timestamps"), details: query.flag("details") },
  };
}

/** The content type of frames; older clients know only the raw one. */
export function logsContentType(version: string): string {
  return compareVersions(version, "1.42") >= 0
    ? "application/vnd.docker.multiplexed-stream"
    : "application/vnd.docker.raw-stream";
}

/** Writes every line as a frame. A failure after the headers becomes a frame of the third stream, which docker's command prints. */
export async function writeLogs(
  stream: OpenStream,
  lines: AsyncIterable<TaskLogLine>,
  format: LineFormat,
  detailsOf: (line: TaskLogLine) => string,
): Promise<void> {
  try {
    for await (const line of lines) {
      await stream.write(frame(streams[line.stream], formatLine(line, format, detailsOf)));
      if (stream.signal.aborted) break;
    }
  } catch (error) {
    if (!stream.signal.aborted) {
      const text = `Error grabbing logs: ${messageOf(error)}\n`;
      await stream.write(frame(streams.systemError, Buffer.from(text)));
    }
  } finally {
    stream.end();
  }
}

/** The details of a line of a service: docker's command finds node, service and task by them. */
export function swarmDetails(line: TaskLogLine): string {
  return [
    `com.docker.swarm.node.id=${encodeURIComponent(line.nodeId)}`,
    `com.docker.swarm.service.id=${encodeURIComponent(line.serviceId)}`,
    `com.docker.swarm.task.id=${encodeURIComponent(line.taskId)}`,
  ].join(",");
}

/** A frame: stream number, three zeros, length in four octets, payload. */
export function frame(stream: 1 | 2 | 3, payload: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafe(8 + payload.length);
  bytes.writeUInt32BE(stream * 2 ** 24, 0);
  bytes.writeUInt32BE(payload.length, 4);
  bytes.set(payload, 8);
  return bytes;
}

function formatLine(
  line: TaskLogLine,
  format: LineFormat,
  detailsOf: (line: TaskLogLine) => string,
): Uint8Array {
  let before = "";
  if (format.timestamps) before += `${withNineDigits(line.time)} `;
  if (format.details) before += `${detailsOf(line)} `;
  return before === "" ? line.line : Buffer.concat([Buffer.from(before), line.line]);
}

function readTail(text: string): number {
  if (text === "" || text === "all") return -1;
  if (!/^-?\d{1,15}$/.test(text)) {
    throw failure("invalid", 'tail value must be a positive integer or "all"');
  }
  return Math.max(-1, Number(text));
}

/** "0" asks for everything, as in docker. */
function zeroAsUnset(text: string): string {
  return text === "0" ? "" : text;
}
