/** The agent's line to whichever manager leads: dialled until one says welcome, lost and dialled again for ever. */
import { after, type Clock } from "../lib/clock.ts";
import { messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { Channel } from "../wire/channel.ts";
import type { ToAgent, ToManager } from "../wire/session.ts";
import {
  dialStaggerMs,
  reconnectMsMax,
  reconnectMsMin,
  redirectsMax,
  welcomeTimeoutMs,
} from "./limits.ts";

export type AgentChannel = Channel<ToManager, ToAgent>;
export type GoodbyeReason = Extract<ToAgent, { readonly kind: "goodbye" }>["reason"];

export interface SessionOptions {
  readonly connect: (address: string) => Promise<AgentChannel>;
  /** `host:port` of every manager that is known now. */
  readonly managers: () => readonly string[];
  readonly hello: () => ToManager;
  /** After the welcome, every other message. */
  readonly receive: (message: ToAgent) => void;
  readonly onState: (connected: boolean) => void;
  readonly onGoodbye: (reason: GoodbyeReason) => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export class Session {
  readonly #options: SessionOptions;
  #channel: AgentChannel | null = null;
  #welcomed = false;
  #stopped = false;
  #preferred: string | null = null;
  #redirects = 0;
  #waitMs = 0;
  #heartbeat = 0;
  #answered = 0;
  #cancelTimer: () => void = () => {};

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  get connected(): boolean {
    return this.#welcomed;
  }

  start(): void {
    this.#dial();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelTimer();
    const channel = this.#channel;
    this.#channel = null;
    this.#welcomed = false;
    channel?.close("the agent stops");
  }

  /** Dropped while there is no session: the next hello carries all that matters. */
  send(message: ToManager): void {
    if (this.#welcomed) this.#channel?.send(message);
  }

  /** Says hello anew: something that cannot be mended within this session. */
  restart(reason: string): void {
    this.#channel?.close(reason);
  }

  #dial(): void {
    const addresses = this.#candidates();
    this.#preferred = null;
    this.#race(addresses).then(
      (channel) => {
        if (this.#stopped) channel.close("the agent stops");
        else this.#opened(channel);
      },
      (error: unknown) => {
        this.#options.log.debug({ error: messageOf(error) }, "no manager answers");
        this.#again();
      },
    );
  }

  /** The one we were sent to first, then the others in chance order, so that agents spread over managers. */
  #candidates(): readonly string[] {
    const { managers, random } = this.#options;
    const preferred = this.#preferred;
    const others = managers().filter((address) => address !== preferred);
    const mixed: string[] = [];
    while (others.length > 0) {
      mixed.push(...others.splice(random.below(others.length), 1));
    }
    return preferred === null ? mixed : [preferred, ...mixed];
  }

  /** The first channel that opens; each further address is dialled when those before are slow or failed. */
  #race(addresses: readonly string[]): Promise<AgentChannel> {
    const { clock, connect } = this.#options;
    return new Promise((resolve, reject) => {
      let at = 0;
      let open = 0;
      let settled = false;
      let cancel: () => void = () => {};
      let lastError: unknown = new Error("no manager is known");
      const next = () => {
        cancel();
        if (settled) return;
        const address = addresses[at++];
        if (address === undefined) {
          if (open > 0) return;
          settled = true;
          return reject(lastError);
        }
        open++;
        cancel = clock.wakeAt(after(clock.now(), dialStaggerMs), next);
        connect(address).then(
          (channel) => {
            if (settled) return channel.close("another manager was quicker");
            settled = true;
            cancel();
            resolve(channel);
          },
          (error: unknown) => {
            open--;
            lastError = error;
            next();
          },
        );
      };
      next();
    });
  }

  #opened(channel: AgentChannel): void {
    const { clock, hello, log } = this.#options;
    this.#channel = channel;
    this.#welcomed = false;
    this.#cancelTimer = clock.wakeAt(after(clock.now(), welcomeTimeoutMs), () =>
      channel.close(`no welcome in ${welcomeTimeoutMs} ms`),
    );
    channel.onClose((reason) => {
      if (this.#channel !== channel) return;
      log.info({ reason }, "session ended");
      this.#channel = null;
      this.#cancelTimer();
      this.#lost();
      this.#again();
    });
    channel.onMessage((message) => {
      if (this.#channel === channel) this.#take(channel, message);
    });
    channel.send(hello());
  }

  #take(channel: AgentChannel, message: ToAgent): void {
    switch (message.kind) {
      case "welcome":
        this.#welcomed = true;
        this.#waitMs = 0;
        this.#redirects = 0;
        this.#heartbeat = 0;
        this.#answered = 0;
        this.#cancelTimer();
        this.#beat(channel, message.heartbeatMs);
        this.#options.onState(true);
        return;
      case "heartbeat-reply":
        this.#answered = Math.max(this.#answered, message.sequence);
        return;
      case "goodbye":
        this.#preferred = message.leader;
        if (message.leader !== null && ++this.#redirects <= redirectsMax) this.#waitMs = 0;
        this.#options.onGoodbye(message.reason);
        channel.close(`the manager said goodbye: ${message.reason}`);
        return;
      default:
        this.#options.receive(message);
        return;
    }
  }

  /** A heartbeat each period; one that has no answer when the next is due ends the session. */
  #beat(channel: AgentChannel, periodMs: number): void {
    if (this.#channel !== channel) return;
    if (this.#answered < this.#heartbeat) {
      channel.close(`heartbeat ${this.#heartbeat} was not answered in ${periodMs} ms`);
      return;
    }
    channel.send({ kind: "heartbeat", sequence: ++this.#heartbeat });
    const { clock } = this.#options;
    this.#cancelTimer = clock.wakeAt(after(clock.now(), periodMs), () =>
      this.#beat(channel, periodMs),
    );
  }

  #lost(): void {
    if (!this.#welcomed) return;
    this.#welcomed = false;
    this.#options.onState(false);
  }

  /** The first time at once, then after a growing wait, half of it by chance. */
  #again(): void {
    if (this.#stopped) return;
    const { clock, random } = this.#options;
    const waitMs = this.#waitMs === 0 ? 0 : this.#waitMs / 2 + random.below(this.#waitMs / 2);
    this.#waitMs = Math.min(Math.max(this.#waitMs * 2, reconnectMsMin), reconnectMsMax);
    this.#cancelTimer = clock.wakeAt(after(clock.now(), waitMs), () => this.#dial());
  }
}
