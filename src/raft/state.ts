/** Everything one peer knows, and the few moves that every role shares. The other files of this folder act on it. */
import { assert } from "../lib/assert.ts";
import type { Lease } from "./lease.ts";
import { RaftLog } from "./log.ts";
import { EMPTY_MEMBERSHIP, isVoter, members } from "./membership.ts";
import { noteState } from "./notes.ts";
import { Inflights, Progress } from "./progress.ts";
import { ReadRounds } from "./read-index.ts";
import { traceMessage, traceStep } from "./tracing.ts";
import type { Membership, Message, PeerId, RaftConfig, Ready, Role, SavedState } from "./types.ts";

/** The mutable state of one core. Only functions of src/raft write to it, one call at a time. */
export class RaftState {
  readonly config: RaftConfig;
  readonly id: PeerId;
  readonly log: RaftLog;

  term: number;
  vote: PeerId | null;
  role: Role = "follower";
  leader: PeerId | null = null;

  /** As applied, not as appended: a change counts from the moment its entry is applied (etcd's choice). */
  membership: Membership;
  /** One per member, in order of names, so that the same inputs give the same messages. */
  peers: Map<PeerId, Progress> = new Map();

  /** Votes heard in the election or pre-election under way. */
  votes: Map<PeerId, boolean> = new Map();
  /** Ticks since the leader was last heard (follower) or since the quorum was last checked (leader). */
  electionElapsed = 0;
  heartbeatElapsed = 0;
  /**
   * For lease reads: ticks since a leader was last heard. A peer that starts may have heard one just before; not so one
   * that has never been in any term, as it saves its term before it answers.
   */
  leaderSilentTicks: number;
  /** Ticks after which this peer campaigns: drawn anew from [electionTicks, 2 * electionTicks). */
  electionTimeout: number;
  /** Ticks until this follower, whose leader's connection closed, campaigns without waiting for the timeout. */
  campaignInTicks: number | null = null;

  /** Leader: who takes over next; no proposal is accepted meanwhile. */
  transferee: PeerId | null = null;
  /** Leader: no change of membership is accepted until everything through this index is applied. */
  membershipPendingIndex = 0;
  /** Leader: payload bytes proposed and not yet applied. */
  uncommittedBytes = 0;
  /** Leader: followers are owed an append, sent when the Ready is drawn so that one message carries many proposals. */
  appendsDue = false;
  /** Leader: it owes itself an acknowledgement of what it appended, given when that is saved. */
  selfAckDue = false;
  reads: ReadRounds = new ReadRounds();
  /** Leader with lease reads: for how long it may answer them by itself. */
  lease: Lease | null = null;
  /** Leader: reads asked before the first commit of this term. */
  readsBeforeCommit: { readonly from: PeerId; readonly readId: number }[] = [];

  /** Out with the next Ready, at once. */
  messages: Message[] = [];
  /**
   * Out when the next Ready is durable, because they promise something of this disk: votes and their requests,
   * acknowledgements. Some are to this peer itself: its own vote, its own acknowledgement.
   */
  afterSave: Message[] = [];
  readsDone: Ready["reads"][number][] = [];

  constructor(config: RaftConfig, saved: SavedState) {
    this.config = config;
    this.id = config.id;
    this.log = new RaftLog(saved);
    this.term = saved.hardState.term;
    this.vote = saved.hardState.vote;
    this.electionTimeout = drawElectionTimeout(config);
    this.leaderSilentTicks = this.term === 0 ? config.electionTicks : 0;
    this.membership = saved.snapshot?.membership ?? EMPTY_MEMBERSHIP;
    assert(
      this.log.lastTerm <= this.term || this.log.lastIndex === saved.snapshot?.index,
      "the saved term is not below that of the saved entries",
    );
    rebuildPeers(this);
  }

  /** Whether this peer may stand for election: it is a voter and waits for no snapshot. */
  electable(): boolean {
    return isVoter(this.membership, this.id) && this.log.arrived === null;
  }

  /** Whether an entry of the leader's own term is committed: before that it does not know how much is (Raft 8). */
  committedInTerm(): boolean {
    return this.log.term(this.log.committed) === this.term;
  }
}

/** Starts `term` (or the same term again) with nothing known: no leader, no votes, no progress. */
export function reset(r: RaftState, term: number): void {
  assert(Number.isSafeInteger(term) && term >= r.term, "terms never fall");
  if (term !== r.term) {
    r.term = term;
    r.vote = null;
  }
  r.leader = null;
  r.electionElapsed = 0;
  r.heartbeatElapsed = 0;
  r.electionTimeout = drawElectionTimeout(r.config);
  r.campaignInTicks = null;
  r.transferee = null;
  r.votes = new Map();
  r.membershipPendingIndex = 0;
  r.uncommittedBytes = 0;
  r.appendsDue = false;
  r.selfAckDue = false;
  // Unanswered reads are dropped with the term: their askers ask again.
  r.reads = new ReadRounds();
  r.readsBeforeCommit = [];
  r.lease = null;
  r.peers = new Map();
  rebuildPeers(r);
  for (const peer of r.peers.values()) {
    peer.active = false;
    peer.next = r.log.lastIndex + 1;
    if (peer.id === r.id) peer.match = r.log.lastIndex;
  }
}

/** Whether it answers a message that this peer sent as a leader or a candidate. */
export function isReply(message: Message): boolean {
  switch (message.kind) {
    case "append-reply":
    case "heartbeat-reply":
    case "vote-reply":
    case "prevote-reply":
    case "read-index-reply":
      return true;
    default:
      return false;
  }
}

/** Puts a message into the next Ready: it may leave at once. */
export function send(r: RaftState, message: Message): void {
  assert(message.to !== r.id, "what a peer tells itself waits for its disk");
  r.messages.push(message);
  if (r.config.trace !== undefined) traceMessage(r, "Send", message);
}

/** Puts a message into the next Ready that leaves when it is durable. To itself: delivered then. */
export function sendAfterSave(r: RaftState, message: Message): void {
  assert(message.from === r.id, "a peer speaks for itself");
  r.afterSave.push(message);
  if (r.config.trace !== undefined) traceMessage(r, "Send", message);
}

/** Follows `leader` (null: not known yet) in `term`. */
export function becomeFollower(r: RaftState, term: number, leader: PeerId | null): void {
  reset(r, term);
  r.leader = leader;
  r.role = "follower";
  if (r.config.trace !== undefined) traceStep(r, "BecomeFollower");
  assert(leader !== r.id, "nobody follows itself");
  r.config.note?.({ kind: "became", role: "follower" }, noteState(r));
}

/** A message of the leader of this term came: whatever was planned against it is off. */
export function hearLeader(r: RaftState, leader: PeerId): void {
  assert(r.role === "follower", "only a follower listens to a leader");
  assert(r.leader === null || r.leader === leader, "a term has one leader");
  r.electionElapsed = 0;
  r.leaderSilentTicks = 0;
  r.campaignInTicks = null;
  r.leader = leader;
}

/** Makes the progress map say who is a member now; who stays keeps what is known of its log. */
export function rebuildPeers(r: RaftState): void {
  const before = r.peers;
  r.peers = new Map();
  for (const id of members(r.membership)) {
    const learner = r.membership.learners.includes(id);
    const known = before.get(id);
    if (known !== undefined) {
      known.learner = learner;
      r.peers.set(id, known);
      continue;
    }
    const window = new Inflights(r.config.inflightMessagesMax, r.config.inflightBytesMax);
    const peer = new Progress(id, 0, Math.max(r.log.lastIndex, 1), learner, window);
    // Give a new member one election timeout to be heard before it counts as gone.
    peer.active = true;
    r.peers.set(id, peer);
  }
}

function drawElectionTimeout(config: RaftConfig): number {
  return config.electionTicks + config.random.below(config.electionTicks);
}
