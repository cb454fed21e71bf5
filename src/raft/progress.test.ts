/** Goal: the leader sends neither too much nor too little. Method: tables over the three states of a peer. */
import { describe, expect, test } from "vitest";
import { Inflights, Progress } from "./progress.ts";

function progress(match: number, next: number): Progress {
  return new Progress("a", match, next, false, new Inflights(3, 100));
}

describe("Inflights", () => {
  test("are full by messages, and freed through an index", () => {
    const window = new Inflights(3, 1000);
    for (const index of [5, 7, 9]) window.add(index, 1);
    expect(window.full()).toBe(true);
    window.freeThrough(7);
    expect([window.count, window.full()]).toEqual([1, false]);
    window.freeThrough(100);
    expect(window.count).toBe(0);
  });

  test("are full by bytes", () => {
    const window = new Inflights(10, 100);
    window.add(1, 99);
    expect(window.full()).toBe(false);
    window.add(2, 99);
    expect(window.full()).toBe(true);
    expect(() => window.add(3, 1)).toThrow("open window");
  });

  test("hold their bounds over a long stream", () => {
    const window = new Inflights(4, 1_000);
    for (let index = 1; index <= 1000; index += 1) {
      if (window.full()) window.freeThrough(index - 3);
      window.add(index, 10);
      expect(window.count).toBeLessThanOrEqual(4);
    }
  });
});

describe("Progress", () => {
  test("in probe sends one append with entries, then waits for an answer", () => {
    const peer = progress(0, 5);
    peer.sent(2, 20);
    expect([peer.blocked(), peer.next]).toEqual([true, 5]);
    expect(peer.matched(6)).toBe(true);
    expect([peer.blocked(), peer.match, peer.next]).toEqual([false, 6, 7]);
  });

  test("in replicate streams until its window is full", () => {
    const peer = progress(4, 5);
    peer.becomeReplicate();
    peer.sent(1, 10);
    peer.sent(1, 10);
    expect([peer.blocked(), peer.next]).toEqual([false, 7]);
    peer.sent(1, 10);
    expect([peer.blocked(), peer.next]).toEqual([true, 8]);
  });

  test("in snapshot sends nothing, and goes on behind it", () => {
    const peer = progress(2, 3);
    peer.becomeSnapshot(10);
    expect(peer.blocked()).toBe(true);
    peer.becomeProbe();
    expect([peer.state, peer.match, peer.next]).toEqual(["probe", 2, 11]);
  });

  test("whose snapshot was lost goes on from what it had", () => {
    const peer = progress(2, 3);
    peer.becomeSnapshot(10);
    peer.pendingSnapshot = 0;
    peer.becomeProbe();
    expect(peer.next).toBe(3);
  });

  test.each([
    { state: "probe", refused: 9, hint: 4, told: true, next: 5 },
    { state: "probe", refused: 9, hint: 20, told: true, next: 9 },
    { state: "probe", refused: 9, hint: 0, told: true, next: 4 },
    { state: "probe", refused: 7, hint: 4, told: false, next: 10 },
    { state: "replicate", refused: 9, hint: 4, told: true, next: 4 },
    { state: "replicate", refused: 3, hint: 4, told: false, next: 10 },
  ])(
    "in $state refused at $refused with hint $hint goes to $next",
    ({ state, refused, hint, told, next }) => {
      const peer = progress(3, 10);
      if (state === "replicate") {
        peer.becomeReplicate();
        peer.next = 10;
      }
      expect(peer.refusedAt(refused, hint)).toBe(told);
      expect(peer.next).toBe(next);
    },
  );

  test("learns a commit once, and only one it can use", () => {
    const peer = progress(4, 5);
    expect(peer.canLearnCommit(3)).toBe(true);
    peer.sentCommitThrough(3);
    expect([peer.canLearnCommit(3), peer.canLearnCommit(4)]).toEqual([false, true]);
    peer.sentCommitThrough(9);
    expect(peer.canLearnCommit(10)).toBe(false);
  });
});
