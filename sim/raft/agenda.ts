/** Simulated time in whole milliseconds: a ring of what is due, one list a millisecond; no promise and no heap an event. */
import { assert } from "../../src/lib/assert.ts";

/** Milliseconds that the ring reaches ahead; a power of two. What is due later waits in a map. */
const RING_MS = 2048;

/** Work that is due at an instant; it sees to it itself that its process still lives. */
export type Work = () => void;

export interface Agenda {
  /** Since the beginning, in ms. */
  readonly now: number;
  /** Events that ran. */
  readonly events: number;
  /** Runs `work` in `delayMs` (0: still in this millisecond, behind what is due already). */
  after(delayMs: number, work: Work): void;
  /** Runs `work` when everything that is due in this millisecond has run: the end of a turn of an event loop. */
  endOfTurn(work: Work): void;
  /** A promise was settled, or may have been: what hangs on it goes on before the next turn ends. */
  stir(): void;
  /** Lets everything that hangs on promises go on now. */
  settle(): Promise<void>;
  /** Lets time go by until `until`, or until `over()` says so. */
  run(until: number, over: () => boolean): Promise<void>;
}

/** An agenda that begins at 0. */
export function createAgenda(): Agenda {
  const ring: Work[][] = Array.from({ length: RING_MS }, () => []);
  const later = new Map<number, Work[]>();
  let turnEnds: Work[] = [];
  let spare: Work[] = [];
  let now = 0;
  let events = 0;
  let stirred = false;

  function listOf(at: number): Work[] {
    return ring[at & (RING_MS - 1)] as Work[];
  }

  function settle(): Promise<void> {
    stirred = false;
    return new Promise((resolve) => setImmediate(resolve));
  }

  /** Everything of this millisecond. Returns true when it is over. */
  async function runNow(over: () => boolean): Promise<boolean> {
    const list = listOf(now);
    let next = 0;
    for (;;) {
      while (next < list.length) {
        const work = list[next] as Work;
        next += 1;
        work();
        if (over()) return true;
      }
      if (stirred) {
        await settle();
        if (over()) return true;
        continue;
      }
      if (turnEnds.length === 0) break;
      const ends = turnEnds;
      turnEnds = spare;
      for (const work of ends) {
        work();
        if (over()) return true;
      }
      events += ends.length;
      ends.length = 0;
      spare = ends;
    }
    events += next;
    list.length = 0;
    return false;
  }

  return {
    get now() {
      return now;
    },
    get events() {
      return events;
    },
    after(delayMs, work) {
      assert(delayMs >= 0, "nothing is due in the past");
      const at = now + Math.ceil(delayMs);
      if (at - now < RING_MS) listOf(at).push(work);
      else {
        const list = later.get(at);
        if (list === undefined) later.set(at, [work]);
        else list.push(work);
      }
    },
    endOfTurn(work) {
      turnEnds.push(work);
    },
    stir() {
      stirred = true;
    },
    settle,
    async run(until, over) {
      while (!over()) {
        if (listOf(now).length > 0 || turnEnds.length > 0 || stirred) {
          if (await runNow(over)) return;
        }
        if (now >= until) return;
        now += 1;
        if (later.size > 0) {
          const due = later.get(now);
          if (due !== undefined) {
            later.delete(now);
            // What was planned long ago comes before what was planned since.
            listOf(now).unshift(...due);
          }
        }
      }
    },
  };
}
