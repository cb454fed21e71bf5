/** Everything around a raft driver: a core that hands out scripted Readys and notes what it is told, a storage whose saves end when the test says so, and turns of the event loop that the test runs. */
import { after } from "../../lib/clock.ts";
import type {
  Entry,
  Membership,
  Message,
  PeerId,
  RaftCore,
  RaftStatus,
  Ready,
  Role,
  SaveToken,
  Snapshot,
  Storage,
  Transport,
} from "../../raft/types.ts";
import { tickMs } from "../limits.ts";
import { createRaftDriver, type RaftDriver } from "../raft-driver.ts";
import { createTestClock, settle, type TestClock } from "./clock.ts";

export const membership: Membership = {
  voters: ["a", "b", "c"],
  outgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
};
export const nothing: Ready = {
  leader: "a",
  role: "leader",
  hardState: null,
  entries: [],
  snapshot: null,
  messages: [],
  afterSave: [],
  toSelf: [],
  save: null,
  mustSync: false,
  committed: [],
  reads: [],
};

export function entry(index: number, bytes = 1, term = 1): Entry {
  return { index, term, kind: "normal", data: new Uint8Array(bytes) };
}
export function entries(from: number, through: number, bytes = 1): Entry[] {
  return Array.from({ length: through - from + 1 }, (_, at) => entry(from + at, bytes));
}
export function token(lastIndex: number): SaveToken {
  return { term: 1, lastIndex, lastTerm: 1, snapshotIndex: null };
}
/** A Ready that saves these entries, with an acknowledgement that waits for it. */
export function saving(list: readonly Entry[], more: Partial<Ready> = {}): Ready {
  const last = list.at(-1)?.index ?? 0;
  return {
    ...nothing,
    entries: list,
    mustSync: true,
    save: token(last),
    afterSave: [reply(last)],
    ...more,
  };
}
export function reply(index: number): Message {
  return {
    kind: "append-reply",
    from: "a",
    to: "b",
    term: 1,
    index,
    rejected: false,
    hintIndex: 0,
    hintTerm: 0,
  };
}
export function append(list: readonly Entry[], commit = 0): Message {
  return {
    kind: "append",
    from: "a",
    to: "b",
    term: 1,
    prevIndex: 0,
    prevTerm: 0,
    entries: list,
    commit,
  };
}
export function snapshotAt(index: number): Snapshot {
  return { index, term: 1, membership, data: new Uint8Array(0) };
}

/** Everything around one driver, and a list of all that it did, in order. */
export class Bench {
  readonly did: string[] = [];
  readonly clock: TestClock = createTestClock();
  readonly readys: Ready[] = [];
  readonly saves: {
    readonly change: Pick<Ready, "hardState" | "entries" | "snapshot">;
    readonly end: (error?: Error) => void;
  }[] = [];
  readonly driver: RaftDriver;
  status: RaftStatus = {
    id: "a",
    role: "leader" as Role,
    term: 1,
    leader: "a",
    commit: 0,
    applied: 0,
    lastIndex: 0,
    firstIndex: 1,
    membership,
    transferee: null,
    progress: [],
  };
  compactionError: Error | null = null;
  /** What heldBackThrough() says. */
  heldBack: number | null = null;
  /** What saveNow() says, or throws. */
  inPlace: boolean | Error = false;
  /** By how much the driver's time is ahead of when its timers fire. */
  lateMs = 0;
  receive: (message: Message) => void = () => {};
  closed: (peer: PeerId) => void = () => {};
  snapshotSent: (peer: PeerId, ok: boolean) => void = () => {};
  #turn: (() => void)[] = [];

  constructor() {
    const { did } = this;
    const unused = (): never => {
      throw new Error("the driver does not do this by itself");
    };
    const core: RaftCore = {
      tick: () => did.push("tick"),
      step: (message) => did.push(`step ${message.kind}`),
      campaign: () => did.push("campaign"),
      propose: unused,
      proposeMembership: unused,
      readIndex: unused,
      transferLeadership: unused,
      peerUnreachable: (id) => did.push(`unreachable ${id}`),
      snapshotSent: (id, ok) => did.push(`snapshot sent ${id} ${ok}`),
      compact: (snapshot, keepFrom) => did.push(`core compact ${snapshot.index} ${keepFrom}`),
      hasReady: () => this.readys.length > 0,
      ready: () => this.readys.shift() ?? nothing,
      advance: unused,
      saved: (saved) => did.push(`saved ${saved.snapshotIndex ?? saved.lastIndex}`),
      applied: (index) => did.push(`applied ${index}`),
      forgetLeader: unused,
      heldBackThrough: () => this.heldBack,
      sendHeldBack: () => {
        did.push("send held back");
        this.heldBack = null;
      },
      status: () => this.status,
    };
    const storage: Storage = {
      load: unused,
      save: (change) =>
        new Promise((resolve, reject) => {
          did.push(`save ${change.entries.map(({ index }) => index).join(" ")}`.trim());
          const end = (error?: Error): void => (error === undefined ? resolve() : reject(error));
          this.saves.push({ change, end });
        }),
      saveNow: ({ entries: list }) => {
        if (this.inPlace === false) return false;
        did.push(`save now ${list.map(({ index }) => index).join(" ")}`.trim());
        if (this.inPlace !== true) throw this.inPlace;
        return true;
      },
      compact: async (snapshot) => {
        did.push(`compact ${snapshot.index}`);
        if (this.compactionError !== null) throw this.compactionError;
      },
      close: async () => {},
    };
    const listen = <F>(set: (listener: F | null) => void, listener: F): (() => void) => {
      set(listener);
      return () => set(null);
    };
    const transport: Transport = {
      send: (messages) => {
        for (const message of messages) did.push(`send ${describe(message)}`);
      },
      onMessage: (receive) =>
        listen((f) => {
          this.receive = f ?? (() => {});
        }, receive),
      onClosed: (closed) =>
        listen((f) => {
          this.closed = f ?? (() => {});
        }, closed),
      onSnapshotSent: (sent) =>
        listen((f) => {
          this.snapshotSent = f ?? (() => {});
        }, sent),
      setPeers: () => {},
    };
    this.driver = createRaftDriver({
      core,
      storage,
      transport,
      clock: {
        now: () => after(this.clock.now(), this.lateMs),
        wakeAt: (at, callback) => this.clock.wakeAt(after(at, -this.lateMs), callback),
      },
      tickMs,
      machine: {
        apply: (list) => did.push(`apply ${list[0]?.index}-${list.at(-1)?.index}`),
        install: (snapshot) => did.push(`install ${snapshot.index}`),
        reads: (readIds) => did.push(`reads ${readIds.join(" ")}`),
        turned: () => {},
      },
      endOfTurn: (work) => this.#turn.push(work),
      onFatal: (error) => did.push(`fatal ${error.message}`),
    });
  }

  /** Runs this turn of the event loop to its end, and returns what was done since the last one. */
  async turn(...readys: readonly Ready[]): Promise<string[]> {
    this.readys.push(...readys);
    this.driver.wake();
    for (const work of this.#turn.splice(0)) work();
    await settle();
    return this.news();
  }

  async ended(...saves: readonly number[]): Promise<string[]> {
    for (const at of saves) this.saves[at]?.end();
    await settle();
    return this.news();
  }

  news(): string[] {
    return this.did.splice(0);
  }

  async started(): Promise<this> {
    this.driver.start();
    await this.turn();
    return this;
  }
}

function describe(message: Message): string {
  if (message.kind === "append") return `append ${message.entries.length} commit ${message.commit}`;
  return message.kind === "append-reply" ? `reply ${message.index}` : message.kind;
}
