/** A connection that carries messages of one kind each way; io/ makes real ones, sim/ simulated ones. */
export interface Channel<Out, In> {
  /** Queues a message; a channel that is closed, or whose peer does not read, drops it and closes. */
  send(message: Out): void;
  /** One receiver; messages that came before it was set are kept and given in order. */
  onMessage(receive: (message: In) => void): void;
  /** Called once, also when it is closed already. */
  onClose(closed: (reason: string) => void): void;
  close(reason: string): void;
}
