/**
 * Raft's messages between managers: one websocket between two managers, whoever opened it.
 * Best effort: what cannot be sent is dropped, Raft sends again. A peer's closed connection is told at once.
 */
import type { RawData, WebSocket } from "ws";
import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Message, PeerId, Transport } from "../raft/types.ts";
import { decodeMessages, encodeMessages } from "../wire/codec.ts";
import {
  pingIntervalMs,
  raftBufferedBytesMax,
  raftRedialMsMax,
  raftRedialMsMin,
} from "../wire/limits.ts";

/** Opens a websocket to the manager at an address. */
export type Dial = (address: string) => Promise<WebSocket>;
export interface RaftTransport extends Transport {
  /** A connection that another manager opened; its first frame says which peer it is. */
  accept(socket: WebSocket): void;
  close(): void;
}

interface Peer {
  address: string | null;
  socket: WebSocket | null;
  dialing: boolean;
  redialMs: number;
  redial: NodeJS.Timeout | null;
}

/** The transport of the peer `self`. */
export function createRaftTransport(self: PeerId, dial: Dial, log: Log): RaftTransport {
  const peers = new Map<PeerId, Peer>();
  let receive: (message: Message) => void = () => {};
  let closed: (peer: PeerId) => void = () => {};
  let over = false;

  function peerOf(id: PeerId): Peer {
    let peer = peers.get(id);
    if (peer === undefined) {
      peer = {
        address: null,
        socket: null,
        dialing: false,
        redialMs: raftRedialMsMin,
        redial: null,
      };
      peers.set(id, peer);
    }
    return peer;
  }

  /** Takes a socket into use for a peer, in place of an older one. */
  function adopt(id: PeerId, socket: WebSocket): void {
    const peer = peerOf(id);
    // Both ends may dial at once: each keeps receiving on both, and sends on the newest.
    peer.socket = socket;
    peer.redialMs = raftRedialMsMin;
    let heard = true;
    const pinger = setInterval(() => {
      if (!heard) return socket.terminate();
      heard = false;
      socket.ping();
    }, pingIntervalMs);
    socket.on("pong", () => {
      heard = true;
    });
    socket.on("message", (data) => {
      heard = true;
      take(id, data, socket);
    });
    socket.on("error", (error) =>
      log.debug({ peer: id, error: messageOf(error) }, "raft connection"),
    );
    socket.on("close", () => {
      clearInterval(pinger);
      if (peer.socket !== socket) return;
      peer.socket = null;
      if (over) return;
      closed(id);
      scheduleDial(id, peer);
    });
  }

  function take(id: PeerId, data: RawData, socket: WebSocket): void {
    let messages: readonly Message[];
    try {
      messages = decodeMessages(data as Buffer);
    } catch (error) {
      log.warn({ peer: id, error: messageOf(error) }, "raft connection closed: bad frame");
      socket.terminate();
      return;
    }
    for (const message of messages) {
      // The certificate says that it is a manager; the frame must be of the peer that opened it.
      if (message.from === id && message.to === self) receive(message);
    }
  }

  function scheduleDial(id: PeerId, peer: Peer): void {
    if (over || peer.address === null || peer.dialing || peer.redial !== null) return;
    peer.redial = setTimeout(() => {
      peer.redial = null;
      dialPeer(id, peer);
    }, peer.redialMs);
    peer.redialMs = Math.min(peer.redialMs * 2, raftRedialMsMax);
  }

  function dialPeer(id: PeerId, peer: Peer): void {
    if (over || peer.dialing || peer.socket !== null || peer.address === null) return;
    peer.dialing = true;
    dial(peer.address).then(
      (socket) => {
        peer.dialing = false;
        if (over || peers.get(id) !== peer || peer.socket !== null) return socket.close();
        socket.send(new TextEncoder().encode(self));
        adopt(id, socket);
      },
      (error: unknown) => {
        peer.dialing = false;
        log.debug({ peer: id, address: peer.address, error: messageOf(error) }, "raft dial failed");
        scheduleDial(id, peer);
      },
    );
  }

  return {
    send(messages) {
      const batches = new Map<PeerId, Message[]>();
      for (const message of messages) {
        const batch = batches.get(message.to);
        if (batch === undefined) batches.set(message.to, [message]);
        else batch.push(message);
      }
      for (const [id, batch] of batches) {
        const peer = peerOf(id);
        const socket = peer.socket;
        if (socket !== null && socket.readyState === socket.OPEN) {
          if (socket.bufferedAmount <= raftBufferedBytesMax) socket.send(encodeMessages(batch));
        } else if (peer.redial === null) dialPeer(id, peer);
      }
    },
    onMessage(callback) {
      receive = callback;
      return () => {
        receive = () => {};
      };
    },
    onClosed(callback) {
      closed = callback;
      return () => {
        closed = () => {};
      };
    },
    setPeers(addresses) {
      for (const [id, address] of addresses) {
        if (id === self) continue;
        const peer = peerOf(id);
        if (peer.address === address) continue;
        peer.address = address;
        dialPeer(id, peer);
      }
      for (const [id, peer] of peers) {
        if (addresses.has(id) || peer.address === null) continue;
        // Gone from the cluster: an open connection may still carry its last messages.
        peer.address = null;
        if (peer.redial !== null) clearTimeout(peer.redial);
        peer.redial = null;
      }
    },
    accept(socket) {
      socket.once("message", (data) => {
        const id = (data as Buffer).toString("utf8");
        if (over || id.length === 0 || id.length > 64 || id === self) return socket.terminate();
        adopt(id, socket);
      });
      socket.on("error", () => socket.terminate());
    },
    close() {
      over = true;
      for (const peer of peers.values()) {
        if (peer.redial !== null) clearTimeout(peer.redial);
        peer.socket?.terminate();
      }
      peers.clear();
    },
  };
}
