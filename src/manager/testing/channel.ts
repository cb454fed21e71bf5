/** The two ends of a channel for tests: messages arrive at once and in order. */
import type { Channel } from "../../wire/channel.ts";

export interface TestChannelPair<Out, In> {
  /** The end under test. */
  readonly near: Channel<Out, In>;
  /** What the end under test sent. */
  readonly sent: Out[];
  /** Says something to the end under test. */
  say(message: In): void;
  /** The other end closes, or its connection breaks. */
  hangUp(): void;
  /** Why it was closed; null while it is open. */
  closed(): string | null;
}

export function createTestChannel<Out, In>(): TestChannelPair<Out, In> {
  const sent: Out[] = [];
  const early: In[] = [];
  let receive: ((message: In) => void) | null = null;
  const observers: ((reason: string) => void)[] = [];
  let reason: string | null = null;
  const close = (why: string): void => {
    if (reason !== null) return;
    reason = why;
    for (const observer of observers.splice(0)) observer(why);
  };
  return {
    sent,
    near: {
      send(message) {
        if (reason === null) sent.push(message);
      },
      onMessage(receiver) {
        receive = receiver;
        for (const message of early.splice(0)) receiver(message);
      },
      onClose(observer) {
        if (reason === null) observers.push(observer);
        else observer(reason);
      },
      close,
    },
    say(message) {
      if (reason !== null) return;
      if (receive === null) early.push(message);
      else receive(message);
    },
    hangUp: () => close("the peer hung up"),
    closed: () => reason,
  };
}
