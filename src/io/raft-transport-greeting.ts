/**
 * How two managers get to know each other on a new connection: who each is, which life of it, which wire version they
 * share. Three greetings: after the third, each has seen its own nonce echoed, so that the other lives now, and bytes of
 * an older life of it that were still under way are told apart.
 */
import { randomUUID } from "node:crypto";
import type { RawData, WebSocket } from "ws";
import { messageOf } from "../lib/errors.ts";
import type { PeerId } from "../raft/types.ts";
import { decodeLinkFrame, encodeLinkFrame, type Hello } from "../wire/raft-link.ts";
import type { PeerObjection } from "./raft-transport-identity.ts";
import type { RaftTransportLimits } from "./raft-transport-limits.ts";

export interface Greeted {
  readonly peer: PeerId;
  /** Which life of the peer's process this is. */
  readonly incarnation: string;
  /** The newest wire version that both speak. */
  readonly version: number;
}
export interface Greeter {
  readonly id: PeerId;
  readonly incarnation: string;
  readonly limits: RaftTransportLimits;
  readonly objection: PeerObjection;
}

/** Close code of a refused greeting; the reason says why. */
const refusedCode = 4000;
/** A websocket's close frame has room for 123 bytes of reason; a character that is cut takes up to three. */
const reasonBytesMax = 120;

/**
 * Greets on an open socket, as the one that dialed `expected`, or as the one that was dialed (null). Calls `done` once,
 * before any later frame is read: with who is there, or with why the connection is of no use, which is then closed.
 */
export function greet(
  socket: WebSocket,
  self: Greeter,
  expected: PeerId | null,
  done: (outcome: Greeted | { readonly refused: string }) => void,
): void {
  const nonce = randomUUID();
  let first: Hello | null = null;
  let over = false;
  const late = setTimeout(() => {
    socket.terminate();
    end({ refused: `no greeting in ${self.limits.greetingMsMax} ms` });
  }, self.limits.greetingMsMax);

  function end(outcome: Greeted | { readonly refused: string }): void {
    if (over) return;
    over = true;
    socket.off("message", onMessage);
    done(outcome);
  }

  function refuse(why: string): void {
    // The timer ends a socket whose other end does not answer the close.
    socket.close(refusedCode, shortened(why));
    end({ refused: why });
  }

  function say(to: PeerId, echo: string): void {
    const { versionMin, versionMax } = self.limits;
    const { id: from, incarnation } = self;
    const hello: Hello = {
      kind: "hello",
      versionMin,
      versionMax,
      from,
      to,
      incarnation,
      nonce,
      echo,
    };
    socket.send(encodeLinkFrame(hello));
  }

  function onMessage(data: RawData): void {
    let hello: Hello;
    try {
      const frame = decodeLinkFrame(data as Buffer);
      if (frame?.kind !== "hello") {
        refuse("the first frame is no greeting");
        return;
      }
      hello = frame;
    } catch (error) {
      refuse(messageOf(error));
      return;
    }
    const why = objection(hello, self, expected, first) ?? self.objection(socket, hello.from);
    if (why !== null) {
      refuse(why);
      return;
    }
    const isSecond = expected === null && first === null;
    if (!isSecond && hello.echo !== nonce) {
      refuse("the greeting echoes another connection");
      return;
    }
    if (isSecond || expected !== null) say(hello.from, hello.nonce);
    first ??= hello;
    if (isSecond) return;
    clearTimeout(late);
    const version = Math.min(hello.versionMax, self.limits.versionMax);
    end({ peer: hello.from, incarnation: hello.incarnation, version });
  }

  socket.on("message", onMessage);
  socket.once("close", (code, reason) => {
    clearTimeout(late);
    end({ refused: reason.toString() || `connection closed (${code})` });
  });
  if (expected !== null) say(expected, "");
}

/** Why `hello` ends the acquaintance, or null. */
function objection(
  hello: Hello,
  self: Greeter,
  expected: PeerId | null,
  first: Hello | null,
): string | null {
  const { versionMin, versionMax } = self.limits;
  if (hello.to !== self.id) return `here is ${self.id}, not ${hello.to}`;
  if (hello.from === self.id) return "that is this manager itself";
  if (expected !== null && hello.from !== expected) return `there is ${hello.from}`;
  if (first !== null && (hello.from !== first.from || hello.incarnation !== first.incarnation)) {
    return "two greetings differ";
  }
  if (hello.versionMax < versionMin || hello.versionMin > versionMax) {
    return `it speaks raft wire versions ${hello.versionMin} to ${hello.versionMax}, this manager ${versionMin} to ${versionMax}: upgrade the older one`;
  }
  return null;
}

/** The peer chose some of these characters: they may be several bytes each. */
function shortened(why: string): string {
  return Buffer.from(why).subarray(0, reasonBytesMax).toString();
}
