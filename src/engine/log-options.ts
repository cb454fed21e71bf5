/** What a task's log driver means here: json-file with its size and number of files, or none. */
import { failure } from "../lib/errors.ts";
import type { TaskSpec } from "../model/task.ts";

export interface LogOptions {
  readonly maxSizeBytes: number | null;
  readonly maxFiles: number;
  readonly mode: "blocking" | "non-blocking";
  readonly maxBufferBytes: number;
  readonly compress: boolean;
}

/** Docker's max-buffer-size. */
const bufferBytesDefault: number = 1024 * 1024;

/** Null: nothing is kept. Throws invalid for a driver or an option that does not exist here. */
export function logOptionsOf(driver: TaskSpec["logDriver"]): LogOptions | null {
  const name = driver?.name || "json-file";
  if (name === "none") return null;
  if (name !== "json-file") {
    throw failure("invalid", `logger: no log driver named '${name}' is registered`);
  }
  let maxSizeBytes: number | null = null;
  let maxFiles = 1;
  let mode: LogOptions["mode"] = "blocking";
  let maxBufferBytes: number | null = null;
  let compress = false;
  for (const [key, value] of Object.entries(driver?.options ?? {})) {
    if (key === "max-size") maxSizeBytes = value === "-1" ? null : bytesOf(value);
    else if (key === "max-file") maxFiles = countOf(value);
    else if (key === "mode") mode = modeOf(value);
    else if (key === "max-buffer-size") maxBufferBytes = bytesOf(value);
    else if (key === "compress") compress = compressOf(value);
    else throw failure("invalid", `unknown log opt '${key}' for json-file log driver`);
  }
  if (maxSizeBytes === null && maxFiles > 1) {
    throw failure("invalid", "max-file cannot be set without max-size");
  }
  if (maxBufferBytes !== null && mode !== "non-blocking") {
    throw failure(
      "invalid",
      "logger: 'max-buffer-size' log opt is only supported with 'mode=non-blocking'",
    );
  }
  if (compress && (maxSizeBytes === null || maxFiles < 2)) {
    throw failure("invalid", "compress cannot be true when max-file is less than 2 or unset");
  }
  return {
    maxSizeBytes,
    maxFiles,
    mode,
    maxBufferBytes: maxBufferBytes ?? bufferBytesDefault,
    compress,
  };
}

function modeOf(text: string): LogOptions["mode"] {
  if (text === "" || text === "blocking") return "blocking";
  if (text === "non-blocking") return text;
  throw failure("invalid", `logger: logging mode not supported: ${text}`);
}

function compressOf(text: string): boolean {
  if (["1", "t", "T", "true", "TRUE", "True"].includes(text)) return true;
  if (["0", "f", "F", "false", "FALSE", "False"].includes(text)) return false;
  throw failure("invalid", `invalid value for 'compress': '${text}'`);
}

function bytesOf(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?$/i.exec(text.trim());
  const power = " kmgt".indexOf((match?.[2] || " ").toLowerCase());
  const bytes = Math.floor(Number(match?.[1] ?? 0) * 1024 ** power);
  if (match === null || bytes <= 0) throw failure("invalid", `invalid size: '${text}'`);
  return bytes;
}

function countOf(text: string): number {
  if (!/^\d+$/.test(text) || Number(text) < 1) {
    throw failure("invalid", `max-file cannot be less than 1, but is '${text}'`);
  }
  return Number(text);
}
