/** The consensus state machine: takes ticks, messages and requests, gives work to its driver. Pure: see RaftCore. */
import { assert } from "../lib/assert.ts";
import {
  answerVoteRequest,
  campaign,
  countVote,
  leaderSticks,
  learnCommitFromRefusal,
  loseLeader,
} from "./election.ts";
import { onAppend, onHeartbeat, onSnapshot } from "./follower.ts";
import { checkInvariants } from "./invariants.ts";
import {
  acceptProposals,
  askRead,
  flushReads,
  membershipRefusal,
  onAppendReply,
  onHeartbeatReply,
  type ProposeRefusal,
  startTransfer,
} from "./leader.ts";
import { ENTRY_BYTES_MAX, validateConfig } from "./limits.ts";
import { encodeMembershipChange } from "./membership.ts";
import { applyMembershipEntry, leaveJointWhenDue } from "./reconfigure.ts";
import {
  ageSnapshots,
  broadcastHeartbeat,
  endSnapshot,
  flushAppends,
  quorumActive,
} from "./replication.ts";
import { becomeFollower, RaftState } from "./state.ts";
import type {
  CreateRaft,
  Entry,
  HardState,
  MembershipChange,
  Message,
  PeerId,
  ProposeResult,
  RaftConfig,
  RaftCore,
  RaftStatus,
  Ready,
  Role,
  SavedState,
  Snapshot,
} from "./types.ts";

/**
 * A core that goes on where `saved` ends; empty saved state is a manager that waits to be contacted, see
 * raft/bootstrap.ts for the first one of a cluster. Asserts that the configuration can work and that `saved` is whole.
 */
export const createRaft: CreateRaft = (config, saved) => new Core(config, saved);

/** What the driver is busy with between ready() and advance(). */
interface Outstanding {
  readonly lastEntry: { readonly index: number; readonly term: number } | null;
  readonly snapshotIndex: number | null;
  readonly committed: readonly Entry[];
  readonly selfMessages: readonly Message[];
}

class Core implements RaftCore {
  readonly #r: RaftState;
  #outstanding: Outstanding | null = null;
  /** As last handed to the driver. */
  #hardState: HardState;
  #leader: PeerId | null = null;
  #role: Role = "follower";

  constructor(config: RaftConfig, saved: SavedState) {
    validateConfig(config);
    assert(Number.isSafeInteger(saved.hardState.term), "the saved term is a safe integer");
    this.#r = new RaftState(config, saved);
    this.#hardState = this.#currentHardState();
    checkInvariants(this.#r);
  }

  tick(): void {
    if (this.#r.role === "leader") this.#tickLeader();
    else this.#tickElection();
    checkInvariants(this.#r);
  }

  #tickLeader(): void {
    const r = this.#r;
    r.heartbeatElapsed += 1;
    r.electionElapsed += 1;
    if (r.electionElapsed >= r.config.electionTicks) {
      r.electionElapsed = 0;
      // Without a quorum it may have been replaced: stop answering as if it led.
      if (!quorumActive(r)) {
        becomeFollower(r, r.term, null);
        return;
      }
      r.transferee = null;
      ageSnapshots(r);
    }
    if (r.heartbeatElapsed < r.config.heartbeatTicks) return;
    r.heartbeatElapsed = 0;
    broadcastHeartbeat(r, r.reads.newest());
  }

  #tickElection(): void {
    const r = this.#r;
    r.electionElapsed += 1;
    if (r.campaignInTicks !== null) {
      r.campaignInTicks -= 1;
      if (r.campaignInTicks <= 0) {
        campaign(r, "prevote");
        return;
      }
    }
    if (r.electionElapsed < r.electionTimeout || !r.electable()) return;
    r.electionElapsed = 0;
    campaign(r, "prevote");
  }

  step(message: Message): void {
    // A peer may be wrong about who we are; one that claims to be us is not believed.
    if (message.to !== this.#r.id || message.from === this.#r.id) return;
    this.#receive(message);
    checkInvariants(this.#r);
  }

  #receive(message: Message): void {
    const r = this.#r;
    assert(Number.isSafeInteger(message.term), "a message's term is a safe integer");
    // Requests to whoever leads belong to no term.
    if (message.kind !== "propose" && message.kind !== "read-index") {
      if (message.term > r.term && !this.#meetLaterTerm(message)) return;
      if (message.term < r.term) {
        this.#meetEarlierTerm(message);
        return;
      }
    }
    switch (message.kind) {
      case "vote":
      case "prevote":
        answerVoteRequest(r, message);
        return;
      case "vote-reply":
      case "prevote-reply":
        if (r.role !== "leader") learnCommitFromRefusal(r, message);
        if (r.role === "candidate" || r.role === "precandidate") countVote(r, message);
        return;
      case "append":
      case "heartbeat":
      case "snapshot":
        assert(r.role !== "leader", `a term has one leader: ${message.from} leads too`);
        if (r.role !== "follower") becomeFollower(r, r.term, message.from);
        if (message.kind === "append") onAppend(r, message);
        else if (message.kind === "heartbeat") onHeartbeat(r, message);
        else onSnapshot(r, message);
        return;
      case "timeout-now":
        if (r.role === "follower") campaign(r, "transfer");
        return;
      case "read-index-reply":
        r.readsDone.push({ readId: message.readId, index: message.index });
        return;
      case "append-reply":
      case "heartbeat-reply": {
        const peer = r.role === "leader" ? r.peers.get(message.from) : undefined;
        if (peer === undefined) return;
        if (message.kind === "append-reply") onAppendReply(r, peer, message);
        else onHeartbeatReply(r, peer, message);
        return;
      }
      case "propose":
        // Handed on once: a proposal that met no leader here is lost, and its proposer asks again.
        if (r.role === "leader" && message.entries.length > 0) acceptProposals(r, message.entries);
        return;
      case "read-index":
        if (r.role === "leader") askRead(r, message.from, message.readId);
        return;
      default:
        message satisfies never;
    }
  }

  /** A message from a later term than ours: follow it there, unless it only asks. False when it is to be ignored. */
  #meetLaterTerm(message: Message): boolean {
    const r = this.#r;
    switch (message.kind) {
      case "vote":
      case "prevote":
        if (leaderSticks(r, message)) return false;
        if (message.kind === "vote") becomeFollower(r, message.term, null);
        return true;
      case "prevote-reply":
        // A grant carries the term that was asked about; it becomes ours only when a quorum has granted.
        if (!message.granted) becomeFollower(r, message.term, null);
        return true;
      case "append":
      case "heartbeat":
      case "snapshot":
        becomeFollower(r, message.term, message.from);
        return true;
      default:
        becomeFollower(r, message.term, null);
        return true;
    }
  }

  /** A message from an earlier term: tell a leader or a candidate of that term that it is over. */
  #meetEarlierTerm(message: Message): void {
    const r = this.#r;
    const reply = { from: r.id, to: message.from, term: r.term };
    if (message.kind === "append" || message.kind === "heartbeat") {
      // Else a leader that never hears a higher term (pre-votes carry none) would hold this peer for ever.
      r.messages.push({
        ...reply,
        kind: "append-reply",
        index: 0,
        rejected: false,
        hintIndex: 0,
        hintTerm: 0,
      });
    } else if (message.kind === "prevote") {
      r.messages.push({ ...reply, kind: "prevote-reply", granted: false });
    }
  }

  campaign(): void {
    campaign(this.#r, "prevote");
    checkInvariants(this.#r);
  }

  propose(data: Uint8Array): ProposeResult {
    if (data.length > ENTRY_BYTES_MAX) return this.#refuse("invalid");
    return this.#propose({ kind: "normal", data });
  }

  proposeMembership(change: MembershipChange): ProposeResult {
    const r = this.#r;
    const data = encodeMembershipChange(change);
    if (r.role === "leader") {
      // Stricter than the rule for forwarded ones: nothing changes before this leader has shown that it leads.
      if (!r.committedInTerm()) return this.#refuse("membership-pending");
      const refusal = membershipRefusal(r, data);
      if (refusal !== null) return this.#refuse(refusal);
    }
    return this.#propose({ kind: "membership", data });
  }

  #propose(proposal: Pick<Entry, "kind" | "data">): ProposeResult {
    const r = this.#r;
    if (r.role !== "leader") {
      const removed = r.peers.size > 0 && !r.peers.has(r.id);
      if (r.leader === null) return this.#refuse(removed ? "removed" : "no-leader");
      r.messages.push({ kind: "propose", from: r.id, to: r.leader, term: 0, entries: [proposal] });
      return { ok: true, index: null, term: null };
    }
    const refusal = acceptProposals(r, [proposal]);
    if (refusal !== null) return this.#refuse(refusal);
    checkInvariants(r);
    return { ok: true, index: r.log.lastIndex, term: r.term };
  }

  #refuse(reason: ProposeRefusal): ProposeResult {
    return { ok: false, reason, leader: this.#r.leader };
  }

  readIndex(readId: number): void {
    const r = this.#r;
    assert(Number.isSafeInteger(readId), "a read's number is a safe integer");
    if (r.role === "leader") askRead(r, r.id, readId);
    else if (r.leader !== null) {
      r.messages.push({ kind: "read-index", from: r.id, to: r.leader, term: 0, readId });
    }
  }

  transferLeadership(to: PeerId): void {
    if (this.#r.role === "leader") startTransfer(this.#r, to);
    checkInvariants(this.#r);
  }

  peerUnreachable(id: PeerId): void {
    const r = this.#r;
    if (r.role === "leader") {
      const peer = r.peers.get(id);
      if (peer?.state === "replicate" && id !== r.id) peer.becomeProbe();
      else if (peer?.state === "snapshot") endSnapshot(peer, false);
    } else if (r.leader === id) loseLeader(r);
    checkInvariants(r);
  }

  snapshotSent(id: PeerId, ok: boolean): void {
    const r = this.#r;
    const peer = r.role === "leader" ? r.peers.get(id) : undefined;
    if (peer !== undefined) endSnapshot(peer, ok);
    checkInvariants(r);
  }

  compact(snapshot: Snapshot, keepFrom: number): void {
    assert(Number.isSafeInteger(keepFrom) && keepFrom > 0, "keepFrom is an index");
    this.#r.log.compact(snapshot, keepFrom);
    checkInvariants(this.#r);
  }

  hasReady(): boolean {
    if (this.#outstanding !== null) return false;
    const r = this.#r;
    return (
      r.messages.length > 0 ||
      r.selfMessages.length > 0 ||
      r.readsDone.length > 0 ||
      r.appendsDue ||
      (r.role === "leader" && r.reads.collecting()) ||
      r.log.arrived !== null ||
      r.log.hasUndurable() ||
      r.log.hasUnapplied() ||
      r.leader !== this.#leader ||
      r.role !== this.#role ||
      !sameHardState(this.#currentHardState(), this.#hardState)
    );
  }

  ready(): Ready {
    const r = this.#r;
    assert(this.#outstanding === null, "the last Ready was advanced before the next is drawn");
    flushAppends(r);
    flushReads(r);
    const hardState = this.#currentHardState();
    const entries = r.log.undurable();
    const last = entries.at(-1);
    const committed = r.log.unapplied(r.config.committedBytesPerReadyMax);
    const ready: Ready = {
      leader: r.leader,
      role: r.role,
      hardState: sameHardState(hardState, this.#hardState) ? null : hardState,
      entries,
      snapshot: r.log.arrived,
      messages: r.messages,
      committed,
      reads: r.readsDone,
    };
    this.#outstanding = {
      lastEntry: last === undefined ? null : { index: last.index, term: last.term },
      snapshotIndex: r.log.arrived?.index ?? null,
      committed,
      selfMessages: r.selfMessages,
    };
    this.#hardState = hardState;
    this.#leader = r.leader;
    this.#role = r.role;
    r.messages = [];
    r.selfMessages = [];
    r.readsDone = [];
    checkInvariants(r);
    return ready;
  }

  advance(): void {
    const r = this.#r;
    const done = this.#outstanding;
    assert(done !== null, "advance follows ready");
    this.#outstanding = null;
    if (done.lastEntry !== null) r.log.durableThrough(done.lastEntry.index, done.lastEntry.term);
    if (done.snapshotIndex !== null) r.log.installed(done.snapshotIndex);
    this.#applied(done.committed);
    // What this peer says to itself counts now that it is durable. Old terms are ignored as from anybody.
    for (const message of done.selfMessages) this.#receive(message);
    checkInvariants(r);
  }

  #applied(committed: readonly Entry[]): void {
    const r = this.#r;
    const last = committed.at(-1);
    // A snapshot that came meanwhile covers these entries, and its membership is newer than theirs.
    if (last === undefined || r.log.arrived !== null) return;
    for (const entry of committed) {
      if (entry.kind === "membership") applyMembershipEntry(r, entry);
      r.uncommittedBytes = Math.max(0, r.uncommittedBytes - entry.data.length);
    }
    r.log.appliedThrough(last.index);
    leaveJointWhenDue(r);
  }

  #currentHardState(): HardState {
    const r = this.#r;
    return { term: r.term, vote: r.vote, commit: r.log.committed };
  }

  status(): RaftStatus {
    const r = this.#r;
    return {
      id: r.id,
      role: r.role,
      term: r.term,
      leader: r.leader,
      commit: r.log.committed,
      applied: r.log.applied,
      lastIndex: r.log.lastIndex,
      firstIndex: r.log.firstIndex,
      membership: r.membership,
      transferee: r.transferee,
      progress:
        r.role !== "leader"
          ? []
          : [...r.peers.values()].map((peer) => ({
              id: peer.id,
              state: peer.state,
              match: peer.match,
              next: peer.next,
              active: peer.active,
              learner: peer.learner,
            })),
    };
  }
}

function sameHardState(a: HardState, b: HardState): boolean {
  return a.term === b.term && a.vote === b.vote && a.commit === b.commit;
}
