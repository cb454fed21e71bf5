/** Goal: Raft's transport over real websockets keeps its promises on bad links and against bad peers. How: loopback sockets through a relay that freezes and cuts. */
import { once } from "node:events";
import { afterEach, describe, expect, test } from "vitest";
import type { WebSocket } from "ws";
import { silentLog } from "../lib/log.ts";
import {
  append,
  entry,
  expectSameSnapshot,
  heartbeat,
  snapshotMessage,
  snapshotOf,
  transportSuite,
} from "../raft/testing/transport-suite.ts";
import type { Message, PeerId } from "../raft/types.ts";
import { decodeMessages, encodeMessages } from "../wire/raft-frames.ts";
import { decodeLinkFrame, encodeLinkFrame, type Hello, type LinkFrame } from "../wire/raft-link.ts";
import { createRaftTransport, type RaftTransport } from "./raft-transport.ts";
import { dialLoopback, LoopbackManagers } from "./testing/loopback-managers.ts";

/** A snapshot is given up in 300 ms, in production in ten seconds; the connection may be lost meanwhile. */
const quickToGiveUp = { pingMs: 20, silentPingsMax: 5, redialMsMax: 60, snapshotStallMsMax: 300 };

transportSuite("createRaftTransport()", async () => {
  return new LoopbackManagers(quickToGiveUp);
});

let managers = new LoopbackManagers();
const others: (() => void)[] = [];
afterEach(async () => {
  for (const end of others.splice(0)) end();
  await managers.remove();
  managers = new LoopbackManagers();
});

function ears(transport: RaftTransport) {
  const messages: Message[] = [];
  const closed: PeerId[] = [];
  const snapshots: boolean[] = [];
  transport.onMessage((message) => messages.push(message));
  transport.onClosed((peer) => closed.push(peer));
  transport.onSnapshotSent((_peer, ok) => snapshots.push(ok));
  return { messages, closed, snapshots };
}

/** a dials b through b's relay, and nobody dials a. */
async function oneWay(limits: ConstructorParameters<typeof LoopbackManagers>[0] = {}) {
  managers = new LoopbackManagers(limits);
  const a = await managers.open("a", {}, false);
  const b = await managers.open("b", {}, false);
  const [ofA, ofB] = [ears(a), ears(b)];
  const address = managers.addresses().get("b") ?? "";
  a.setPeers(new Map([["b", address]]));
  await managers.until(() => {
    a.send([heartbeat("a", "b", 0)]);
    return ofB.messages.length > 0;
  }, "the first heartbeat");
  return { a, b, ofA, ofB, way: managers.wayTo("b") };
}

describe("a snapshot", () => {
  const size = 8 * 1024 * 1024;

  test("goes on where it was after the connection was lost", async () => {
    const { a, ofA, ofB, way } = await oneWay({ snapshotWindowBytesMax: 256 * 1024 });
    const before = way.passed;
    a.send([snapshotMessage("a", "b", snapshotOf(9, size))]);
    for (const part of [0.3, 0.6]) {
      await managers.until(() => way.passed - before > size * part, "a part of the snapshot");
      way.cut();
    }
    await managers.until(() => ofA.snapshots.length > 0, "the end of the snapshot");
    expect(ofA.snapshots).toEqual([true]);
    const got = ofB.messages.filter(({ kind }) => kind === "snapshot");
    expect(got.length).toBe(1);
    expectSameSnapshot(got[0], snapshotMessage("a", "b", snapshotOf(9, size)));
    // Cut twice and sent from its beginning each time, it would be nearly twice as much.
    expect(way.passed - before).toBeLessThan(size * 1.2);
  });

  test("of a later leader with the same bytes goes on with what the first one brought", async () => {
    const { a, ofB, way } = await oneWay({ snapshotWindowBytesMax: 256 * 1024 });
    const c = await managers.open("c", {}, false);
    const ofC = ears(c);
    const before = way.passed;
    a.send([snapshotMessage("a", "b", snapshotOf(9, size))]);
    await managers.until(() => way.passed - before > size * 0.6, "most of the snapshot");
    a.close();
    const passed = way.passed;
    c.setPeers(new Map([["b", managers.addresses().get("b") ?? ""]]));
    c.send([{ ...snapshotMessage("c", "b", snapshotOf(9, size)), term: 8 }]);
    await managers.until(() => ofC.snapshots.length > 0, "the end of the snapshot");
    expect(ofC.snapshots).toEqual([true]);
    const want = { ...snapshotMessage("c", "b", snapshotOf(9, size)), term: 8 };
    expectSameSnapshot(ofB.messages.at(-1), want);
    expect(way.passed - passed).toBeLessThan(size * 0.6);
  });

  test("is replaced by a newer one, of which alone the end is told", async () => {
    const { a, ofA, ofB, way } = await oneWay();
    way.freeze();
    a.send([snapshotMessage("a", "b", snapshotOf(9, size))]);
    a.send([snapshotMessage("a", "b", snapshotOf(12, 1000))]);
    way.thaw();
    await managers.until(() => ofA.snapshots.length > 0, "the end of the snapshot");
    a.send([heartbeat("a", "b", 77)]);
    await managers.until(() => ofB.messages.at(-1)?.kind === "heartbeat", "a later heartbeat");
    const got = ofB.messages.filter(({ kind }) => kind === "snapshot");
    expect(got).toEqual([snapshotMessage("a", "b", snapshotOf(12, 1000))]);
    expect(ofA.snapshots).toEqual([true]);
  });

  test("is given up when the peer takes nothing for a while", async () => {
    const { a, ofA, way } = await oneWay(quickToGiveUp);
    way.freeze();
    a.send([snapshotMessage("a", "b", snapshotOf(9, size))]);
    await managers.until(() => ofA.snapshots.length > 0, "the end of the snapshot");
    expect(ofA.snapshots).toEqual([false]);
  });

  test("does not keep heartbeats waiting", async () => {
    const { a, ofA, ofB } = await oneWay();
    ofB.messages.length = 0;
    a.send([snapshotMessage("a", "b", snapshotOf(9, 4 * size))]);
    await managers.until(() => {
      a.send([heartbeat("a", "b", 5)]);
      return ofA.snapshots.length > 0;
    }, "the end of the snapshot");
    const at = ofB.messages.findIndex(({ kind }) => kind === "snapshot");
    expect(at).toBeGreaterThan(2);
  });

  test("whose bytes are not what was offered is refused, and a part of one is forgotten after a while", async () => {
    managers = new LoopbackManagers({ snapshotPartMsMax: 100 });
    const b = await managers.open("b", {}, false);
    const ofB = ears(b);
    const peer = await stranger("x", "b");
    const offer = offerOf(1, 10, 12345);
    peer.say(offer);
    expect(await peer.hear()).toMatchObject({ kind: "have", bytes: 0, state: "part" });
    peer.say({ kind: "chunk", transfer: 1, offset: 0, data: Buffer.from("0123456789") });
    expect(await peer.hear()).toMatchObject({ transfer: 1, state: "refused" });
    peer.say(offerOf(2, 20, 99));
    expect(await peer.hear()).toMatchObject({ transfer: 2, bytes: 0, state: "part" });
    peer.say({ kind: "chunk", transfer: 2, offset: 0, data: Buffer.from("0123456789") });
    expect(await peer.hear()).toMatchObject({ transfer: 2, bytes: 10, state: "part" });
    // The same content from another sending is gone on with, until its time is over.
    let have: LinkFrame | null = null;
    const deadline = performance.now() + 5_000;
    for (let transfer = 3; performance.now() < deadline; transfer += 1) {
      await new Promise((resolve) => setTimeout(resolve, 150));
      peer.say(offerOf(transfer, 20, 99));
      have = await peer.hear();
      if (have.kind === "have" && have.bytes === 0) break;
    }
    expect(have).toMatchObject({ bytes: 0, state: "part" });
    expect(ofB.messages).toEqual([]);
  });
});

describe("a slow peer", () => {
  test("loses appends, not heartbeats, and those overtake what waits", async () => {
    const { a, ofB, way } = await oneWay({
      socketBytesMax: 64 * 1024,
      queueBytesMax: 4 * 1024 * 1024,
    });
    way.freeze();
    ofB.messages.length = 0;
    const sent = 200;
    for (let index = 1; index <= sent; index += 1) {
      a.send([append("a", "b", [entry(index, 256 * 1024)])]);
    }
    a.send([heartbeat("a", "b", 99)]);
    way.thaw();
    await managers.until(
      () => ofB.messages.some(({ kind }) => kind === "heartbeat"),
      "the heartbeat",
    );
    const before = ofB.messages.length;
    await managers.until(() => {
      a.send([append("a", "b", [entry(1_000, 1)])]);
      return ofB.messages.some((m) => m.kind === "append" && m.prevIndex === 999);
    }, "an append after all that waited");
    const appends = ofB.messages.flatMap((m) => (m.kind === "append" ? [m.prevIndex] : []));
    // Some waited behind the heartbeat, and came after it; most were dropped; those that came are in order.
    expect(ofB.messages.length).toBeGreaterThan(before + 10);
    expect(appends.length).toBeLessThan(sent);
    expect(appends).toEqual([...appends].sort((x, y) => x - y));
  });

  test("that says nothing is told as closed within the time named for it", async () => {
    const { ofA, way } = await oneWay({ pingMs: 20, silentPingsMax: 4 });
    // An idle connection stays: its pings are answered.
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(ofA.closed).toEqual([]);
    way.freeze();
    const frozenAt = performance.now();
    await managers.until(() => ofA.closed.length > 0, "the end of the connection");
    expect(ofA.closed).toEqual(["b"]);
    expect(performance.now() - frozenAt).toBeGreaterThan(50);
  });
});

describe("connections", () => {
  test("when both dial, both keep the same one, and nobody hears of the other's end", async () => {
    const a = await managers.open("a", {}, false);
    const b = await managers.open("b", {}, false);
    const [ofA, ofB] = [ears(a), ears(b)];
    managers.introduce();
    await managers.until(() => {
      a.send([heartbeat("a", "b", 1)]);
      b.send([heartbeat("b", "a", 1)]);
      return ofA.messages.length > 0 && ofB.messages.length > 0;
    }, "heartbeats both ways");
    await managers.until(() => managers.connections() === 1, "one connection");
    await managers.until(() => {
      a.send([heartbeat("a", "b", 2)]);
      return ofB.messages.some((m) => m.kind === "heartbeat" && m.commit === 2);
    }, "a heartbeat on what is left");
    expect([...ofA.closed, ...ofB.closed]).toEqual([]);
  });

  test("an older life of a peer is not heard any more once a newer one greeted", async () => {
    const a = await managers.open("a", {}, false);
    const ofA = ears(a);
    const old = await stranger("x", "a", "first life");
    old.send(heartbeat("x", "a", 1));
    await managers.until(() => ofA.messages.length === 1, "the first life");
    const next = await stranger("x", "a", "second life");
    next.send(heartbeat("x", "a", 2));
    await managers.until(() => ofA.messages.length === 2, "the second life");
    expect(ofA.closed).toEqual(["x"]);
    old.send(heartbeat("x", "a", 3));
    next.send(heartbeat("x", "a", 4));
    await managers.until(() => ofA.messages.length === 3, "the second life again");
    expect(ofA.messages.map((m) => m.kind === "heartbeat" && m.commit)).toEqual([1, 2, 4]);
  });

  test("a greeting that was recorded from an older connection is worth nothing", async () => {
    const a = await managers.open("a", {}, false);
    const ofA = ears(a);
    const socket = await raw("a");
    const hello: Hello = greeting("x", "a", "old", "recorded", "");
    socket.send(encodeLinkFrame(hello));
    socket.send(encodeLinkFrame({ ...hello, echo: "of another connection" }));
    socket.send(encodeMessages([heartbeat("x", "a", 1)]));
    await once(socket, "close");
    expect(ofA.messages).toEqual([]);
  });

  test("versions that do not meet are refused, and others meet at the newest that both speak", async () => {
    managers = new LoopbackManagers({ redialMsMax: 50 });
    const a = await managers.open("a", { versionMin: 2, versionMax: 3 }, false);
    const b = await managers.open("b", { versionMin: 1, versionMax: 2 }, false);
    const c = await managers.open("c", { versionMin: 4, versionMax: 5 }, false);
    const [ofB, ofC] = [ears(b), ears(c)];
    managers.introduce();
    await managers.until(() => {
      a.send([heartbeat("a", "b", 1), heartbeat("a", "c", 1)]);
      return ofB.messages.length > 0;
    }, "a heartbeat at the older version");
    expect(ofC.messages).toEqual([]);
    const peer = await raw("c");
    peer.send(encodeLinkFrame(greeting("x", "c", "i", "n", "")));
    const [code, reason] = await once(peer, "close");
    expect([code, String(reason)]).toEqual([
      4000,
      "it speaks raft wire versions 2 to 2, this manager 4 to 5: upgrade the older one",
    ]);
  });

  test("a manager that another has taken the address of is not spoken to", async () => {
    managers = new LoopbackManagers({ redialMsMax: 50 });
    const a = await managers.open("a", {}, false);
    const b = await managers.open("b", {}, false);
    const ofB = ears(b);
    // b runs where c was: its disk was wiped, it has a new name.
    a.setPeers(new Map([["c", managers.addresses().get("b") ?? ""]]));
    a.send([heartbeat("a", "c", 1)]);
    const direct = createRaftTransport("d", dialLoopback, silentLog);
    others.push(() => direct.close());
    direct.setPeers(new Map([["b", managers.addresses().get("b") ?? ""]]));
    await managers.until(() => {
      direct.send([heartbeat("d", "b", 1)]);
      return ofB.messages.length > 0;
    }, "a heartbeat of one who knows the name");
    expect(ofB.messages.every(({ from }) => from === "d")).toBe(true);
  });

  test("with a peer that is gone from the cluster carry its last messages, and end after a while", async () => {
    const { a, ofA, ofB } = await oneWay({ farewellMsMax: 200 });
    a.setPeers(new Map());
    a.send([heartbeat("a", "b", 99)]);
    await managers.until(
      () => ofB.messages.some((m) => m.kind === "heartbeat" && m.commit === 99),
      "a last message",
    );
    expect(ofA.closed).toEqual([]);
    await managers.until(() => ofA.closed.length > 0, "the end of the connection");
    expect([ofA.closed, managers.connections()]).toEqual([["b"], 0]);
  });

  test("with a peer that is back in the cluster stay", async () => {
    const { a, ofA, ofB } = await oneWay({ farewellMsMax: 50 });
    const address = managers.addresses().get("b") ?? "";
    a.setPeers(new Map());
    a.setPeers(new Map([["b", address]]));
    await new Promise((resolve) => setTimeout(resolve, 150));
    a.send([heartbeat("a", "b", 99)]);
    await managers.until(
      () => ofB.messages.some((m) => m.kind === "heartbeat" && m.commit === 99),
      "a message on the same connection",
    );
    expect(ofA.closed).toEqual([]);
  });

  test("all that one send() has for a peer is one frame", async () => {
    const a = await managers.open("a", {}, false);
    const frames: number[] = [];
    const peer = await stranger("x", "a", "x", (data) => frames.push(decodeMessages(data).length));
    await managers.until(() => {
      a.send([heartbeat("a", "x", 1)]);
      return frames.length > 0;
    }, "a first frame");
    frames.length = 0;
    a.send([
      append("a", "x", [entry(1, 10), entry(2, 100_000)]),
      heartbeat("a", "y", 1),
      heartbeat("a", "x", 1),
      append("a", "x", [entry(3, 10)]),
    ]);
    a.send([heartbeat("a", "x", 2)]);
    await managers.until(() => frames.at(-1) === 1 && frames.length > 1, "both sends");
    expect(frames.filter((messages) => messages !== 1)).toEqual([3]);
    peer.close();
  });

  test("more than the limit are refused", async () => {
    await managers.open("a", { connectionsMax: 2 }, false);
    const first = await stranger("x", "a");
    await stranger("y", "a");
    const third = await raw("a");
    await once(third, "close");
    first.close();
    await managers.until(() => managers.connections() === 1, "room for one");
    const again = await stranger("z", "a");
    again.close();
  });
});

describe("a hostile peer", () => {
  test.each([
    ["no greeting", [encodeMessages([heartbeat("x", "a", 1)])]],
    ["a bare name, as the first version greeted", [Buffer.from("x")]],
    ["a name that is ours", [encodeLinkFrame(greeting("a", "a", "i", "n", ""))]],
    ["a long name of long letters", [encodeLinkFrame(greeting("x", "€".repeat(64), "i", "n", ""))]],
    ["noise", [Buffer.alloc(5_000, 0xff)]],
    ["nothing", [new Uint8Array(0)]],
  ])("that begins with %s is closed", async (_name, frames) => {
    const a = await managers.open("a", {}, false);
    const ofA = ears(a);
    const socket = await raw("a");
    for (const frame of frames) socket.send(frame);
    await once(socket, "close");
    expect(ofA.messages).toEqual([]);
  });

  test("that never greets is closed after a while", async () => {
    await managers.open("a", { greetingMsMax: 50 }, false);
    const socket = await raw("a");
    await once(socket, "close");
    expect(managers.connections()).toBe(0);
  });

  test("that speaks for another is not heard", async () => {
    const a = await managers.open("a", {}, false);
    const ofA = ears(a);
    const peer = await stranger("x", "a");
    peer.send(heartbeat("y", "a", 1));
    peer.send(heartbeat("x", "b", 1));
    peer.send(heartbeat("x", "a", 2));
    await managers.until(() => ofA.messages.length > 0, "its own word");
    expect(ofA.messages).toEqual([heartbeat("x", "a", 2)]);
  });

  test.each([
    ["noise", Buffer.alloc(100, 0xee)],
    ["a second greeting", encodeLinkFrame(greeting("x", "a", "i", "n", "e"))],
    ["half a message", encodeMessages([heartbeat("x", "a", 1)]).subarray(0, 12)],
    ["more than a frame holds", Buffer.alloc(17 * 1024 * 1024, 2)],
  ])("that goes on with %s is closed, and others are served", async (_name, bytes) => {
    const a = await managers.open("a", {}, false);
    const ofA = ears(a);
    const peer = await stranger("x", "a");
    const good = await stranger("y", "a");
    peer.raw(bytes);
    await peer.closed;
    good.send(heartbeat("y", "a", 7));
    await managers.until(() => ofA.messages.length > 0, "the good one's word");
    expect(ofA.messages).toEqual([heartbeat("y", "a", 7)]);
    expect(ofA.closed).toEqual(["x"]);
  });

  test("that sends pieces nobody asked for, or of the wrong place, is refused", async () => {
    const b = await managers.open("b", {}, false);
    const ofB = ears(b);
    const peer = await stranger("x", "b");
    const data = Buffer.from("0123456789");
    peer.say({ kind: "chunk", transfer: 5, offset: 0, data });
    expect(await peer.hear()).toMatchObject({ transfer: 5, state: "refused" });
    peer.say(offerOf(6, 15, 1));
    expect(await peer.hear()).toMatchObject({ transfer: 6, state: "part" });
    peer.say({ kind: "chunk", transfer: 6, offset: 5, data });
    expect(await peer.hear()).toMatchObject({ transfer: 6, state: "refused" });
    peer.say({ kind: "have", transfer: 1, bytes: 2 ** 50, state: "whole" });
    peer.say(offerOf(7, 15, 1));
    expect(await peer.hear()).toMatchObject({ transfer: 7, bytes: 0, state: "part" });
    peer.say({ kind: "chunk", transfer: 7, offset: 0, data });
    expect(await peer.hear()).toMatchObject({ transfer: 7, bytes: 10 });
    peer.say({ kind: "chunk", transfer: 7, offset: 10, data });
    expect(await peer.hear()).toMatchObject({ transfer: 7, state: "refused" });
    expect(ofB.messages).toEqual([]);
  });
});

async function raw(id: PeerId): Promise<WebSocket> {
  const socket = await dialLoopback(managers.addresses().get(id) ?? "");
  others.push(() => socket.terminate());
  socket.on("error", () => socket.terminate());
  return socket;
}

function greeting(
  from: PeerId,
  to: PeerId,
  incarnation: string,
  nonce: string,
  echo: string,
): Hello {
  return { kind: "hello", versionMin: 2, versionMax: 2, from, to, incarnation, nonce, echo };
}

function offerOf(transfer: number, bytes: number, checksum: number): LinkFrame {
  const { membership } = snapshotOf(1, 0);
  return {
    kind: "offer",
    transfer,
    term: 7,
    index: 9,
    snapshotTerm: 3,
    bytes,
    checksum,
    membership,
  };
}

/** A peer made by hand, greeted. */
async function stranger(
  from: PeerId,
  to: PeerId,
  incarnation: string = from,
  onMessages: (data: Buffer) => void = () => {},
) {
  const socket = await raw(to);
  const heard: LinkFrame[] = [];
  const waiting: ((frame: LinkFrame) => void)[] = [];
  socket.on("message", (data: Buffer) => {
    const frame = decodeLinkFrame(data);
    if (frame === null) {
      onMessages(data);
      return;
    }
    const next = waiting.shift();
    if (next === undefined) heard.push(frame);
    else next(frame);
  });
  const hear = async (): Promise<LinkFrame> =>
    heard.shift() ?? (await new Promise((resolve) => waiting.push(resolve)));
  const say = (frame: LinkFrame) => socket.send(encodeLinkFrame(frame));
  say(greeting(from, to, incarnation, "nonce", ""));
  const answer = await hear();
  if (answer.kind !== "hello") throw new Error("must be greeted");
  say(greeting(from, to, incarnation, "nonce", answer.nonce));
  return {
    hear,
    say,
    send: (message: Message) => socket.send(encodeMessages([message])),
    raw: (bytes: Uint8Array) => socket.send(bytes),
    closed: once(socket, "close"),
    close: () => socket.close(),
  };
}
