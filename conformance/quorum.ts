/** etcd's quorum transcripts against our quorum.ts: what is committed, and how a vote stands. */
import {
  jointCommitted,
  jointVote,
  majorityCommitted,
  majorityVote,
  type VoteResult,
} from "../src/raft/quorum.ts";
import type { PeerId } from "../src/raft/types.ts";
import { type Command, type Outcome, runTranscript } from "./grammar.ts";

/** Runs a transcript of `committed` and `vote` commands. */
export function runQuorum(text: string): Outcome {
  return runTranscript(text, (command) => {
    const setting = settingOf(command);
    const voters = idsOf(setting);
    if (setting.told.length !== voters.length) {
      return `error: mismatched input (explicit or _) for voters [${voters.join(" ")}]: [${setting.told.join(" ")}]`;
    }
    if (command.name === "committed") return committed(setting);
    if (command.name === "vote") return vote(setting);
    throw new Error(`line ${command.line}: ${command.name} is neither committed nor vote`);
  });
}

interface Setting {
  readonly voters: readonly PeerId[];
  /** Null: one majority, not two. */
  readonly outgoing: readonly PeerId[] | null;
  /** What each voter told, in order of their first naming; `_` is nothing. */
  readonly told: readonly string[];
}

function settingOf(command: Command): Setting {
  let voters: readonly PeerId[] = [];
  let outgoing: readonly PeerId[] | null = null;
  let told: readonly string[] = [];
  for (const { key, values } of command.args) {
    if (key === "cfg") voters = values;
    else if (key === "cfgj") outgoing = values[0] === "zero" ? [] : values;
    else if (key === "idx" || key === "votes") told = values;
    else throw new Error(`line ${command.line}: ${key} is not an argument of ${command.name}`);
  }
  return { voters: unique(voters), outgoing: outgoing === null ? null : unique(outgoing), told };
}

/** Everybody in either half, in order of their first naming. */
function idsOf({ voters, outgoing }: Setting): PeerId[] {
  return unique([...voters, ...(outgoing ?? [])]);
}

/** What each voter told, by id; who told nothing is missing. */
function toldBy(setting: Setting): Map<PeerId, string> {
  const entries = idsOf(setting).map((id, index) => [id, setting.told[index] ?? "_"] as const);
  return new Map(entries.filter(([, word]) => word !== "_"));
}

/** The table of what is acknowledged, and the committed index; lines that say which law of quorums does not hold, if any. */
function committed(setting: Setting): string {
  const { voters, outgoing } = setting;
  const told = new Map([...toldBy(setting)].map(([id, word]) => [id, Number(word)]));
  const matched = (id: PeerId): number | null => told.get(id) ?? null;
  const table = describe(idsOf(setting), matched);
  if (outgoing !== null) {
    const index = jointCommitted({ voters, outgoing }, matched);
    const swapped = jointCommitted({ voters: outgoing, outgoing: voters }, matched);
    return `${table}${swapped === index ? "" : `${shown(swapped)} <-- via symmetry\n`}${shown(index)}\n`;
  }
  const index = majorityCommitted(voters, matched);
  const others: [string, number][] = [
    ["via alternative computation", countedCommitted(voters, matched)],
    ["via zero-joint quorum", jointCommitted({ voters, outgoing: [] }, matched)],
    ["via self-joint quorum", jointCommitted({ voters, outgoing: voters }, matched)],
  ];
  // Who is behind the committed index changes nothing by being further behind.
  for (const id of voters) {
    const own = matched(id) ?? 0;
    if (own === 0 || own >= index) continue;
    for (const lower of [own - 1, 0]) {
      const lowered = (other: PeerId): number | null => (other === id ? lower : matched(other));
      others.push([`overlaying ${id}->${lower}`, majorityCommitted(voters, lowered)]);
    }
  }
  const broken = others.filter(([, other]) => other !== index);
  return `${table}${broken.map(([how, other]) => `${shown(other)} <-- ${how}\n`).join("")}${shown(index)}\n`;
}

/** The committed index by its definition: the highest acknowledged index that a majority has. */
function countedCommitted(
  voters: readonly PeerId[],
  matched: (id: PeerId) => number | null,
): number {
  if (voters.length === 0) return Number.POSITIVE_INFINITY;
  const indexes = voters.map((id) => matched(id) ?? 0);
  const had = indexes.filter(
    (index) => indexes.filter((other) => other >= index).length * 2 > voters.length,
  );
  return Math.max(0, ...had);
}

/** One line a voter: a bar as long as the number of voters behind it, and its index. */
function describe(ids: readonly PeerId[], matched: (id: PeerId) => number | null): string {
  if (ids.length === 0) return "<empty majority quorum>";
  const width = ids.length;
  const lines = [...ids]
    .sort((a, b) => Number(a) - Number(b))
    .map((id) => {
      const own = matched(id);
      const behind = ids.filter((other) => (matched(other) ?? 0) < (own ?? 0)).length;
      const bar =
        own === null
          ? `?${" ".repeat(width)}`
          : `${"x".repeat(behind)}>${" ".repeat(width - behind)}`;
      return `${bar} ${String(own ?? 0).padStart(5)}    (id=${id})\n`;
    });
  return `${" ".repeat(width)}    idx\n${lines.join("")}`;
}

function vote(setting: Setting): string {
  const told = toldBy(setting);
  const voteOf = (id: PeerId): boolean | null => {
    const word = told.get(id);
    return word === undefined ? null : word === "y";
  };
  const { voters, outgoing } = setting;
  if (outgoing === null) return `${words[majorityVote(voters, voteOf)]}\n`;
  const result = jointVote({ voters, outgoing }, voteOf);
  const swapped = jointVote({ voters: outgoing, outgoing: voters }, voteOf);
  return `${swapped === result ? "" : `${words[swapped]} <-- via symmetry\n`}${words[result]}\n`;
}

const words: Readonly<Record<VoteResult, string>> = {
  won: "VoteWon",
  pending: "VotePending",
  lost: "VoteLost",
};

function shown(index: number): string {
  return index === Number.POSITIVE_INFINITY ? "∞" : String(index);
}

function unique(ids: readonly PeerId[]): PeerId[] {
  return [...new Set(ids)];
}
