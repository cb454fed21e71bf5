/** What two managers say to each other about their connection: the greeting, and snapshots in pieces. */
import type { Membership, PeerId } from "../raft/types.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import { raftSnapshotBytesMax, raftSnapshotChunkBytesMax } from "./limits.ts";
import { frameTypes, readMembership, readPeer, writeMembership } from "./raft-frames.ts";

/**
 * The first frames of a connection. The dialer greets, the other side answers and echoes the dialer's nonce, the dialer
 * greets again and echoes the other's: so each knows that the other lives now, and which life of it this is.
 */
export interface Hello {
  readonly kind: "hello";
  readonly versionMin: number;
  readonly versionMax: number;
  readonly from: PeerId;
  /** Whom the sender believes to speak to. */
  readonly to: PeerId;
  /** Random for each life of the process. */
  readonly incarnation: string;
  /** Random for each connection and end. */
  readonly nonce: string;
  /** The other end's nonce; empty in the first greeting. */
  readonly echo: string;
}
/** A snapshot is there to be taken; the answer is how much of it the peer has. */
export interface Offer {
  readonly kind: "offer";
  /** Which sending this is, counted by the sender in one life: pieces and answers name it. */
  readonly transfer: number;
  /** The sender's term, of the message that the snapshot becomes. */
  readonly term: number;
  readonly index: number;
  readonly snapshotTerm: number;
  readonly bytes: number;
  /** CRC-32C of all bytes. With index, term and length it names the content, so that another leader may go on with it. */
  readonly checksum: number;
  readonly membership: Membership;
}
export interface Chunk {
  readonly kind: "chunk";
  readonly transfer: number;
  readonly offset: number;
  /** Part of the frame's memory: to be copied by whoever keeps it. */
  readonly data: Uint8Array;
}
/** Answers an offer and each piece. `whole`: all is here and its checksum is right. */
export interface Have {
  readonly kind: "have";
  readonly transfer: number;
  readonly bytes: number;
  readonly state: "part" | "whole" | "refused";
}
export type LinkFrame = Hello | Offer | Chunk | Have;

/** Marks a greeting as ours, whatever else may connect: "SHRF". */
const magic = 0x53_48_52_46;
const haveStates: readonly Have["state"][] = ["part", "whole", "refused"];
const writer = new ByteWriter();

/** Bytes of one frame. */
export function encodeLinkFrame(frame: LinkFrame): Uint8Array {
  const pieces = encodeLinkPieces(frame);
  return pieces.length === 1 ? (pieces[0] as Uint8Array) : Buffer.concat(pieces);
}

/** One frame in pieces: a snapshot's bytes are not copied. */
export function encodeLinkPieces(frame: LinkFrame): readonly Uint8Array[] {
  writer.reset();
  writer.u8(frameTypes[frame.kind]);
  switch (frame.kind) {
    case "hello":
      writer.u32(magic);
      writer.u16(frame.versionMin);
      writer.u16(frame.versionMax);
      for (const text of [frame.from, frame.to, frame.incarnation, frame.nonce, frame.echo]) {
        writer.text(text);
      }
      break;
    case "offer":
      for (const value of [frame.transfer, frame.term, frame.index, frame.snapshotTerm]) {
        writer.u53(value);
      }
      writer.u53(frame.bytes);
      writer.u32(frame.checksum);
      writeMembership(writer, frame.membership);
      break;
    case "chunk":
      writer.u53(frame.transfer);
      writer.u53(frame.offset);
      writer.u32(frame.data.byteLength);
      writer.block(frame.data);
      break;
    case "have":
      writer.u53(frame.transfer);
      writer.u53(frame.bytes);
      writer.u8(haveStates.indexOf(frame.state));
      break;
    default:
      frame satisfies never;
  }
  return writer.finish();
}

/** A frame about the connection; null when it is a list of messages. Throws ShoalError("invalid") naming what is wrong. Bytes after the last known field are a newer version's. */
export function decodeLinkFrame(bytes: Uint8Array): LinkFrame | null {
  const reader = new ByteReader(bytes, "a raft frame");
  const type = reader.u8("type");
  switch (type) {
    case frameTypes.messages:
      return null;
    case frameTypes.hello:
      return readHello(reader);
    case frameTypes.offer:
      return readOffer(reader);
    case frameTypes.chunk:
      return readChunk(reader);
    case frameTypes.have:
      return readHave(reader);
    default:
      return reader.fail(`frame type ${type} is unknown to this version`);
  }
}

function readHello(reader: ByteReader): Hello {
  if (reader.u32("mark") !== magic) reader.fail("it is no greeting of a manager");
  const versionMin = reader.u16("oldest version");
  const versionMax = reader.u16("newest version");
  if (versionMin > versionMax) reader.fail(`versions ${versionMin} to ${versionMax}`);
  return {
    kind: "hello",
    versionMin,
    versionMax,
    from: readPeer(reader, "sender"),
    to: readPeer(reader, "receiver"),
    incarnation: reader.text("incarnation"),
    nonce: reader.text("nonce"),
    echo: reader.text("echo"),
  };
}

function readOffer(reader: ByteReader): Offer {
  const offer: Offer = {
    kind: "offer",
    transfer: reader.u53("transfer"),
    term: reader.u53("term"),
    index: reader.u53("index"),
    snapshotTerm: reader.u53("snapshot term"),
    bytes: reader.u53("bytes"),
    checksum: reader.u32("checksum"),
    membership: readMembership(reader),
  };
  if (offer.bytes > raftSnapshotBytesMax) {
    reader.fail(`a snapshot of ${offer.bytes} bytes; the largest is ${raftSnapshotBytesMax}`);
  }
  if (offer.snapshotTerm > offer.term) reader.fail("a snapshot of a term beyond its sender's");
  return offer;
}

function readChunk(reader: ByteReader): Chunk {
  const transfer = reader.u53("transfer");
  const offset = reader.u53("offset");
  const length = reader.u32("length");
  if (length === 0 || length > raftSnapshotChunkBytesMax) {
    reader.fail(`a piece of ${length} bytes; it has 1 to ${raftSnapshotChunkBytesMax}`);
  }
  return { kind: "chunk", transfer, offset, data: reader.view(length, "data") };
}

function readHave(reader: ByteReader): Have {
  const transfer = reader.u53("transfer");
  const bytes = reader.u53("bytes");
  const state = haveStates[reader.u8("state")] ?? reader.fail("unknown state of a snapshot");
  return { kind: "have", transfer, bytes, state };
}
