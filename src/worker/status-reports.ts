/** Statuses on their way to the managers: gathered for a moment, sent again until they are stored. */
import { after, type Clock } from "../lib/clock.ts";
import type { TaskStatus } from "../model/task.ts";
import type { StatusReport } from "../wire/session.ts";
import { statusBatchMs, statusesPerMessageMax, statusResendMs } from "./limits.ts";

interface Entry {
  status: TaskStatus;
  /** Sends that no `status-stored` answered yet. */
  inFlight: number;
  stored: boolean;
  /** What the last hello carried. */
  told: TaskStatus | null;
}

export class StatusReports {
  readonly #clock: Clock;
  readonly #send: (updates: readonly StatusReport[]) => void;
  readonly #entries = new Map<string, Entry>();
  readonly #due = new Set<string>();
  #cancelFlush: (() => void) | null = null;
  #cancelResend: (() => void) | null = null;

  constructor(clock: Clock, send: (updates: readonly StatusReport[]) => void) {
    this.#clock = clock;
    this.#send = send;
  }

  /** Every status that is held: what a hello carries. They count as sent. */
  all(): readonly StatusReport[] {
    this.#due.clear();
    for (const entry of this.#entries.values()) entry.told = entry.status;
    return [...this.#entries].map(([taskId, entry]) => ({ taskId, status: entry.status }));
  }

  get(taskId: string): TaskStatus | null {
    return this.#entries.get(taskId)?.status ?? null;
  }

  /** A status from before this process; it goes out with the hello. */
  restore(taskId: string, status: TaskStatus): void {
    this.#entries.set(taskId, { status, inFlight: 0, stored: false, told: null });
  }

  put(taskId: string, status: TaskStatus): void {
    const known = this.#entries.get(taskId);
    const { inFlight, told } = known ?? { inFlight: 0, told: null };
    this.#entries.set(taskId, { status, inFlight, stored: false, told });
    this.#due.add(taskId);
    this.#cancelFlush ??= this.#clock.wakeAt(after(this.#clock.now(), statusBatchMs), () => {
      this.#cancelFlush = null;
      this.#flush();
    });
  }

  /** A new session began: what was sent in an older one may be lost, and the hello has told all. */
  restarted(): void {
    for (const [taskId, entry] of this.#entries) {
      entry.inFlight = entry.stored ? 0 : 1;
      // Put between the hello and the welcome: what was sent then went nowhere.
      if (entry.told !== entry.status) this.#due.add(taskId);
    }
    if (this.#due.size > 0) this.#flush();
    else this.#resendLater();
  }

  /** The managers stored what they were sent of these tasks. An answer to an older send says nothing of a newer one. */
  stored(taskIds: readonly string[]): void {
    for (const taskId of taskIds) {
      const entry = this.#entries.get(taskId);
      if (entry === undefined || entry.inFlight === 0) continue;
      entry.inFlight--;
      if (entry.inFlight === 0 && !this.#due.has(taskId)) entry.stored = true;
    }
  }

  forget(taskId: string): void {
    this.#entries.delete(taskId);
    this.#due.delete(taskId);
  }

  stop(): void {
    this.#cancelFlush?.();
    this.#cancelResend?.();
  }

  #flush(): void {
    const updates: StatusReport[] = [];
    for (const taskId of this.#due) {
      const entry = this.#entries.get(taskId);
      if (entry === undefined) continue;
      entry.inFlight++;
      updates.push({ taskId, status: entry.status });
    }
    this.#due.clear();
    for (let at = 0; at < updates.length; at += statusesPerMessageMax) {
      this.#send(updates.slice(at, at + statusesPerMessageMax));
    }
    this.#resendLater();
  }

  /** One timer while anything is not stored: everything that still is not when it fires goes again. */
  #resendLater(): void {
    this.#cancelResend ??= this.#clock.wakeAt(after(this.#clock.now(), statusResendMs), () => {
      this.#cancelResend = null;
      for (const [taskId, entry] of this.#entries) {
        if (entry.stored) continue;
        entry.inFlight = 0;
        this.#due.add(taskId);
      }
      if (this.#due.size > 0) this.#flush();
    });
  }
}
