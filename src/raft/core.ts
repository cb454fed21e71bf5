/** The consensus state machine: takes ticks, messages and requests, gives work to its driver. Pure: see RaftCore. */
import { assert, present } from "../lib/assert.ts";
import { campaign, loseLeader } from "./election.ts";
import { heldBackThrough } from "./hold-back.ts";
import { checkInvariants } from "./invariants.ts";
import {
  acceptProposals,
  askRead,
  flushReads,
  membershipRefusal,
  type ProposeRefusal,
  startTransfer,
} from "./leader.ts";
import { ENTRY_BYTES_MAX, SAVES_UNDER_WAY_MAX, validateConfig } from "./limits.ts";
import { encodeMembershipChange } from "./membership.ts";
import { noteState, progressOf } from "./notes.ts";
import { receive } from "./receive.ts";
import { applyMembershipEntry, leaveJointWhenDue } from "./reconfigure.ts";
import { endSnapshot, flushAppends, flushSelfAck, releaseAll } from "./replication.ts";
import { isReply, RaftState, send } from "./state.ts";
import { tick } from "./tick.ts";
import { traceStep } from "./tracing.ts";
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
  SaveToken,
  Snapshot,
} from "./types.ts";

/**
 * A core that goes on where `saved` ends; empty saved state is a manager that waits to be contacted, see
 * raft/bootstrap.ts for the first one of a cluster. Asserts that the configuration can work and that `saved` is whole.
 */
export const createRaft: CreateRaft = (config, saved) => new Core(config, saved);

/** A save that the driver is busy with, and what this peer tells itself when it is durable. */
interface Saving {
  readonly token: SaveToken | null;
  readonly toSelf: readonly Message[];
}

class Core implements RaftCore {
  readonly #r: RaftState;
  /** In the order of their Readys; with at most one at a time without async storage writes. */
  #saving: Saving[] = [];
  /** Without async storage writes: the last entry that the Ready not yet advanced gave to apply. */
  #applyThrough = 0;
  #advanced = true;
  /** As last handed to the driver. */
  #hardState: HardState;
  #leader: PeerId | null = null;
  #role: Role = "follower";

  constructor(config: RaftConfig, saved: SavedState) {
    validateConfig(config);
    assert(Number.isSafeInteger(saved.hardState.term), "the saved term is a safe integer");
    this.#r = new RaftState(config, saved);
    this.#hardState = this.#currentHardState();
    if (config.trace !== undefined) traceStep(this.#r, "InitState");
    this.#noteStart();
    checkInvariants(this.#r);
  }

  #noteStart(): void {
    const r = this.#r;
    r.config.note?.({ kind: "membership-in-effect", membership: r.membership }, noteState(r));
    r.config.note?.({ kind: "became", role: r.role }, noteState(r));
    r.config.note?.({ kind: "started" }, noteState(r));
  }

  tick(): void {
    tick(this.#r);
    checkInvariants(this.#r);
  }

  step(message: Message): void {
    // A peer may be wrong about who we are; one that claims to be us is not believed.
    if (message.to !== this.#r.id || message.from === this.#r.id) return;
    // Nor is one that answers what it was never asked, as it is no member: its term is nobody's business here.
    // (One that joins knows no members yet, but its leader may answer its reads.)
    const { peers, leader } = this.#r;
    if (isReply(message) && !peers.has(message.from) && message.from !== leader) return;
    receive(this.#r, message);
    checkInvariants(this.#r);
  }

  campaign(): void {
    campaign(this.#r, "timeout");
    checkInvariants(this.#r);
  }

  propose(data: Uint8Array): ProposeResult {
    if (data.length > ENTRY_BYTES_MAX) return this.#refuse("invalid");
    return this.#propose({ kind: "normal", data });
  }

  proposeMembership(change: MembershipChange): ProposeResult {
    const r = this.#r;
    const data = encodeMembershipChange(change);
    if (r.role === "leader" && r.config.refusedMembership === "told") {
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
      if (r.leader === null || r.config.disableProposalForwarding) {
        r.config.note?.({ kind: "proposal-dropped", leader: r.leader }, noteState(r));
        return this.#refuse(removed && r.leader === null ? "removed" : "no-leader");
      }
      send(r, { kind: "propose", from: r.id, to: r.leader, term: 0, entries: [proposal] });
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
      send(r, { kind: "read-index", from: r.id, to: r.leader, term: 0, readId });
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
      // Who is gone may be one that the quorum was to be made with.
      releaseAll(r);
      if (peer !== undefined) {
        r.config.note?.({ kind: "peer-unreachable", progress: progressOf(peer) }, noteState(r));
      }
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

  forgetLeader(): void {
    const r = this.#r;
    // A lease counts on every follower that answered its leader.
    if (r.role === "follower" && r.config.readMode === "lease") {
      r.config.note?.({ kind: "forgetting-refused" }, noteState(r));
    } else if (r.role === "follower" && r.leader !== null) {
      r.config.note?.({ kind: "leader-forgotten", leader: r.leader }, noteState(r));
      r.leader = null;
    }
    checkInvariants(r);
  }

  heldBackThrough(): number | null {
    return heldBackThrough(this.#r);
  }

  sendHeldBack(): void {
    if (this.#r.role === "leader") releaseAll(this.#r);
    checkInvariants(this.#r);
  }

  hasReady(): boolean {
    if (!this.#advanced || this.#saving.length >= SAVES_UNDER_WAY_MAX) return false;
    const r = this.#r;
    return (
      r.messages.length > 0 ||
      r.afterSave.length > 0 ||
      r.readsDone.length > 0 ||
      r.appendsDue ||
      (r.role === "leader" && r.reads.collecting()) ||
      r.log.hasUnoffered() ||
      r.log.hasCommitted(r.config.asyncStorageWrites) ||
      r.leader !== this.#leader ||
      r.role !== this.#role ||
      r.term !== this.#hardState.term ||
      r.vote !== this.#hardState.vote ||
      r.log.committed !== this.#hardState.commit
    );
  }

  ready(): Ready {
    const r = this.#r;
    assert(this.#advanced, "the last Ready was advanced before the next is drawn");
    flushAppends(r);
    flushSelfAck(r);
    flushReads(r);
    const before = this.#hardState;
    const hardState = this.#currentHardState();
    const changed = !sameHardState(hardState, before);
    const snapshot = r.log.takeArrived();
    const entries = r.log.takeUnoffered();
    const committed = r.log.takeCommitted(
      r.config.committedBytesPerReadyMax,
      r.config.asyncStorageWrites,
    );
    const mustSync =
      entries.length > 0 ||
      snapshot !== null ||
      hardState.term !== before.term ||
      hardState.vote !== before.vote;
    const awaited = mustSync || r.afterSave.length > 0 || (changed && r.log.hasUndurable());
    const toSelf = messagesToSelf(r);
    const ready: Ready = {
      leader: r.leader,
      role: r.role,
      hardState: changed ? hardState : null,
      entries,
      snapshot,
      messages: r.messages,
      afterSave:
        toSelf.length === 0 ? r.afterSave : r.afterSave.filter((message) => message.to !== r.id),
      toSelf,
      save: awaited ? this.#drawToken() : null,
      mustSync,
      committed,
      reads: r.readsDone,
    };
    if (ready.save !== null || !r.config.asyncStorageWrites) {
      this.#saving.push({ token: ready.save, toSelf });
    }
    this.#applyThrough = committed.at(-1)?.index ?? 0;
    this.#advanced = r.config.asyncStorageWrites;
    this.#hardState = hardState;
    this.#leader = r.leader;
    this.#role = r.role;
    r.messages = [];
    r.afterSave = [];
    r.readsDone = [];
    if (r.config.trace !== undefined) traceStep(r, "Ready");
    checkInvariants(r);
    return ready;
  }

  /**
   * Names all of the log that waits for storage, not only what this Ready adds: after a change of term the
   * acknowledgements of earlier saves count no more, and this one must make up for them.
   */
  #drawToken(): SaveToken {
    const { term, log } = this.#r;
    const entriesWait = log.lastIndex > log.durable;
    return {
      term,
      lastIndex: entriesWait ? log.lastIndex : null,
      lastTerm: entriesWait ? log.lastTerm : null,
      snapshotIndex: log.arrived?.index ?? null,
    };
  }

  advance(): void {
    const r = this.#r;
    assert(
      !r.config.asyncStorageWrites,
      "with asyncStorageWrites, saved() and applied() replace it",
    );
    assert(!this.#advanced, "advance follows ready");
    this.#advanced = true;
    // The order of etcd: the membership first, then what this peer tells itself, then its disk, then its position.
    const through = this.#applyThrough;
    this.#applyMembership(through);
    const saving = present(this.#saving.shift(), "the save of a Ready");
    this.#saveDone(saving);
    this.#applyDone(through);
    checkInvariants(r);
  }

  saved(token: SaveToken): void {
    const r = this.#r;
    assert(r.config.asyncStorageWrites, "without asyncStorageWrites, advance() says it");
    const saving = present(this.#saving.shift(), "a save under way");
    assert(saving.token === token, "saves are acknowledged in order, each once");
    this.#saveDone(saving);
    checkInvariants(r);
  }

  #saveDone({ token, toSelf }: Saving): void {
    const r = this.#r;
    // What this peer says to itself counts now that it is durable. Old terms are ignored as from anybody.
    for (const message of toSelf) receive(this.#r, message);
    if (token === null) return;
    // In a later term the same index and term may have been replaced and come back: this save says nothing of that.
    if (token.lastIndex !== null && token.lastTerm !== null) {
      if (token.term !== r.term) {
        r.config.note?.({ kind: "save-of-earlier-term", savedTerm: token.term }, noteState(r));
      } else {
        if (r.config.note !== undefined) noteOutlivedSave(r, token.lastIndex, token.lastTerm);
        r.log.durableThrough(token.lastIndex, token.lastTerm);
      }
    }
    // A snapshot is of committed entries, whatever the term.
    if (token.snapshotIndex !== null) r.log.installed(token.snapshotIndex);
  }

  applied(index: number): void {
    const r = this.#r;
    assert(r.config.asyncStorageWrites, "without asyncStorageWrites, advance() says it");
    assert(Number.isSafeInteger(index), "an index is a safe integer");
    assert(index <= r.log.applying, "only what was given to apply is applied");
    this.#applyMembership(index);
    this.#applyDone(index);
    checkInvariants(r);
  }

  #applyMembership(through: number): void {
    const r = this.#r;
    // A snapshot that came meanwhile covers these entries, and its membership is newer than theirs.
    if (r.log.arrived !== null) return;
    for (let index = r.log.applied + 1; index <= through; index += 1) {
      const entry = r.log.at(index);
      if (entry?.kind === "membership") applyMembershipEntry(r, entry);
    }
  }

  #applyDone(through: number): void {
    const r = this.#r;
    if (through <= r.log.applied || r.log.arrived !== null) return;
    let bytes = 0;
    for (let index = r.log.applied + 1; index <= through; index += 1) {
      bytes += r.log.at(index)?.data.length ?? 0;
    }
    r.log.appliedThrough(through, r.config.committedBytesPerReadyMax);
    r.uncommittedBytes = Math.max(0, r.uncommittedBytes - bytes);
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
      progress: r.role !== "leader" ? [] : [...r.peers.values()].map(progressOf),
    };
  }
}

/** Notes that what was saved is durable already, or was replaced meanwhile. */
function noteOutlivedSave(r: RaftState, index: number, savedTerm: number): void {
  const waits = index > r.log.durable && index <= r.log.lastIndex;
  const ownTerm = waits ? r.log.term(index) : null;
  if (ownTerm === savedTerm) return;
  r.config.note?.({ kind: "save-outlived", index, savedTerm, ownTerm }, noteState(r));
}

const NO_MESSAGES: readonly Message[] = [];

function messagesToSelf(r: RaftState): readonly Message[] {
  if (r.afterSave.length === 0) return NO_MESSAGES;
  return r.afterSave.filter((message) => message.to === r.id);
}

function sameHardState(a: HardState, b: HardState): boolean {
  return a.term === b.term && a.vote === b.vote && a.commit === b.commit;
}
