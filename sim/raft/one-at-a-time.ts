/** The driver of an earlier version: one Ready after the other, each saved before its promises are sent and it is applied. */
import { messageOf } from "../../src/lib/errors.ts";
import type { RaftDriver, RaftDriverOptions } from "../../src/manager/raft-driver.ts";
import type { Ready } from "../../src/raft/types.ts";

/** `options.core` is made with asyncStorageWrites: false. */
export function createOneAtATime(options: RaftDriverOptions): RaftDriver {
  const { core, storage, transport, clock, tickMs, machine } = options;
  let running = false;
  let woken = false;
  let busy = false;
  let compacting = false;
  let applied = core.status().applied;
  /** As the last Ready said: a follower that knows no leader. */
  let follows = true;
  let reads: Ready["reads"][number][] = [];
  const subscriptions: (() => void)[] = [];

  function guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      fatal(error);
    }
  }

  function fatal(error: unknown): void {
    if (!running) return;
    halt();
    options.onFatal(error instanceof Error ? error : new Error(messageOf(error)));
  }

  function halt(): void {
    running = false;
    for (const unsubscribe of subscriptions.splice(0)) unsubscribe();
  }

  function tick(due: number): void {
    if (!running) return;
    guarded(() => {
      core.tick();
      if (follows) campaignAlone();
    });
    if (core.hasReady()) wake();
    const now = clock.now();
    const next = now - due < tickMs ? due + tickMs : now + tickMs;
    clock.wakeAt(next as ReturnType<typeof clock.now>, () => tick(next));
  }

  function campaignAlone(): void {
    const { role, leader, id, membership } = core.status();
    const { voters, outgoing } = membership;
    const alone = voters.length === 1 && voters[0] === id && outgoing.length === 0;
    if (role === "follower" && leader === null && alone) core.campaign();
  }

  function wake(): void {
    if (woken || !running) return;
    woken = true;
    options.endOfTurn(() => {
      woken = false;
      guarded(pump);
    });
  }

  function pump(): void {
    if (!running || busy) return;
    if (core.hasReady()) take(core.ready());
    else turned();
  }

  function take(ready: Ready): void {
    busy = true;
    follows = ready.role === "follower" && ready.leader === null;
    transport.send(ready.messages);
    if (ready.hardState === null && ready.entries.length === 0 && ready.snapshot === null) {
      done(ready);
      return;
    }
    storage.save(ready).then(() => {
      if (running) guarded(() => done(ready));
    }, fatal);
  }

  function done(ready: Ready): void {
    if (ready.snapshot !== null) {
      applied = ready.snapshot.index;
      machine.install(ready.snapshot);
    }
    transport.send(ready.afterSave);
    if (ready.committed.length > 0) {
      applied += ready.committed.length;
      machine.apply(ready.committed);
    }
    core.advance();
    reads.push(...ready.reads);
    busy = false;
    turned();
    if (core.hasReady()) wake();
  }

  function turned(): void {
    const answered = reads.filter(({ index }) => index <= applied);
    if (answered.length > 0) {
      reads = reads.filter(({ index }) => index > applied);
      machine.reads(answered.map(({ readId }) => readId));
    }
    machine.turned();
  }

  return {
    get applied() {
      return applied;
    },
    get running() {
      return running;
    },
    get compacting() {
      return compacting;
    },
    start() {
      running = true;
      const told = (work: () => void): void => {
        guarded(work);
        wake();
      };
      subscriptions.push(
        transport.onMessage((message) => told(() => core.step(message))),
        transport.onClosed((peer) => told(() => core.peerUnreachable(peer))),
        transport.onSnapshotSent((peer, ok) => told(() => core.snapshotSent(peer, ok))),
      );
      tick(clock.now());
    },
    async stop() {
      halt();
    },
    wake,
    fail: fatal,
    async compact(snapshot, keepFrom) {
      // Between two Readys only: this version knows no other moment.
      if (busy) return false;
      busy = true;
      compacting = true;
      try {
        await storage.compact(snapshot, keepFrom);
        if (running) guarded(() => core.compact(snapshot, keepFrom));
        return true;
      } catch (error) {
        const full =
          typeof error === "object" &&
          error !== null &&
          "code" in error &&
          error.code === "unavailable";
        if (!full) fatal(error);
        return false;
      } finally {
        busy = false;
        compacting = false;
        wake();
      }
    },
  };
}
