/** Whose certificate is at the other end of a Raft connection, and whether it may be the peer that it says it is. */
import type { TLSSocket } from "node:tls";
import type { WebSocket } from "ws";
import type { PeerId } from "../raft/types.ts";
import { peerOf } from "./cluster-listener.ts";

/**
 * Why what is at the other end of `socket` may not be `peer`, or null when it may. Asked at each greeting, and again
 * when it is learned who `peer` is.
 */
export type PeerObjection = (socket: WebSocket, peer: PeerId) => string | null;

/** Asks `objection` for the node whose certificate the other end showed; without a certificate nobody is a peer. */
export function byCertificate(
  objection: (nodeId: string, peer: PeerId) => string | null,
): PeerObjection {
  return (socket, peer) => {
    const nodeId = certifiedNode(socket);
    return nodeId === null ? "the connection has no certificate" : objection(nodeId, peer);
  };
}

/** The node id in the certificate, which the TLS handshake has verified. ws has no public way to its socket. */
function certifiedNode(socket: WebSocket): string | null {
  const inner = (socket as unknown as { readonly _socket?: Partial<TLSSocket> | null })._socket;
  if (typeof inner?.getPeerCertificate !== "function") return null;
  return peerOf(inner as TLSSocket)?.nodeId ?? null;
}
