/** One life of a process: what it waits for dies with it, and while it is stopped what happens to it waits for it. */

export class Life {
  alive = true;
  #stopped = false;
  #waiting: (() => void)[] = [];

  /** Held up, as by SIGSTOP. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Something happens to this process: now, when it goes on, or never. */
  hear(what: () => void): void {
    if (!this.alive) return;
    if (this.#stopped) this.#waiting.push(what);
    else what();
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Goes on: all that came meanwhile happens now, in order. */
  goOn(): void {
    this.#stopped = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const what of waiting) this.hear(what);
  }

  end(): void {
    this.alive = false;
    this.#waiting = [];
  }
}
