/**
 * Carries out what a Raft core asks for, over any state machine: one synchronous pump at the end of each turn of the
 * event loop; saves run beside it (async storage writes), and neither a slow disk nor a long apply holds up a heartbeat.
 */
import { assert } from "../lib/assert.ts";
import { after, type Clock, type InstantMs } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type {
  Entry,
  HardState,
  Message,
  PeerId,
  RaftCore,
  Ready,
  SaveToken,
  Snapshot,
  Storage,
  Transport,
} from "../raft/types.ts";
import {
  appliesPerTurnBytesMax,
  appliesPerTurnMax,
  commitNoticeMs,
  hedgeMs,
  holdBackMs,
  savesBytesMax,
  savesUnderWayMax,
} from "./limits.ts";

/** What the log is replicated for. Its methods run inside the pump: they are synchronous, and may call wake(). */
export interface RaftMachine {
  /** Applies entries of every kind, in order, each exactly once. A long run comes in several slices, one a turn. */
  apply(entries: readonly Entry[]): void;
  /** Replaces the whole state by a snapshot from the leader; it is durable. Entries that it covers are not applied any more. */
  install(snapshot: Snapshot): void;
  /** These reads may be answered from the state as it is now. */
  reads(readIds: readonly number[]): void;
  /** The pump of this turn is over: role, leader, membership and applied index may have changed. */
  turned(): void;
}
export interface RaftDriverOptions {
  /** Made with asyncStorageWrites: true. Whoever else calls it (propose, readIndex, ...) calls wake() after. */
  readonly core: RaftCore;
  readonly storage: Storage;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly tickMs: number;
  readonly machine: RaftMachine;
  /**
   * Runs `work` once everything that arrived in this turn of the event loop was handed in. Production: setImmediate,
   * which comes after all sockets were read. Work runs in the order in which it was handed over.
   */
  readonly endOfTurn: (work: () => void) => void;
  /** Storage failed, or a bug was met: nothing of this core is sent or applied any more. Called once. */
  readonly onFatal: (error: Error) => void;
}
export interface RaftDriver {
  /** Begins to tick and to listen. Once. */
  start(): void;
  /** Stops ticking, listening and sending; resolves when no save and no compaction is under way. The storage stays open. */
  stop(): Promise<void>;
  /** The core was told something: what it asks for is done at the end of this turn. Cheap when called often. */
  wake(): void;
  /**
   * Makes `snapshot`, of what is applied, durable, and forgets entries before `keepFrom`. False: the disk has no room for
   * it and the log is as it was. One at a time.
   */
  compact(snapshot: Snapshot, keepFrom: number): Promise<boolean>;
  /** The storage was found failed otherwise than by a save: stops as after a failed save. */
  fail(error: unknown): void;
  /** Index of the last entry that the machine holds. */
  readonly applied: number;
  readonly running: boolean;
  readonly compacting: boolean;
}

type SaveChange = Pick<Ready, "hardState" | "entries" | "snapshot">;

/** One Ready's part of a save: what may be done once it, and all before it, is durable. */
interface Awaiting {
  readonly token: SaveToken;
  readonly snapshot: Snapshot | null;
  readonly messages: readonly Message[];
}
/** One call of Storage.save(), for one Ready or several. */
interface Save {
  change: SaveChange | null;
  bytes: number;
  durable: boolean;
  readonly awaiting: Awaiting[];
}

/** The driver of `options.core`. Nothing happens before start(). */
export function createRaftDriver(options: RaftDriverOptions): RaftDriver {
  const { core, storage, transport, clock, tickMs, machine } = options;
  let running = false;
  let woken = false;
  let pumping = false;
  let compacting = false;
  let applied = core.status().applied;
  /** Saves that storage has, oldest first. */
  const underWay: Save[] = [];
  /** What waits because savesUnderWayMax saves are under way: one save, however many Readys come meanwhile. */
  let gathered: Save | null = null;
  let savingBytes = 0;
  /** A commit index that no save carries yet: it goes with the next one. */
  let lazy: HardState | null = null;
  /** Committed and not applied; `applyFrom` entries of it are. */
  let toApply: Entry[] = [];
  let applyFrom = 0;
  /** A slice was applied in this turn. */
  let sliced = false;
  /** A snapshot was installed, and the machine was not told since that a turn is over. */
  let installed = false;
  /** Confirmed reads whose index is not applied yet. */
  let reads: Ready["reads"][number][] = [];
  let follows = true;
  /** The newest word on the commit index for each peer, not sent yet, and since when there is one. */
  const notices = new Map<PeerId, { readonly message: Message; readonly sinceMs: InstantMs }>();
  let forgetNotices: (() => void) | null = null;
  /** While the core holds entries back: since when, the last one of them, and since when that one waits. */
  let held: { readonly sinceMs: InstantMs; through: number; newestMs: InstantMs } | null = null;
  let forgetHeldBack: (() => void) | null = null;
  let forgetTick: () => void = () => {};
  const idle: (() => void)[] = [];
  const subscriptions: (() => void)[] = [];

  /**
   * Time goes on by one tick however late it comes: a process that was held up (SIGSTOP, a suspended machine) has not
   * been listening, and what its peers said meanwhile waits in its sockets. So a late tick counts after those are read.
   */
  function tick(due: number): void {
    if (!running) return;
    const now = clock.now();
    const count = (): void => {
      if (!running) return;
      guarded(() => {
        core.tick();
        if (follows) campaignAlone();
        // Most ticks ask for nothing: no turn is spent on them.
        if (core.hasReady()) wake();
      });
    };
    if (now - due >= tickMs) options.endOfTurn(count);
    else count();
    // Keeps the pace when a little late, and begins anew when held up.
    const next = now - due < tickMs ? due + tickMs : after(now, tickMs);
    forgetTick = clock.wakeAt(after(now, next - now), () => tick(next));
  }

  /** The only voter has nobody to wait for: it leads at once after a restart. */
  function campaignAlone(): void {
    const { role, id, membership } = core.status();
    const alone = membership.voters.length === 1 && membership.voters[0] === id;
    if (role === "follower" && alone && membership.outgoing.length === 0) core.campaign();
  }

  function wake(): void {
    if (woken || !running) return;
    woken = true;
    options.endOfTurn(pump);
  }

  function pump(): void {
    woken = false;
    if (!running || pumping) return;
    pumping = true;
    guarded(() => {
      // A disk that does not get on: no new work is drawn, and the leader it belongs to is soon replaced.
      sliced = false;
      let told = false;
      while (running && savingBytes < savesBytesMax && core.hasReady()) told = take(core.ready());
      if (!running) return;
      if (!told) settle();
      lookAtHeldBack();
      if (applyFrom < toApply.length || (savingBytes < savesBytesMax && core.hasReady())) wake();
    });
    pumping = false;
  }

  /** A broken promise of the core or of the machine is a bug: this manager stops before it tells anybody more. */
  function guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      fatal(error);
    }
  }

  /** Does what one Ready asks for, or queues it. True when the machine has been told of all of it. */
  function take(ready: Ready): boolean {
    follows = ready.role === "follower" && ready.leader === null;
    for (const read of ready.reads) reads.push(read);
    // New entries go out before anything else: others can save them meanwhile. When there is nothing new but something
    // committed, who waits for it is answered first, and the peers learn of the commit index after.
    const answersFirst = ready.entries.length === 0 && ready.committed.length > 0;
    if (!answersFirst) send(ready.messages);
    if (!ready.mustSync) lazy = ready.hardState ?? lazy;
    if (ready.mustSync || ready.save !== null) save(ready);
    if (!running) return true;
    if (ready.committed.length > 0) {
      if (applyFrom === toApply.length) {
        toApply = [...ready.committed];
        applyFrom = 0;
      } else for (const entry of ready.committed) toApply.push(entry);
    }
    if (!answersFirst) return false;
    settle();
    send(ready.messages);
    return true;
  }

  /**
   * Sends; but an append that only tells the commit index waits a moment for the next one with entries, which tells it
   * too. Under load that saves half of all messages; with one write at a time, the two of each that followers wake for
   * while the leader's own disk is still at work.
   */
  function send(messages: readonly Message[]): void {
    const now: Message[] = [];
    for (const message of messages) {
      if (tellsCommit(message)) {
        const sinceMs = notices.get(message.to)?.sinceMs ?? clock.now();
        notices.set(message.to, { message, sinceMs });
      } else {
        if (message.kind === "append") notices.delete(message.to);
        now.push(message);
      }
    }
    if (notices.size > 0)
      forgetNotices ??= clock.wakeAt(after(clock.now(), commitNoticeMs), sendNotices);
    if (now.length > 0) transport.send(now);
  }

  /** Sends the notices that have waited long enough; younger ones may still find company. */
  function sendNotices(): void {
    forgetNotices = null;
    if (!running) return;
    const messages: Message[] = [];
    let oldest: InstantMs | null = null;
    const now = clock.now();
    for (const [to, { message, sinceMs }] of notices) {
      // A clock that was set back has waited long enough too.
      if (now >= after(sinceMs, commitNoticeMs) || now < sinceMs) {
        messages.push(message);
        notices.delete(to);
      } else oldest = oldest === null || sinceMs < oldest ? sinceMs : oldest;
    }
    if (oldest !== null) {
      const waitsMs = Math.max(1, after(oldest, commitNoticeMs) - now);
      forgetNotices = clock.wakeAt(after(now, waitsMs), sendNotices);
    }
    if (messages.length > 0) transport.send(messages);
  }

  /** Notes what the core holds back, and looks again in a while. */
  function lookAtHeldBack(): void {
    const through = core.heldBackThrough();
    if (through === null) held = null;
    else if (held === null || held.through < through) {
      const now = clock.now();
      held = { sinceMs: held?.sinceMs ?? now, through, newestMs: now };
      forgetHeldBack ??= clock.wakeAt(after(now, hedgeMs), sendHeldBack);
    }
  }

  /**
   * Who entries are held back from gets them after a while, and before that when they are not committed in time: those
   * that were to be the quorum may be slow or gone.
   */
  function sendHeldBack(): void {
    forgetHeldBack = null;
    if (!running || held === null) return;
    const now = clock.now();
    const newestMs = now - held.newestMs;
    const inTime = applied >= held.through || (newestMs < hedgeMs && newestMs >= 0);
    const waitedMs = now - held.sinceMs;
    if (inTime && waitedMs < holdBackMs && waitedMs >= 0) {
      const leftMs = applied >= held.through ? hedgeMs : Math.max(1, hedgeMs - newestMs);
      forgetHeldBack = clock.wakeAt(after(now, leftMs), sendHeldBack);
      return;
    }
    held = null;
    guarded(() => {
      core.sendHeldBack();
      if (core.hasReady()) wake();
    });
  }

  /** Tells the machine what there is to tell, as much as fits one slice. */
  function settle(): void {
    applySlice();
    answerReads();
    installed = false;
    machine.turned();
  }

  /** Hands a Ready's changes to storage, or gathers them with others while it has enough to do. */
  function save(ready: Ready): void {
    const awaiting: Awaiting | null =
      ready.save === null
        ? null
        : { token: ready.save, snapshot: ready.snapshot, messages: ready.afterSave };
    if (!ready.mustSync) {
      // It only waits for the saves before it.
      assert(awaiting !== null, "a Ready without changes is saved for what waits behind it");
      const last = gathered ?? underWay.at(-1);
      if (last === undefined) acknowledge(awaiting);
      else last.awaiting.push(awaiting);
      return;
    }
    const change = {
      hardState: ready.hardState ?? lazy,
      entries: ready.entries,
      snapshot: ready.snapshot,
    };
    lazy = null;
    const bytes = bytesOf(change);
    savingBytes += bytes;
    if (gathered !== null && gathered.change !== null) {
      gathered.change = merged(gathered.change, change);
      gathered.bytes += bytes;
      if (awaiting !== null) gathered.awaiting.push(awaiting);
      return;
    }
    const job: Save = {
      change,
      bytes,
      durable: false,
      awaiting: awaiting === null ? [] : [awaiting],
    };
    if (underWay.length >= savesUnderWayMax) gathered = job;
    else begin(job);
  }

  function begin(job: Save): void {
    assert(job.change !== null, "a save is begun once");
    const change = job.change;
    job.change = null;
    const alone = underWay.length === 0 && job.awaiting.some(({ messages }) => messages.length > 0);
    underWay.push(job);
    // Who follows has nothing to do until its answer may go: with a quick disk it goes at once, before anything is applied.
    if (alone && storage.saveNow?.(change) === true) finish(job);
    else storage.save(change).then(() => finish(job), fatal);
  }

  function finish(job: Save): void {
    job.durable = true;
    for (;;) {
      const first = underWay[0];
      if (first === undefined || !first.durable) break;
      underWay.shift();
      savingBytes -= first.bytes;
      assert(savingBytes >= 0, "no save ends twice");
      if (running) guarded(() => first.awaiting.forEach(acknowledge));
    }
    if (running && gathered !== null && underWay.length < savesUnderWayMax) {
      const next = gathered;
      gathered = null;
      guarded(() => begin(next));
    }
    // Most saves ask for nothing more: no turn is spent on them. The pump looks itself.
    if (running && !pumping && (installed || core.hasReady())) wake();
    tellIdle();
  }

  /** All that was to be saved up to here is durable. */
  function acknowledge({ token, snapshot, messages }: Awaiting): void {
    if (snapshot !== null) install(snapshot);
    if (messages.length > 0) transport.send(messages);
    core.saved(token);
  }

  function install(snapshot: Snapshot): void {
    assert(snapshot.index > applied, "a snapshot is newer than what is applied");
    // What was still to be applied is in it.
    toApply = [];
    applyFrom = 0;
    applied = snapshot.index;
    installed = true;
    machine.install(snapshot);
  }

  function applySlice(): void {
    if (sliced || applyFrom === toApply.length) return;
    sliced = true;
    const first = applyFrom;
    let bytes = 0;
    while (applyFrom < toApply.length && applyFrom - first < appliesPerTurnMax) {
      bytes += toApply[applyFrom]?.data.length ?? 0;
      if (bytes > appliesPerTurnBytesMax && applyFrom > first) break;
      applyFrom += 1;
    }
    const whole = first === 0 && applyFrom === toApply.length;
    const slice = whole ? toApply : toApply.slice(first, applyFrom);
    if (applyFrom === toApply.length) {
      toApply = [];
      applyFrom = 0;
    }
    assert(slice[0]?.index === applied + 1, "entries are applied in order, each once");
    applied += slice.length;
    machine.apply(slice);
    core.applied(applied);
  }

  function answerReads(): void {
    if (reads.length === 0) return;
    const done: number[] = [];
    const waiting: Ready["reads"][number][] = [];
    for (const read of reads) {
      if (read.index <= applied) done.push(read.readId);
      else waiting.push(read);
    }
    reads = waiting;
    if (done.length > 0) machine.reads(done);
  }

  /** Final. After a failed save what the disk holds is not known, so nothing is promised any more. */
  function fatal(error: unknown): void {
    underWay.length = 0;
    gathered = null;
    compacting = false;
    tellIdle();
    if (!running) return;
    halt();
    options.onFatal(error instanceof Error ? error : new Error(messageOf(error)));
  }

  function halt(): void {
    running = false;
    forgetTick();
    forgetNotices?.();
    forgetHeldBack?.();
    for (const unsubscribe of subscriptions.splice(0)) unsubscribe();
  }

  function tellIdle(): void {
    if (underWay.length > 0 || compacting) return;
    for (const tell of idle.splice(0)) tell();
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
      assert(!running, "a Raft driver is started once");
      running = true;
      subscriptions.push(
        transport.onMessage((message) => {
          guarded(() => {
            core.step(message);
            // Most acknowledgements ask for nothing: no turn is spent on them.
            if (!woken && core.hasReady()) wake();
          });
        }),
        transport.onClosed((peer) => {
          guarded(() => core.peerUnreachable(peer));
          wake();
        }),
        transport.onSnapshotSent((peer, ok) => {
          guarded(() => core.snapshotSent(peer, ok));
          wake();
        }),
      );
      tick(clock.now());
    },
    async stop() {
      if (running && lazy !== null && gathered === null) {
        const change = { hardState: lazy, entries: [], snapshot: null };
        begin({ change, bytes: 0, durable: false, awaiting: [] });
      }
      halt();
      gathered = null;
      if (underWay.length > 0 || compacting) {
        await new Promise<void>((resolve) => {
          idle.push(resolve);
        });
      }
    },
    wake,
    fail: fatal,
    async compact(snapshot, keepFrom) {
      assert(!compacting, "one compaction at a time");
      assert(snapshot.index <= applied, "a snapshot is of what is applied");
      compacting = true;
      try {
        await storage.compact(snapshot, keepFrom);
        if (running) guarded(() => core.compact(snapshot, keepFrom));
        return true;
      } catch (error) {
        // Only for want of room; any other failure of the log is its end.
        if (!(error instanceof ShoalError && error.code === "unavailable")) fatal(error);
        return false;
      } finally {
        compacting = false;
        tellIdle();
      }
    },
  };
}

/** One save that leaves what `first` and then `second` would. */
function merged(first: SaveChange, second: SaveChange): SaveChange {
  const hardState = second.hardState ?? first.hardState;
  // A snapshot from the leader replaces the whole log.
  if (second.snapshot !== null) return { ...second, hardState };
  const from = second.entries[0]?.index;
  if (from === undefined) return { ...first, hardState };
  const base = first.entries[0]?.index ?? from;
  return {
    hardState,
    snapshot: first.snapshot,
    entries: [...first.entries.slice(0, Math.max(0, from - base)), ...second.entries],
  };
}

function tellsCommit(message: Message): boolean {
  return message.kind === "append" && message.entries.length === 0;
}

function bytesOf({ entries, snapshot }: SaveChange): number {
  let bytes = snapshot?.data.length ?? 0;
  for (const entry of entries) bytes += entry.data.length;
  return bytes;
}
