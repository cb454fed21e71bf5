/** Makes the Raft membership what the node rows say, one change at a time: pure, so that the simulator and a table can ask it. */
import type { MembershipChange, PeerId, RaftStatus } from "../raft/types.ts";
import type { View } from "../store/types.ts";
import { learnerLagMax } from "./limits.ts";

export type MembershipStep =
  | { readonly kind: "none" }
  | { readonly kind: "change"; readonly change: MembershipChange }
  /** The leader itself is to go: another one must lead first. */
  | { readonly kind: "transfer"; readonly to: PeerId };

/** The next step of the leader `status` towards what the rows want; "none" while one is under way or when all is well. */
export function nextMembershipStep(view: View, status: RaftStatus): MembershipStep {
  if (status.role !== "leader" || status.transferee !== null) return { kind: "none" };
  const { voters, learners, outgoing } = status.membership;
  if (outgoing.length > 0) return { kind: "none" };
  const wanted = new Set<PeerId>();
  for (const node of view.table("nodes").all()) {
    if (node.manager !== null && node.spec.role === "manager") wanted.add(node.manager.raftId);
  }
  const one = (kind: MembershipChange["changes"][number]["kind"], id: PeerId): MembershipStep => ({
    kind: "change",
    change: { changes: [{ kind, id }], transition: "auto" },
  });
  for (const id of learners) if (!wanted.has(id)) return one("remove", id);
  for (const progress of status.progress) {
    // Only one that has answered: a short log does not lag by much, but a voter that is not there may cost the quorum.
    const answers = progress.state === "replicate" && progress.match > 0;
    const caughtUp = answers && status.lastIndex - progress.match <= learnerLagMax;
    if (progress.learner && progress.active && caughtUp && wanted.has(progress.id)) {
      return one("add-voter", progress.id);
    }
  }
  for (const id of wanted) {
    if (!voters.includes(id) && !learners.includes(id)) return one("add-learner", id);
  }
  const excess = voters.filter((id) => !wanted.has(id));
  const other = excess.find((id) => id !== status.id);
  if (other !== undefined && quorumWithout(status, other)) return one("remove", other);
  if (excess.includes(status.id) && voters.length > 1) {
    const heirs = status.progress.filter(
      (progress) =>
        progress.active &&
        !progress.learner &&
        progress.id !== status.id &&
        wanted.has(progress.id),
    );
    const best = heirs.sort((a, b) => b.match - a.match || (a.id < b.id ? -1 : 1))[0];
    if (best !== undefined) return { kind: "transfer", to: best.id };
  }
  return { kind: "none" };
}

/** After `leaving` is gone, those that answer are still a majority (swarmkit's CanRemoveMember). */
export function quorumWithout(status: RaftStatus, leaving: PeerId): boolean {
  const rest = status.membership.voters.filter((id) => id !== leaving);
  const reachable = rest.filter(
    (id) =>
      id === status.id || status.progress.some((progress) => progress.id === id && progress.active),
  );
  return rest.length > 0 && reachable.length >= Math.floor(rest.length / 2) + 1;
}
