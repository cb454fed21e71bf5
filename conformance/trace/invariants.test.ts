/** Goal: each of the eight invariants is seen when it alone breaks. How: clusters by hand, one for each. */
import { describe, expect, test } from "vitest";
import { brokenInvariant, type InvariantName } from "./invariants.ts";
import { Server, TracedCluster, type TracedEntry } from "./model.ts";

/** A cluster of a, b and c; logs are terms, and entries of equal index and term are the same one. */
class World {
  readonly cluster: TracedCluster = new TracedCluster();
  readonly #entries = new Map<string, TracedEntry>();

  server(
    id: string,
    terms: readonly number[],
    more: Partial<Pick<Server, "term" | "role" | "commit" | "durable">> = {},
  ): Server {
    const server = new Server(id);
    server.conf = [["a", "b", "c"], []];
    server.booting = false;
    for (const term of terms) server.log.push(this.#entry(server.last, term));
    server.term = server.lastTerm;
    server.durable = terms.length;
    Object.assign(server, more);
    this.cluster.servers.set(id, server);
    return server;
  }

  /** An entry that only looks like the shared one. */
  twin(server: Server, index: number): void {
    const entry = server.at(index);
    if (entry !== null) server.log[index - 1] = { ...entry };
  }

  #entry(before: TracedEntry | null, term: number): TracedEntry {
    const index = (before?.index ?? 0) + 1;
    const key = `${index} ${term}`;
    const known = this.#entries.get(key);
    if (known !== undefined) return known;
    const made = { index, term, before, config: false, boot: false, voters: null };
    this.#entries.set(key, made);
    return made;
  }
}

const broken: readonly [InvariantName, (world: World) => Server][] = [
  [
    "LogInv",
    (world) => {
      world.server("b", [1, 2], { commit: 2 });
      world.server("c", [1, 2]);
      return world.server("a", [1, 3], { commit: 2 });
    },
  ],
  [
    "MoreThanOneLeaderInv",
    (world) => {
      world.server("b", [1], { role: "leader" });
      return world.server("a", [1], { role: "leader" });
    },
  ],
  [
    "ElectionSafetyInv",
    (world) => {
      world.server("b", [1, 2, 2]);
      return world.server("a", [1, 2], { role: "leader" });
    },
  ],
  [
    "LogMatchingInv",
    (world) => {
      world.server("b", [1, 1]);
      const server = world.server("a", [1, 1]);
      world.twin(server, 1);
      world.twin(server, 2);
      return server;
    },
  ],
  [
    "QuorumLogInv",
    (world) => {
      world.server("b", [1]);
      world.server("c", [1]);
      return world.server("a", [1, 1], { commit: 2 });
    },
  ],
  [
    "MoreUpToDateCorrectInv",
    (world) => {
      world.server("b", [1, 1], { commit: 2 });
      world.server("c", [1, 1], { commit: 1 });
      return world.server("a", [1, 2], { commit: 1 });
    },
  ],
  [
    "LeaderCompletenessInv",
    (world) => {
      // b committed an entry of term 1 that a, which leads term 3 with a shorter log of term 1, lacks.
      world.server("b", [1, 1, 2], { commit: 2 });
      world.server("c", [1, 1]);
      return world.server("a", [1], { commit: 1, term: 3, role: "leader" });
    },
  ],
  [
    "CommittedIsDurableInv",
    (world) => {
      world.server("b", [1, 1]);
      world.server("c", [1, 1]);
      return world.server("a", [1, 1], { commit: 2, durable: 1, role: "leader" });
    },
  ],
];

describe("invariants", () => {
  test.each(broken)("%s", (rule, build) => {
    const world = new World();
    const changed = build(world);
    expect(brokenInvariant(world.cluster.servers, changed)?.rule).toBe(rule);
    // Whoever of them is said to have changed.
    if (rule === "CommittedIsDurableInv") return;
    for (const server of world.cluster.servers.values()) {
      if (server.id !== "c")
        expect(brokenInvariant(world.cluster.servers, server)?.rule).toBe(rule);
    }
  });

  test("a sound cluster breaks none: an old leader, a lagging follower, a committed prefix", () => {
    const world = new World();
    world.server("a", [1, 1, 2], { term: 2, role: "leader", commit: 2 });
    world.server("b", [1, 1, 3, 3], { term: 3, role: "leader", commit: 4 });
    world.server("c", [1, 1, 3, 3], { term: 3, commit: 3 });
    for (const server of world.cluster.servers.values()) {
      expect(brokenInvariant(world.cluster.servers, server)).toBeNull();
    }
  });
});
