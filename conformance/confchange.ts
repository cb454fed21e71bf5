/** etcd's transcripts of membership changes against our membership.ts: simple, entering and leaving a joint membership. */
import {
  changeSimply,
  EMPTY_MEMBERSHIP,
  enterJoint,
  isVoter,
  leaveJoint,
  type MembershipResult,
  members,
} from "../src/raft/membership.ts";
import { Inflights, Progress } from "../src/raft/progress.ts";
import type { Membership, MembershipChange, PeerId } from "../src/raft/types.ts";
import { type Command, type Outcome, runTranscript } from "./grammar.ts";

/** Runs a transcript of `simple`, `enter-joint` and `leave-joint` commands. The log grows by one entry with each. */
export function runConfChange(text: string): Outcome {
  let membership = EMPTY_MEMBERSHIP;
  let progress: ReadonlyMap<PeerId, Progress> = new Map();
  let lastIndex = 0;
  return runTranscript(text, (command) => {
    const result = change(membership, command);
    const next = Math.max(lastIndex, 1);
    lastIndex += 1;
    if (!result.ok) return `${result.why}\n`;
    membership = result.membership;
    progress = followed(progress, membership, next);
    return describeMembership(membership) + describeProgress(progress);
  });
}

function change(membership: Membership, command: Command): MembershipResult {
  const changes = command.input
    .split(/\s+/)
    .filter((token) => token !== "")
    .flatMap((token) => changeOf(token, command.line));
  switch (command.name) {
    case "simple":
      return changeSimply(membership, changes);
    case "enter-joint": {
      const auto = command.args.find(({ key }) => key === "autoleave");
      return enterJoint(membership, changes, auto?.values[0] === "true");
    }
    case "leave-joint":
      return leaveJoint(membership);
    default:
      throw new Error(`line ${command.line}: ${command.name} is no command of these transcripts`);
  }
}

/** `v1` makes a voter, `l1` a learner, `r1` removes; `u1` updates and id 0 is nobody, which is nothing to us. */
function changeOf(token: string, line: number): MembershipChange["changes"] {
  const [, verb, id] = /^([vlru])(\d+)$/.exec(token) ?? [];
  if (verb === undefined || id === undefined)
    throw new Error(`line ${line}: ${token} is no change of membership`);
  if (verb === "u" || id === "0") return [];
  return [{ kind: verb === "v" ? "add-voter" : verb === "l" ? "add-learner" : "remove", id }];
}

/** The progress of whoever is a member now: kept for those who were, begun at `next` for the others. */
function followed(
  before: ReadonlyMap<PeerId, Progress>,
  membership: Membership,
  next: number,
): Map<PeerId, Progress> {
  const entries = members(membership).map((id): [PeerId, Progress] => {
    const learner = !isVoter(membership, id);
    const known = before.get(id) ?? new Progress(id, 0, next, learner, new Inflights(10, 1024));
    known.learner = learner;
    return [id, known];
  });
  return new Map(entries);
}

/** The words of etcd for a membership: `voters=(1 2)&&(1) learners=(3) learners_next=(1) autoleave`. */
export function describeMembership({
  voters,
  outgoing,
  learners,
  learnersNext,
  autoLeave,
}: Membership): string {
  const parts = [`voters=${list(voters)}${outgoing.length > 0 ? `&&${list(outgoing)}` : ""}`];
  if (learners.length > 0) parts.push(`learners=${list(learners)}`);
  if (learnersNext.length > 0) parts.push(`learners_next=${list(learnersNext)}`);
  if (autoLeave) parts.push("autoleave");
  return `${parts.join(" ")}\n`;
}

function list(ids: readonly PeerId[]): string {
  return `(${[...ids].sort((a, b) => Number(a) - Number(b)).join(" ")})`;
}

function describeProgress(progress: ReadonlyMap<PeerId, Progress>): string {
  return [...progress.values()]
    .sort((a, b) => Number(a.id) - Number(b.id))
    .map(({ id, state, match, next, learner }) => {
      const word = `State${state.charAt(0).toUpperCase()}${state.slice(1)}`;
      return `${id}: ${word} match=${match} next=${next}${learner ? " learner" : ""}\n`;
    })
    .join("");
}
