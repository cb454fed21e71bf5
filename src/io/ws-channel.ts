/** A Channel over a websocket: one msgpack message a frame, liveness by ping, bounded by what waits to be sent. */
import type { WebSocket } from "ws";
import { messageOf } from "../lib/errors.ts";
import type { Channel } from "../wire/channel.ts";
import { decode, encode } from "../wire/codec.ts";
import { channelBufferedBytesMax, pingIntervalMs } from "../wire/limits.ts";

/** Wraps an open websocket. Messages are trusted to be of type In: the peer's certificate was checked before. */
export function channelOf<Out, In>(socket: WebSocket): Channel<Out, In> {
  let receive: ((message: In) => void) | null = null;
  let waiting: In[] = [];
  let closedFor: string | null = null;
  let onClosed: ((reason: string) => void) | null = null;
  let heard = true;
  const pinger = setInterval(() => {
    if (!heard) return finish(`nothing heard for ${2 * pingIntervalMs} ms`);
    heard = false;
    socket.ping();
  }, pingIntervalMs);

  function finish(reason: string): void {
    if (closedFor !== null) return;
    closedFor = reason;
    clearInterval(pinger);
    socket.terminate();
    onClosed?.(reason);
  }

  socket.on("pong", () => {
    heard = true;
  });
  socket.on("ping", () => {
    heard = true;
  });
  socket.on("message", (data: Buffer) => {
    heard = true;
    let message: In;
    try {
      message = decode(data, "a session message") as In;
    } catch (error) {
      return finish(messageOf(error));
    }
    if (receive === null) waiting.push(message);
    else receive(message);
  });
  socket.on("close", (code, reason) => finish(reason.toString() || `connection closed (${code})`));
  socket.on("error", (error) => finish(messageOf(error)));

  return {
    send(message) {
      if (closedFor !== null) return;
      if (socket.bufferedAmount > channelBufferedBytesMax) {
        return finish(`the peer does not read: ${socket.bufferedAmount} bytes wait`);
      }
      socket.send(encode(message));
    },
    onMessage(callback) {
      receive = callback;
      const queued = waiting;
      waiting = [];
      for (const message of queued) callback(message);
    },
    onClose(callback) {
      onClosed = callback;
      if (closedFor !== null) callback(closedFor);
    },
    close(reason) {
      if (closedFor !== null) return;
      closedFor = reason;
      clearInterval(pinger);
      socket.close(1000, reason.slice(0, 120));
      onClosed?.(reason);
    },
  };
}
