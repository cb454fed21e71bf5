/** The cluster as a trace tells it: every peer with its log, rebuilt event by event. */

import { TRACE_NOBODY } from "../../src/raft/trace.ts";
import type { PeerId } from "../../src/raft/types.ts";

/** One entry, the same object in every log that has it; `before` makes it the whole log up to it. */
export interface TracedEntry {
  readonly index: number;
  readonly term: number;
  readonly before: TracedEntry | null;
  /** Whether it changes the membership. */
  readonly config: boolean;
  /** Whether it is from the time before the trace. */
  readonly boot: boolean;
  /** The incoming voters that it makes; null: not known (from the time before the trace), or no config entry. */
  voters: readonly PeerId[] | null;
}

export type Conf = readonly [readonly PeerId[], readonly PeerId[]];

/** What a Ready asked the disk to keep. */
export interface Save {
  readonly term: number;
  readonly vote: PeerId;
  readonly commit: number;
  readonly last: TracedEntry | null;
}

/** How a received append, heartbeat or snapshot is to be answered. */
export interface Answer {
  readonly to: PeerId;
  readonly type: "MsgAppResp" | "MsgHeartbeatResp";
  readonly reject: boolean;
  readonly index: number;
}

/** A leader's entry that is told, but not yet seen in its log. */
export interface PendingEntry {
  readonly config: boolean;
  readonly voters: readonly PeerId[] | null;
}

export class Server {
  readonly id: PeerId;
  term = 0;
  vote: PeerId = TRACE_NOBODY;
  role: "follower" | "candidate" | "leader" = "follower";
  log: TracedEntry[] = [];
  commit = 0;
  conf: Conf = [[], []];
  /** The last config entry in effect. */
  appliedConf = 0;
  /** Until its first Ready and message a new peer may still be given the log that it begins with. */
  booting = true;
  /** After a restart: which config entries are in effect again is learnt from what is applied. */
  confFromAfar = false;
  /** A snapshot was taken, whose membership is not in effect yet. */
  restored = false;
  /** Entries in the last Ready: what is durable at best. */
  durable = 0;
  /** The last Readys, newest last. */
  saves: Save[] = [];
  /** Candidate: who granted. */
  granted: Set<PeerId> = new Set();
  /** Leader: what each peer acknowledged. */
  match: Map<PeerId, number> = new Map();
  pendingEntries: PendingEntry[] = [];
  pendingConf: readonly PeerId[] | null = null;
  answer: Answer | null = null;

  constructor(id: PeerId) {
    this.id = id;
  }

  get last(): TracedEntry | null {
    return this.log.at(-1) ?? null;
  }

  get lastTerm(): number {
    return this.last?.term ?? 0;
  }

  /** The entry at `index`, counted from 1; null when there is none. */
  at(index: number): TracedEntry | null {
    return this.log[index - 1] ?? null;
  }

  termAt(index: number): number | null {
    return index === 0 ? 0 : (this.at(index)?.term ?? null);
  }

  /** Whether a committed change of membership is not in effect yet. */
  hasUnappliedConf(): boolean {
    if (this.confFromAfar || this.restored || this.pendingConf !== null) return true;
    return this.nextConf() !== null;
  }

  /** The first committed config entry that is not in effect. */
  nextConf(): TracedEntry | null {
    return this.confAfter(this.appliedConf, () => true);
  }

  /** The last committed config entry. */
  lastConf(): TracedEntry | null {
    for (let index = this.commit; index > 0; index -= 1) {
      const entry = this.at(index);
      if (entry?.config === true) return entry;
    }
    return null;
  }

  /** The first committed config entry behind `after` that is `wanted`. */
  confAfter(after: number, wanted: (entry: TracedEntry) => boolean): TracedEntry | null {
    for (let index = after + 1; index <= this.commit; index += 1) {
      const entry = this.at(index);
      if (entry?.config === true && wanted(entry)) return entry;
    }
    return null;
  }
}

export class TracedCluster {
  readonly servers: Map<PeerId, Server> = new Map();
  /** Every entry ever made, by index and term. */
  readonly #entries = new Map<string, TracedEntry>();
  readonly #votes = new Map<string, PeerId>();
  readonly #leaders = new Map<number, PeerId>();
  termMax = 0;

  /** A new entry behind `before`, or null when there is another one of the same index and term. */
  create(
    before: TracedEntry | null,
    term: number,
    made: PendingEntry,
    boot = false,
  ): TracedEntry | null {
    const index = (before?.index ?? 0) + 1;
    const key = `${index} ${term}`;
    if (this.#entries.has(key)) return null;
    const entry: TracedEntry = { index, term, before, boot, ...made };
    this.#entries.set(key, entry);
    return entry;
  }

  /** The entries 1 to `count` of `term` that peers begin with; the same for all. */
  bootLog(count: number, term: number): TracedEntry[] {
    const log: TracedEntry[] = [];
    for (let index = 1; index <= count; index += 1) {
      const known = this.#entries.get(`${index} ${term}`);
      const entry =
        known ?? this.create(log.at(-1) ?? null, term, { config: true, voters: null }, true);
      if (entry !== null) log.push(entry);
    }
    return log;
  }

  /** Notes a vote that was counted; false when `voter` had another one counted in that term. */
  noteVote(voter: PeerId, term: number, candidate: PeerId): boolean {
    return noteOnce(this.#votes, `${term} ${voter}`, candidate);
  }

  /** Notes a leader; false when its term had another one, be it long ago. */
  noteLeader(term: number, leader: PeerId): boolean {
    return noteOnce(this.#leaders, term, leader);
  }
}

function noteOnce<K>(map: Map<K, PeerId>, key: K, value: PeerId): boolean {
  const before = map.get(key);
  if (before === undefined) map.set(key, value);
  return before === undefined || before === value;
}

/** The log that ends with `last`. */
export function logUpTo(last: TracedEntry | null): TracedEntry[] {
  const log: TracedEntry[] = [];
  for (let entry = last; entry !== null; entry = entry.before) log.push(entry);
  return log.reverse();
}

/** Whether `ids` hold a majority in each half of `conf` that has voters. Nobody makes no quorum. */
export function isQuorum(conf: Conf, ids: (id: PeerId) => boolean): boolean {
  if (conf[0].length === 0) return false;
  return conf.every((half) => half.length === 0 || half.filter(ids).length * 2 > half.length);
}
