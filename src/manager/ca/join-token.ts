/** Join tokens: `SWMTKN-1-<digest of the root CA, 50>-<secret, 25>`, base 36 (swarmkit ca/config.go). */
import { failure } from "../../lib/errors.ts";
import type { Random } from "../../lib/random.ts";
import type { Cluster } from "../../model/cluster.ts";
import type { NodeRole } from "../../model/node.ts";

const pattern = /^SWMTKN-1-([0-9a-z]{50})-([0-9a-z]{25})$/;

/** A new token that pins the root with `digest`. */
export function createToken(digest: string, random: Random): string {
  return `SWMTKN-1-${digest}-${random.id()}`;
}

/** The digest of the root CA that a token pins. Throws ShoalError("invalid") when it is no token. */
export function digestOfToken(token: string): string {
  const digest = pattern.exec(token.trim())?.[1];
  if (digest === undefined) throw failure("invalid", "invalid join token");
  return digest;
}

/**
 * The role that `token` gives in this cluster. Each way of being wrong has its own refusal:
 * no token at all, a token of another cluster (digest), a token that was rotated away (secret).
 */
export function roleOfToken(cluster: Cluster, token: string): NodeRole {
  const given = token.trim();
  const digest = digestOfToken(given);
  if (!equal(digest, cluster.rootCa.digest)) {
    throw failure(
      "unauthorized",
      "joining: the token belongs to another cluster: its CA digest does not match this one's; get a fresh one with `docker swarm join-token` on a manager of this cluster",
    );
  }
  const manager = equal(given, cluster.joinTokens.manager);
  const worker = equal(given, cluster.joinTokens.worker);
  if (manager) return "manager";
  if (worker) return "worker";
  throw failure(
    "unauthorized",
    "A valid join token is necessary to join this cluster: the token's secret matches neither the worker's nor the manager's (it may have been rotated); get a fresh one with `docker swarm join-token` on a manager",
  );
}

/** Compares without telling by its time how much was right. */
function equal(left: string, right: string): boolean {
  if (left.length !== right.length) return false;
  let difference = 0;
  for (let at = 0; at < left.length; at += 1) {
    difference |= left.charCodeAt(at) ^ right.charCodeAt(at);
  }
  return difference === 0;
}
