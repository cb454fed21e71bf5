/** The end of a run: a random core that must be able to go on is healed, and has to go on within a stated time. */
import { changeMembership, decodeMembershipChange } from "../../src/raft/membership.ts";
import type { Membership, PeerId } from "../../src/raft/types.ts";
import type { SimRandom } from "../random.ts";
import type { Agenda } from "./agenda.ts";
import type { Clients } from "./clients.ts";
import type { Counts } from "./counts.ts";
import { type FaultMix, fairWeather, TICK_MS } from "./fault-mix.ts";
import type { Host } from "./host.ts";
import type { Ledger } from "./ledger.ts";
import type { Network } from "./network.ts";

export interface HealParts {
  readonly agenda: Agenda;
  readonly random: SimRandom;
  readonly mix: FaultMix;
  readonly hosts: readonly Host[];
  readonly network: Network;
  readonly clients: Clients;
  readonly ledger: Ledger;
  readonly counts: Counts;
  readonly note: (text: string) => void;
}

/** Ticks that a healed core has to go on: elections, a snapshot that counts as lost only after ten of them, and catching up. */
export function healTicksMax(mix: FaultMix): number {
  return 40 * mix.electionTicks + 1_000;
}

/** Heals, and says what is wrong through the ledger. Returns the ms that it took. */
export async function heal(parts: HealParts): Promise<number> {
  const { agenda, hosts, network, ledger, counts, clients, mix, note } = parts;
  const over = (): boolean => ledger.violation !== null;
  clients.stopped = true;
  network.weather = fairWeather;
  network.calm = true;
  network.cut(() => true);
  for (const host of hosts) {
    host.disk.failNext = null;
    host.disk.slowMsMax = 0;
    host.disk.capacityBytes = Number.MAX_SAFE_INTEGER;
    if (host.life?.stopped === true) host.life.goOn();
    host.start();
  }
  await agenda.run(agenda.now + 1_500, over);
  // Whoever's disk failed once more while nobody looked.
  for (const host of hosts) host.start();
  await agenda.run(agenda.now + 1_000, over);
  if (over()) return 0;
  const core = drawCore(parts);
  if (core === null) {
    counts["clusters beyond healing"] += 1;
    return 0;
  }
  note(`healed: ${core.map(({ peer }) => peer).join(" ")}`);
  isolate(parts, core);
  const begin = agenda.now;
  const until = begin + (healTicksMax(mix) * TICK_MS) / slowest(mix);
  const done = await goOn(parts, core, until);
  if (over()) return 0;
  if (!done) {
    ledger.violate(
      `no progress in ${healTicksMax(mix)} ticks after healing ${core.map(summary).join("; ")}`,
    );
    return 0;
  }
  counts["clusters healed"] += 1;
  return agenda.now - begin;
}

function slowest({ hosts }: FaultMix): number {
  return Math.min(...hosts.map(({ clockRate }) => clockRate));
}

/** Every member of the core takes a write and answers a read of everything. */
async function goOn(parts: HealParts, core: readonly Host[], until: number): Promise<boolean> {
  const { agenda, clients, ledger } = parts;
  const wrote = new Set<PeerId>();
  const read = new Set<PeerId>();
  const over = (): boolean => ledger.violation !== null;
  let round = 0;
  // A leader that hands over to somebody who is not there must give that up by itself.
  let handOver = parts.random.chance(300);
  while (agenda.now < until && !over()) {
    round += 1;
    if (handOver && handOverInVain(parts, core)) handOver = false;
    const { voters, outgoing, learners } = ledger.latestMembership;
    const members = [...voters, ...outgoing, ...learners];
    const waiting = core.filter(({ peer }) => members.includes(peer) && !read.has(peer));
    if (waiting.length === 0 && core.some(({ peer }) => read.has(peer))) return true;
    for (const host of waiting) {
      host.lookForRoom();
      const command = {
        client: 2_000 + host.number,
        sequence: round,
        verb: "write" as const,
        register: 254,
        value: round,
        from: 0,
      };
      if (wrote.has(host.peer)) clients.finalReads(host, () => read.add(host.peer));
      else host.submit(command, 0, () => wrote.add(host.peer));
    }
    await agenda.run(Math.min(until, agenda.now + 300), over);
  }
  return false;
}

/** The leader in the core, if there is one by now, hands over to a voter outside; false: there is none, or nobody outside. */
function handOverInVain({ hosts, counts, note }: HealParts, core: readonly Host[]): boolean {
  const running = core.map((host) => host.running).find((each) => each?.watch.role === "leader");
  if (running === undefined || running === null) return false;
  const { voters } = running.core.status().membership;
  const target = hosts.find((host) => !core.includes(host) && voters.includes(host.peer));
  if (target === undefined) return false;
  counts["leadership transfers asked"] += 1;
  note(`${running.watch.peer} hands over to ${target.peer}, in vain`);
  running.core.transferLeadership(target.peer);
  running.driver.wake();
  return true;
}

/** A random set of hosts with a majority in every membership that one of them may count by; null: there is none. */
function drawCore(parts: HealParts): Host[] | null {
  const { hosts, random, ledger } = parts;
  const memberships = membershipsAll(hosts, ledger);
  const named = new Set(memberships.flatMap((each) => [...each.voters, ...each.learners]));
  let core = hosts.filter((host) => host.running !== null && named.has(host.peer));
  if (!isCore(core, memberships)) return null;
  if (random.chance(400)) return core;
  for (const host of [...core].sort(() => (random.chance(500) ? 1 : -1))) {
    const less = core.filter((each) => each !== host);
    if (isCore(less, memberships)) core = less;
  }
  return core;
}

function isCore(core: readonly Host[], memberships: readonly Membership[]): boolean {
  const has = new Set(core.map(({ peer }) => peer));
  return memberships.every(({ voters, outgoing }) =>
    [voters, outgoing].every(
      (half) => half.length === 0 || half.filter((id) => has.has(id)).length > half.length / 2,
    ),
  );
}

/** Whether these are no majority by anybody's counting. */
function isMinority(some: readonly Host[], memberships: readonly Membership[]): boolean {
  const has = new Set(some.map(({ peer }) => peer));
  return memberships.every(({ voters, outgoing }) =>
    [voters, outgoing].some(
      (half) => half.length > 0 && half.filter((id) => has.has(id)).length <= half.length / 2,
    ),
  );
}

function membershipsAll(hosts: readonly Host[], ledger: Ledger): Membership[] {
  return [ledger.latestMembership, ...hosts.flatMap(membershipsOf)];
}

/** What it counts by, and what it would count by when it has applied its log. */
function membershipsOf({ running }: Host): Membership[] {
  if (running === null) return [];
  const { membership, applied } = running.core.status();
  const list = membership.voters.length === 0 ? [] : [membership];
  let last = membership;
  for (const entry of running.watch.entries) {
    if (entry.kind !== "membership" || entry.index <= applied) continue;
    const change = decodeMembershipChange(entry.data);
    if (change === null) continue;
    const next = changeMembership(last, change);
    if (!next.ok) continue;
    last = next.membership;
    list.push(last);
  }
  return list;
}

/** Who is not in the core is dead, cut off, hears but is not heard, or reaches one of the core alone. */
function isolate({ hosts, network, random, ledger }: HealParts, core: readonly Host[]): void {
  const inside = new Set(core.map(({ number }) => number));
  const reach = new Map<number, string>();
  const friend = random.pick(core);
  const memberships = membershipsAll(hosts, ledger);
  for (const host of hosts) {
    if (inside.has(host.number)) continue;
    const how = random.pick(["dead", "cut off", "dumb", "bridged", "bridged"]);
    // A leader out there that reaches a majority leads rightly, and need not serve whom it does not reach.
    const bridged = hosts.filter(({ number }) => reach.get(number) === "bridged");
    const alone = isMinority([...bridged, host, friend], memberships);
    reach.set(host.number, how === "bridged" && !alone ? "cut off" : how);
    if (how === "dead") host.kill();
  }
  network.clear(inside);
  network.cut((from, to) => {
    if (inside.has(from) && inside.has(to)) return false;
    if (!inside.has(from) && !inside.has(to)) return true;
    const [outer, inner] = inside.has(from) ? [to, from] : [from, to];
    const how = reach.get(outer);
    if (how === "bridged") return inner !== friend.number;
    if (how === "dumb") return from === outer;
    return true;
  });
}

function summary({ peer, running }: Host): string {
  if (running === null) return `${peer} (down)`;
  const { role, term, leader, commit, applied, lastIndex, membership } = running.core.status();
  return `${peer} (${role} of term ${term}, leader ${leader}, ${commit}/${applied}/${lastIndex}, voters ${membership.voters.join(" ")}|${membership.outgoing.join(" ")})`;
}
