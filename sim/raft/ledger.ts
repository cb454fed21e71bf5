/**
 * What is true of all managers together, kept by an observer who sees everything they do and trusts none of it: who led,
 * what was committed, what each state was after each entry. The first thing that must not be is the violation.
 */
import type { Entry, Membership, Message, PeerId, Ready, Snapshot } from "../../src/raft/types.ts";
import type { Claims } from "./claims.ts";
import type { Counts } from "./counts.ts";

/** What the observer knows of one life of a manager. */
export class Watch {
  readonly peer: PeerId;
  readonly claims: Claims;
  readonly life: number;
  term: number;
  commit: number;
  role: Ready["role"] = "follower";
  leader: PeerId | null = null;
  applied: number;
  /** The last entry it was told to apply. */
  handed: number;
  /** Entries base+1, base+2, … as its core has them. */
  base: number;
  baseTerm: number;
  entries: Entry[];
  /** Index of the newest membership entry that it applied, or of the snapshot that brought it. */
  membershipIndex = 0;
  membershipUnseen = false;
  /** An earlier version: messages come while it saves and applies a Ready, so that it counts by the membership before. */
  countsMeanwhile = false;
  /** By which it may have counted since its last Ready, the newest last. */
  memberships: Membership[] = [];

  constructor(peer: PeerId, life: number, claims: Claims, saved: Loaded) {
    this.peer = peer;
    this.life = life;
    this.claims = claims;
    const { hardState, snapshot, entries } = saved;
    this.term = hardState.term;
    const covered = snapshot?.index ?? 0;
    this.commit = Math.max(hardState.commit, covered);
    this.applied = covered;
    this.handed = covered;
    const first = entries[0];
    this.base = first === undefined ? covered : first.index - 1;
    this.baseTerm = first === undefined || first.index === covered + 1 ? (snapshot?.term ?? 0) : -1;
    this.entries = [...entries];
  }

  get lastIndex(): number {
    return this.base + this.entries.length;
  }

  /** Null: not known any more, or not there. */
  termAt(index: number): number | null {
    if (index === this.base) return this.baseTerm < 0 ? null : this.baseTerm;
    return this.entries[index - this.base - 1]?.term ?? null;
  }
}

type Loaded = {
  readonly hardState: { readonly term: number; readonly commit: number };
  readonly snapshot: Snapshot | null;
  readonly entries: readonly Entry[];
};

interface Known {
  readonly entry: Entry;
  readonly previousTerm: number | null;
}

export class Ledger {
  violation: string | null = null;
  /** Everything through here is committed. */
  commit = 0;
  /** By index. */
  readonly committed: Entry[] = [];
  /** The term of the leader that committed it, by index. */
  readonly #commitTerms: number[] = [];
  /** Entries of every log that there was, by index. */
  readonly #known: Known[][] = [];
  readonly #leaders: Map<number, string> = new Map();
  readonly #votes: Map<string, PeerId> = new Map();
  /** State hash after each entry that somebody applied, by index. */
  readonly #hashes: (number | undefined)[] = [];
  readonly #memberships: Map<number, string> = new Map();
  /** Indexes of committed membership entries that somebody applied, rising. */
  #membershipIndexes: number[] = [];
  latestMembership: Membership;
  latestMembershipIndex = 0;
  readonly everMembers: Set<PeerId> = new Set();
  /** By client: the last command that counted, and all answers by `client:sequence`. */
  readonly #sequences: Map<number, number> = new Map();
  readonly #answers: Map<string, { readonly answer: number; readonly index: number }> = new Map();
  /** The newest entry that a client was told of: who asks from now on sees it. */
  acknowledged = 0;
  readonly #counts: Counts;
  readonly #claimsOf: (peer: PeerId) => Claims | null;

  readonly #note: (text: string) => void;

  constructor(
    first: Membership,
    counts: Counts,
    claimsOf: (peer: PeerId) => Claims | null,
    note: (text: string) => void,
  ) {
    this.#note = note;
    this.latestMembership = first;
    for (const id of [...first.voters, ...first.learners]) this.everMembers.add(id);
    this.#counts = counts;
    this.#claimsOf = claimsOf;
  }

  violate(what: string): void {
    this.violation ??= what;
  }

  /** The cluster begins with this, committed; the state's hash there. */
  begin(index: number, term: number, hash: number): void {
    this.commit = index;
    this.committed[index] = { index, term, kind: "empty", data: new Uint8Array(0) };
    this.#hashes[index] = hash;
  }

  started(watch: Watch): void {
    let previous = watch.baseTerm < 0 ? null : watch.baseTerm;
    for (const entry of watch.entries) {
      this.#noteEntry(watch, entry, previous);
      previous = entry.term;
    }
  }

  /** Before `ready` has any effect. `membership` is asked only when something new is committed. */
  onReady(watch: Watch, ready: Ready, membership: () => Membership): void {
    if (ready.snapshot !== null) this.#onSnapshot(watch, ready.snapshot);
    if (ready.entries.length > 0) this.#onEntries(watch, ready.entries);
    watch.leader = ready.leader;
    const { hardState } = ready;
    if (hardState !== null) {
      if (hardState.term < watch.term)
        this.violate(`${watch.peer}: term fell from ${watch.term} to ${hardState.term}`);
      if (hardState.commit < watch.commit)
        this.violate(`${watch.peer}: commit fell from ${watch.commit} to ${hardState.commit}`);
      watch.term = hardState.term;
    }
    if (ready.role === "leader") this.#onLeader(watch, watch.term);
    else if (ready.entries.length > 0) this.#onFormerLeader(watch, ready);
    watch.role = ready.role;
    if (hardState !== null && hardState.commit > watch.commit)
      this.#onCommit(watch, hardState.commit, membership);
    if (ready.committed.length > 0) this.#onCommitted(watch, ready.committed);
    watch.memberships.splice(0, watch.memberships.length - 1);
  }

  /** Before `message` leaves. */
  onSend(watch: Watch, message: Message): void {
    const { claims, peer } = watch;
    if (message.from !== peer) this.violate(`${peer} sends as ${message.from}`);
    switch (message.kind) {
      case "vote":
        this.#onVote(watch, message.term, peer);
        return;
      case "vote-reply":
        if (message.granted) this.#onVote(watch, message.term, message.to);
        return;
      case "append-reply":
        if (message.rejected) return;
        // What answers a leader of a term that is over counts no more: whoever elected the next one would have refused it.
        if (claims.term > message.term) return;
        if (!claims.promised(message.term, null))
          this.violate(
            `${peer} acknowledges in term ${message.term}, and has term ${claims.term} on its disk`,
          );
        if (message.index > Math.max(claims.lastIndex, claims.covered))
          this.violate(
            `${peer} acknowledges entry ${message.index}, and its disk has entries through ${claims.lastIndex}`,
          );
        return;
      case "append":
      case "heartbeat":
      case "snapshot": {
        const leader = this.#leaders.get(message.term);
        if (leader !== `${peer}/${watch.life}`)
          this.violate(`${peer} sends ${message.kind} as leader of term ${message.term}`);
        return;
      }
      default:
        return;
    }
  }

  onApply(watch: Watch, entry: Entry, hash: number): void {
    if (entry.index !== watch.applied + 1)
      this.violate(`${watch.peer} applies entry ${entry.index} after ${watch.applied}`);
    watch.applied = entry.index;
    const truth = this.committed[entry.index];
    if (truth === undefined || !isSame(truth, entry))
      this.violate(`${watch.peer} applies an entry ${entry.index} that is not the committed one`);
    if (!watch.claims.holds(entry.index, entry.term))
      this.violate(`${watch.peer} applies entry ${entry.index}, which its disk does not have`);
    const known = this.#hashes[entry.index];
    if (known === undefined) this.#hashes[entry.index] = hash;
    else if (known !== hash)
      this.violate(`${watch.peer} is in another state than others after entry ${entry.index}`);
    if (entry.kind === "membership") {
      watch.membershipIndex = entry.index;
      watch.membershipUnseen = true;
    }
  }

  onInstall(watch: Watch, snapshot: Snapshot, hash: number): void {
    if (snapshot.index <= watch.applied)
      this.violate(`${watch.peer} goes back from ${watch.applied} to snapshot ${snapshot.index}`);
    this.onLoad(watch, snapshot, hash);
  }

  /** A snapshot became the state of a manager, at its start or later. */
  onLoad(watch: Watch, snapshot: Snapshot, hash: number): void {
    watch.applied = snapshot.index;
    const known = this.#hashes[snapshot.index];
    if (known === undefined)
      this.violate(`${watch.peer} loads snapshot ${snapshot.index}, and nobody applied that much`);
    else if (known !== hash)
      this.violate(`${watch.peer} loads a snapshot ${snapshot.index} of another state`);
    watch.membershipIndex = this.#membershipIndexes.findLast((at) => at <= snapshot.index) ?? 0;
    const truth = this.#memberships.get(watch.membershipIndex);
    if (truth !== undefined && truth !== textOf(snapshot.membership))
      this.violate(`${watch.peer} loads a snapshot ${snapshot.index} with another membership`);
    watch.membershipUnseen = true;
  }

  /** The turn is over and the core has heard of what is applied. */
  onMembership(watch: Watch, membership: Membership): void {
    watch.membershipUnseen = false;
    watch.memberships.push(membership);
    const text = textOf(membership);
    const known = this.#memberships.get(watch.membershipIndex);
    if (known === undefined) {
      this.#memberships.set(watch.membershipIndex, text);
      if (watch.membershipIndex > this.latestMembershipIndex) {
        this.latestMembershipIndex = watch.membershipIndex;
        this.latestMembership = membership;
        this.#membershipIndexes.push(watch.membershipIndex);
        this.#counts["membership changes applied"] += 1;
        this.#note(`${watch.peer} is the first to count by ${text}`);
        for (const id of [...membership.voters, ...membership.outgoing, ...membership.learners])
          this.everMembers.add(id);
      }
    } else if (known !== text) {
      this.violate(
        `${watch.peer} believes in ${text} after membership entry ${watch.membershipIndex}, others in ${known}`,
      );
    }
  }

  /** A command took effect at somebody's; the first one to apply the entry says what it did. */
  onEffect(index: number, client: number, sequence: number, answer: number): void {
    if (this.#hashes[index] !== undefined) return;
    if ((this.#sequences.get(client) ?? 0) >= sequence)
      this.violate(`command ${sequence} of client ${client} took effect twice`);
    this.#sequences.set(client, sequence);
    this.#answers.set(`${client}:${sequence}`, { answer, index });
  }

  /** A client was told that its command took effect. */
  onAcknowledged(client: number, sequence: number, answer: number): void {
    const truth = this.#answers.get(`${client}:${sequence}`);
    if (truth?.answer !== answer)
      this.violate(
        `client ${client} was told ${answer} of command ${sequence}, which did ${truth?.answer ?? "nothing"}`,
      );
    this.acknowledged = Math.max(this.acknowledged, truth?.index ?? 0);
  }

  #onVote(watch: Watch, term: number, candidate: PeerId): void {
    const key = `${watch.peer} ${term}`;
    const before = this.#votes.get(key);
    if (before === undefined) this.#votes.set(key, candidate);
    else if (before !== candidate)
      this.violate(`${watch.peer} votes for ${before} and ${candidate} in term ${term}`);
    if (!watch.claims.promised(term, candidate))
      this.violate(`${watch.peer} tells its vote of term ${term} before it is durable`);
  }

  #onSnapshot(watch: Watch, snapshot: Snapshot): void {
    const { index, term } = snapshot;
    if (index > this.commit || this.committed[index]?.term !== term)
      this.violate(
        `${watch.peer} takes a snapshot ${index} of term ${term} that was not committed`,
      );
    if (index <= watch.handed)
      this.violate(`${watch.peer} takes snapshot ${index}, older than what it applied`);
    watch.base = index;
    watch.baseTerm = term;
    watch.entries = [];
    watch.handed = index;
    watch.commit = Math.max(watch.commit, index);
  }

  #onEntries(watch: Watch, entries: readonly Entry[]): void {
    const first = entries[0]?.index ?? 0;
    if (first > watch.lastIndex + 1 || first <= watch.base) {
      this.violate(`${watch.peer} appends entry ${first} to a log through ${watch.lastIndex}`);
      return;
    }
    if (first <= watch.commit)
      this.violate(`${watch.peer} replaces entry ${first}, and ${watch.commit} are committed`);
    watch.entries.length = first - 1 - watch.base;
    let previous = watch.termAt(first - 1);
    for (const entry of entries) {
      if (entry.index !== watch.lastIndex + 1)
        this.violate(`${watch.peer} appends entry ${entry.index} after ${watch.lastIndex}`);
      this.#noteEntry(watch, entry, previous);
      watch.entries.push(entry);
      previous = entry.term;
    }
  }

  /** Log matching: index and term name one entry, and one entry before it. */
  #noteEntry(watch: Watch, entry: Entry, previousTerm: number | null): void {
    const list = this.#known[entry.index];
    if (list === undefined) {
      this.#known[entry.index] = [{ entry, previousTerm }];
      return;
    }
    const known = list.find((one) => one.entry.term === entry.term);
    if (known === undefined) {
      list.push({ entry, previousTerm });
      return;
    }
    if (!isSame(known.entry, entry))
      this.violate(`two entries ${entry.index} of term ${entry.term}, one at ${watch.peer}`);
    if (previousTerm !== null && known.previousTerm !== null && previousTerm !== known.previousTerm)
      this.violate(`logs that share entry ${entry.index} differ before it, one at ${watch.peer}`);
  }

  /** It led a term and gave it up before its first Ready as a leader: an earlier version draws none while it compacts. */
  #onFormerLeader(watch: Watch, { entries, messages }: Ready): void {
    const term = entries.at(-1)?.term;
    const led = messages.some((message) => message.kind === "heartbeat" && message.term === term);
    if (led && term !== undefined) this.#onLeader(watch, term);
  }

  #onLeader(watch: Watch, term: number): void {
    const name = `${watch.peer}/${watch.life}`;
    const known = this.#leaders.get(term);
    if (known === name) return;
    if (known !== undefined) {
      this.violate(`term ${term} has two leaders: ${known} and ${name}`);
      return;
    }
    this.#leaders.set(term, name);
    this.#counts.leaderships += 1;
    this.#note(`${watch.peer} leads term ${term}`);
    // What a later term committed meanwhile is none of its business (Raft 5.4.3).
    for (let index = Math.max(1, watch.base + 1); index <= this.commit; index += 1) {
      if ((this.#commitTerms[index] ?? 0) >= term) continue;
      if (watch.termAt(index) !== this.committed[index]?.term) {
        this.violate(`${name} leads term ${term} without committed entry ${index}`);
        return;
      }
    }
  }

  #onCommit(watch: Watch, commit: number, membership: () => Membership): void {
    if (commit > watch.lastIndex) {
      this.violate(`${watch.peer} commits ${commit} of ${watch.lastIndex} entries`);
      return;
    }
    if (commit > this.commit) this.#onNewCommit(watch, commit, membership());
    if (watch.termAt(commit) !== this.committed[commit]?.term)
      this.violate(`${watch.peer} commits another entry ${commit}`);
    watch.commit = commit;
  }

  #onNewCommit(watch: Watch, commit: number, membership: Membership): void {
    const term = watch.termAt(commit) ?? 0;
    // By counting, a leader commits entries of its own term alone; when it lost its office in the same turn, it had led that term.
    const led = this.#leaders.get(term) === `${watch.peer}/${watch.life}`;
    if (!led || (watch.role === "leader" && term !== watch.term))
      this.violate(
        `${watch.peer}, ${watch.role} of term ${watch.term}, is the first to commit entry ${commit} of term ${term}`,
      );
    const lack = this.#lackOf(membership, commit, term);
    const before = watch.countsMeanwhile ? watch.memberships : [];
    if (lack !== null && !before.some((one) => this.#lackOf(one, commit, term) === null))
      this.violate(`${watch.peer} commits entry ${commit}, which ${lack}`);
    for (let index = this.commit + 1; index <= commit; index += 1) {
      const entry = watch.entries[index - watch.base - 1];
      if (entry !== undefined) this.committed[index] = entry;
      this.#commitTerms[index] = term;
    }
    this.#counts["entries committed"] += commit - this.commit;
    this.#note(`${watch.peer} commits entry ${commit} of term ${term}`);
    this.commit = commit;
  }

  /** Why no quorum of `membership` has the entry on disk; null when one has. */
  #lackOf(membership: Membership, index: number, term: number): string | null {
    const holds = (id: PeerId): boolean => this.#claimsOf(id)?.holds(index, term) ?? false;
    for (const half of [membership.voters, membership.outgoing]) {
      const durable = half.filter(holds).length;
      if (half.length > 0 && durable <= half.length / 2)
        return `${durable} of ${half.length} voters have on disk`;
    }
    return null;
  }

  #onCommitted(watch: Watch, entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.index !== watch.handed + 1)
        this.violate(`${watch.peer} is to apply entry ${entry.index} after ${watch.handed}`);
      watch.handed = entry.index;
      const truth = this.committed[entry.index];
      if (truth === undefined || !isSame(truth, entry))
        this.violate(`${watch.peer} is to apply an entry ${entry.index} that was not committed`);
    }
  }
}

function isSame(a: Entry, b: Entry): boolean {
  if (a === b) return true;
  if (a.index !== b.index || a.term !== b.term || a.kind !== b.kind) return false;
  if (a.data === b.data) return true;
  if (a.data.length !== b.data.length) return false;
  for (let at = 0; at < a.data.length; at += 1) if (a.data[at] !== b.data[at]) return false;
  return true;
}

function textOf({ voters, outgoing, learners, learnersNext }: Membership): string {
  const list = (ids: readonly PeerId[]): string => [...ids].sort().join(" ");
  return `(${list(voters)})(${list(outgoing)})(${list(learners)})(${list(learnersNext)})`;
}
