/** Takes the frames of Docker's multiplexed log streams apart: stream, three zero bytes, big-endian length, payload. */
import { failure } from "../../lib/errors.ts";

/** Largest frame that is believed; a larger length means that the stream is not framed. */
const frameBytesMax = 64 * 1024 * 1024;

export interface Frame {
  readonly stream: "stdout" | "stderr";
  readonly payload: Buffer;
}

/** Frames of `source` as they come. Throws `internal` when it ends inside one, or for the daemon's own error frame. */
export async function* readFrames(source: AsyncIterable<Buffer>): AsyncGenerator<Frame> {
  let held: Buffer = Buffer.alloc(0);
  for await (const piece of source) {
    held = held.length === 0 ? piece : Buffer.concat([held, piece]);
    while (held.length >= 8) {
      const kind = held[0] ?? 0;
      const length = held.readUInt32BE(4);
      if (kind > 3 || length > frameBytesMax) {
        throw failure(
          "internal",
          `reading logs: byte ${kind} does not start a frame; the daemon sent something else`,
        );
      }
      if (held.length < 8 + length) break;
      const payload = held.subarray(8, 8 + length);
      held = held.subarray(8 + length);
      if (kind === 3)
        throw failure("internal", `error from daemon in stream: ${payload.toString("utf8")}`);
      yield { stream: kind === 2 ? "stderr" : "stdout", payload };
    }
  }
  if (held.length > 0) throw failure("internal", "reading logs: the stream ended inside a frame");
}
