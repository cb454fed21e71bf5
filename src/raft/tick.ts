/** What the passing of time does to a peer: heartbeats and the check of the quorum, or an election. */
import { campaign } from "./election.ts";
import { heartbeat } from "./leader.ts";
import { noteState } from "./notes.ts";
import { ageSnapshots, forgetActive, quorumActive, releaseAll } from "./replication.ts";
import { becomeFollower, type RaftState } from "./state.ts";

/** One tick passed; how long one is, is the driver's business. */
export function tick(r: RaftState): void {
  if (r.role === "leader") tickLeader(r);
  else tickElection(r);
}

function tickLeader(r: RaftState): void {
  r.heartbeatElapsed += 1;
  r.electionElapsed += 1;
  // Nobody waits for entries longer than a tick, whatever the driver does.
  releaseAll(r);
  if (r.electionElapsed >= r.config.electionTicks) {
    r.electionElapsed = 0;
    if (r.config.checkQuorum) {
      // Without a quorum it may have been replaced: stop answering as if it led.
      if (!quorumActive(r)) {
        r.config.note?.({ kind: "quorum-lost" }, noteState(r));
        becomeFollower(r, r.term, null);
        return;
      }
      forgetActive(r);
    }
    r.transferee = null;
    ageSnapshots(r);
  }
  if (r.heartbeatElapsed < r.config.heartbeatTicks) return;
  r.heartbeatElapsed = 0;
  heartbeat(r);
}

function tickElection(r: RaftState): void {
  r.electionElapsed += 1;
  r.leaderSilentTicks += 1;
  if (r.campaignInTicks !== null) {
    r.campaignInTicks -= 1;
    if (r.campaignInTicks <= 0) {
      campaign(r, "timeout");
      return;
    }
  }
  if (r.electionElapsed < r.electionTimeout || !r.electable()) return;
  r.electionElapsed = 0;
  campaign(r, "timeout");
}
