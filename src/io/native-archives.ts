/** Archives to and from the native core: each has a connection of its own, whose last frame is the result (native/crates/core/src/layers.rs). */
import type { Duplex } from "node:stream";
import { type NativeArguments, NativeError } from "../engine/native-core.ts";
import { failure, messageOf } from "../lib/errors.ts";
import {
  type NativePacked,
  type NativeReply,
  type NativeUnpacked,
  nativeFrameBytesMax,
} from "../wire/native.ts";
import type { NativeClient } from "./native-client.ts";

/** Bytes of the length before each piece and frame. */
const lengthBytes = 4;
/** Longest piece that the core sends. */
const pieceBytesMax: number = 256 * 1024;

/** An archive that the core is writing. */
export interface Packing {
  /** To be read to its end; leaving earlier ends the writing. Throws what the core refuses. */
  readonly archive: AsyncIterable<Buffer>;
  /** Digests and sizes, once the archive has been read whole; null before. */
  result(): NativePacked | null;
}

/** An upper directory as a layer, or layers as one root. Rejects before the first byte when the directories cannot be had. */
export async function packed<C extends "diff" | "export">(
  client: Pick<NativeClient, "stream">,
  call: C,
  fields: NativeArguments<C>,
): Promise<Packing> {
  const { stream } = await client.stream(call, fields);
  let result: NativePacked | null = null;
  async function* archive(): AsyncGenerator<Buffer> {
    const bytes = new ByteReader(stream);
    try {
      for (;;) {
        const length = await bytes.length(pieceBytesMax, call);
        if (length === 0) break;
        yield await bytes.take(length, call);
      }
      result = await lastFrame<NativePacked>(bytes, call);
    } finally {
      stream.destroy();
    }
  }
  return { archive: archive(), result: () => result };
}

/** Unpacks a layer while it comes. Rejects with the core's reason, and then takes no more of `archive`. */
export async function unpackStream(
  client: Pick<NativeClient, "stream">,
  fields: Omit<NativeArguments<"unpack">, "archive">,
  archive: AsyncIterable<Uint8Array>,
): Promise<NativeUnpacked> {
  const { stream } = await client.stream("unpack", { archive: null, ...fields });
  const bytes = new ByteReader(stream);
  const answer = lastFrame<NativeUnpacked>(bytes, "unpack");
  let answered = false;
  const hear = () => {
    answered = true;
  };
  const done = answer.then(hear, hear);
  try {
    for await (const chunk of archive) {
      if (answered) break;
      if (!stream.write(chunk)) await Promise.race([drained(stream), done]);
    }
    if (!answered) stream.end();
    return await answer;
  } finally {
    // What reads the answer then ends, too, and `done` has heard it.
    stream.destroy();
  }
}

async function lastFrame<T>(bytes: ByteReader, call: string): Promise<T> {
  const length = await bytes.length(nativeFrameBytesMax, call);
  const reply = JSON.parse((await bytes.take(length, call)).toString("utf8")) as NativeReply;
  if (!reply.ok) throw new NativeError(`asking the native core to ${call}`, reply);
  return reply.value as T;
}

function drained(stream: Duplex): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      stream.off("drain", done).off("close", done);
      resolve();
    };
    stream.on("drain", done).on("close", done);
  });
}

/** Bytes of a connection, as many as are asked for. */
class ByteReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(stream: Duplex) {
    // What goes wrong is told to whoever reads.
    stream.on("error", () => {});
    this.#chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  async take(count: number, call: string): Promise<Buffer> {
    const parts: Buffer[] = [];
    let missing = count;
    while (missing > 0) {
      if (this.#rest.byteLength === 0) this.#rest = await this.#next(call);
      const part = this.#rest.subarray(0, missing);
      parts.push(part);
      this.#rest = this.#rest.subarray(part.byteLength);
      missing -= part.byteLength;
    }
    const [only] = parts;
    return parts.length === 1 && only !== undefined ? only : Buffer.concat(parts);
  }

  async length(most: number, call: string): Promise<number> {
    const length = (await this.take(lengthBytes, call)).readUInt32BE(0);
    if (length <= most) return length;
    throw failure("internal", `reading from the native core (${call}): ${length} bytes at once`);
  }

  async #next(call: string): Promise<Buffer> {
    try {
      const next = await this.#chunks.next();
      if (next.done !== true) return next.value;
    } catch (error) {
      throw failure("unavailable", `reading from the native core (${call}): ${messageOf(error)}`);
    }
    throw failure(
      "unavailable",
      `reading from the native core (${call}): it ended before its answer; it is started again by itself`,
    );
  }
}
