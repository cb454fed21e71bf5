/** What must hold of Raft and the store at every moment, seen from outside the code: one leader a term, one history, nothing acknowledged lost. */
import type { Entry, Membership, Message, PeerId, RaftStatus } from "../../src/raft/types.ts";
import type { Committed, EntryBody, Store } from "../../src/store/types.ts";
import { decodeBody } from "../../src/wire/codec.ts";
import type { SaveChange, SimDisk } from "../disk.ts";
import type { World } from "../world.ts";
import type { RowChecker } from "./rows.ts";

/** Entries between two comparisons of whole states. */
const digestEvery = 16;
/** Memberships whose majorities count when an entry is first applied: a change may fall between its commit and this. */
const membershipsKept = 6;

interface Saved {
  incarnation: number;
  term: number;
  vote: PeerId | null;
  commit: number;
}

export class SafetyChecker {
  readonly #world: World;
  readonly #rows: RowChecker;
  readonly #leaders = new Map<number, PeerId>();
  readonly #saved = new Map<SimDisk, Saved>();
  /** Every entry that any disk ever held, by `index/term`. */
  readonly #entries = new Map<string, Entry>();
  readonly #termsOf = new Map<number, readonly number[]>();
  readonly #history = new Map<number, string>();
  readonly #digests = new Map<number, string>();
  readonly #acknowledged = new Map<string, number>();
  #memberships: Membership[] = [];
  /** Every index up to this one was applied by somebody. */
  highest = 0;
  /** Highest index that a client was told of. */
  acknowledgedIndex = 0;
  /** The disks, with the peer that each belongs to now. */
  disksOf: () => readonly { readonly raftId: PeerId | null; readonly disk: SimDisk }[] = () => [];
  /** The memberships that the living managers have applied. */
  memberships: () => readonly Membership[] = () => [];
  statusOf: (raftId: PeerId) => RaftStatus | null = () => null;

  constructor(world: World, rows: RowChecker) {
    this.#world = world;
    this.#rows = rows;
  }

  /** Election safety and leader completeness, from the first word of a leader. */
  sent(message: Message): void {
    if (message.kind !== "append" && message.kind !== "heartbeat" && message.kind !== "snapshot") {
      return;
    }
    const leader = this.#leaders.get(message.term);
    if (leader === message.from) return;
    if (leader !== undefined) {
      this.#world.fail(`term ${message.term} has two leaders: ${leader} and ${message.from}`);
      return;
    }
    this.#leaders.set(message.term, message.from);
    const status = this.statusOf(message.from);
    if (status !== null && status.lastIndex < this.highest) {
      this.#world.fail(
        `${message.from} leads term ${message.term} with a log up to ${status.lastIndex}, but ${this.highest} is applied elsewhere`,
      );
    }
  }

  /** A save became durable: one vote a term, terms and commits that only rise, logs that match. */
  saved(disk: SimDisk, change: SaveChange): void {
    const known = this.#saved.get(disk);
    const before =
      known?.incarnation === disk.incarnation
        ? known
        : { incarnation: disk.incarnation, term: 0, vote: null, commit: 0 };
    this.#saved.set(disk, before);
    const now = change.hardState;
    if (now !== null) {
      if (now.term < before.term || now.commit < before.commit) {
        this.#world.fail(
          `a disk went back from term ${before.term}, commit ${before.commit} to ${now.term}, ${now.commit}`,
        );
      }
      if (now.term === before.term && before.vote !== null && now.vote !== before.vote) {
        this.#world.fail(`two votes in term ${now.term}: ${before.vote} and ${now.vote}`);
      }
      Object.assign(before, { term: now.term, vote: now.vote, commit: now.commit });
    }
    for (const entry of change.entries) {
      const key = `${entry.index}/${entry.term}`;
      const other = this.#entries.get(key);
      if (other === undefined) {
        this.#entries.set(key, entry);
        this.#termsOf.set(entry.index, [...(this.#termsOf.get(entry.index) ?? []), entry.term]);
      } else if (other.kind !== entry.kind || !sameBytes(other.data, entry.data)) {
        this.#world.fail(`two different entries ${key}`);
      }
    }
  }

  /** One history: what one manager applied at an index, every other applies there; and state machines are equal. */
  applied(host: string, index: number, body: EntryBody, committed: Committed, store: Store): void {
    const results = committed.results.map((result) => (result.ok ? "1" : "0")).join("");
    if (this.#happened(host, index, `${body.proposalId}/${results}`)) {
      this.#committedIsDurable(host, index, body.proposalId);
      this.#rows.committed(committed);
    }
    if (index % digestEvery === 0) this.digest(host, store);
  }

  skipped(host: string, index: number): void {
    this.#happened(host, index, "no rows");
  }

  /** True when nobody applied this index before. */
  #happened(host: string, index: number, said: string): boolean {
    const before = this.#history.get(index);
    if (before !== undefined) {
      if (before !== said) {
        this.#world.fail(`index ${index}: ${host} applied ${said}, another manager ${before}`);
      }
      return false;
    }
    if (index !== this.highest + 1 && this.highest > 0) {
      this.#world.fail(`index ${index} is applied by ${host}, ${this.highest + 1} by nobody`);
    }
    this.highest = index;
    this.#history.set(index, said);
    this.#world.note(said);
    return true;
  }

  /** Committed is durable: a majority holds on disk what somebody applies for the first time. */
  #committedIsDurable(host: string, index: number, proposalId: string): void {
    // A leader commits by the membership that it has applied; whoever applies may be behind it, or ahead.
    for (const membership of this.memberships()) {
      if (this.#memberships.some((known) => sameMembership(known, membership))) continue;
      this.#memberships = [...this.#memberships, membership].slice(-membershipsKept);
    }
    if (this.#memberships.length === 0) return;
    const disks = this.disksOf();
    for (const term of this.#termsOf.get(index) ?? []) {
      const entry = this.#entries.get(`${index}/${term}`);
      if (entry?.kind !== "normal" || decodeBody(entry.data).proposalId !== proposalId) continue;
      const holders = new Set<PeerId>();
      for (const { raftId, disk } of disks) {
        if (raftId !== null && disk.holds(index, term)) holders.add(raftId);
      }
      const most = (half: readonly PeerId[]): boolean =>
        half.length === 0 || half.filter((id) => holders.has(id)).length > half.length / 2;
      if (this.#memberships.some(({ voters, outgoing }) => most(voters) && most(outgoing))) return;
    }
    this.#world.fail(`${host} applies entry ${index}, which no majority has on disk`);
  }

  /** State machines are equal at equal indexes. */
  digest(host: string, store: Store): void {
    const { index } = store.view();
    const digest = store.digest();
    const before = this.#digests.get(index);
    if (before === undefined) this.#digests.set(index, digest);
    else if (before !== digest) {
      this.#world.fail(`index ${index}: the state of ${host} differs from another's`);
    }
  }

  /** A client was told that its write is in. */
  acknowledge(proposalId: string, index: number): void {
    this.#acknowledged.set(proposalId, index);
    this.acknowledgedIndex = Math.max(this.acknowledgedIndex, index);
  }

  /** Every acknowledged write is in the one history, where its client was told. */
  acknowledgedAreThere(): void {
    for (const [proposalId, index] of this.#acknowledged) {
      if (this.#history.get(index) !== `${proposalId}/1`) {
        this.#world.fail(
          `the write ${proposalId}, acknowledged at index ${index}, is lost: there is ${this.#history.get(index) ?? "nothing"}`,
        );
      }
    }
  }

  get acknowledgedCount(): number {
    return this.#acknowledged.size;
  }
  get terms(): number {
    return this.#leaders.size;
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a === b || (a.length === b.length && a.every((byte, at) => byte === b[at]));
}

function sameMembership(a: Membership, b: Membership): boolean {
  return a.voters.join() === b.voters.join() && a.outgoing.join() === b.outgoing.join();
}
