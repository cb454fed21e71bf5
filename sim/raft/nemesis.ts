/** Brings the faults of a seed's mix over its cluster, one after the other, within what a cluster must survive. */
import { recover } from "../../src/io/raft-log-recovery.ts";
import { messageOf } from "../../src/lib/errors.ts";
import { silentLog } from "../../src/lib/log.ts";
import { LEAVE_JOINT } from "../../src/raft/membership.ts";
import type { MembershipChange, PeerId } from "../../src/raft/types.ts";
import type { SimRandom } from "../random.ts";
import type { Agenda } from "./agenda.ts";
import type { Counted, Counts } from "./counts.ts";
import { drawWeather, type FaultKind, type FaultMix } from "./fault-mix.ts";
import type { Host } from "./host.ts";
import type { Ledger } from "./ledger.ts";
import type { Network } from "./network.ts";

/** How long a fault waits for a moment at which the disk is at work, in ms. */
const BUSY_WAIT_MS = 400;

export interface NemesisParts {
  readonly agenda: Agenda;
  readonly random: SimRandom;
  readonly mix: FaultMix;
  readonly hosts: readonly Host[];
  readonly network: Network;
  readonly ledger: Ledger;
  readonly counts: Counts;
  readonly note: (text: string) => void;
}

export class Nemesis {
  readonly #with: NemesisParts;
  readonly #kinds: FaultKind[] = [];
  #stopped = false;
  #cuts = 0;

  constructor(parts: NemesisParts) {
    this.#with = parts;
    for (const [kind, weight] of parts.mix.weights)
      for (let times = 0; times < weight; times += 1) this.#kinds.push(kind);
  }

  start(): void {
    this.#with.network.weather = this.#with.mix.weather;
    if (this.#kinds.length > 0) this.#plan();
    this.#watchHosts();
  }

  /** No new faults; what it planned to undo is undone by others. */
  stop(): void {
    this.#stopped = true;
  }

  /** Milliseconds, exponentially distributed. */
  #about(mean: number): number {
    const part = (this.#with.random.below(1_000_000) + 1) / 1_000_001;
    return Math.min(10 * mean, Math.ceil(-Math.log(part) * mean));
  }

  #plan(): void {
    this.#later(this.#about(this.#with.mix.faultMsMean), () => {
      this.#strike(this.#with.random.pick(this.#kinds));
      this.#plan();
    });
  }

  #later(delayMs: number, work: () => void): void {
    this.#with.agenda.after(delayMs, () => {
      if (!this.#stopped) work();
    });
  }

  /** Whoever is down comes up again; whoever was removed comes back as a new manager; disks are looked at. */
  #watchHosts(): void {
    const { hosts, mix, random } = this.#with;
    this.#later(100, () => {
      for (const host of hosts) {
        if (host.life === null && !host.lost) {
          if (!host.rotten && random.chance(Math.min(1_000, 100_000 / (mix.repairMsMean + 1))))
            this.#restart(host);
        } else if (mix.weights.has("full-disk")) host.lookForRoom();
        if (this.#isDone(host) && random.chance(50)) {
          host.renew();
          host.start();
        }
      }
      this.#watchHosts();
    });
  }

  #restart(host: Host): void {
    // A disk that was full has room again, before its manager is started.
    host.disk.capacityBytes = Number.MAX_SAFE_INTEGER;
    host.disk.failNext = null;
    host.start();
  }

  /** It was a member, and is none any more. */
  #isDone({ peer }: Host): boolean {
    const { ledger } = this.#with;
    return ledger.everMembers.has(peer) && !isMember(ledger, peer);
  }

  #strike(kind: FaultKind): void {
    const { random, hosts, network, note } = this.#with;
    const host = this.#someHost();
    switch (kind) {
      case "kill":
        this.#whenBusy(host, () => this.#kill(host));
        return;
      case "power-off":
        this.#whenBusy(host, () => {
          this.#count("power-offs");
          host.powerOff();
        });
        return;
      case "blackout":
        this.#whenBusy(host, () => {
          this.#count("power failures of all");
          for (const each of hosts) each.powerOff();
        });
        return;
      case "pause":
        this.#pause(host);
        return;
      case "partition":
        this.#partition();
        return;
      case "clog":
        this.#count("clogged paths");
        network.clog(host.number, random.below(hosts.length), this.#repair());
        return;
      case "close":
        this.#count("closed connections");
        network.close(host.number, random.below(hosts.length));
        return;
      case "weather":
        this.#count("changes of weather");
        network.weather = drawWeather(random);
        return;
      case "sync-error":
        if (host.life === null) return;
        host.disk.failNext = random.pick([
          "sync",
          "sync",
          "sync",
          "write",
          "create",
          "rename",
          "directory",
        ]);
        this.#count(
          host.disk.failNext === "sync" ? "failed syncs" : "other failed disk operations",
        );
        note(`${host.peer}: the next ${host.disk.failNext} fails`);
        // What it then finds in the page cache may not be on the device.
        if (random.chance(400)) this.#later(random.between(50, 1_000), () => this.#failAgain(host));
        return;
      case "full-disk":
        this.#count("full disks");
        host.disk.fill(random.below(3) * host.traits.segmentBytes);
        // A snapshot that finds no room, and then a start from what there is.
        if (random.chance(400)) {
          host.snapshotSoon();
          this.#later(random.between(5, 200), () => this.#kill(host));
        }
        this.#later(this.#repair(), () => {
          host.disk.capacityBytes = Number.MAX_SAFE_INTEGER;
        });
        return;
      case "slow-disk":
        this.#count("slow disks");
        host.disk.slowMsMax = random.between(10, 1_000);
        this.#later(this.#repair(), () => {
          host.disk.slowMsMax = 0;
        });
        return;
      case "rot":
        this.#rot(host);
        return;
      case "snapshot":
        host.snapshotSoon();
        return;
      case "rotate-key":
        host.rotateKey();
        return;
      case "forget-leader":
        this.#count("leaders forgotten");
        this.#tell(host, (core) => core.forgetLeader());
        return;
      case "campaign": {
        this.#count("elections forced");
        const leader = this.leader();
        if (leader !== null && leader !== host && random.chance(400)) this.#deafen(leader, host);
        this.#tell(host, (core) => core.campaign());
        return;
      }
      case "transfer": {
        const leader = this.leader();
        if (leader === null) return;
        const to = random.pick(hosts);
        this.#count("leadership transfers asked");
        this.#tell(leader, (core) => core.transferLeadership(to.peer));
        if (random.chance(400)) this.#deafen(leader, to);
        return;
      }
      case "membership":
        this.#changeMembership();
        return;
      default:
        kind satisfies never;
    }
  }

  /** The host that leads the highest term, as far as it knows. */
  leader(): Host | null {
    let best: Host | null = null;
    for (const host of this.#with.hosts) {
      const watch = host.running?.watch;
      if (watch?.role !== "leader" || host.life?.stopped === true) continue;
      if (best === null || watch.term > (best.running?.watch.term ?? 0)) best = host;
    }
    return best;
  }

  #tell(host: Host, what: (core: NonNullable<Host["running"]>["core"]) => void): void {
    const { running, life } = host;
    if (running === null || life?.stopped === true) return;
    what(running.core);
    running.driver.wake();
  }

  #someHost(): Host {
    const { random, hosts } = this.#with;
    return (random.chance(300) ? this.leader() : null) ?? random.pick(hosts);
  }

  #repair(): number {
    return this.#about(this.#with.mix.repairMsMean);
  }

  #count(name: Counted): void {
    this.#with.counts[name] += 1;
  }

  #kill(host: Host): void {
    if (host.life === null) return;
    this.#count("kills");
    if (this.#with.mix.closesSeen && host.running !== null)
      this.#with.network.closeAll(host.number);
    host.kill();
  }

  /** Mostly while its disk works, if it does so soon: then there is something to lose. */
  #whenBusy(host: Host, work: () => void): void {
    let tries = this.#with.random.chance(700) ? BUSY_WAIT_MS : 0;
    const look = (): void => {
      tries -= 1;
      if (tries < 0 || host.disk.busy) work();
      else this.#later(1, look);
    };
    look();
  }

  #pause(host: Host): void {
    const { life } = host;
    if (life === null || life.stopped) return;
    this.#count("pauses");
    this.#with.note(`${host.peer} is stopped`);
    life.stop();
    this.#with.agenda.after(this.#repair(), () => {
      if (!life.alive) return;
      this.#with.note(`${host.peer} goes on`);
      life.goOn();
    });
  }

  #partition(): void {
    const { random, hosts, note } = this.#with;
    const n = hosts.length;
    if (n < 2) return;
    const one = random.below(n);
    const leader = this.leader()?.number ?? one;
    const side = hosts.map(() => random.chance(500));
    const kind = random.pick([
      "split",
      "isolate",
      "leader",
      "one-way",
      "partial",
      "bridge",
      "leader-bridge",
    ]);
    note(`partition: ${kind}`);
    switch (kind) {
      case "split":
        this.#count("partitions, symmetric");
        this.#cut((from, to) => side[from] !== side[to]);
        break;
      case "isolate":
        this.#count("partitions, one isolated");
        this.#cut((from, to) => from === one || to === one);
        break;
      case "leader":
        this.#count("partitions, leader isolated");
        this.#cut((from, to) => from === leader || to === leader);
        break;
      case "one-way": {
        this.#count("partitions, one-way");
        const who = random.chance(500) ? leader : one;
        const deaf = random.chance(500);
        this.#cut((from, to) => (deaf ? to === who : from === who));
        break;
      }
      case "partial": {
        this.#count("partitions, partial");
        const cuts = Array.from({ length: n * n }, () => random.chance(300));
        this.#cut((from, to) => cuts[from * n + to] === true);
        break;
      }
      case "bridge":
        this.#count("partitions, bridge");
        this.#cut((from, to) => from !== one && to !== one && side[from] !== side[to]);
        break;
      default: {
        this.#count("partitions, leader and bridge (openraft #2080)");
        const bridge = (leader + 1 + random.below(n - 1)) % n;
        this.#cut(
          (from, to) => (from === leader && to !== bridge) || (to === leader && from !== bridge),
        );
      }
    }
  }

  /** Cuts these paths instead of those that are cut, for a while. */
  #cut(cuts: (from: number, to: number) => boolean): void {
    const { network } = this.#with;
    this.#cuts += 1;
    const mine = this.#cuts;
    network.cut(cuts);
    this.#later(this.#repair(), () => {
      if (mine === this.#cuts) network.cut(() => false);
    });
  }

  /** A leader that does not hear that another one is elected has to know by itself that it is over. */
  #deafen(leader: Host, next: Host): void {
    this.#count("partitions, one-way");
    const { random, network, hosts } = this.#with;
    const from = leader.number;
    const to = next.number;
    const how = random.pick(["all", "next", "late"]);
    if (how === "all") this.#cut((_, other) => other === from);
    else if (how === "next") this.#cut((one, other) => one === to && other === from);
    else {
      // What they answered before they left it arrives when the next one has long led.
      for (const { number } of hosts) network.clog(number, from, random.between(50, 500));
      this.#cut((one, other) => (one === from ? other !== to : one === to && other === from));
    }
  }

  /** A machine whose manager stopped for its disk loses power soon after that manager was started again. */
  #failAgain(host: Host): void {
    if (host.life !== null || host.lost || host.rotten) return;
    this.#restart(host);
    this.#later(this.#with.random.between(20, 300), () => {
      this.#count("power-offs");
      host.powerOff();
    });
  }

  /**
   * Turns a bit of a log whose manager is down, if the others can do without it. A log whose only damage is its last
   * record is let be: it cannot be told from a torn one, and is not promised to be.
   */
  #rot(host: Host): void {
    const { note, counts, ledger } = this.#with;
    if (!host.lost && !host.rotten && !host.disk.isEmpty && this.#canLose(host)) {
      host.powerOff();
      host.rotten = true;
      const look = async () => recover(host.disk.view(), silentLog, await host.cipher(null));
      const before = look();
      this.#with.agenda.stir();
      before
        .then(async (clean) => {
          const turned = clean === null ? null : host.disk.rot();
          if (clean === null || turned === null || host.life !== null) {
            turned?.undo();
            host.rotten = false;
            return;
          }
          let why: string | null = null;
          try {
            const after = await look();
            const same = JSON.stringify(after?.state) === JSON.stringify(clean.state);
            const cut = after?.nextRecord === clean.nextRecord - 1;
            if (!same && !cut)
              ledger.violate(
                `${host.peer}: a bit of ${turned.name} at ${turned.offset} is turned, and the log is read as another one`,
              );
            turned.undo();
            host.rotten = false;
          } catch (error) {
            why = messageOf(error);
          }
          if (why === null) return;
          counts["turned bits"] += 1;
          note(`${host.peer}: rot in ${turned.name} at ${turned.offset}`);
          this.#later(10, () => this.#restart(host));
        })
        .catch((error: unknown) => ledger.violate(`rot: ${messageOf(error)}`));
    }
  }

  /** Whether every membership that may count keeps a majority of voters with good disks without `host`. */
  #canLose(host: Host): boolean {
    const { ledger, hosts } = this.#with;
    const { voters, outgoing } = ledger.latestMembership;
    const bad = new Set(hosts.filter((each) => each.lost || each.rotten).map(({ peer }) => peer));
    if (bad.size > 0) return false;
    bad.add(host.peer);
    return [voters, outgoing].every(
      (half) => half.length === 0 || half.filter((id) => bad.has(id)).length < half.length / 2,
    );
  }

  #changeMembership(): void {
    const { hosts, note } = this.#with;
    const leader = this.leader();
    if (leader === null || leader.running === null) return;
    const membership = leader.running.core.status().membership;
    const change = this.#drawChange(membership);
    if (change === null) return;
    const after = votersAfter(membership.voters, change);
    const bad = hosts.filter((host) => host.lost || host.rotten).map(({ peer }) => peer);
    const good = (voters: readonly PeerId[]): boolean =>
      voters.length > 0 && voters.filter((id) => bad.includes(id)).length < voters.length / 2;
    if (!good(after)) return;
    this.#count("membership changes asked");
    note(`asked of ${leader.peer}: ${JSON.stringify(change)}`);
    const result = leader.running.core.proposeMembership(change);
    leader.running.driver.wake();
    if (!result.ok) note(`refused: ${result.reason}`);
    else for (const { id } of change.changes) hosts.find(({ peer }) => peer === id)?.start();
  }

  #drawChange(membership: {
    readonly voters: readonly PeerId[];
    readonly outgoing: readonly PeerId[];
    readonly learners: readonly PeerId[];
  }): MembershipChange | null {
    const { random, hosts, ledger } = this.#with;
    if (membership.outgoing.length > 0 && random.chance(700)) return LEAVE_JOINT;
    const draw = (): MembershipChange["changes"][number] | null => {
      const lost = hosts.find((host) => host.lost && isMember(ledger, host.peer));
      if (lost !== undefined && random.chance(500)) return { kind: "remove", id: lost.peer };
      const free = hosts.filter((host) => !ledger.everMembers.has(host.peer));
      const kind = random.pick(["add", "promote", "promote", "demote", "remove"]);
      if (kind === "add" && free.length > 0) {
        const id = random.pick(free).peer;
        return { kind: random.chance(800) ? "add-learner" : "add-voter", id };
      }
      if (kind === "promote" && membership.learners.length > 0)
        return { kind: "add-voter", id: random.pick(membership.learners) };
      if (kind === "demote" && membership.voters.length > 1)
        return { kind: "add-learner", id: random.pick(membership.voters) };
      if (kind === "remove" && membership.voters.length > 1)
        return { kind: "remove", id: random.pick([...membership.voters, ...membership.learners]) };
      return null;
    };
    const joint = random.chance(300);
    const changes = [];
    const seen = new Set<PeerId>();
    for (let times = joint ? random.between(1, 3) : 1; times > 0; times -= 1) {
      const one = draw();
      if (one === null || seen.has(one.id)) continue;
      seen.add(one.id);
      changes.push(one);
    }
    if (changes.length === 0) return null;
    if (!joint) return { changes, transition: "auto" };
    return { changes, transition: random.pick(["auto", "joint-implicit", "joint-explicit"]) };
  }
}

function isMember(ledger: Ledger, id: PeerId): boolean {
  const { voters, outgoing, learners, learnersNext } = ledger.latestMembership;
  return [voters, outgoing, learners, learnersNext].some((list) => list.includes(id));
}

function votersAfter(voters: readonly PeerId[], { changes }: MembershipChange): PeerId[] {
  const after = new Set(voters);
  for (const { kind, id } of changes) {
    if (kind === "add-voter") after.add(id);
    else after.delete(id);
  }
  return [...after];
}
