/** Who led in which term, from what the daemons write in their logs: for the nemesis, for counts, and to catch two leaders in one term. */
import type { FaultyManager } from "./manager.ts";

/** How often the logs are looked at, in milliseconds. */
const lookMs = 100;

export class Leadership {
  readonly #managers: readonly FaultyManager[];
  readonly #violation: (text: string) => void;
  /** The managers that led in each term. */
  readonly #leaders: Map<number, Set<number>> = new Map();
  #leading: { readonly term: number; readonly index: number } | null = null;
  /** Membership changes that a leader has proposed, by kind. */
  readonly #proposed: Map<string, number> = new Map();
  #timer: NodeJS.Timeout | null = null;
  #looking: Promise<void> = Promise.resolve();

  constructor(managers: readonly FaultyManager[], violation: (text: string) => void) {
    this.#managers = managers;
    this.#violation = violation;
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#looking = this.#looking.then(() => this.#look());
    }, lookMs);
  }

  /** Looks once more and stops. */
  async stop(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    await this.#looking;
    await this.#look();
  }

  /** The manager that leads as far as its log says. */
  current(): FaultyManager | null {
    const leader = this.#leading === null ? undefined : this.#managers[this.#leading.index];
    return leader?.runs === true ? leader : null;
  }

  /** Terms that had a leader. */
  get terms(): number {
    return this.#leaders.size;
  }

  proposed(kind: string): number {
    return this.#proposed.get(kind) ?? 0;
  }

  async #look(): Promise<void> {
    for (const manager of this.#managers) {
      for (const line of await manager.newLines()) this.#take(manager, line);
    }
  }

  #take(manager: FaultyManager, line: string): void {
    if (line.includes('"raft membership change proposed"')) {
      for (const [, kind = ""] of line.matchAll(/"kind":"([a-z-]+)"/g))
        this.#proposed.set(kind, this.proposed(kind) + 1);
    }
    if (!line.includes('"leadership changed"')) return;
    const { term, leading } = JSON.parse(line) as { term: number; leading: boolean };
    if (!leading) {
      if (this.#leading?.index === manager.index) this.#leading = null;
      return;
    }
    const leaders = this.#leaders.get(term) ?? new Set();
    leaders.add(manager.index);
    this.#leaders.set(term, leaders);
    if (leaders.size > 1)
      this.#violation(`managers ${[...leaders].map((index) => index + 1)} all led in term ${term}`);
    if (this.#leading === null || this.#leading.term <= term)
      this.#leading = { term, index: manager.index };
  }
}
