/** Lines of a trace as events: they come from outside, so every field is looked at. */
import type { TraceEvent } from "../../src/raft/trace.ts";

export type ParsedLine =
  | { readonly kind: "event"; readonly event: TraceEvent }
  /** A line of another part of the log. */
  | { readonly kind: "other" }
  | { readonly kind: "bad"; readonly why: string };

/** One line of etcd's NDJSON. */
export function parseTraceLine(line: string): ParsedLine {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch (error) {
    return bad(`not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!isObject(parsed)) return bad("not a JSON object");
  if (parsed["tag"] !== "trace") return { kind: "other" };
  const event = parsed["event"];
  const why = isObject(event) ? complaint(event) : "event is no object";
  // Every field was looked at just now.
  return why === null ? { kind: "event", event: event as unknown as TraceEvent } : bad(why);
}

type Fields = Readonly<Record<string, unknown>>;

const names: readonly string[] = [
  "InitState",
  "BecomeCandidate",
  "BecomeFollower",
  "BecomeLeader",
  "Commit",
  "Replicate",
  "ChangeConf",
  "ApplyConfChange",
  "Ready",
  "SendAppendEntriesRequest",
  "ReceiveAppendEntriesRequest",
  "SendAppendEntriesResponse",
  "ReceiveAppendEntriesResponse",
  "SendRequestVoteRequest",
  "ReceiveRequestVoteRequest",
  "SendRequestVoteResponse",
  "ReceiveRequestVoteResponse",
  "SendSnapshot",
  "ReceiveSnapshot",
] satisfies readonly TraceEvent["name"][];
const roles: readonly string[] = [
  "StateFollower",
  "StatePreCandidate",
  "StateCandidate",
  "StateLeader",
] satisfies readonly TraceEvent["role"][];
const types: readonly string[] = [
  "MsgApp",
  "MsgAppResp",
  "MsgHeartbeat",
  "MsgHeartbeatResp",
  "MsgSnap",
  "MsgVote",
  "MsgVoteResp",
] satisfies readonly NonNullable<TraceEvent["msg"]>["type"][];
const actions: readonly string[] = ["AddNewServer", "RemoveServer", "AddLearner"];

/** What is wrong with an event, or null. */
function complaint(event: Fields): string | null {
  const { name, nid, state, role, log, conf, msg, prop } = event;
  if (!oneOf(names, name)) return `${JSON.stringify(name)} is the name of no event`;
  if (typeof nid !== "string") return "nid is no string";
  if (
    !isObject(state) ||
    !isIndex(state["term"]) ||
    !isIndex(state["commit"]) ||
    typeof state["vote"] !== "string"
  ) {
    return "state is not {term, vote, commit}";
  }
  if (!oneOf(roles, role)) return `${JSON.stringify(role)} is no role`;
  if (!isIndex(log)) return "log is no index";
  if (!Array.isArray(conf) || conf.length !== 2 || !conf.every(isIds))
    return "conf is not two lists of ids";
  if (msg !== undefined && !isMessage(msg)) return "msg lacks a field or has one of a wrong kind";
  return prop === undefined || isProp(prop)
    ? null
    : "prop lacks a field or has one of a wrong kind";
}

function isMessage(value: unknown): boolean {
  if (!isObject(value) || !oneOf(types, value["type"])) return false;
  return (
    ["term", "entries", "logTerm", "index", "commit", "rejectHint"].every((key) =>
      isIndex(value[key]),
    ) &&
    ["from", "to", "vote"].every((key) => typeof value[key] === "string") &&
    typeof value["reject"] === "boolean"
  );
}

function isProp(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { lastTerm, cc } = value;
  if (lastTerm !== undefined && !isIndex(lastTerm)) return false;
  if (cc === undefined) return true;
  if (!isObject(cc)) return false;
  const { changes, newconf } = cc;
  return (
    (newconf === undefined || isIds(newconf)) &&
    (changes === undefined || (Array.isArray(changes) && changes.every(isChange)))
  );
}

function isChange(value: unknown): boolean {
  return isObject(value) && typeof value["nid"] === "string" && oneOf(actions, value["action"]);
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isIds(value: unknown): boolean {
  return Array.isArray(value) && value.every((id) => typeof id === "string");
}

function isIndex(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

function oneOf(known: readonly string[], value: unknown): boolean {
  return typeof value === "string" && known.includes(value);
}

function bad(why: string): ParsedLine {
  return { kind: "bad", why };
}
