/** Everything one peer knows, and the few moves that every role shares. The other files of this folder act on it. */
import { assert } from "../lib/assert.ts";
import { RaftLog } from "./log.ts";
import { EMPTY_MEMBERSHIP, isVoter, members } from "./membership.ts";
import { Inflights, Progress } from "./progress.ts";
import { ReadRounds } from "./read-index.ts";
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
  reads: ReadRounds = new ReadRounds();
  /** Leader: reads asked before the first commit of this term. */
  readsBeforeCommit: { readonly from: PeerId; readonly readId: number }[] = [];

  /** Out with the next Ready. */
  messages: Message[] = [];
  /** To this peer itself, delivered when the next Ready is durable: its own vote, its own acknowledgement. */
  selfMessages: Message[] = [];
  readsDone: Ready["reads"][number][] = [];

  constructor(config: RaftConfig, saved: SavedState) {
    this.config = config;
    this.id = config.id;
    this.log = new RaftLog(saved);
    this.term = saved.hardState.term;
    this.vote = saved.hardState.vote;
    this.electionTimeout = drawElectionTimeout(config);
    this.membership = saved.snapshot?.membership ?? EMPTY_MEMBERSHIP;
    assert(this.log.lastTerm <= this.term, "the saved term is not below the saved log's");
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
  // Unanswered reads are dropped with the term: their askers ask again.
  r.reads = new ReadRounds();
  r.readsBeforeCommit = [];
  r.peers = new Map();
  rebuildPeers(r);
  for (const peer of r.peers.values()) {
    peer.active = false;
    peer.next = r.log.lastIndex + 1;
    if (peer.id === r.id) peer.match = r.log.lastIndex;
  }
}

/** Follows `leader` (null: not known yet) in `term`. */
export function becomeFollower(r: RaftState, term: number, leader: PeerId | null): void {
  reset(r, term);
  r.leader = leader;
  r.role = "follower";
  assert(leader !== r.id, "nobody follows itself");
}

/** A message of the leader of this term came: whatever was planned against it is off. */
export function hearLeader(r: RaftState, leader: PeerId): void {
  assert(r.role === "follower", "only a follower listens to a leader");
  assert(r.leader === null || r.leader === leader, "a term has one leader");
  r.electionElapsed = 0;
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
