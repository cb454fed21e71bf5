/** What each event of a trace may follow from, and what it does to the cluster. */
import { TRACE_NOBODY, type TraceEvent, type TraceMessage } from "../../src/raft/trace.ts";
import type { PeerId } from "../../src/raft/types.ts";
import {
  answerTo,
  messageOf,
  outcomesOf,
  type Received,
  receiveAppendResponse,
  sendAppend,
  sendAppendResponse,
  sendVoteRequest,
} from "./messages.ts";
import { isQuorum, logUpTo, Server, type TracedCluster, type TracedEntry } from "./model.ts";
import { ImpossibleStep, must } from "./must.ts";

/** Readys that are remembered for a restart; more are never under way at once. */
const savesMax = 64;

interface Sent {
  /** How often it is under way. */
  count: number;
  readonly last: TracedEntry | null;
}
export interface FollowOptions {
  /**
   * Whether refusals of votes, which are told without it, carry what their sender has committed (RaftConfig
   * refusalsTellCommitted): then who does not lead may learn a commit index from one, if it is that of some other peer.
   */
  readonly refusalsTellCommitted: boolean;
  /** Whether the network may hand over a message more than once. */
  readonly networkDuplicates: boolean;
}

/** Follows a trace in a cluster, which the invariants look at between steps. */
export class Follower {
  readonly #cluster: TracedCluster;
  /** What each peer sends with its next Ready. */
  readonly #pending = new Map<PeerId, Received[]>();
  /** Every message that was sent, and how often it may still arrive. */
  readonly #sent = new Map<string, Sent>();
  /** What each peer received and has not shown the effect of. */
  readonly #received = new Map<PeerId, Received>();

  readonly #options: FollowOptions;

  constructor(cluster: TracedCluster, options: FollowOptions) {
    this.#cluster = cluster;
    this.#options = options;
  }

  /** Takes one event; answers whose state it changed. Throws ImpossibleStep. */
  step(event: TraceEvent): Server {
    const known = this.#cluster.servers.get(event.nid);
    if (event.name === "InitState") return this.#start(event, known ?? null);
    if (known === undefined)
      throw new ImpossibleStep(`${event.nid} does something before it started`);
    must(
      event.msg === undefined || /^(Send|Receive)/.test(event.name),
      `${event.name} has no message`,
    );
    this.#settle(known, event);
    this.#do(known, event);
    this.#compare(known, event);
    this.#cluster.termMax = Math.max(this.#cluster.termMax, known.term);
    return known;
  }

  /** A first start, or one after a crash: with what some Ready had given to the disk. */
  #start({ nid, state, role, log, conf, prop }: TraceEvent, before: Server | null): Server {
    must(role === "StateFollower", "a peer starts as a follower");
    must(state.commit <= log, `commit ${state.commit} is beyond the log, which ends at ${log}`);
    const server = new Server(nid);
    if (before === null) {
      server.log = this.#cluster.bootLog(log, prop?.lastTerm ?? state.term);
      must(server.log.length === log, "peers begin with the same log");
      if (conf[0].length > 0 && server.last !== null) {
        server.last.voters ??= conf[0];
        server.appliedConf = log;
      }
    } else {
      server.log = restartLog(before, state, log, prop?.lastTerm ?? null);
      server.booting = false;
    }
    server.term = state.term;
    server.vote = state.vote;
    server.commit = state.commit;
    server.conf = conf;
    server.durable = log;
    server.saves = [{ ...state, last: server.last }];
    if (before !== null) server.confFromAfar = server.nextConf() !== null;
    this.#cluster.servers.set(nid, server);
    this.#received.delete(nid);
    this.#pending.delete(nid);
    this.#cluster.termMax = Math.max(this.#cluster.termMax, server.term);
    return server;
  }

  /** Brings in what the events before this one announced, now that this one shows whether it happened. */
  #settle(server: Server, event: TraceEvent): void {
    if (server.pendingConf !== null) {
      must(
        sameIds(event.conf[0], server.pendingConf),
        `(${server.pendingConf.join(" ")}) was applied, but (${event.conf[0].join(" ")}) is in effect`,
      );
      server.conf = event.conf;
      server.pendingConf = null;
    }
    const inLog = !tellsEntry(event) || event.log > server.log.length;
    if (server.pendingEntries.length > 0 && inLog) this.#append(server, event.log);
    if (server.booting) this.#boot(server, event);
    // A pre-campaign is not told; it ends a campaign that nobody won.
    if (event.role === "StatePreCandidate" && server.role === "candidate") server.role = "follower";
    if (event.name !== "BecomeFollower") this.#takeEffect(server, event);
    if (this.#options.refusalsTellCommitted) this.#learnFromRefusal(server, event.state.commit);
  }

  #learnFromRefusal(server: Server, commit: number): void {
    const entry = server.at(commit);
    if (server.role === "leader" || commit <= server.commit || entry === null) return;
    for (const other of this.#cluster.servers.values()) {
      if (other.commit < commit || other.at(commit) !== entry) continue;
      server.commit = commit;
      return;
    }
  }

  /** The entries that a leader told of are in its log now; changes of membership may have been dropped. */
  #append(server: Server, logNow: number): void {
    const told = server.pendingEntries;
    server.pendingEntries = [];
    if (logNow === server.log.length && told.every((entry) => entry.config)) return;
    for (const made of told) {
      const entry = this.#cluster.create(server.last, server.term, made);
      if (entry === null) {
        throw new ImpossibleStep(
          `LogMatchingInv: ${server.id} makes another entry ${server.log.length + 1} of term ${server.term}`,
        );
      }
      server.log.push(entry);
    }
  }

  /** etcd's bootstrap gives a new peer its first log and commit index between two events. */
  #boot(server: Server, event: TraceEvent): void {
    if (event.msg !== undefined || event.name === "Ready") server.booting = false;
    if (event.name !== "ApplyConfChange" || server.log.length > 0 || event.log === 0) return;
    must(event.state.commit <= event.log, "a first commit index lies within the first log");
    server.log = this.#cluster.bootLog(event.log, event.state.term);
    must(server.log.length === event.log, "peers begin with the same log");
    server.commit = event.state.commit;
  }

  /** What a received append, heartbeat or snapshot did; a peer may also have ignored it. */
  #takeEffect(server: Server, event: TraceEvent): void {
    const received = this.#received.get(server.id);
    if (received === undefined) return;
    const { msg, last } = received;
    if (msg.type === "MsgVote" && event.name === "SendRequestVoteResponse") return;
    this.#received.delete(server.id);
    server.answer = answerTo(server, msg, last);
    if (msg.term !== server.term || server.role !== "follower") return;
    for (const outcome of outcomesOf(server, msg, last)) {
      if (outcome.log.length !== event.log || outcome.commit !== event.state.commit) continue;
      server.log = outcome.log;
      server.commit = outcome.commit;
      if (outcome.restored) server.restored = true;
      return;
    }
  }

  #do(server: Server, event: TraceEvent): void {
    switch (event.name) {
      case "InitState":
        return;
      case "BecomeFollower":
        this.#becomeFollower(server, event);
        return;
      case "BecomeCandidate":
        must(server.role !== "leader", "a leader does not campaign");
        must(
          event.state.term === server.term + 1,
          `a candidate of term ${server.term} raises its term by one`,
        );
        must(
          server.conf.some((half) => half.includes(server.id)),
          "only a voter campaigns",
        );
        server.term = event.state.term;
        server.vote = server.id;
        server.role = "candidate";
        server.granted = new Set([server.id]);
        return;
      case "BecomeLeader":
        must(server.role === "candidate", "only a candidate becomes leader");
        must(
          isQuorum(server.conf, (id) => server.granted.has(id)),
          `a leader has the votes of a quorum, not only those of (${[...server.granted].join(" ")})`,
        );
        must(
          this.#cluster.noteLeader(server.term, server.id),
          `term ${server.term} had another leader`,
        );
        server.role = "leader";
        server.match = new Map();
        return;
      case "Commit":
        commit(server, event.state.commit);
        return;
      case "Replicate":
        must(server.role === "leader", "only a leader appends an entry of its own");
        server.pendingEntries.push({ config: false, voters: null });
        return;
      case "ChangeConf":
        must(server.role === "leader", "only a leader appends a change of membership");
        server.pendingEntries.push({ config: true, voters: changed(server, event) });
        return;
      case "ApplyConfChange":
        applyConf(server, event.prop?.cc?.newconf ?? []);
        return;
      case "Ready":
        server.durable = server.log.length;
        server.saves.push({
          term: server.term,
          vote: server.vote,
          commit: server.commit,
          last: server.last,
        });
        if (server.saves.length > savesMax) server.saves.shift();
        this.#sendPending(server);
        return;
      case "SendAppendEntriesRequest":
      case "SendSnapshot":
        this.#send(server, messageOf(event), sendAppend);
        return;
      case "SendAppendEntriesResponse":
        this.#send(server, messageOf(event), sendAppendResponse);
        return;
      case "SendRequestVoteRequest":
        this.#send(server, messageOf(event), sendVoteRequest);
        return;
      case "SendRequestVoteResponse":
        this.#send(server, messageOf(event), (to, msg) => this.#sendVote(to, msg));
        return;
      case "ReceiveAppendEntriesRequest":
      case "ReceiveSnapshot":
      case "ReceiveRequestVoteRequest":
        this.#received.set(server.id, this.#receive(server, messageOf(event)));
        return;
      case "ReceiveAppendEntriesResponse":
        receiveAppendResponse(server, this.#receive(server, messageOf(event)));
        return;
      case "ReceiveRequestVoteResponse":
        this.#receiveVote(server, this.#receive(server, messageOf(event)).msg);
        return;
      default:
        event.name satisfies never;
    }
  }

  #becomeFollower(server: Server, event: TraceEvent): void {
    const { term } = event.state;
    must(term >= server.term, `the term falls from ${server.term} to ${term}`);
    const boots = server.booting && server.term === 0 && term === 1;
    must(boots || term <= this.#cluster.termMax, `term ${term} comes from nobody`);
    if (term > server.term) server.vote = TRACE_NOBODY;
    server.term = term;
    server.role = "follower";
    server.granted = new Set();
    server.match = new Map();
  }

  #send(
    server: Server,
    msg: TraceMessage,
    send: (server: Server, msg: TraceMessage) => TracedEntry | null,
  ): void {
    must(msg.from === server.id, `${server.id} does not send in the name of ${msg.from}`);
    const last = send(server, msg);
    const pending = this.#pending.get(server.id) ?? [];
    pending.push({ msg, last });
    this.#pending.set(server.id, pending);
  }

  /** A Ready hands the messages to the network. */
  #sendPending(server: Server): void {
    for (const { msg, last } of this.#pending.get(server.id) ?? []) {
      const key = JSON.stringify(msg);
      this.#sent.set(key, { count: (this.#sent.get(key)?.count ?? 0) + 1, last });
    }
    this.#pending.delete(server.id);
  }

  #receive(server: Server, msg: TraceMessage): Received {
    must(msg.to === server.id, `${server.id} does not receive what is sent to ${msg.to}`);
    const sent = this.#sent.get(JSON.stringify(msg));
    if (sent === undefined)
      throw new ImpossibleStep(`nobody sent this ${msg.type} from ${msg.from}`);
    must(
      sent.count > 0 || this.#options.networkDuplicates,
      `this ${msg.type} from ${msg.from} arrives more often than it was sent`,
    );
    sent.count -= 1;
    must(
      !(msg.type === "MsgApp" && server.role === "leader" && msg.term === server.term),
      `a leader of term ${msg.term} gets entries from another one`,
    );
    return { msg, last: sent.last };
  }

  #sendVote(server: Server, msg: TraceMessage): null {
    if (msg.reject) return null;
    must(msg.term === server.term, `a vote of term ${msg.term} is given in term ${server.term}`);
    if (msg.to === server.id) {
      must(server.vote === server.id, "a candidate votes for itself");
      return null;
    }
    const asked = this.#received.get(server.id)?.msg;
    this.#received.delete(server.id);
    if (
      asked === undefined ||
      asked.type !== "MsgVote" ||
      asked.from !== msg.to ||
      asked.term !== msg.term
    ) {
      throw new ImpossibleStep(`${msg.to} did not ask for this vote`);
    }
    must(
      server.vote === TRACE_NOBODY || server.vote === msg.to,
      `the vote of term ${server.term} was given to ${server.vote}`,
    );
    must(
      asked.logTerm > server.lastTerm ||
        (asked.logTerm === server.lastTerm && asked.index >= server.log.length),
      `the log of ${msg.to} ends before ours`,
    );
    server.vote = msg.to;
    return null;
  }

  #receiveVote(server: Server, msg: TraceMessage): void {
    if (msg.reject || msg.term !== server.term) return;
    must(
      this.#cluster.noteVote(msg.from, msg.term, server.id),
      `${msg.from} gave another vote in term ${msg.term}`,
    );
    if (server.role === "candidate") server.granted.add(msg.from);
  }

  /** What the event shows of its peer is what must be. */
  #compare(server: Server, event: TraceEvent): void {
    const { state, role, log, conf } = event;
    const roles = {
      StateFollower: "follower",
      StatePreCandidate: "follower",
      StateCandidate: "candidate",
      StateLeader: "leader",
    };
    must(state.term === server.term, `its term is ${server.term}, not ${state.term}`);
    // A vote is noted just before or just after it is told.
    const early = event.name === "SendRequestVoteResponse" && state.vote === TRACE_NOBODY;
    must(early || state.vote === server.vote, `its vote is ${server.vote}, not ${state.vote}`);
    must(
      state.commit === server.commit,
      `its commit index is ${server.commit}, not ${state.commit}`,
    );
    must(roles[role] === server.role, `it is a ${server.role}, not in ${role}`);
    must(log === server.log.length, `its log ends at ${server.log.length}, not at ${log}`);
    must(state.commit <= log, `commit ${state.commit} is beyond the log, which ends at ${log}`);
    must(
      sameIds(conf[0], server.conf[0]) && sameIds(conf[1], server.conf[1]),
      `its voters are (${server.conf[0].join(" ")})&&(${server.conf[1].join(" ")}), not (${conf[0].join(" ")})&&(${conf[1].join(" ")})`,
    );
  }
}

/** Several entries of one proposal are told before any of them is in the log. */
function tellsEntry({ name }: TraceEvent): boolean {
  return name === "Replicate" || name === "ChangeConf";
}

/** The log of a peer that starts again: a part of what some Ready gave to its disk, under a term and vote of one. */
function restartLog(
  before: Server,
  state: TraceEvent["state"],
  length: number,
  lastTerm: number | null,
): TracedEntry[] {
  const saves = before.saves.filter((save) => save.term === state.term && save.vote === state.vote);
  must(saves.length > 0, `term ${state.term} with vote ${state.vote} was never saved`);
  if (length === 0) return [];
  for (const save of [...before.saves].reverse()) {
    let entry = save.last;
    while (entry !== null && entry.index > length) entry = entry.before;
    if (entry?.index === length && (lastTerm === null || entry.term === lastTerm))
      return logUpTo(entry);
  }
  throw new ImpossibleStep(`a log of ${length} entries was never saved`);
}

/** A new commit index of a leader: an entry of its own term that a quorum has. */
function commit(server: Server, index: number): void {
  must(server.role === "leader", "only a leader advances the commit index by itself");
  must(index >= server.commit, `the commit index falls from ${server.commit} to ${index}`);
  if (index === server.commit) return;
  const entry = server.at(index);
  if (entry === null)
    throw new ImpossibleStep(
      `commit ${index} is beyond the log, which ends at ${server.log.length}`,
    );
  must(
    entry.term === server.term,
    `entry ${index} of term ${entry.term} is committed by counting in term ${server.term}`,
  );
  // Its own entries count as soon as they are given to its disk.
  const has = (id: PeerId): boolean =>
    (server.match.get(id) ?? 0) >= index || (id === server.id && server.durable >= index);
  must(
    isQuorum(server.conf, has),
    `entry ${index} is committed, but no quorum of (${server.conf[0].join(" ")}) acknowledged it`,
  );
  server.commit = index;
}

/** The incoming voters after the change in a ChangeConf. */
function changed(server: Server, event: TraceEvent): PeerId[] {
  const voters = new Set(server.conf[0]);
  for (const { nid, action } of event.prop?.cc?.changes ?? []) {
    if (action === "AddNewServer") voters.add(nid);
    else voters.delete(nid);
  }
  return [...voters];
}

/**
 * A change of membership takes effect: that of the next committed config entry; with a snapshot, that of the last one;
 * after a restart, which may go back, that of one which was committed.
 */
function applyConf(server: Server, voters: readonly PeerId[]): void {
  const none = `no committed change makes (${voters.join(" ")}) the voters`;
  const makes = (entry: TracedEntry | null): entry is TracedEntry =>
    entry !== null && (entry.voters === null || sameIds(entry.voters, voters));
  const next = server.restored ? server.lastConf() : server.nextConf();
  if (makes(next)) {
    next.voters ??= voters;
    server.appliedConf = next.index;
    if (server.restored || server.nextConf() === null) server.confFromAfar = false;
    server.restored = false;
  } else if (server.confFromAfar) {
    const found = server.confAfter(server.appliedConf, makes) ?? server.confAfter(0, makes);
    must(found !== null, none);
    server.appliedConf = found.index;
    if (server.nextConf() === null) server.confFromAfar = false;
  } else {
    // etcd applies the entries that a peer begins with twice.
    must(sameIds(voters, server.conf[0]), none);
  }
  server.pendingConf = voters;
}

function sameIds(a: readonly PeerId[], b: readonly PeerId[]): boolean {
  return a.length === b.length && a.every((id) => b.includes(id));
}
