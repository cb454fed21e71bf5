/** The client of the native core's socket: framed JSON, pipelined calls, events, connected again whenever it comes back. */
import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { type NativeArguments, type NativeCore, NativeError } from "../engine/native-core.ts";
import { failure, messageOf, type ShoalError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import {
  type NativeCall,
  type NativeEvent,
  type NativeReply,
  type NativeResults,
  nativeFrameBytesMax,
  nativeVersion,
} from "../wire/native.ts";

/** First wait before a lost connection is opened again; doubles up to the maximum. */
const reconnectMsMin = 5;
const reconnectMsMax = 500;
/** Calls that may be under way at once; more are refused. */
const callsMax = 10_000;
/** Bytes before each frame: its length. */
const headerBytes = 4;

export interface NativeClient extends NativeCore {
  /** Resolves at the first connection whose versions agree. */
  ready(): Promise<void>;
  /** Who answers; null while away. */
  readonly identity: NativeResults["hello"] | null;
  /** Makes the one request of a connection of its own, which is the stream after the answer: write stdin to it, `end()` it, read its output. */
  stream<C extends NativeStreamCall>(
    call: C,
    fields: NativeArguments<C>,
  ): Promise<{ readonly value: NativeResults[C]; readonly stream: Duplex }>;
  close(): void;
}
/** Calls whose connection becomes a stream. */
export type NativeStreamCall = "attach" | "exec" | "logs" | "unpack" | "diff" | "export";
export interface NativeClientOptions {
  readonly socketPath: string;
  readonly log: Log;
}

/** Starts connecting at once; calls fail with ShoalError("unavailable") until there is a connection. */
export function connectNative(options: NativeClientOptions): NativeClient {
  const client = new SocketNativeClient(options);
  client.open();
  return client;
}

interface Pending {
  readonly call: NativeCall;
  readonly resolve: (value: NativeResults[NativeCall]) => void;
  readonly reject: (error: ShoalError) => void;
}

class SocketNativeClient implements NativeClient {
  readonly #options: NativeClientOptions;
  #socket: Socket | null = null;
  #identity: NativeResults["hello"] | null = null;
  #pending = new Map<number, Pending>();
  #nextId = 1;
  #listeners = new Set<(event: NativeEvent) => void>();
  #connectedListeners = new Set<() => void>();
  #waitMs = reconnectMsMin;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(options: NativeClientOptions) {
    this.#options = options;
  }

  get connected(): boolean {
    return this.#identity !== null;
  }

  get identity(): NativeResults["hello"] | null {
    return this.#identity;
  }

  open(): void {
    if (this.#closed) return;
    const socket = connect(this.#options.socketPath);
    this.#socket = socket;
    const frames = new FrameReader();
    socket.on("connect", () => this.#hello(socket));
    socket.on("data", (chunk: Buffer) => {
      try {
        for (const frame of frames.push(chunk)) this.#take(frame);
      } catch (error) {
        socket.destroy(error instanceof Error ? error : new Error(String(error)));
      }
    });
    socket.on("error", (error) => {
      this.#options.log.debug({ error: messageOf(error) }, "native core connection failed");
    });
    socket.on("close", () => this.#lost(socket));
  }

  call<C extends NativeCall>(call: C, fields: NativeArguments<C>): Promise<NativeResults[C]> {
    if (!this.connected) return Promise.reject(this.#away(call));
    return this.#send(call, fields);
  }

  onEvent(listener: (event: NativeEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  onConnected(listener: () => void): () => void {
    this.#connectedListeners.add(listener);
    if (this.connected) {
      queueMicrotask(() => {
        if (this.connected && this.#connectedListeners.has(listener)) listener();
      });
    }
    return () => this.#connectedListeners.delete(listener);
  }

  ready(): Promise<void> {
    return new Promise((resolve) => {
      const forget = this.onConnected(() => {
        forget();
        resolve();
      });
    });
  }

  stream<C extends NativeStreamCall>(
    call: C,
    fields: NativeArguments<C>,
  ): Promise<{ readonly value: NativeResults[C]; readonly stream: Duplex }> {
    return new Promise((resolve, reject) => {
      // Half open, so that the end of stdin is not the end of the output.
      const socket = connect({ path: this.#options.socketPath, allowHalfOpen: true });
      let head: Buffer = Buffer.alloc(0);
      const broke = () => reject(this.#away(call));
      const take = (chunk: Buffer) => {
        head = Buffer.concat([head, chunk]);
        const end = headerBytes + (head.byteLength < headerBytes ? 0 : head.readUInt32BE(0));
        if (end > headerBytes + nativeFrameBytesMax) return void socket.destroy();
        if (head.byteLength < headerBytes || head.byteLength < end) return;
        socket.pause();
        socket.off("data", take).off("close", broke).off("error", ignore);
        const reply = JSON.parse(head.toString("utf8", headerBytes, end)) as NativeReply;
        if (!reply.ok) {
          socket.destroy();
          return void reject(new NativeError(`asking the native core to ${call}`, reply));
        }
        if (head.byteLength > end) socket.unshift(head.subarray(end));
        resolve({ value: reply.value as NativeResults[C], stream: socket });
      };
      // The close that follows an error tells it.
      const ignore = () => {};
      socket.on("data", take).on("close", broke).on("error", ignore);
      socket.write(frameOf({ id: 1, call, ...fields }));
    });
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#socket?.destroy();
  }

  #send<C extends NativeCall>(call: C, fields: NativeArguments<C>): Promise<NativeResults[C]> {
    if (this.#pending.size >= callsMax) {
      return Promise.reject(
        failure(
          "unavailable",
          `asking the native core to ${call}: ${callsMax} calls are under way`,
        ),
      );
    }
    const id = this.#nextId++;
    const body = Buffer.from(JSON.stringify({ id, call, ...fields }), "utf8");
    if (body.byteLength > nativeFrameBytesMax) {
      return Promise.reject(
        failure(
          "invalid",
          `asking the native core to ${call}: ${body.byteLength} bytes are more than a frame's ${nativeFrameBytesMax}`,
        ),
      );
    }
    const frame = Buffer.allocUnsafe(headerBytes + body.byteLength);
    frame.writeUInt32BE(body.byteLength, 0);
    body.copy(frame, headerBytes);
    return new Promise((resolve, reject) => {
      this.#pending.set(id, {
        call,
        resolve: resolve as (value: NativeResults[NativeCall]) => void,
        reject,
      });
      this.#socket?.write(frame);
    });
  }

  #hello(socket: Socket): void {
    this.#send("hello", { version: nativeVersion }).then(
      (identity) => {
        if (identity.version !== nativeVersion) {
          this.#options.log.error(
            { have: identity.version, want: nativeVersion },
            "native core speaks another version; install the shoal-core of this release",
          );
          socket.destroy();
          return;
        }
        this.#identity = identity;
        this.#waitMs = reconnectMsMin;
        this.#options.log.info({ pid: identity.pid }, "native core connected");
        for (const listener of [...this.#connectedListeners]) listener();
      },
      (error: unknown) => {
        this.#options.log.warn({ error: messageOf(error) }, "native core refused the hello");
        socket.destroy();
      },
    );
  }

  #take(frame: NativeReply | NativeEvent): void {
    if ("event" in frame) {
      for (const listener of [...this.#listeners]) listener(frame);
      return;
    }
    const pending = this.#pending.get(frame.id);
    if (pending === undefined) throw new Error(`answer to unknown request ${frame.id}`);
    this.#pending.delete(frame.id);
    if (frame.ok) pending.resolve(frame.value);
    else pending.reject(new NativeError(`asking the native core to ${pending.call}`, frame));
  }

  #lost(socket: Socket): void {
    if (this.#socket !== socket) return;
    if (this.#identity !== null) this.#options.log.warn({}, "native core connection lost");
    this.#socket = null;
    this.#identity = null;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { call, reject } of pending) reject(this.#away(call));
    if (this.#closed) return;
    this.#timer = setTimeout(() => this.open(), this.#waitMs);
    this.#waitMs = Math.min(this.#waitMs * 2, reconnectMsMax);
  }

  #away(call: NativeCall): ShoalError {
    return failure(
      "unavailable",
      `asking the native core to ${call}: it does not answer at ${this.#options.socketPath}; it is started again by itself`,
    );
  }
}

function frameOf(request: object): Buffer {
  const body = Buffer.from(JSON.stringify(request), "utf8");
  const frame = Buffer.allocUnsafe(headerBytes + body.byteLength);
  frame.writeUInt32BE(body.byteLength, 0);
  body.copy(frame, headerBytes);
  return frame;
}

/** Cuts a byte stream into frames. */
export class FrameReader {
  #parts: Buffer[] = [];
  #bytes = 0;

  /** The frames that `chunk` completes. Throws on a frame that is too long or no JSON. */
  *push(chunk: Buffer): Generator<NativeReply | NativeEvent> {
    this.#parts.push(chunk);
    this.#bytes += chunk.byteLength;
    while (this.#bytes >= headerBytes) {
      const length = this.#peekLength();
      if (length > nativeFrameBytesMax) {
        throw new Error(`a frame of ${length} bytes is more than ${nativeFrameBytesMax}`);
      }
      if (this.#bytes < headerBytes + length) return;
      const all = Buffer.concat(this.#parts);
      const end = headerBytes + length;
      this.#parts = all.byteLength > end ? [all.subarray(end)] : [];
      this.#bytes = all.byteLength - end;
      yield JSON.parse(all.toString("utf8", headerBytes, end)) as NativeReply | NativeEvent;
    }
  }

  #peekLength(): number {
    const first = this.#parts[0];
    if (first !== undefined && first.byteLength >= headerBytes) return first.readUInt32BE(0);
    const joined = Buffer.concat(this.#parts);
    this.#parts = [joined];
    return joined.readUInt32BE(0);
  }
}
