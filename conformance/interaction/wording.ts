/** Words the notes of our core as etcd words its log. Notes that etcd has no line for give none. */
import type { NoteState, PeerProgress, RaftNote } from "../../src/raft/notes.ts";
import type { MembershipChange, Snapshot } from "../../src/raft/types.ts";
import { describeConfig, describeProgress, messageType } from "./describe.ts";

export type LogLevel = "DEBUG" | "INFO" | "WARN" | "ERROR";
export interface LogLine {
  readonly level: LogLevel;
  readonly text: string;
}

const REQUESTS = { vote: "MsgVote", prevote: "MsgPreVote" } as const;
const ROLES = {
  follower: "follower",
  precandidate: "pre-candidate",
  candidate: "candidate",
  leader: "leader",
} as const;
const CHANGES = {
  "add-voter": "ConfChangeAddNode",
  "add-learner": "ConfChangeAddLearnerNode",
  remove: "ConfChangeRemoveNode",
} as const;
const TRANSITIONS = {
  auto: "ConfChangeTransitionAuto",
  "joint-implicit": "ConfChangeTransitionJointImplicit",
  "joint-explicit": "ConfChangeTransitionJointExplicit",
} as const;

export function word(note: RaftNote, at: NoteState): LogLine | null {
  const text = electionText(note, at) ?? replicationText(note, at) ?? restText(note, at);
  return text === null ? null : { level: levelOf(note), text };
}

function levelOf({ kind }: RaftNote): LogLevel {
  switch (kind) {
    case "forgetting-refused":
      return "ERROR";
    case "campaign-refused":
    case "quorum-lost":
      return "WARN";
    case "append-refused":
    case "refusal-heard":
    case "progress-lowered":
    case "snapshot-recovered":
    case "snapshot-sent":
    case "snapshot-held-back":
    case "replication-paused":
    case "peer-unreachable":
      return "DEBUG";
    default:
      return "INFO";
  }
}

function electionText(note: RaftNote, at: NoteState): string | null {
  const { id, term, lastTerm, lastIndex } = at;
  switch (note.kind) {
    case "became":
      return `${id} became ${ROLES[note.role]} at term ${term}`;
    case "quorum-lost":
      return `${id} stepped down to follower since quorum is not active`;
    case "campaigns":
      return `${id} is starting a new election at term ${term}`;
    case "campaign-refused":
      return note.why === "not-electable"
        ? `${id} is unpromotable and can not campaign`
        : `${id} cannot campaign at term ${term} since there are still pending configuration changes to apply`;
    case "vote-requested":
      return `${id} [logterm: ${lastTerm}, index: ${lastIndex}] sent ${REQUESTS[note.request]} request to ${note.to} at term ${term}`;
    case "vote-counted": {
      const reply = `${REQUESTS[note.request]}Resp`;
      const { granted, from, grants, refusals } = note;
      return `${id} received ${reply}${granted ? "" : " rejection"} from ${from} at term ${term}\n${id} has received ${grants} ${reply} votes and ${refusals} vote rejections`;
    }
    case "vote-cast":
    case "vote-refused":
    case "vote-ignored":
      return voteText(note, at);
    case "leader-forgotten":
      return `${id} forgetting leader ${note.leader} at term ${term}`;
    case "forgetting-refused":
      return "ignoring MsgForgetLeader due to ReadOnlyLeaseBased";
    case "transfer-starts":
      return `${id} [term ${term}] starts to transfer leadership to ${note.to}`;
    case "transfer-sent":
      return note.atOnce
        ? `${id} sends MsgTimeoutNow to ${note.to} immediately as ${note.to} already has up-to-date log`
        : `${id} sent MsgTimeoutNow to ${note.to} after received MsgAppResp`;
    case "transfer-received":
      return `${id} [term ${term}] received MsgTimeoutNow from ${note.from} and starts an election to get leadership.`;
    default:
      return null;
  }
}

function voteText(
  note: Extract<RaftNote, { kind: "vote-cast" | "vote-refused" | "vote-ignored" }>,
  { id, term, vote, lastTerm, lastIndex }: NoteState,
): string {
  const { message } = note;
  const own = `${id} [logterm: ${lastTerm}, index: ${lastIndex}, vote: ${vote ?? 0}]`;
  const theirs = `${message.from} [logterm: ${message.lastTerm}, index: ${message.lastIndex}] at term ${term}`;
  const request = REQUESTS[message.kind];
  if (note.kind !== "vote-ignored") {
    return note.kind === "vote-cast"
      ? `${own} cast ${request} for ${theirs}`
      : `${own} rejected ${request} from ${theirs}`;
  }
  return `${own} ignored ${request} from ${theirs}: lease is not expired (remaining ticks: ${note.ticksLeft})`;
}

function replicationText(note: RaftNote, at: NoteState): string | null {
  const { id } = at;
  switch (note.kind) {
    case "append-refused": {
      const { message, ownTerm } = note;
      return `${id} [logterm: ${ownTerm}, index: ${message.prevIndex}] rejected MsgApp [logterm: ${message.prevTerm}, index: ${message.prevIndex}] from ${message.from}`;
    }
    case "append-conflict":
      return `found conflict at index ${note.index} [existing term: ${note.own}, conflicting term: ${note.theirs}]`;
    case "entries-replaced":
      return note.from <= note.undurableFrom
        ? `replace the unstable entries from index ${note.from}`
        : `truncate the unstable entries before index ${note.from}`;
    case "refusal-heard": {
      const { hintIndex, hintTerm, from, index } = note.reply;
      return `${id} received MsgAppResp(rejected, hint: (index ${hintIndex}, term ${hintTerm})) from ${from} for index ${index}`;
    }
    case "progress-lowered":
      return `${id} decreased progress of ${described(note.progress)}`;
    case "snapshot-recovered":
      return `${id} recovered from needing snapshot, resumed sending replication messages to ${note.progress.id} [${describeProgress(note.progress)}]`;
    case "peer-unreachable":
      return `${id} failed to send message to ${note.progress.id} because it is unreachable [${describeProgress(note.progress)}]`;
    case "snapshot-held-back":
      return `ignore sending snapshot to ${note.progress.id} since it is not recently active`;
    case "snapshot-sent":
      return `${id} [firstindex: ${note.firstIndex}, commit: ${at.commit}] sent snapshot${named(note.snapshot)} to ${note.progress.id} [${describeProgress(note.progress)}]`;
    case "replication-paused":
      return `${id} paused sending replication messages to ${note.progress.id} [${describeProgress(note.progress)}]`;
    case "save-of-earlier-term":
      return `${id} [term: ${at.term}] ignored entry appends from a MsgStorageAppendResp message with lower term [term: ${note.savedTerm}]`;
    case "save-outlived":
      return note.ownTerm === null
        ? `entry at index ${note.index} missing from unstable log; ignoring`
        : `entry at (index,term)=(${note.index},${note.savedTerm}) mismatched with entry at (${note.index},${note.ownTerm}) in unstable log; ignoring`;
    default:
      return null;
  }
}

function restText(note: RaftNote, at: NoteState): string | null {
  const { id, term, commit, applied, lastIndex, lastTerm } = at;
  switch (note.kind) {
    case "started":
      return `newRaft ${id} [peers: [${at.voters.join(",")}], term: ${term}, commit: ${commit}, applied: ${applied}, lastindex: ${lastIndex}, lastterm: ${lastTerm}]`;
    case "membership-in-effect":
      return `${id} switched to configuration ${describeConfig(note.membership)}`;
    case "joint-left-by-itself":
      return `initiating automatic transition out of joint configuration ${describeConfig(note.membership)}`;
    case "later-term":
      return `${id} [term: ${term}] received a ${messageType(note.message)} message with higher term from ${note.message.from} [term: ${note.message.term}]`;
    case "earlier-term":
      return `${id} [term: ${term}] ignored a ${messageType(note.message)} message with lower term from ${note.message.from} [term: ${note.message.term}]`;
    case "proposal-dropped":
      return note.leader === null
        ? `${id} no leader at term ${term}; dropping proposal`
        : `${id} not forwarding to leader ${note.leader} at term ${term}; dropping proposal`;
    case "change-refused":
      return refusedChangeText(note, at);
    case "snapshot-restores": {
      const { snapshot, applying, durable, offered } = note;
      return `log [committed=${commit}, applied=${applied}, applying=${applying}, unstable.offset=${durable + 1}, unstable.offsetInProgress=${offered + 1}, len(unstable.Entries)=${lastIndex - durable}] starts to restore snapshot ${named(snapshot)}`;
    }
    case "snapshot-restored":
      return `${id} [commit: ${commit}, lastindex: ${lastIndex}, lastterm: ${lastTerm}] restored snapshot ${named(note.snapshot)}\n${id} [commit: ${commit}] restored snapshot ${named(note.snapshot)}`;
    case "snapshot-known":
      return `${id} [commit: ${commit}, lastindex: ${lastIndex}, lastterm: ${lastTerm}] fast-forwarded commit to snapshot ${named(note.snapshot)}`;
    case "snapshot-ignored":
      return `${id} [commit: ${commit}] ignored snapshot ${named(note.snapshot)}`;
    default:
      return null;
  }
}

function refusedChangeText(
  note: Extract<RaftNote, { kind: "change-refused" }>,
  { id, applied }: NoteState,
): string {
  const why = {
    pending: `possible unapplied conf change at index ${note.pendingIndex} (applied to ${applied})`,
    joint: "must transition out of joint config first",
    "not-joint": "not in joint state; refusing empty conf change",
    invalid: "the change is not possible",
  }[note.why];
  return `${id} ignoring conf change ${changeText(note.change)} at config ${describeConfig(note.membership)}: ${why}`;
}

function changeText(change: MembershipChange | null): string {
  if (change === null) return "";
  const changes = change.changes.map(
    ({ kind, id }) => ` changes:{type:${CHANGES[kind]} node_id:${id}}`,
  );
  return `transition:${TRANSITIONS[change.transition]}${changes.join("")}`;
}

function described(progress: PeerProgress): string {
  return `${progress.id} to [${describeProgress(progress)}]`;
}

function named({ index, term }: Snapshot): string {
  return `[index: ${index}, term: ${term}]`;
}
