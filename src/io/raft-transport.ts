/**
 * Raft's messages between managers: one websocket between two managers, whoever opened it.
 * Best effort: what cannot be sent is dropped, Raft sends again. A peer's closed connection is told at once.
 */
import { randomUUID } from "node:crypto";
import type { ClientOptions, WebSocket } from "ws";
import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Message, PeerId, Transport } from "../raft/types.ts";
import { raftFrameBytesMax } from "../wire/limits.ts";
import { EntryBlocks } from "../wire/raft-frames.ts";
import type { LinkFrame } from "../wire/raft-link.ts";
import { type Greeted, type Greeter, greet } from "./raft-transport-greeting.ts";
import type { PeerObjection } from "./raft-transport-identity.ts";
import {
  type RaftTransportLimits,
  raftTransportLimits,
  validateTransportLimits,
} from "./raft-transport-limits.ts";
import { RaftLink } from "./raft-transport-link.ts";
import { SnapshotReceiver, SnapshotSender } from "./raft-transport-snapshots.ts";

/** Opens a websocket to the manager at an address. */
export type Dial = (address: string) => Promise<WebSocket>;
export interface RaftTransport extends Transport {
  /** A connection that another manager opened; its greeting says which peer it is. */
  accept(socket: WebSocket): void;
  close(): void;
}

/**
 * How a Raft connection is opened. Its bytes are not masked: masking guards proxies that do not know websockets, and
 * between managers there are none; it would cost a copy of everything. (ws sets TCP_NODELAY by itself.)
 */
export const raftSocketOptions: ClientOptions = {
  perMessageDeflate: false,
  maxPayload: raftFrameBytesMax,
  generateMask: (mask) => mask.fill(0),
};

interface Peer {
  address: string | null;
  link: RaftLink | null;
  /** The life of the peer that greeted last: older ones are not heard. */
  incarnation: string | null;
  dialing: boolean;
  redialMs: number;
  redial: NodeJS.Timeout | null;
  /** Ends what is open with a peer that is gone from the cluster. */
  farewell: NodeJS.Timeout | null;
}

/** The transport of the peer `self`. `objection` binds names to certificates; without one every name is believed (tests, benchmarks). */
export function createRaftTransport(
  self: PeerId,
  dial: Dial,
  log: Log,
  changedLimits: Partial<RaftTransportLimits> = {},
  objection: PeerObjection = () => null,
): RaftTransport {
  const limits: RaftTransportLimits = { ...raftTransportLimits, ...changedLimits };
  validateTransportLimits(limits);
  const greeter: Greeter = {
    id: self,
    incarnation: randomUUID(),
    limits,
    objection: objectionSaid,
  };
  const peers = new Map<PeerId, Peer>();
  const sockets = new Set<WebSocket>();
  let receive: (message: Message) => void = () => {};
  let closed: (peer: PeerId) => void = () => {};
  let snapshotSent: (peer: PeerId, ok: boolean) => void = () => {};
  let over = false;
  const sender = new SnapshotSender(limits, log, (peer, ok) => {
    if (!over) snapshotSent(peer, ok);
  });
  const receiver = new SnapshotReceiver(self, limits, log, (message) => receive(message));

  function objectionSaid(socket: WebSocket, peer: PeerId): string | null {
    const why = objection(socket, peer);
    if (why !== null) log.warn({ peer, why }, "raft connection refused: it is not who it says");
    return why;
  }

  function peerOf(id: PeerId): Peer {
    let peer = peers.get(id);
    if (peer === undefined) {
      peer = {
        address: null,
        link: null,
        incarnation: null,
        dialing: false,
        redialMs: limits.redialMsMin,
        redial: null,
        farewell: null,
      };
      peers.set(id, peer);
    }
    return peer;
  }

  /** Counts a socket until it closes, so that close() finds it. */
  function own(socket: WebSocket): void {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", (error) => {
      log.debug({ error: messageOf(error) }, "raft connection");
      socket.terminate();
    });
  }

  /** Takes a greeted connection into use, unless an equal one is kept. */
  function adopt(socket: WebSocket, greeted: Greeted, dialer: PeerId): void {
    const id = greeted.peer;
    const peer = peerOf(id);
    const link: RaftLink = new RaftLink(socket, greeted, dialer, limits, log, {
      message(message) {
        if (link.incarnation !== peer.incarnation || over) return;
        // The certificate says that it is a manager; the frame must be of the peer that opened it.
        if (message.from === id && message.to === self) receive(message);
      },
      frame(frame) {
        if (link.incarnation === peer.incarnation && !over) takeFrame(link, frame);
      },
      closed(replaced) {
        if (peer.link !== link) return;
        peer.link = null;
        sender.disconnected(id);
        if (performance.now() - link.openedAt >= limits.redialMsMax) {
          peer.redialMs = limits.redialMsMin;
        }
        if (over) return;
        scheduleDial(id, peer);
        if (!replaced) closed(id);
        forgetStranger(id, peer);
      },
    });
    const before = peer.link;
    const isNewLife = peer.incarnation !== null && peer.incarnation !== link.incarnation;
    peer.incarnation = link.incarnation;
    if (before !== null && !isNewLife && isKept(before, link)) {
      link.replace();
      return;
    }
    peer.link = link;
    if (peer.redial !== null) clearTimeout(peer.redial);
    peer.redial = null;
    if (before !== null && isNewLife) {
      before.terminate();
      closed(id);
    } else before?.replace();
    sender.connected(id, link);
  }

  /** When both dialed at once, both ends keep the connection of the one whose name is first; else the newer one. */
  function isKept(before: RaftLink, link: RaftLink): boolean {
    const preferred = self < link.peer ? self : link.peer;
    return before.dialer !== link.dialer && before.dialer === preferred;
  }

  function takeFrame(link: RaftLink, frame: LinkFrame): void {
    switch (frame.kind) {
      case "offer":
        receiver.offer(link.peer, link.incarnation, frame, link);
        break;
      case "chunk":
        receiver.chunk(link.incarnation, frame, link);
        break;
      case "have":
        sender.have(link.peer, frame, link);
        break;
      case "hello":
        log.warn({ peer: link.peer }, "raft connection closed: a second greeting");
        link.terminate();
        break;
      default:
        frame satisfies never;
    }
  }

  function scheduleDial(id: PeerId, peer: Peer): void {
    if (over || peer.address === null || peer.dialing || peer.redial !== null) return;
    peer.redial = setTimeout(() => {
      peer.redial = null;
      dialPeer(id, peer);
    }, peer.redialMs);
    peer.redialMs = Math.min(peer.redialMs * 2, limits.redialMsMax);
  }

  function dialPeer(id: PeerId, peer: Peer): void {
    if (over || peer.dialing || peer.link !== null || peer.address === null) return;
    const { address } = peer;
    peer.dialing = true;
    const failed = (why: string): void => {
      peer.dialing = false;
      log.debug({ peer: id, address, error: why }, "raft dial failed");
      scheduleDial(id, peer);
    };
    dial(address).then(
      (socket) => {
        // What came meanwhile counts: a connection from the other end, another address, the end.
        if (over || peer.link !== null || peer.address !== address) {
          peer.dialing = false;
          socket.terminate();
          return dialPeer(id, peer);
        }
        own(socket);
        greet(socket, greeter, id, (outcome) => {
          if ("refused" in outcome) return failed(outcome.refused);
          peer.dialing = false;
          if (!over) adopt(socket, outcome, self);
        });
      },
      (error: unknown) => failed(messageOf(error)),
    );
  }

  /** A peer without an address is known only as long as it is connected. */
  function forgetStranger(id: PeerId, peer: Peer): void {
    if (peer.address !== null || peer.link !== null || peer.dialing) return;
    if (peer.farewell !== null) clearTimeout(peer.farewell);
    peers.delete(id);
  }

  function batchesOf(messages: readonly Message[]): ReadonlyMap<PeerId, Message[]> {
    const batches = new Map<PeerId, Message[]>();
    for (const message of messages) {
      if (message.to === self) continue;
      if (message.kind === "snapshot") {
        sender.start(message, peers.get(message.to)?.link ?? null);
        continue;
      }
      const batch = batches.get(message.to);
      if (batch === undefined) batches.set(message.to, [message]);
      else batch.push(message);
    }
    return batches;
  }

  return {
    send(messages) {
      if (over) return;
      const blocks = new EntryBlocks();
      for (const [id, batch] of batchesOf(messages)) {
        const peer = peers.get(id);
        if (peer === undefined) continue;
        if (peer.link !== null) peer.link.send(batch, blocks);
        else if (peer.redial === null) dialPeer(id, peer);
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
    onSnapshotSent(callback) {
      snapshotSent = callback;
      return () => {
        snapshotSent = () => {};
      };
    },
    setPeers(addresses) {
      for (const [id, address] of addresses) {
        if (id === self || over) continue;
        const peer = peerOf(id);
        if (peer.address === address) continue;
        peer.address = address;
        if (peer.farewell !== null) clearTimeout(peer.farewell);
        peer.farewell = null;
        // It greeted before its row was known here.
        if (peer.link !== null && objectionSaid(peer.link.socket, id) !== null) {
          peer.link.terminate();
        }
        dialPeer(id, peer);
      }
      for (const [id, peer] of peers) {
        if (addresses.has(id) || peer.address === null) continue;
        // Gone from the cluster: an open connection may still carry its last messages, for a while.
        peer.address = null;
        peer.farewell = setTimeout(() => {
          peer.farewell = null;
          peer.link?.terminate();
        }, limits.farewellMsMax);
        if (peer.redial !== null) clearTimeout(peer.redial);
        peer.redial = null;
        sender.forget(id);
        forgetStranger(id, peer);
      }
    },
    accept(socket) {
      if (over || sockets.size >= limits.connectionsMax) {
        if (!over) log.warn({ most: limits.connectionsMax }, "raft connection refused: too many");
        return socket.terminate();
      }
      own(socket);
      greet(socket, greeter, null, (outcome) => {
        if (over) return;
        if ("refused" in outcome) {
          log.info({ why: outcome.refused }, "raft connection refused");
        } else adopt(socket, outcome, outcome.peer);
      });
    },
    close() {
      over = true;
      for (const peer of peers.values()) {
        if (peer.redial !== null) clearTimeout(peer.redial);
        if (peer.farewell !== null) clearTimeout(peer.farewell);
      }
      for (const socket of [...sockets]) socket.terminate();
      sender.close();
      receiver.drop();
      peers.clear();
    },
  };
}
