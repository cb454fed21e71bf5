/** Joining: the root certificate is pinned by the token before anything secret is sent. */
import { fetchRoot, requestJoin } from "../io/cluster-client.ts";
import { failure, messageOf, ShoalError } from "../lib/errors.ts";
import type { JoinReply, JoinRequest } from "../wire/session.ts";

/** Joins through the first of `addresses` that is up; a refusal of the token ends the search. */
export async function joinThroughAny(
  addresses: readonly string[],
  digest: string,
  body: JoinRequest,
): Promise<JoinReply> {
  const failures: string[] = [];
  for (const address of addresses) {
    try {
      const caPem = await fetchRoot(address, digest);
      return await requestJoin(address, caPem, body);
    } catch (error) {
      if (error instanceof ShoalError && error.code !== "unavailable") throw error;
      failures.push(messageOf(error));
    }
  }
  throw failure("unavailable", `could not join the swarm: ${failures.join("; ")}`);
}
