/** The eight invariants of etcd's TLA+ specification of Raft (etcd-io/raft tla/etcdraft.tla, under its names). */
import { isQuorum, type Server } from "./model.ts";

export type InvariantName =
  | "LogInv"
  | "MoreThanOneLeaderInv"
  | "ElectionSafetyInv"
  | "LogMatchingInv"
  | "QuorumLogInv"
  | "MoreUpToDateCorrectInv"
  | "LeaderCompletenessInv"
  | "CommittedIsDurableInv";

export interface BrokenInvariant {
  readonly rule: InvariantName;
  readonly why: string;
}

/**
 * The first invariant that does not hold after `changed` changed, given that all held before. Entries are one object
 * in all logs, with the log before them, so logs agree up to an index when they have the same object there.
 */
export function brokenInvariant(
  servers: ReadonlyMap<string, Server>,
  changed: Server,
): BrokenInvariant | null {
  for (const other of servers.values()) {
    if (other === changed) continue;
    const broken =
      logInv(changed, other) ??
      moreThanOneLeader(changed, other) ??
      electionSafety(changed, other) ??
      electionSafety(other, changed) ??
      logMatching(changed, other) ??
      moreUpToDate(changed, other) ??
      moreUpToDate(other, changed) ??
      leaderCompleteness(changed, other) ??
      leaderCompleteness(other, changed);
    if (broken !== null) return broken;
  }
  for (const server of servers.values()) {
    const broken = quorumLog(servers, server);
    if (broken !== null) return broken;
  }
  return committedIsDurable(changed);
}

/** Committed entries never conflict. */
function logInv(a: Server, b: Server): BrokenInvariant | null {
  const both = Math.min(a.commit, b.commit);
  if (both === 0 || a.at(both) === b.at(both)) return null;
  return broken("LogInv", `${a.id} and ${b.id} committed different entries up to ${both}`);
}

/** A term has one leader at a time. */
function moreThanOneLeader(a: Server, b: Server): BrokenInvariant | null {
  if (a.role !== "leader" || b.role !== "leader" || a.term !== b.term) return null;
  return broken("MoreThanOneLeaderInv", `${a.id} and ${b.id} both lead term ${a.term}`);
}

/** Nobody has more entries of a leader's term than that leader. */
function electionSafety(leader: Server, other: Server): BrokenInvariant | null {
  if (leader.role !== "leader") return null;
  const own = lastOf(leader, leader.term);
  const theirs = lastOf(other, leader.term);
  if (own >= theirs) return null;
  return broken(
    "ElectionSafetyInv",
    `${other.id} has entry ${theirs} of term ${leader.term}, whose leader ${leader.id} has only ${own}`,
  );
}

/** An entry's index and term determine the log up to it. */
function logMatching(a: Server, b: Server): BrokenInvariant | null {
  // Going backwards, the first common term must be the same entry; all before it are then the same too.
  for (let index = Math.min(a.log.length, b.log.length); index > 0; index -= 1) {
    const one = a.at(index);
    const two = b.at(index);
    if (one === two) return null;
    if (one?.term === two?.term) {
      return broken(
        "LogMatchingInv",
        `${a.id} and ${b.id} differ before entry ${index} of term ${one?.term}`,
      );
    }
  }
  return null;
}

/** Every quorum has somebody with all that a server committed; asked when no committed change of membership is still to be applied. */
function quorumLog(servers: ReadonlyMap<string, Server>, server: Server): BrokenInvariant | null {
  const last = server.at(server.commit);
  if (last === null || server.hasUnappliedConf()) return null;
  const lacks = (id: string): boolean => {
    const other = servers.get(id);
    // Who has not begun yet has what was there before the trace.
    if (last.boot && (other === undefined || other.booting)) return false;
    return other?.at(last.index) !== last;
  };
  if (!isQuorum(server.conf, lacks)) return null;
  return broken(
    "QuorumLogInv",
    `${server.id} committed entry ${last.index} of term ${last.term}, which a whole quorum of (${server.conf[0].join(" ")}) lacks`,
  );
}

/** Whose log is at least as up to date as another's has all that the other committed. */
function moreUpToDate(a: Server, b: Server): BrokenInvariant | null {
  const ahead =
    a.lastTerm > b.lastTerm || (a.lastTerm === b.lastTerm && a.log.length >= b.log.length);
  if (!ahead || b.commit === 0 || a.at(b.commit) === b.at(b.commit)) return null;
  return broken(
    "MoreUpToDateCorrectInv",
    `${a.id} could get the vote of ${b.id}, but lacks entry ${b.commit} that ${b.id} committed`,
  );
}

/** A leader has every entry that was committed in an earlier term. */
function leaderCompleteness(leader: Server, other: Server): BrokenInvariant | null {
  if (leader.role !== "leader") return null;
  let index = other.commit;
  while (index > 0 && (other.at(index)?.term ?? 0) >= leader.term) index -= 1;
  if (index === 0 || leader.at(index) === other.at(index)) return null;
  return broken(
    "LeaderCompletenessInv",
    `${leader.id} leads term ${leader.term} without entry ${index} that ${other.id} committed`,
  );
}

/** What a leader committed is on its own disk. */
function committedIsDurable(server: Server): BrokenInvariant | null {
  if (server.role !== "leader" || server.commit <= server.durable) return null;
  return broken(
    "CommittedIsDurableInv",
    `${server.id} leads and committed ${server.commit}, but gave only ${server.durable} entries to its disk`,
  );
}

/** The last index of `term` in a log, whose terms never fall; 0 when it has none. */
function lastOf(server: Server, term: number): number {
  let index = server.log.length;
  while (index > 0 && (server.at(index)?.term ?? 0) > term) index -= 1;
  return server.at(index)?.term === term ? index : 0;
}

function broken(rule: InvariantName, why: string): BrokenInvariant {
  return { rule, why };
}
