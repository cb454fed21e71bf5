/** etcd's words for what a core says: messages, entries, Readys, memberships (etcd-io/raft util.go, as its transcripts show them). */
import { decodeMembershipChange } from "../../src/raft/membership.ts";
import type {
  Entry,
  HardState,
  Membership,
  Message,
  PeerId,
  RaftStatus,
  Ready,
  Role,
  SaveToken,
  Snapshot,
} from "../../src/raft/types.ts";

/** The type that etcd gives an entry with these bytes: it has two for changes of membership, we have one. */
export type EntryTypeOf = (entry: Pick<Entry, "kind" | "data">) => string;

export interface SoftState {
  readonly leader: PeerId | null;
  readonly role: Role;
}

const ROLES: Readonly<Record<Role, string>> = {
  follower: "StateFollower",
  precandidate: "StatePreCandidate",
  candidate: "StateCandidate",
  leader: "StateLeader",
};

const MESSAGES: Readonly<Record<Message["kind"], string>> = {
  append: "MsgApp",
  "append-reply": "MsgAppResp",
  heartbeat: "MsgHeartbeat",
  "heartbeat-reply": "MsgHeartbeatResp",
  vote: "MsgVote",
  "vote-reply": "MsgVoteResp",
  prevote: "MsgPreVote",
  "prevote-reply": "MsgPreVoteResp",
  snapshot: "MsgSnap",
  "timeout-now": "MsgTimeoutNow",
  propose: "MsgProp",
  "read-index": "MsgReadIndex",
  "read-index-reply": "MsgReadIndexResp",
};

const CHANGES = { "add-voter": "v", "add-learner": "l", remove: "r" } as const;

export function describeRole(role: Role): string {
  return ROLES[role];
}

export function messageType(message: Message): string {
  return MESSAGES[message.kind];
}

export function describeSoftState({ leader, role }: SoftState): string {
  return `Lead:${leader ?? 0} State:${describeRole(role)}`;
}

export function describeHardState({ term, vote, commit }: HardState): string {
  return `Term:${term}${vote === null ? "" : ` Vote:${vote}`} Commit:${commit}`;
}

/** A membership as a ConfState. */
export function describeMembership(membership: Membership): string {
  const { voters, outgoing, learners, learnersNext, autoLeave } = membership;
  const list = (ids: readonly PeerId[]): string => `[${ids.join(" ")}]`;
  return `Voters:${list(voters)} VotersOutgoing:${list(outgoing)} Learners:${list(learners)} LearnersNext:${list(learnersNext)} AutoLeave:${autoLeave}`;
}

/** A membership as the tracker's Config. */
export function describeConfig(membership: Membership): string {
  const { voters, outgoing, learners, learnersNext, autoLeave } = membership;
  const list = (ids: readonly PeerId[]): string => `(${ids.join(" ")})`;
  return [
    `voters=${list(voters)}${outgoing.length > 0 ? `&&${list(outgoing)}` : ""}`,
    ...(learners.length > 0 ? [`learners=${list(learners)}`] : []),
    ...(learnersNext.length > 0 ? [`learners_next=${list(learnersNext)}`] : []),
    ...(autoLeave ? ["autoleave"] : []),
  ].join(" ");
}

export function describeSnapshot({ index, term, membership }: Snapshot): string {
  return `Index:${index} Term:${term} ConfState:${describeMembership(membership)}`;
}

export function describeEntry(entry: Entry, typeOf: EntryTypeOf): string {
  const text = entryText(entry);
  return `${entry.term}/${entry.index} ${typeOf(entry)}${text === "" ? "" : ` ${text}`}`;
}

function entryText({ kind, data }: Entry): string {
  if (kind !== "membership") return JSON.stringify(new TextDecoder().decode(data));
  const change = decodeMembershipChange(data);
  return (change?.changes ?? []).map(({ kind, id }) => `${CHANGES[kind]}${id}`).join(" ");
}

export function describeEntries(entries: readonly Entry[], typeOf: EntryTypeOf): string {
  return entries.map((entry) => `${describeEntry(entry, typeOf)}\n`).join("");
}

/** One line, or several for one with many entries or a snapshot; no line break at the end. */
export function describeMessage(message: Message, typeOf: EntryTypeOf): string {
  const head = `${message.from}->${message.to} ${messageType(message)} Term:${message.term}`;
  switch (message.kind) {
    case "append": {
      const { prevTerm, prevIndex, commit, entries } = message;
      return `${head} Log:${prevTerm}/${prevIndex}${commitPart(commit)}${entriesPart(entries, typeOf)}`;
    }
    case "append-reply":
      return `${head} Log:${message.hintTerm}/${message.index}${refusedPart(message.rejected, message.hintIndex)}`;
    case "heartbeat":
      return `${head} Log:0/0${commitPart(message.commit)}`;
    case "vote":
    case "prevote":
      return `${head} Log:${message.lastTerm}/${message.lastIndex}`;
    case "vote-reply":
    case "prevote-reply":
      return `${head} Log:0/0${refusedPart(!message.granted, 0)}`;
    case "snapshot":
      return `${head} Log:0/0\n  Snapshot: ${describeSnapshot(message.snapshot)}`;
    case "propose": {
      const entries = message.entries.map((entry) => ({ ...entry, term: 0, index: 0 }));
      return `${head} Log:0/0${entriesPart(entries, typeOf)}`;
    }
    case "read-index-reply":
      return `${head} Log:0/${message.index}`;
    default:
      return `${head} Log:0/0`;
  }
}

function refusedPart(refused: boolean, hint: number): string {
  return refused ? ` Rejected (Hint: ${hint})` : "";
}

function commitPart(commit: number): string {
  return commit === 0 ? "" : ` Commit:${commit}`;
}

function entriesPart(entries: readonly Entry[], typeOf: EntryTypeOf): string {
  const texts = entries.map((entry) => describeEntry(entry, typeOf));
  if (texts.length === 0) return "";
  return texts.length === 1 ? ` Entries:[${texts[0]}]` : ` Entries:[\n  ${texts.join("\n  ")}\n]`;
}

/** The request to the append thread that stands for the save of `ready`; without its responses. */
export function describeAppendRequest(id: PeerId, ready: Ready, typeOf: EntryTypeOf): string {
  const { hardState, entries, snapshot } = ready;
  const vote = hardState?.vote ?? null;
  return [
    `${id}->AppendThread MsgStorageAppend Term:${hardState?.term ?? 0} Log:0/0`,
    commitPart(hardState?.commit ?? 0),
    vote === null ? "" : ` Vote:${vote}`,
    entriesPart(entries, typeOf),
    snapshot === null ? "" : `\n  Snapshot: ${describeSnapshot(snapshot)}`,
  ].join("");
}

/** What the append thread tells the node of a save; null when nobody waits for that. */
export function describeAppendDone(
  id: PeerId,
  token: SaveToken | null,
  snapshot: Snapshot | null,
): string | null {
  if (token === null || (token.lastIndex === null && token.snapshotIndex === null)) return null;
  const log = `${token.lastTerm ?? 0}/${token.lastIndex ?? 0}`;
  const head = `AppendThread->${id} MsgStorageAppendResp Term:${token.term} Log:${log}`;
  return snapshot === null ? head : `${head}\n  Snapshot: ${describeSnapshot(snapshot)}`;
}

export function describeApplyRequest(
  id: PeerId,
  entries: readonly Entry[],
  typeOf: EntryTypeOf,
): string {
  return `${id}->ApplyThread MsgStorageApply Term:0 Log:0/0${entriesPart(entries, typeOf)}`;
}

export function describeApplyDone(
  id: PeerId,
  entries: readonly Entry[],
  typeOf: EntryTypeOf,
): string {
  return `ApplyThread->${id} MsgStorageApplyResp Term:0 Log:0/0${entriesPart(entries, typeOf)}`;
}

/** A request to a thread together with the answers that wait for it. */
export function withResponses(request: string, responses: readonly string[]): string {
  if (responses.length === 0) return request;
  return `${request} Responses:[\n${responses.map(indented).join("\n")}\n]`;
}

export function indented(text: string): string {
  return text
    .split("\n")
    .map((line) => `  ${line}`)
    .join("\n");
}

/** A Ready, given what it says that is new and all its messages, as described. */
export function describeReady(
  ready: Ready,
  softState: SoftState | null,
  mustSync: boolean,
  messages: readonly string[],
  typeOf: EntryTypeOf,
): string {
  const text = [
    softState === null ? "" : `${describeSoftState(softState)}\n`,
    ready.hardState === null ? "" : `HardState ${describeHardState(ready.hardState)}\n`,
    ready.entries.length === 0 ? "" : `Entries:\n${describeEntries(ready.entries, typeOf)}`,
    ready.snapshot === null ? "" : `Snapshot ${describeSnapshot(ready.snapshot)}\n`,
    ready.committed.length === 0
      ? ""
      : `CommittedEntries:\n${describeEntries(ready.committed, typeOf)}`,
    messages.length === 0 ? "" : `Messages:\n${messages.map((message) => `${message}\n`).join("")}`,
  ].join("");
  return text === "" ? "<empty Ready>" : `Ready MustSync=${mustSync}:\n${text}`;
}

/** One peer in the leader's eyes. */
export function describeProgress(progress: RaftStatus["progress"][number]): string {
  const { state, match, next, learner, paused, pendingSnapshot, active } = progress;
  const { inflight, inflightFull } = progress;
  const name = { probe: "StateProbe", replicate: "StateReplicate", snapshot: "StateSnapshot" }[
    state
  ];
  return [
    `${name} match=${match} next=${next}`,
    ...(learner ? ["learner"] : []),
    ...(paused ? ["paused"] : []),
    ...(pendingSnapshot > 0 ? [`pendingSnap=${pendingSnapshot}`] : []),
    ...(active ? [] : ["inactive"]),
    ...(inflight > 0 ? [`inflight=${inflight}${inflightFull ? "[full]" : ""}`] : []),
  ].join(" ");
}
