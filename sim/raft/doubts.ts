/**
 * Reads where a stale answer is likeliest: at whoever still believes to lead when a later leader has had a write
 * acknowledged, and at each new leader at once. Clients who ask anybody now and then seldom meet these moments.
 */
import type { Agenda } from "./agenda.ts";
import type { Clients } from "./clients.ts";
import { TICK_MS } from "./fault-mix.ts";
import type { Host } from "./host.ts";

export interface DoubtParts {
  readonly agenda: Agenda;
  readonly hosts: readonly Host[];
  readonly clients: Clients;
}

/** Looks for such moments each tick, until the clients stop. */
export function doubtLeaders({ agenda, hosts, clients }: DoubtParts): void {
  let newestTerm = 0;
  const look = (): void => {
    if (clients.stopped) return;
    const leaders = hosts.filter(leads).sort((a, b) => termOf(b) - termOf(a));
    const [newest, ...older] = leaders;
    if (newest !== undefined && termOf(newest) > newestTerm) {
      newestTerm = termOf(newest);
      clients.doubt(newest);
    }
    if (newest !== undefined) for (const host of older) clients.overtake(newest, host);
    agenda.after(TICK_MS, look);
  };
  look();
}

function leads({ running, life }: Host): boolean {
  return running?.watch.role === "leader" && life?.stopped !== true;
}

function termOf({ running }: Host): number {
  return running?.watch.term ?? 0;
}
