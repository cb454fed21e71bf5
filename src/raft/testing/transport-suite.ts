/** What every Transport must do: run this suite on each implementation. */
import { afterEach, describe, expect, test } from "vitest";
import type { Entry, Message, PeerId, Snapshot, Transport } from "../types.ts";

/** A network that loses nothing by chance, and the peers on it. */
export interface TransportWorld {
  /** Starts peer `id`; it and all peers that are up are told where they are. */
  open(id: PeerId): Promise<Transport>;
  /** The peer's process dies: what it was connected to sees its connections close. */
  crash(id: PeerId): Promise<void>;
  /** Lets time go on until `holds`. Rejects when it does not for long. */
  until(holds: () => boolean, what: string): Promise<void>;
  /** Ends everything that was opened. */
  remove(): Promise<void>;
}

/** Everything that one peer was told, in order. */
interface Ears {
  readonly transport: Transport;
  readonly messages: Message[];
  readonly closed: PeerId[];
  readonly snapshots: { readonly peer: PeerId; readonly ok: boolean }[];
}

/** Registers the suite for the implementation that `makeWorld` gives an empty world of. */
export function transportSuite(name: string, makeWorld: () => Promise<TransportWorld>): void {
  describe(`${name} as a Transport`, () => {
    let world: TransportWorld | null = null;
    const open = async (id: PeerId): Promise<Ears> => {
      world ??= await makeWorld();
      return listenTo(await world.open(id));
    };
    const until = async (holds: () => boolean, what: string): Promise<void> => {
      await world?.until(holds, what);
    };
    /** Sends until it arrives: before peers are connected, messages may be lost. */
    const reach = async (from: Ears, to: Ears, message: Message): Promise<void> => {
      const before = to.messages.length;
      await until(() => {
        if (to.messages.length > before) return true;
        from.transport.send([message]);
        return false;
      }, `a ${message.kind} from ${message.from} at ${message.to}`);
    };
    afterEach(async () => {
      await world?.remove();
      world = null;
    });

    test("send() carries every kind of message whole", async () => {
      const a = await open("a");
      const b = await open("b");
      await reach(a, b, heartbeat("a", "b", 0));
      b.messages.length = 0;
      const sent = everyKind("a", "b");
      a.transport.send(sent);
      await until(() => b.messages.some(({ kind }) => kind === "read-index-reply"), "the last one");
      const got = new Map(b.messages.map((message) => [message.kind, message]));
      for (const message of sent) expect(got.get(message.kind)).toEqual(message);
    });

    test("send() gives each message to its receiver only", async () => {
      const [a, b, c] = [await open("a"), await open("b"), await open("c")];
      await reach(a, b, heartbeat("a", "b", 0));
      await reach(a, c, heartbeat("a", "c", 0));
      b.messages.length = 0;
      c.messages.length = 0;
      a.transport.send([heartbeat("a", "b", 5), heartbeat("a", "c", 6), heartbeat("a", "b", 7)]);
      const commits = (ears: Ears) =>
        ears.messages.flatMap((message) =>
          message.kind === "heartbeat" && message.commit > 0 ? [message.commit] : [],
        );
      await until(() => commits(b).length === 2 && commits(c).length === 1, "three heartbeats");
      expect(commits(b).sort()).toEqual([5, 7]);
      expect(commits(c)).toEqual([6]);
      expect(a.messages).toEqual([]);
    });

    test("send() to a peer that nobody knows does nothing", async () => {
      const a = await open("a");
      const b = await open("b");
      a.transport.send([heartbeat("a", "nobody", 1)]);
      await reach(a, b, heartbeat("a", "b", 1));
      expect(a.closed).toEqual([]);
    });

    test("a received entry does not change when the sender's bytes do", async () => {
      const [a, b] = [await open("a"), await open("b")];
      await reach(a, b, heartbeat("a", "b", 0));
      b.messages.length = 0;
      a.transport.send([append("a", "b", [entry(1, 34_000), entry(2, 10)])]);
      await until(() => b.messages.length > 0, "the append");
      a.transport.send([append("a", "b", [{ ...entry(1, 34_000), term: 2 }])]);
      await until(() => b.messages.length > 1, "the second append");
      expect(b.messages[0]).toEqual(append("a", "b", [entry(1, 34_000), entry(2, 10)]));
    });

    test("a snapshot arrives whole, and its sender is told once", async () => {
      const [a, b] = [await open("a"), await open("b")];
      await reach(a, b, heartbeat("a", "b", 0));
      const snapshot = snapshotOf(9, 3 * 1024 * 1024 + 17);
      a.transport.send([snapshotMessage("a", "b", snapshot)]);
      await until(() => a.snapshots.length > 0, "word of the snapshot");
      const got = b.messages.find(({ kind }) => kind === "snapshot");
      expectSameSnapshot(got, snapshotMessage("a", "b", snapshot));
      await reach(b, a, heartbeat("b", "a", 0));
      expect(a.snapshots).toEqual([{ peer: "b", ok: true }]);
    });

    test("an empty snapshot arrives", async () => {
      const [a, b] = [await open("a"), await open("b")];
      await reach(a, b, heartbeat("a", "b", 0));
      a.transport.send([snapshotMessage("a", "b", snapshotOf(1, 0))]);
      await until(() => a.snapshots.length > 0, "word of the snapshot");
      expect(b.messages.at(-1)).toEqual(snapshotMessage("a", "b", snapshotOf(1, 0)));
    });

    test("a snapshot for a peer that is gone fails", async () => {
      const [a, b] = [await open("a"), await open("b")];
      await reach(a, b, heartbeat("a", "b", 0));
      await world?.crash("b");
      await until(() => a.closed.length > 0, "word of the crash");
      a.transport.send([snapshotMessage("a", "b", snapshotOf(9, 1000))]);
      await until(() => a.snapshots.length > 0, "word of the snapshot");
      expect(a.snapshots).toEqual([{ peer: "b", ok: false }]);
    });

    test("onClosed() tells of a peer that died", async () => {
      const [a, b, c] = [await open("a"), await open("b"), await open("c")];
      for (const [from, to] of [
        [a, b],
        [c, b],
        [a, c],
      ] as const) {
        const ids = new Map([
          [a, "a"],
          [b, "b"],
          [c, "c"],
        ]);
        await reach(from, to, heartbeat(ids.get(from) ?? "", ids.get(to) ?? "", 0));
      }
      a.closed.length = 0;
      c.closed.length = 0;
      await world?.crash("b");
      await until(() => a.closed.includes("b") && c.closed.includes("b"), "word of the crash");
      expect([...a.closed, ...c.closed]).toEqual(["b", "b"]);
    });

    test("a peer that comes back is reached again, both ways", async () => {
      const [a, b] = [await open("a"), await open("b")];
      await reach(a, b, heartbeat("a", "b", 0));
      await world?.crash("b");
      await until(() => a.closed.length > 0, "word of the crash");
      const again = await open("b");
      await reach(a, again, heartbeat("a", "b", 2));
      await reach(again, a, heartbeat("b", "a", 3));
      expect(a.messages.at(-1)).toEqual(heartbeat("b", "a", 3));
    });

    test("whoever stopped listening hears nothing", async () => {
      const [a, b] = [await open("a"), await open("b")];
      await reach(a, b, heartbeat("a", "b", 0));
      const stop = b.transport.onMessage(() => {
        throw new Error("must not be called any more");
      });
      stop();
      const heard = b.messages.length;
      a.transport.send([heartbeat("a", "b", 1)]);
      await reach(b, a, heartbeat("b", "a", 1));
      expect(b.messages.length).toBe(heard);
    });
  });
}

function listenTo(transport: Transport): Ears {
  const ears: Ears = { transport, messages: [], closed: [], snapshots: [] };
  transport.onMessage((message) => ears.messages.push(message));
  transport.onClosed((peer) => ears.closed.push(peer));
  transport.onSnapshotSent((peer, ok) => ears.snapshots.push({ peer, ok }));
  return ears;
}

/** One message of each kind. */
export function everyKind(from: PeerId, to: PeerId): readonly Message[] {
  const envelope = { from, to, term: 7 };
  return [
    append(from, to, [entry(1, 3), entry(2, 34_000), entry(3, 0)]),
    { ...envelope, kind: "append-reply", index: 9, rejected: true, hintIndex: 8, hintTerm: 1 },
    { ...envelope, kind: "heartbeat", commit: 3, readId: 11 },
    { ...envelope, kind: "heartbeat-reply", readId: null },
    { ...envelope, kind: "vote", lastIndex: 2 ** 32, lastTerm: 6, transfer: false },
    { ...envelope, kind: "prevote", lastIndex: 9, lastTerm: 6, transfer: true },
    { ...envelope, kind: "vote-reply", granted: true },
    { ...envelope, kind: "prevote-reply", granted: false, committed: { index: 3, term: 2 } },
    { ...envelope, kind: "timeout-now" },
    { ...envelope, kind: "propose", entries: [{ kind: "normal", data: new Uint8Array([1]) }] },
    { ...envelope, kind: "read-index", readId: 12 },
    { ...envelope, kind: "read-index-reply", readId: 12, index: 9 },
  ];
}

export function heartbeat(from: PeerId, to: PeerId, commit: number): Message {
  return { kind: "heartbeat", from, to, term: 1, commit, readId: null };
}

export function append(from: PeerId, to: PeerId, entries: readonly Entry[]): Message {
  const prevIndex = (entries[0]?.index ?? 1) - 1;
  return { kind: "append", from, to, term: 7, prevIndex, prevTerm: 0, entries, commit: 0 };
}

export function entry(index: number, bytes: number): Entry {
  return { index, term: 1, kind: "normal", data: new Uint8Array(bytes).fill(index) };
}

/** A snapshot whose every byte depends on where it is, so that a piece in the wrong place shows. */
export function snapshotOf(index: number, bytes: number): Snapshot {
  const data = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at += 1) data[at] = (at * 31 + (at >>> 8) * 7 + index) & 0xff;
  const membership = {
    voters: ["a", "b"],
    outgoing: [],
    learners: [],
    learnersNext: [],
    autoLeave: false,
  };
  return { index, term: 3, membership, data };
}

export function snapshotMessage(from: PeerId, to: PeerId, snapshot: Snapshot): Message {
  return { kind: "snapshot", from, to, term: 7, snapshot };
}

/** As toEqual, which takes half a minute for megabytes. */
export function expectSameSnapshot(got: Message | undefined, want: Message): void {
  if (got?.kind !== "snapshot" || want.kind !== "snapshot") {
    throw new Error(`must be snapshots: ${got?.kind} and ${want.kind}`);
  }
  const withoutData = (message: typeof got) => ({
    ...message,
    snapshot: { ...message.snapshot, data: message.snapshot.data.byteLength },
  });
  expect(withoutData(got)).toEqual(withoutData(want));
  const { data } = want.snapshot;
  expect(got.snapshot.data.findIndex((byte, at) => byte !== data[at])).toBe(-1);
}
