/** What a message of a trace must be where it is sent, and what it does where it is received. */
import type { TraceEvent, TraceMessage } from "../../src/raft/trace.ts";
import { type Answer, logUpTo, type Server, type TracedEntry } from "./model.ts";
import { ImpossibleStep, must } from "./must.ts";

/** A message with what it carries. */
export interface Received {
  readonly msg: TraceMessage;
  /** Of an append or a snapshot: the sender's log up to what is sent; of an acknowledgement: what is acknowledged. */
  readonly last: TracedEntry | null;
}

/** The message of an event, which must be of the right kind, with nothing in the fields that it has no use for. */
export function messageOf({ name, msg }: TraceEvent): TraceMessage {
  if (msg === undefined) throw new ImpossibleStep(`${name} is told without its message`);
  must(toldAs[msg.type].test(name), `${name} is told with a ${msg.type}`);
  const used = fieldsOf(msg);
  for (const key of ["entries", "logTerm", "index", "commit", "reject", "rejectHint"] as const) {
    must(used.includes(key) || Number(msg[key]) === 0, `a ${msg.type} has no ${key}`);
  }
  return msg;
}

/** The events that tell of a message. */
const toldAs: Readonly<Record<TraceMessage["type"], RegExp>> = {
  MsgApp: /AppendEntriesRequest$/,
  MsgHeartbeat: /AppendEntriesRequest$/,
  MsgSnap: /AppendEntriesRequest$|Snapshot$/,
  MsgAppResp: /AppendEntriesResponse$/,
  MsgHeartbeatResp: /AppendEntriesResponse$/,
  MsgVote: /RequestVoteRequest$/,
  MsgVoteResp: /RequestVoteResponse$/,
};

/** The fields that say something in a message; the others are zero. */
function fieldsOf({ type, reject }: TraceMessage): readonly (keyof TraceMessage)[] {
  switch (type) {
    case "MsgApp":
      return ["entries", "logTerm", "index", "commit"];
    case "MsgAppResp":
      return reject ? ["index", "reject", "logTerm", "rejectHint"] : ["index"];
    case "MsgHeartbeat":
      return ["commit"];
    case "MsgSnap":
      return ["entries"];
    case "MsgVote":
      return ["index", "logTerm"];
    case "MsgVoteResp":
      return ["reject"];
    case "MsgHeartbeatResp":
      return [];
    default:
      return type satisfies never;
  }
}

/** What a leader sends with an append, a heartbeat or a snapshot. */
export function sendAppend(server: Server, msg: TraceMessage): TracedEntry | null {
  must(
    server.role === "leader" && msg.term === server.term,
    "only the leader of a term sends its entries",
  );
  must(msg.commit <= server.commit, `it tells of commit ${msg.commit}, but has ${server.commit}`);
  if (msg.type === "MsgHeartbeat") {
    must(
      msg.commit <= (server.match.get(msg.to) ?? 0),
      `a heartbeat tells ${msg.to} of commit ${msg.commit}, beyond what it acknowledged`,
    );
    return null;
  }
  if (msg.type === "MsgSnap") {
    must(
      msg.entries <= server.commit,
      `a snapshot of ${msg.entries} goes beyond what is committed`,
    );
    return server.at(msg.entries);
  }
  const last = msg.index + msg.entries;
  must(
    last <= server.log.length,
    `entries up to ${last} are sent from a log that ends at ${server.log.length}`,
  );
  must(
    msg.logTerm === server.termAt(msg.index),
    `entry ${msg.index} is of term ${server.termAt(msg.index)}, not ${msg.logTerm}`,
  );
  return server.at(last);
}

/** What an answer to a leader acknowledges: that which is due for what was received. */
export function sendAppendResponse(server: Server, msg: TraceMessage): TracedEntry | null {
  must(msg.term === server.term, `an answer of term ${msg.term} is given in term ${server.term}`);
  must(
    msg.reject || msg.index <= server.log.length,
    `entry ${msg.index} is acknowledged, but the log ends at ${server.log.length}`,
  );
  if (msg.to === server.id) return server.at(msg.index);
  const { answer } = server;
  must(answer !== null && answer.to === msg.to, `${msg.to} gets an answer to nothing`);
  server.answer = null;
  must(
    answer.type === msg.type && answer.reject === msg.reject && answer.index === msg.index,
    `${msg.to} gets ${shown(msg)} where ${shown(answer)} is due`,
  );
  return msg.reject ? null : server.at(msg.index);
}

function shown({ type, index, reject }: Pick<TraceMessage, "type" | "index" | "reject">): string {
  return `a ${type} that ${reject ? "refuses" : "acknowledges"} ${index}`;
}

/** How `server`, before the effect of `msg`, must answer it if it does. */
export function answerTo(
  server: Server,
  msg: TraceMessage,
  last: TracedEntry | null,
): Answer | null {
  const to = msg.from;
  const app = { to, type: "MsgAppResp", reject: false } as const;
  if (msg.term < server.term) return { ...app, index: 0 };
  switch (msg.type) {
    case "MsgHeartbeat":
      return { to, type: "MsgHeartbeatResp", reject: false, index: 0 };
    case "MsgSnap":
      return {
        ...app,
        index: last === null ? server.commit : Math.max(server.commit, msg.entries),
      };
    case "MsgApp":
      if (msg.index < server.commit) return { ...app, index: server.commit };
      return server.termAt(msg.index) === msg.logTerm
        ? { ...app, index: msg.index + msg.entries }
        : { ...app, reject: true, index: msg.index };
    default:
      return null;
  }
}

/** A candidate must tell the end of its own log. */
export function sendVoteRequest(server: Server, msg: TraceMessage): TracedEntry | null {
  must(server.role === "candidate" && msg.term === server.term, "only a candidate asks for votes");
  must(
    msg.index === server.log.length && msg.logTerm === server.lastTerm,
    `it asks with a log that ends at ${msg.index} of term ${msg.logTerm}, but has ${server.log.length} of term ${server.lastTerm}`,
  );
  return null;
}

/** A leader notes what a peer has: it must be the same as its own. */
export function receiveAppendResponse(server: Server, { msg, last }: Received): void {
  if (msg.type !== "MsgAppResp" || msg.reject || msg.term !== server.term) return;
  if (server.role !== "leader") return;
  must(
    msg.index === 0 || (last !== null && last === server.at(msg.index)),
    `${msg.from} acknowledged entry ${msg.index}, but has another one than its leader`,
  );
  server.match.set(msg.from, Math.max(server.match.get(msg.from) ?? 0, msg.index));
}

export interface Effect {
  readonly log: TracedEntry[];
  readonly commit: number;
  /** Whether the membership came with it. */
  readonly restored: boolean;
}

/** What `msg` may do to a follower, likeliest first. */
export function outcomesOf(server: Server, msg: TraceMessage, last: TracedEntry | null): Effect[] {
  const { log, commit: had } = server;
  if (msg.type === "MsgHeartbeat") {
    return [{ log, commit: Math.max(had, msg.commit), restored: false }];
  }
  if (msg.type === "MsgSnap") {
    if (last === null || msg.entries <= had) return [];
    const whole = { log: logUpTo(last), commit: last.index, restored: true };
    return server.at(last.index) === last
      ? [{ log, commit: last.index, restored: false }, whole]
      : [whole];
  }
  if (msg.type !== "MsgApp" || msg.index < had) return [];
  if (server.termAt(msg.index) !== msg.logTerm) return [];
  const end = msg.index + msg.entries;
  const same = last === null || server.at(end) === last;
  const after = same ? log : logUpTo(last);
  return [{ log: after, commit: Math.max(had, Math.min(msg.commit, end)), restored: false }];
}
