/** Runs every controller on the leader: changes wake keys, keys are reconciled over one view, and what they decide is proposed together. */
import { AssertionError, assert } from "../lib/assert.ts";
import { after, type Clock } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { ActionGroup, Committed, Proposer, Store, View } from "../store/types.ts";
import type { Controller, Decision } from "./controller.ts";
import {
  entriesInFlightMax,
  groupsPerEntryMax,
  jsonBytesPerEntryMax,
  keysPerPassMax,
  proposeRetryMs,
} from "./loop-limits.ts";
import { createTimerQueue, type TimerQueue } from "./timer-queue.ts";

export interface ControllerLoopParts {
  readonly store: Store;
  readonly proposer: Proposer;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Asked in this order in each pass. */
  readonly controllers: readonly Controller[];
  /** A controller threw: a bug, and the loop has stopped. Left out, the error is thrown where nobody catches it, which ends the process. */
  readonly onBug?: (error: Error) => void;
}

export interface ControllerLoop {
  /** Begins to lead: call it once all entries of earlier terms are applied here. */
  start(): void;
  /** Stops leading: drops all keys, timers and answers that are still to come. May be started again. */
  stop(): void;
  /** Nothing to look at now and nothing under way; timers may be set. */
  isIdle(): boolean;
}

/** One key of one controller, and how it stands. */
interface Work {
  readonly controller: Controller;
  readonly key: string;
  /** It waits for its turn. */
  ready: boolean;
  /** Its entries that are under way: it is not looked at before they are applied, or it would decide the same again. */
  inFlight: number;
  /** Something changed while it was under way. */
  again: boolean;
}

interface Entry {
  readonly groups: ActionGroup[];
  /** Whose each group is. */
  readonly owners: Work[];
  bytes: number;
}

/** A loop that does nothing until it is started. All it does follows from its parts: the same clock and chance give the same entries. */
export function createControllerLoop(parts: ControllerLoopParts): ControllerLoop {
  const { store, clock, log } = parts;
  let run: Run | null = null;
  return {
    start() {
      assert(run === null, "a controller loop is started once");
      run = new Run(parts);
      log.debug({ index: store.view().index, at: clock.now() }, "controllers started");
    },
    stop() {
      run?.end();
      run = null;
    },
    isIdle: () => run === null || run.isIdle(),
  };
}

/** One time of leading. */
class Run {
  readonly #parts: ControllerLoopParts;
  readonly #works: ReadonlyMap<Controller, Map<string, Work>>;
  readonly #ready: ReadonlyMap<Controller, Set<Work>>;
  readonly #timers: TimerQueue<Work>;
  readonly #unwatch: () => void;
  readonly #queued: Entry[] = [];
  readonly #retries = new Set<() => void>();
  #inFlight = 0;
  #passScheduled = false;
  #ended = false;

  constructor(parts: ControllerLoopParts) {
    this.#parts = parts;
    this.#works = new Map(parts.controllers.map((controller) => [controller, new Map()]));
    this.#ready = new Map(parts.controllers.map((controller) => [controller, new Set()]));
    this.#timers = createTimerQueue(parts.clock, (work) => this.#wake(work));
    this.#unwatch = parts.store.watch((committed) => this.#observe(committed));
    const view = parts.store.view();
    for (const controller of parts.controllers) {
      for (const key of controller.keysAtStart(view)) this.#wake(this.#workOf(controller, key));
    }
  }

  end(): void {
    this.#ended = true;
    this.#unwatch();
    this.#timers.clear();
    for (const cancel of this.#retries) cancel();
    this.#retries.clear();
    this.#queued.length = 0;
  }

  isIdle(): boolean {
    if (this.#inFlight > 0 || this.#queued.length > 0 || this.#retries.size > 0) return false;
    return [...this.#ready.values()].every((works) => works.size === 0);
  }

  #observe(committed: Committed): void {
    const view = this.#parts.store.view();
    for (const controller of this.#parts.controllers) {
      try {
        for (const change of committed.changes) {
          for (const key of controller.keysOf(change, view)) {
            this.#wake(this.#workOf(controller, key));
          }
        }
      } catch (error) {
        this.#die(`keys of controller ${controller.name} at index ${view.index}`, error);
        return;
      }
    }
  }

  #workOf(controller: Controller, key: string): Work {
    const works = this.#works.get(controller);
    assert(works !== undefined, `controller ${controller.name} is one of the loop's`);
    const found = works.get(key);
    if (found !== undefined) return found;
    const work: Work = { controller, key, ready: false, inFlight: 0, again: false };
    works.set(key, work);
    return work;
  }

  #wake(work: Work): void {
    if (this.#ended || work.ready) return;
    if (work.inFlight > 0) {
      work.again = true;
      return;
    }
    work.ready = true;
    this.#ready.get(work.controller)?.add(work);
    this.#schedulePass();
  }

  /** After what is being done now: changes that come together are looked at together. */
  #schedulePass(): void {
    if (this.#passScheduled || this.#ended) return;
    this.#passScheduled = true;
    queueMicrotask(() => {
      this.#passScheduled = false;
      if (this.#ended) return;
      this.#send();
      if (this.#queued.length === 0 && this.#inFlight < entriesInFlightMax) this.#pass();
    });
  }

  /** Looks at ready keys over one view and sends what they decide. */
  #pass(): void {
    const { store, clock } = this.#parts;
    const view = store.view();
    const now = clock.now();
    let looks = 0;
    for (const controller of this.#parts.controllers) {
      const ready = this.#ready.get(controller);
      assert(ready !== undefined, `controller ${controller.name} has its keys`);
      for (const work of ready) {
        if (looks === keysPerPassMax) break;
        looks += 1;
        ready.delete(work);
        work.ready = false;
        const decision = this.#reconcile(work, view, now);
        if (decision === null) return;
        this.#timers.set(work, decision.lookAgainAt);
        this.#enqueue(work, decision.groups);
        this.#forgetIfIdle(work);
      }
    }
    this.#send();
    if (looks === keysPerPassMax) this.#schedulePass();
  }

  #reconcile(work: Work, view: View, now: ReturnType<Clock["now"]>): Decision | null {
    try {
      return work.controller.reconcile(work.key, view, now, this.#parts.random);
    } catch (error) {
      this.#die(
        `controller ${work.controller.name} reconciles ${work.key} at index ${view.index}`,
        error,
      );
      return null;
    }
  }

  /** Packs the groups into entries behind those that wait already; a key's groups stay in their order. */
  #enqueue(work: Work, groups: readonly ActionGroup[]): void {
    for (const group of groups) {
      const bytes = JSON.stringify(group).length;
      let entry = this.#queued.at(-1);
      const isFull =
        entry === undefined ||
        entry.groups.length >= groupsPerEntryMax ||
        entry.bytes + bytes > jsonBytesPerEntryMax;
      if (entry === undefined || isFull) {
        entry = { groups: [], owners: [], bytes: 0 };
        this.#queued.push(entry);
      }
      if (entry.owners.at(-1) !== work) work.inFlight += 1;
      entry.groups.push(group);
      entry.owners.push(work);
      entry.bytes += bytes;
    }
  }

  /** A key that wants nothing is kept nowhere: keys come and go with their rows. */
  #forgetIfIdle(work: Work): void {
    if (work.inFlight > 0 || work.ready || this.#timers.has(work)) return;
    this.#works.get(work.controller)?.delete(work.key);
  }

  #send(): void {
    while (this.#inFlight < entriesInFlightMax) {
      const entry = this.#queued.shift();
      if (entry === undefined) return;
      this.#inFlight += 1;
      this.#parts.proposer.propose(entry.groups).then(
        (committed) => this.#settled(entry, committed),
        (error: unknown) => this.#refused(entry, error),
      );
    }
  }

  #settled(entry: Entry, committed: Committed): void {
    if (this.#ended) return;
    this.#inFlight -= 1;
    const conflicted = new Set<Work>();
    for (const [index, owner] of entry.owners.entries()) {
      if (committed.results[index]?.ok !== true) conflicted.add(owner);
    }
    for (const owner of new Set(entry.owners)) this.#release(owner, conflicted.has(owner));
    this.#schedulePass();
  }

  #refused(entry: Entry, error: unknown): void {
    if (this.#ended) return;
    this.#inFlight -= 1;
    if (!(error instanceof ShoalError)) {
      this.#die("proposing what the controllers decided", error);
      return;
    }
    this.#parts.log.warn(
      { error: messageOf(error), groups: entry.groups.length },
      "the controllers' entry was not committed; deciding again",
    );
    const cancel = this.#parts.clock.wakeAt(after(this.#parts.clock.now(), proposeRetryMs), () => {
      this.#retries.delete(cancel);
      for (const owner of new Set(entry.owners)) this.#release(owner, true);
    });
    this.#retries.add(cancel);
    this.#schedulePass();
  }

  #release(work: Work, lookAgain: boolean): void {
    work.inFlight -= 1;
    assert(work.inFlight >= 0, `key ${work.key} is under way as often as it was sent`);
    if (lookAgain) work.again = true;
    if (work.inFlight > 0) return;
    if (work.again) {
      work.again = false;
      this.#wake(work);
    } else {
      this.#forgetIfIdle(work);
    }
  }

  #die(what: string, error: unknown): void {
    this.end();
    const bug = new AssertionError(`${what}: ${messageOf(error)}`);
    bug.cause = error;
    if (this.#parts.onBug === undefined) throw bug;
    this.#parts.onBug(bug);
  }
}
