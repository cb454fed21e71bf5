/** A simulated machine with one manager: its disk, its clock, and one life of the production log, core and driver after the other. */
import { openDataKeyCipher } from "../../src/io/data-key-cipher.ts";
import { openLogOn, type RaftLogOptions } from "../../src/io/raft-log.ts";
import type { LogCipher } from "../../src/io/raft-log-cipher.ts";
import type { Clock, InstantMs } from "../../src/lib/clock.ts";
import { messageOf, ShoalError } from "../../src/lib/errors.ts";
import { silentLog } from "../../src/lib/log.ts";
import { createRaftDriver, type RaftDriver } from "../../src/manager/raft-driver.ts";
import { createRaft } from "../../src/raft/core.ts";
import { RAFT_DEFAULTS } from "../../src/raft/limits.ts";
import type {
  Entry,
  Message,
  PeerId,
  RaftConfig,
  RaftCore,
  Snapshot,
  Storage,
  Transport,
} from "../../src/raft/types.ts";
import type { SimRandom } from "../random.ts";
import type { Agenda } from "./agenda.ts";
import { Claims } from "./claims.ts";
import type { Counts } from "./counts.ts";
import { SimDisk } from "./disk.ts";
import { type FaultMix, type HostTraits, LEASE_DRIFT_MAX, TICK_MS } from "./fault-mix.ts";
import { SimKeyFile } from "./key-file.ts";
import { type Ledger, Watch } from "./ledger.ts";
import { Life } from "./life.ts";
import type { Endpoint, Network } from "./network.ts";
import { createOneAtATime } from "./one-at-a-time.ts";
import { type Command, decodeCommand, encodeCommand, Registers } from "./registers.ts";

/** Bytes that must be free for new work to be taken, on disks that may be full. */
const ROOM_BYTES = 2048;

export interface Surroundings {
  readonly agenda: Agenda;
  readonly ledger: Ledger;
  readonly counts: Counts;
  readonly mix: FaultMix;
  /** Made after the hosts. */
  readonly network: () => Network;
  readonly note: (text: string) => void;
  readonly ticked: () => void;
}
interface Waiter {
  readonly sequence: number;
  readonly tell: (answer: number) => void;
}
/** What runs on a host in one life. */
interface Running {
  readonly life: Life;
  readonly core: RaftCore;
  readonly driver: RaftDriver;
  readonly storage: Awaited<ReturnType<typeof openLogOn>>;
  readonly watch: Watch;
  readonly registers: Registers;
  readonly waiters: Map<number, Waiter>;
  readonly reads: Map<number, (registers: Registers, applied: number) => void>;
  readonly receive: ((message: Message) => void)[];
  readonly closed: ((peer: PeerId) => void)[];
  readonly snapshotEnded: ((peer: PeerId, ok: boolean) => void)[];
  nextReadId: number;
  appliedTerm: number;
  snapshotIndex: number;
  snapshotDue: boolean;
  noRoom: boolean;
}

export class Host implements Endpoint {
  readonly number: number;
  readonly traits: HostTraits;
  readonly disk: SimDisk;
  readonly keyFile: SimKeyFile;
  peer: PeerId;
  claims: Claims = new Claims();
  /** Of managers that were removed and replaced: a leader may hear their acknowledgements late, and count them. */
  readonly formerClaims: Map<PeerId, Claims> = new Map();
  /** Its log was refused as damaged: this peer never comes back. */
  lost = false;
  /** A bit of its log was turned while it was down. */
  rotten = false;
  /** Its log has been made: what starts here goes on. */
  founded = false;
  /** The life that is starting or running. */
  life: Life | null = null;
  running: Running | null = null;
  readonly #random: SimRandom;
  readonly #with: Surroundings;
  #lives = 0;
  #peers = 0;

  constructor(number: number, traits: HostTraits, random: SimRandom, around: Surroundings) {
    this.number = number;
    this.traits = traits;
    this.#random = random;
    this.#with = around;
    this.disk = new SimDisk(around.agenda, random.fork("disk"), traits.disk);
    this.keyFile = new SimKeyFile(this.disk);
    this.peer = `m${number}`;
  }

  get old(): boolean {
    return this.traits.old;
  }

  get hear(): ((what: () => void) => void) | null {
    const { life } = this;
    return life === null || this.running === null ? null : (what) => life.hear(what);
  }

  receive(message: Message): void {
    for (const receive of this.running?.receive ?? []) receive(message);
  }
  closed(peer: PeerId): void {
    for (const closed of this.running?.closed ?? []) closed(peer);
  }
  snapshotEnded(to: PeerId, ok: boolean): void {
    for (const ended of this.running?.snapshotEnded ?? []) ended(to, ok);
  }

  /** What opens the log, for `life` or (null) for who looks from outside. */
  async cipher(life: Life | null): Promise<LogCipher | null> {
    return this.#with.mix.encrypted ? openDataKeyCipher(this.keyFile.seenBy(life)) : null;
  }

  /** Seals what comes from now on with a new key. */
  rotateKey(): void {
    const { running } = this;
    if (running === null || !this.#with.mix.encrypted || running.life.stopped) return;
    running.snapshotDue ||= this.#random.chance(500);
    running.storage.rotateKey().then(
      () => {
        this.#with.counts["data keys rotated"] += 1;
      },
      (error: unknown) => {
        // While the last one is not finished, or after the log failed, of which the driver hears.
        if (!(error instanceof ShoalError)) this.#with.ledger.violate(`rotating: ${String(error)}`);
      },
    );
    this.#with.agenda.stir();
  }

  /** Makes the log of one that is there from the beginning. Nothing runs yet. */
  async found(snapshot: Snapshot): Promise<void> {
    const life = new Life();
    const log = await openLogOn(this.disk.attach(life), silentLog, await this.#logOptions(life));
    await log.load();
    const change = {
      hardState: { term: snapshot.term, vote: null, commit: snapshot.index },
      entries: [],
      snapshot,
    };
    this.claims.asked(change);
    await log.save(change);
    this.claims.resolved(change);
    await log.close();
    life.end();
    this.founded = true;
  }

  /** Starts the process, if none is there. */
  start(): void {
    if (this.life !== null || this.lost) return;
    const life = new Life();
    this.life = life;
    this.#lives += 1;
    this.#with.counts.restarts += 1;
    this.#boot(life).catch((error: unknown) => {
      if (life.alive) this.#stopped(life, error, "starting");
    });
    this.#with.agenda.stir();
  }

  /** kill -9. */
  kill(): void {
    if (this.life === null) return;
    this.#with.note(`${this.peer} dies`);
    this.#end();
    this.disk.kill();
  }

  /** The machine loses power. */
  powerOff(): void {
    this.#with.note(`${this.peer} loses power`);
    this.#end();
    const { tornWrites, lostNames } = this.disk;
    this.disk.powerOff();
    this.#with.counts["torn or lost pages"] += this.disk.tornWrites - tornWrites;
    this.#with.counts["lost names"] += this.disk.lostNames - lostNames;
  }

  /** A new manager on a new disk in place of this one. */
  renew(): void {
    this.kill();
    this.disk.replace();
    this.keyFile.keys = null;
    this.formerClaims.set(this.peer, this.claims);
    this.claims = new Claims();
    this.lost = false;
    this.rotten = false;
    this.#peers += 1;
    this.peer = `m${this.number}.${this.#peers}`;
    this.#with.counts["managers replaced by new ones"] += 1;
    this.#with.note(`${this.peer} is a new manager`);
  }

  /** Asks for `command`; told when this manager sees it applied. False: it can take nothing now. */
  submit(command: Command, padding: number, tell: (answer: number) => void): boolean {
    const { running } = this;
    if (running === null || this.life?.stopped === true) return false;
    const before = running.registers.answerOf(command.client, command.sequence);
    if (before !== null) {
      tell(before);
      return true;
    }
    if (running.noRoom) return false;
    const result = running.core.propose(encodeCommand(command, padding));
    running.driver.wake();
    if (!result.ok) return false;
    running.waiters.set(command.client, { sequence: command.sequence, tell });
    return true;
  }

  /** A linearizable read of everything; told once, or never. Returns a number to ask again with. */
  read(tell: (registers: Registers, applied: number) => void): void {
    const { running } = this;
    if (running === null || this.life?.stopped === true) return;
    const readId = running.nextReadId;
    running.nextReadId += 1;
    running.reads.set(readId, tell);
    running.core.readIndex(readId);
    running.driver.wake();
  }

  /** A snapshot at the next moment that allows one. */
  snapshotSoon(): void {
    if (this.running !== null) this.running.snapshotDue = true;
  }

  /** Whether there is room for new work, as the manager sees it. */
  lookForRoom(): void {
    const { running } = this;
    if (running === null) return;
    running.storage.roomFor(ROOM_BYTES).then(
      (room) => {
        running.noRoom = !room;
      },
      (error: unknown) => running.driver.fail(error),
    );
    this.#with.agenda.stir();
  }

  async #logOptions(life: Life): Promise<RaftLogOptions> {
    return {
      segmentBytes: this.traits.segmentBytes,
      freeMarginBytes: 2 * this.traits.segmentBytes,
      cipher: await this.cipher(life),
    };
  }

  #lease(): Partial<RaftConfig> {
    const { lease, electionTicks } = this.#with.mix;
    if (!lease) return {};
    return {
      readMode: "lease",
      leaseMarginTicks: 2 + Math.ceil(electionTicks * LEASE_DRIFT_MAX),
      leaseClock: { now: () => this.#with.agenda.now * this.traits.clockRate, tickMs: TICK_MS },
    };
  }

  #end(): void {
    this.life?.end();
    this.life = null;
    this.running = null;
  }

  /** This life ended by its own account: for want of its disk, or of a bug. */
  #stopped(life: Life, error: unknown, doing: string): void {
    if (this.life !== life) return;
    const { ledger, counts, note } = this.#with;
    const message = messageOf(error);
    note(`${this.peer} stops: ${message}`);
    if (this.disk.failed || this.disk.full) counts["stops for want of a disk"] += 1;
    else if (doing === "starting" && this.rotten && / is damaged at byte /.test(message)) {
      this.lost = true;
      counts["logs refused as damaged"] += 1;
    } else ledger.violate(`${this.peer}, ${doing}, stopped: ${message}`);
    this.#end();
    this.disk.kill();
  }

  async #boot(life: Life): Promise<void> {
    const { ledger, agenda } = this.#with;
    const log = await openLogOn(this.disk.attach(life), silentLog, await this.#logOptions(life));
    const saved = await log.load();
    if (this.rotten) ledger.violate(`${this.peer}: a log with a damaged record is opened`);
    const wrong = this.claims.loaded(saved);
    if (wrong !== null) ledger.violate(`${this.peer}: its log is not what was saved: ${wrong}`);
    const { peer, claims } = this;
    const watch = new Watch(peer, this.#lives, claims, saved);
    watch.countsMeanwhile = this.traits.old;
    const registers = new Registers();
    registers.load(saved.snapshot?.data ?? new Uint8Array(0));
    const core = this.#watched(
      createRaft(
        {
          ...RAFT_DEFAULTS,
          id: peer,
          electionTicks: this.#with.mix.electionTicks,
          heartbeatTicks: this.#with.mix.heartbeatTicks,
          appendBytesMax: this.traits.appendBytesMax,
          inflightMessagesMax: this.traits.inflightMessagesMax,
          holdBackEntriesMax: this.traits.holdBackEntriesMax,
          committedBytesPerReadyMax: this.traits.committedBytesPerReadyMax,
          asyncStorageWrites: !this.traits.old,
          ...this.#lease(),
          random: this.#random,
        },
        saved,
      ),
      watch,
    );
    ledger.started(watch);
    if (saved.snapshot !== null) {
      ledger.onLoad(watch, saved.snapshot, registers.hash);
      // Now: later another snapshot may have arrived, whose membership counts before its state is installed.
      ledger.onMembership(watch, core.status().membership);
    }
    const running: Running = {
      life,
      core,
      storage: log,
      watch,
      registers,
      waiters: new Map(),
      reads: new Map(),
      receive: [],
      closed: [],
      snapshotEnded: [],
      nextReadId: 1 + this.#random.below(2 ** 40),
      appliedTerm: saved.snapshot?.term ?? 0,
      snapshotIndex: saved.snapshot?.index ?? 0,
      snapshotDue: false,
      noRoom: false,
      driver: undefined as unknown as RaftDriver,
    };
    const create = this.traits.old ? createOneAtATime : createRaftDriver;
    const driver = create({
      core,
      storage: this.#storage(log, claims),
      transport: this.#transport(running),
      clock: this.#clock(life),
      tickMs: TICK_MS,
      machine: {
        apply: (entries) => this.#apply(running, entries),
        install: (snapshot) => {
          this.#with.counts["snapshots installed"] += 1;
          registers.load(snapshot.data);
          running.appliedTerm = snapshot.term;
          running.snapshotIndex = snapshot.index;
          ledger.onInstall(watch, snapshot, registers.hash);
        },
        reads: (readIds) => {
          for (const readId of readIds) {
            const tell = running.reads.get(readId);
            running.reads.delete(readId);
            tell?.(registers, watch.applied);
          }
        },
        turned: () => this.#turned(running),
      },
      endOfTurn: (work) => agenda.endOfTurn(() => life.hear(work)),
      onFatal: (error) => this.#stopped(life, error, "running"),
    });
    (running as { driver: RaftDriver }).driver = driver;
    this.running = running;
    this.#with.note(`${peer} starts at ${watch.lastIndex}, term ${watch.term}`);
    driver.start();
  }

  /** The core, with the observer at its side. */
  #watched(core: RaftCore, watch: Watch): RaftCore {
    const { ledger, ticked } = this.#with;
    const ready = core.ready.bind(core);
    const tick = core.tick.bind(core);
    const membership = () => core.status().membership;
    core.ready = () => {
      const drawn = ready();
      ledger.onReady(watch, drawn, membership);
      if (drawn.entries.length > 0 && core.heldBackThrough() !== null) {
        this.#with.counts["entries held back"] += drawn.entries.length;
      }
      return drawn;
    };
    core.tick = () => {
      ticked();
      tick();
    };
    return core;
  }

  #storage(log: Storage, claims: Claims): Storage {
    const { ledger, agenda } = this.#with;
    return {
      load: () => log.load(),
      save: (change) => {
        const copy = {
          hardState: change.hardState,
          entries: change.entries,
          snapshot: change.snapshot,
        };
        claims.asked(copy);
        agenda.stir();
        return log.save(copy).then(() => {
          if (this.disk.syncFailed)
            ledger.violate(`${this.peer}: a save succeeds after a sync has failed`);
          if (!claims.resolved(copy)) ledger.violate(`${this.peer}: saves end out of order`);
        });
      },
      saveNow: (change) => {
        claims.asked(change);
        // A power failure or a failed sync leaves it as asked for: it may be there or not.
        if (!(log.saveNow?.(change) ?? false)) {
          claims.pending.pop();
          return false;
        }
        this.#with.counts["saves done in place"] += 1;
        if (this.disk.syncFailed)
          ledger.violate(`${this.peer}: a save succeeds after a sync has failed`);
        if (!claims.resolved(change)) ledger.violate(`${this.peer}: saves end out of order`);
        return true;
      },
      compact: (snapshot, keepFrom) => {
        claims.pendingSnapshots.push(snapshot.index);
        agenda.stir();
        return log.compact(snapshot, keepFrom).then(() => claims.compacted(snapshot, keepFrom));
      },
      close: () => log.close(),
    };
  }

  #transport(running: Running): Transport {
    const { network, ledger } = this.#with;
    const { number } = this;
    return {
      send: (messages) => {
        if (!running.life.alive) return;
        for (const message of messages) ledger.onSend(running.watch, message);
        network().send(number, messages);
      },
      onMessage: (receive) => subscribe(running.receive, receive),
      onClosed: (closed) => subscribe(running.closed, closed),
      onSnapshotSent: (ended) => subscribe(running.snapshotEnded, ended),
      setPeers: () => {},
    };
  }

  #clock(life: Life): Clock {
    const { agenda } = this.#with;
    const { clockRate } = this.traits;
    return {
      now: () => (agenda.now * clockRate) as InstantMs,
      wakeAt: (at, callback) => {
        let wanted = true;
        agenda.after(Math.max(0, at / clockRate - agenda.now), () => {
          if (wanted) life.hear(callback);
        });
        return () => {
          wanted = false;
        };
      },
    };
  }

  #apply(running: Running, entries: readonly Entry[]): void {
    const { ledger } = this.#with;
    const { watch, registers } = running;
    for (const entry of entries) {
      running.appliedTerm = entry.term;
      let command: Command | null = null;
      if (entry.kind === "normal") {
        command = decodeCommand(entry.data);
        const { fresh, answer } = registers.apply(command);
        if (fresh) ledger.onEffect(entry.index, command.client, command.sequence, answer);
      }
      ledger.onApply(watch, entry, registers.hash);
      if (command !== null) answerWaiter(running, command);
    }
  }

  #turned(running: Running): void {
    const { watch, core, driver } = running;
    if (watch.membershipUnseen) {
      const status = core.status();
      if (status.applied === watch.applied)
        this.#with.ledger.onMembership(watch, status.membership);
    }
    const due = watch.applied - running.snapshotIndex >= this.traits.snapshotInterval;
    if (!(due || running.snapshotDue) || driver.compacting) return;
    if (watch.applied <= running.snapshotIndex) return;
    const status = core.status();
    if (status.applied !== watch.applied) return;
    running.snapshotDue = false;
    running.snapshotIndex = watch.applied;
    const snapshot: Snapshot = {
      index: watch.applied,
      term: running.appliedTerm,
      membership: status.membership,
      data: running.registers.save(),
    };
    const keepFrom = Math.max(watch.applied - this.traits.snapshotKeep, 0) + 1;
    driver.compact(snapshot, keepFrom).then(
      (room) => {
        if (room) this.#with.counts["snapshots taken"] += 1;
      },
      (error: unknown) => driver.fail(error),
    );
  }
}

function answerWaiter(running: Running, { client, sequence }: Command): void {
  const waiter = running.waiters.get(client);
  if (waiter === undefined || waiter.sequence > sequence) return;
  running.waiters.delete(client);
  const answer = running.registers.answerOf(client, waiter.sequence);
  if (answer !== null) waiter.tell(answer);
}

function subscribe<T>(list: T[], item: T): () => void {
  list.push(item);
  return () => {
    const at = list.indexOf(item);
    if (at >= 0) list.splice(at, 1);
  };
}
