/** A cluster of cores in one synchronous world: network, disks, crashes, and the checks that must hold after each step. */
import { assert, present } from "../../lib/assert.ts";
import type { Random } from "../../lib/random.ts";
import { createRaft } from "../core.ts";
import { RAFT_DEFAULTS } from "../limits.ts";
import type {
  Entry,
  Membership,
  Message,
  PeerId,
  RaftConfig,
  RaftCore,
  Ready,
  SavedState,
  Snapshot,
} from "../types.ts";
import { MemoryDisk } from "./memory-disk.ts";
import { seededRandom } from "./seeded-random.ts";

/** Where a peer's power fails while it works on a Ready (with async storage writes: just before or after drawing one). */
export type CrashPoint = "before-save" | "before-send" | "before-advance";

export class Peer {
  readonly id: PeerId;
  readonly disk: MemoryDisk;
  readonly config: RaftConfig;
  core: RaftCore | null = null;
  /** The state machine: payloads of the normal entries, in order. */
  applied: string[] = [];
  appliedIndex = 0;
  reads: Ready["reads"][number][] = [];
  /** With async storage writes: Readys whose save, and entries whose application, is under way. */
  saving: Ready[] = [];
  applying: Entry[][] = [];

  constructor(id: PeerId, config: RaftConfig, saved: SavedState) {
    this.id = id;
    this.config = config;
    this.disk = new MemoryDisk(saved);
    this.start();
  }

  start(): void {
    assert(this.core === null, "only a stopped peer starts");
    this.saving = [];
    this.applying = [];
    this.core = createRaft(this.config, this.disk.state);
    this.#restore(this.disk.state.snapshot);
  }

  get up(): RaftCore {
    return present(this.core, `the core of ${this.id}`);
  }

  install(snapshot: Snapshot): void {
    this.#restore(snapshot);
  }

  #restore(snapshot: Snapshot | null): void {
    const text = new TextDecoder().decode(snapshot?.data ?? new Uint8Array());
    this.applied = text === "" ? [] : text.split(",");
    this.appliedIndex = snapshot?.index ?? 0;
  }
}

export class Cluster {
  readonly peers: Map<PeerId, Peer> = new Map();
  readonly random: Random;
  /** Under way; tests may drop, double and reorder. */
  network: Message[] = [];
  /** Links that lose everything, as "from>to". */
  readonly cut: Set<string> = new Set();
  readonly #options: Partial<RaftConfig>;
  readonly #leaders = new Map<number, PeerId>();
  /** Every entry that any peer saw committed, by index: what nobody may ever contradict. */
  readonly committed: Map<number, string> = new Map();
  committedMax = 0;

  constructor(seed = 1, options: Partial<RaftConfig> = {}) {
    this.random = seededRandom(seed);
    this.#options = options;
  }

  /** A cluster whose `ids` are voters from the start. */
  static of(ids: readonly PeerId[], seed = 1, options: Partial<RaftConfig> = {}): Cluster {
    const cluster = new Cluster(seed, options);
    for (const id of ids) cluster.add(id, startedWith(ids));
    cluster.committedMax = 1;
    return cluster;
  }

  add(id: PeerId, saved: SavedState): Peer {
    const random = seededRandom(this.random.below(1 << 30));
    const config = { ...RAFT_DEFAULTS, ...this.#options, id, random };
    const peer = new Peer(id, config, saved);
    this.peers.set(id, peer);
    return peer;
  }

  peer(id: PeerId): Peer {
    return present(this.peers.get(id), `peer ${id}`);
  }

  core(id: PeerId): RaftCore {
    return this.peer(id).up;
  }

  /** Power off: what was not saved is gone, messages under way stay under way. */
  crash(id: PeerId): void {
    this.peer(id).core = null;
  }

  restart(id: PeerId): void {
    this.peer(id).start();
  }

  /** Loses everything between `ids` and all others, both ways. */
  isolate(...ids: PeerId[]): void {
    for (const a of this.peers.keys()) {
      for (const b of this.peers.keys()) {
        if (ids.includes(a) !== ids.includes(b)) this.cut.add(`${a}>${b}`);
      }
    }
  }

  heal(): void {
    this.cut.clear();
  }

  /** Does one Ready of `id`, as a driver does: save, send, apply, advance. */
  work(id: PeerId, crash: CrashPoint | null = null): void {
    const peer = this.peer(id);
    if (peer.core === null || !peer.core.hasReady()) return;
    const ready = peer.core.ready();
    if (peer.config.asyncStorageWrites) {
      if (crash !== "before-send") this.network.push(...ready.messages);
      this.#checkLeader(peer, ready);
      peer.saving.push(ready);
      if (ready.committed.length > 0) peer.applying.push([...ready.committed]);
      peer.reads.push(...ready.reads);
      if (crash === "before-advance") this.finishSave(id);
      if (crash !== null) this.crash(id);
      return;
    }
    if (crash !== "before-save") {
      peer.disk.save(ready);
      this.#checkLeader(peer, ready);
      if (crash !== "before-send") this.network.push(...ready.messages, ...ready.afterSave);
    }
    if (crash !== null) {
      this.crash(id);
      return;
    }
    if (ready.snapshot !== null) peer.install(ready.snapshot);
    for (const entry of ready.committed) this.#apply(peer, entry);
    peer.reads.push(...ready.reads);
    peer.core.advance();
  }

  /** With async storage writes: the oldest save under way is durable. A snapshot waits for what is applied before it. */
  finishSave(id: PeerId): void {
    const peer = this.peer(id);
    const ready = peer.saving[0];
    if (peer.core === null || ready === undefined) return;
    if (ready.snapshot !== null) while (peer.applying.length > 0) this.finishApply(id);
    peer.saving.shift();
    peer.disk.save(ready);
    this.network.push(...ready.afterSave);
    if (ready.snapshot !== null) peer.install(ready.snapshot);
    if (ready.save !== null) peer.core.saved(ready.save);
  }

  /** With async storage writes: the oldest entries under way are applied, some or all of them. */
  finishApply(id: PeerId, count: number = Number.MAX_SAFE_INTEGER): void {
    const peer = this.peer(id);
    const entries = peer.applying[0];
    if (peer.core === null || entries === undefined) return;
    const now = entries.splice(0, count);
    if (entries.length === 0) peer.applying.shift();
    for (const entry of now) this.#apply(peer, entry);
    const last = now.at(-1);
    if (last !== undefined) peer.core.applied(last.index);
  }

  #apply(peer: Peer, entry: Entry): void {
    assert(entry.index === peer.appliedIndex + 1, "entries are applied in order, without gaps");
    const text = describe(entry);
    const before = this.committed.get(entry.index);
    assert(before === undefined || before === text, `entry ${entry.index} was committed otherwise`);
    this.committed.set(entry.index, text);
    this.committedMax = Math.max(this.committedMax, entry.index);
    peer.appliedIndex = entry.index;
    if (entry.kind === "normal") peer.applied.push(new TextDecoder().decode(entry.data));
  }

  #checkLeader(peer: Peer, ready: Ready): void {
    if (ready.role !== "leader") return;
    const { term } = peer.up.status();
    const other = this.#leaders.get(term);
    assert(other === undefined || other === peer.id, `term ${term} has one leader`);
    if (other !== undefined) return;
    this.#leaders.set(term, peer.id);
    const { snapshot, entries } = peer.disk.state;
    const saved = new Map(entries.map((entry) => [entry.index, describe(entry)]));
    for (const [index, text] of this.committed) {
      if (index <= (snapshot?.index ?? 0)) continue;
      assert(saved.get(index) === text, `the leader of term ${term} has committed entry ${index}`);
    }
  }

  /** Log matching: logs that agree on one entry agree on all before it. */
  checkLogs(): void {
    const logs = [...this.peers.values()].map((peer) => peer.disk.state.entries);
    for (const [at, a] of logs.entries()) {
      for (const b of logs.slice(at + 1)) {
        const other = new Map(b.map((entry) => [entry.index, entry]));
        let agreed = false;
        for (const entry of [...a].reverse()) {
          const twin = other.get(entry.index);
          if (twin === undefined) continue;
          if (twin.term === entry.term) agreed = true;
          if (agreed) assert(describe(twin) === describe(entry), `logs match at ${entry.index}`);
        }
      }
    }
  }

  /** Hands over the message at `at` of the network. */
  deliver(at = 0): void {
    const [message] = this.network.splice(at, 1);
    if (message === undefined) return;
    const peer = this.peers.get(message.to);
    if (peer?.core == null || this.cut.has(`${message.from}>${message.to}`)) {
      this.#reportSnapshot(message, false);
      return;
    }
    this.#reportSnapshot(message, true);
    peer.core.step(message);
  }

  /** Loses the message at `at` of the network. */
  lose(at: number): void {
    const [message] = this.network.splice(at, 1);
    if (message !== undefined) this.#reportSnapshot(message, false);
  }

  /** As the transport of a real cluster does. */
  #reportSnapshot(message: Message, ok: boolean): void {
    if (message.kind !== "snapshot") return;
    this.peers.get(message.from)?.core?.snapshotSent(message.to, ok);
  }

  /** Works and delivers until nothing is left to do. */
  settle(stepsMax = 100_000): void {
    for (let steps = 0; steps < stepsMax; steps += 1) {
      let busy = false;
      for (const peer of this.peers.values()) {
        while (peer.core?.hasReady() === true) {
          this.work(peer.id);
          busy = true;
        }
        for (; peer.core !== null && peer.saving.length > 0; busy = true) this.finishSave(peer.id);
        for (; peer.core !== null && peer.applying.length > 0; busy = true) {
          this.finishApply(peer.id);
        }
      }
      const under = this.network.length;
      for (let i = 0; i < under; i += 1) this.deliver();
      if (!busy && under === 0) return;
    }
    assert(false, "a cluster that nobody disturbs becomes quiet");
  }

  /** Ticks all peers that are up `count` times, settling after each. */
  tick(count: number, ids: readonly PeerId[] = [...this.peers.keys()]): void {
    for (let i = 0; i < count; i += 1) {
      for (const id of ids) this.peer(id).core?.tick();
      this.settle();
    }
  }

  /** Makes `id` leader and settles. */
  elect(id: PeerId): void {
    this.core(id).campaign();
    this.settle();
    assert(this.core(id).status().role === "leader", `${id} became leader`);
  }

  leader(): PeerId | null {
    let best: { id: PeerId; term: number } | null = null;
    for (const { id, core } of this.peers.values()) {
      const status = core?.status();
      if (status?.role === "leader" && (best === null || status.term > best.term)) {
        best = { id, term: status.term };
      }
    }
    return best?.id ?? null;
  }

  propose(id: PeerId, text: string): ReturnType<RaftCore["propose"]> {
    return this.core(id).propose(new TextEncoder().encode(text));
  }

  /** Snapshots what `id` has applied and forgets entries before `keepFrom`. */
  compact(id: PeerId, keepFrom: number): void {
    const peer = this.peer(id);
    const { membership, applied } = peer.up.status();
    assert(applied === peer.appliedIndex, "core and state machine agree on what is applied");
    const term = this.#termOf(peer, applied);
    const snapshot: Snapshot = {
      index: applied,
      term,
      membership,
      data: new TextEncoder().encode(peer.applied.join(",")),
    };
    peer.disk.compact(snapshot, keepFrom);
    peer.up.compact(snapshot, keepFrom);
  }

  #termOf(peer: Peer, index: number): number {
    const { snapshot, entries } = peer.disk.state;
    if (snapshot?.index === index) return snapshot.term;
    return present(
      entries.find((entry) => entry.index === index),
      `entry ${index} on the disk of ${peer.id}`,
    ).term;
  }
}

/** The saved state of a peer in a cluster whose `voters` are so from the start. */
export function startedWith(voters: readonly PeerId[]): SavedState {
  const membership: Membership = {
    voters: [...voters].sort(),
    outgoing: [],
    learners: [],
    learnersNext: [],
    autoLeave: false,
  };
  return {
    hardState: { term: 1, vote: null, commit: 1 },
    snapshot: { index: 1, term: 1, membership, data: new Uint8Array(0) },
    entries: [],
  };
}

function describe(entry: Entry): string {
  return `${entry.term} ${entry.kind} ${new TextDecoder().decode(entry.data)}`;
}
