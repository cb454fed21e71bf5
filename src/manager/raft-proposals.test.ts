// Goal: a write is handed over until it is seen applied, and its caller is never told what may be false. Method: a core
// that answers as told, and a clock that the test moves.
import { expect, test } from "vitest";
import type { ProposeResult, RaftCore } from "../raft/types.ts";
import type { Committed } from "../store/types.ts";
import { decodeBody } from "../wire/codec.ts";
import { entryBytesMax, proposalsMax, proposeAgainMs, proposeTimeoutMs, tickMs } from "./limits.ts";
import { createProposals, type Proposals } from "./raft-proposals.ts";
import { createTestClock, type TestClock } from "./testing/clock.ts";
import { createTestRandom } from "./testing/random.ts";
import { add, testNode } from "./testing/rows.ts";

class Bench {
  readonly clock: TestClock = createTestClock();
  readonly handedOver: Uint8Array[] = [];
  result: ProposeResult = { ok: true, index: null, term: null };
  term = 1;
  readonly proposals: Proposals;

  constructor() {
    const core = {
      propose: (data: Uint8Array) => {
        if (this.result.ok) this.handedOver.push(data);
        return this.result;
      },
      status: () => ({ term: this.term }),
    } as unknown as RaftCore;
    this.proposals = createProposals({
      core,
      clock: this.clock,
      random: createTestRandom(),
      wake: () => {},
    });
  }

  /** The entry that was handed over last is applied. */
  apply(): void {
    const body = decodeBody(this.handedOver.at(-1) ?? new Uint8Array());
    this.proposals.applied({ proposalId: body.proposalId } as Committed);
  }
}

const groups = [{ actions: [add("nodes", testNode("n1"))] }] as unknown as Parameters<
  Proposals["propose"]
>[0];

test("resolves when its entry is applied, and leaves no timer", async () => {
  const bench = new Bench();
  const write = bench.proposals.propose(groups);
  bench.apply();
  await write;
  expect(bench.clock.pending).toBe(0);
});

test("waits for a leader, and is handed to one as soon as there is one", async () => {
  const bench = new Bench();
  bench.result = { ok: false, reason: "no-leader", leader: null };
  const write = bench.proposals.propose(groups);
  await bench.clock.advance(5 * tickMs);
  expect(bench.handedOver).toHaveLength(0);
  bench.result = { ok: true, index: 7, term: 1 };
  await bench.clock.advance(tickMs);
  expect(bench.handedOver).toHaveLength(1);
  bench.apply();
  await write;
});

test("what is in this leader's own log is not proposed twice; after a change of term it is", async () => {
  const bench = new Bench();
  bench.result = { ok: true, index: 7, term: 1 };
  const write = bench.proposals.propose(groups);
  await bench.clock.advance(3 * proposeAgainMs);
  expect(bench.handedOver).toHaveLength(1);
  bench.term = 2;
  await bench.clock.advance(proposeAgainMs);
  expect(bench.handedOver).toHaveLength(2);
  bench.apply();
  await write;
});

test("a snapshot may cover what was handed over: its outcome is unknown, and it is not asked again", async () => {
  const bench = new Bench();
  const handed = bench.proposals.propose(groups);
  bench.result = { ok: false, reason: "no-leader", leader: null };
  const waits = bench.proposals.propose(groups);
  const unknown = expect(handed).rejects.toMatchObject({
    code: "unavailable",
    message: expect.stringContaining("unknown"),
  });
  bench.proposals.skipped();
  await unknown;
  // The other one was in nobody's hands: it goes on.
  bench.result = { ok: true, index: null, term: null };
  await bench.clock.advance(tickMs);
  bench.apply();
  await waits;
});

test("after the time limit the caller hears whether the outcome is known", async () => {
  const bench = new Bench();
  const handed = bench.proposals.propose(groups);
  const unknown = expect(handed).rejects.toThrow(/whether it was written is unknown/);
  await bench.clock.advance(proposeTimeoutMs + proposeAgainMs);
  await unknown;
  bench.result = { ok: false, reason: "no-leader", leader: null };
  const never = bench.proposals.propose(groups);
  const refused = expect(never).rejects.toThrow(/^rpc error: .* does not have a leader/);
  await bench.clock.advance(proposeTimeoutMs + tickMs);
  await refused;
});

test("refuses what is too large, too many, or cannot be written now", async () => {
  const bench = new Bench();
  const large = [
    { actions: [add("nodes", testNode("x".repeat(entryBytesMax)))] },
  ] as unknown as typeof groups;
  await expect(bench.proposals.propose(large)).rejects.toMatchObject({ code: "invalid" });
  bench.result = { ok: false, reason: "log-full", leader: "a" };
  await expect(bench.proposals.propose(groups)).rejects.toThrow("log-full");
  bench.result = { ok: true, index: null, term: null };
  const many = Array.from({ length: proposalsMax }, () => bench.proposals.propose(groups));
  await expect(bench.proposals.propose(groups)).rejects.toThrow(String(proposalsMax));
  const all = Promise.allSettled(many);
  bench.proposals.rejectAll(new Error("over") as never);
  expect((await all).every(({ status }) => status === "rejected")).toBe(true);
  expect(bench.clock.pending).toBe(0);
});
