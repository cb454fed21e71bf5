/** One seed of the Raft simulator from beginning to end: production core, driver and log over a simulated world. */

import type { Message, Snapshot } from "../../src/raft/types.ts";
import { judge } from "../history/check.ts";
import { kv } from "../history/models.ts";
import { createRandom } from "../random.ts";
import { createAgenda } from "./agenda.ts";
import { Clients } from "./clients.ts";
import { type Counts, noCounts } from "./counts.ts";
import { doubtLeaders } from "./doubts.ts";
import { drawFaultMix, type FaultMix } from "./fault-mix.ts";
import { heal } from "./heal.ts";
import { Host, type Surroundings } from "./host.ts";
import { Ledger } from "./ledger.ts";
import { Nemesis } from "./nemesis.ts";
import { Network } from "./network.ts";

/** Steps of the model that the judgement of one history may take. */
const HISTORY_WORK = 200_000;

export interface RaftRun {
  readonly seed: number;
  /** What must not be and was; null: nothing. */
  readonly violation: string | null;
  readonly traceHash: string;
  readonly nodeTicks: number;
  readonly events: number;
  readonly simulatedMs: number;
  /** How long the healed core took to go on, in ms. */
  readonly healedMs: number;
  readonly counts: Counts;
}
export type Trace = (atMs: number, what: string) => void;

/** Runs `seed`; `trace` is told every event. The mix is the seed's unless another one is handed in. */
export async function runRaftSeed(
  seed: number,
  trace: Trace | null = null,
  change: (mix: FaultMix) => FaultMix = (mix) => mix,
): Promise<RaftRun> {
  const random = createRandom(seed, "raft");
  const mix = change(drawFaultMix(random.fork("mix")));
  const agenda = createAgenda();
  const counts = noCounts();
  const tracer = createTracer(() => agenda.now, trace);
  let nodeTicks = 0;
  const peers = mix.hosts.map((_, number) => `m${number}`);
  const first: Snapshot = {
    index: 1,
    term: 1,
    membership: {
      voters: peers.slice(0, mix.voters),
      outgoing: [],
      learners: [],
      learnersNext: [],
      autoLeave: false,
    },
    data: new Uint8Array(0),
  };
  const ledger = new Ledger(
    first.membership,
    counts,
    (peer) => {
      for (const host of hosts) {
        if (host.peer === peer) return host.claims;
        const before = host.formerClaims.get(peer);
        if (before !== undefined) return before;
      }
      return null;
    },
    tracer.note,
  );
  const around: Surroundings = {
    agenda,
    ledger,
    counts,
    mix,
    network: () => network,
    note: tracer.note,
    ticked: () => {
      nodeTicks += 1;
    },
  };
  const hosts = mix.hosts.map(
    (traits, number) => new Host(number, traits, random.fork(`host ${number}`), around),
  );
  const network = new Network({
    agenda,
    random: random.fork("network"),
    counts,
    mix,
    endpoints: hosts,
    trace: tracer.message,
  });
  const clients = new Clients({
    agenda,
    random: random.fork("clients"),
    mix,
    hosts,
    ledger,
    counts,
  });
  const nemesis = new Nemesis({
    agenda,
    random: random.fork("nemesis"),
    mix,
    hosts,
    network,
    ledger,
    counts,
    note: tracer.note,
  });
  const over = (): boolean => ledger.violation !== null;
  tracer.note(`mix: ${JSON.stringify({ ...mix, weights: [...mix.weights] })}`);

  ledger.begin(first.index, first.term, 0);
  let founded = false;
  Promise.all(hosts.slice(0, mix.voters).map((host) => host.found(first))).then(
    () => {
      founded = true;
    },
    (error: unknown) => ledger.violate(`founding: ${String(error)}`),
  );
  agenda.stir();
  await agenda.run(60_000, () => founded || over());
  for (const host of hosts) host.start();
  clients.start();
  nemesis.start();
  doubtLeaders({ agenda, hosts, clients });
  makeNoise();
  await agenda.run(agenda.now + mix.safetyMs, over);
  nemesis.stop();
  const healedMs = over()
    ? 0
    : await heal({ ...around, network, hosts, clients, random: random.fork("heal") });
  if (!over()) judgeHistory();

  function makeNoise(): void {
    if (mix.noisePerMille === 0) return;
    const noise = random.fork("noise");
    const again = (): void => {
      if (clients.stopped) return;
      if (noise.chance(mix.noisePerMille)) clients.noise(nemesis.leader() ?? noise.pick(hosts));
      agenda.after(10, again);
    };
    again();
  }

  function judgeHistory(): void {
    const { verdict, stuck } = judge(clients.history, kv, HISTORY_WORK);
    counts[verdict === "unknown" ? "histories too dear to judge" : "histories judged"] += 1;
    if (verdict === "not-linearizable")
      ledger.violate(`what clients saw is not linearizable: ${JSON.stringify(stuck)}`);
  }

  tracer.note(`commit ${ledger.commit}, ${nodeTicks} ticks, ${clients.history.length} operations`);
  return {
    seed,
    violation: ledger.violation,
    traceHash: tracer.hash(),
    nodeTicks,
    events: agenda.events,
    simulatedMs: agenda.now,
    healedMs,
    counts,
  };
}

interface Tracer {
  readonly note: (text: string) => void;
  readonly message: (code: number, from: number, to: number, message: Message) => void;
  hash(): string;
}

/** Everything that happens goes into one hash; it is put into words only when somebody listens. */
function createTracer(now: () => number, trace: Trace | null): Tracer {
  let hash = 0x811c9dc5;
  const add = (value: number): void => {
    hash = Math.imul(hash ^ value, 0x01000193);
    hash ^= hash >>> 15;
  };
  return {
    note(text) {
      add(now());
      for (let at = 0; at < text.length; at += 1) add(text.charCodeAt(at));
      trace?.(now(), text);
    },
    message(code, from, to, message) {
      add(now() * 64 + code);
      add(from * 64 + to);
      add(message.kind.length * 65536 + message.term);
      trace?.(now(), `${message.from} to ${message.to}: ${textOf(message)}`);
    },
    hash: () => (hash >>> 0).toString(16).padStart(8, "0"),
  };
}

function textOf(message: Message): string {
  const { from: _, to: __, kind, ...rest } = message;
  return `${kind} ${JSON.stringify(rest, (key, value) => {
    if (key === "data") return undefined;
    if (key === "entries") {
      const entries = value as readonly { index?: number; term?: number }[];
      return entries.map(({ index, term }) => `${index}@${term}`).join(" ");
    }
    return value;
  })}`;
}
