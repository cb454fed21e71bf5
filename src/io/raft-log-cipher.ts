/** Encryption at rest as the Raft log sees it: keys that seal and open, one in use, one on its way out. A contract. */

/** One data key. */
export interface LogKey {
  /** 16 hexadecimal digits; written in the clear beside what is sealed. Never all zeros, which says "not sealed". */
  readonly id: string;
  /** Bytes that sealing adds. */
  readonly sealBytes: number;
  /**
   * Seals `plain` into `into` (plain.length + sealBytes, may hold anything before). `bound` is vouched for and not
   * hidden. Never uses a nonce twice under one key.
   */
  seal(plain: Uint8Array, bound: Uint8Array, into: Uint8Array): void;
  /** Null when this key did not seal these bytes with this `bound`. */
  open(sealed: Uint8Array, bound: Uint8Array): Uint8Array | null;
}

/** The keys of one node. */
export interface LogCipher {
  /** For messages: the file that holds the keys. */
  readonly source: string;
  /** Ids of the keys in that file. */
  readonly held: readonly string[];
  /** Seals everything from now on. */
  readonly current: LogKey;
  /** Opens what was sealed before the last rotate(); null when there is no such thing any more. */
  readonly previous: LogKey | null;
  /** Makes the current key durable, if it is new. Asked before anything is sealed, and after what is sealed was read. */
  ensure(): Promise<void>;
  /** Makes a new current key; the current one becomes the previous one. Durable when it resolves. Asked only while there is no previous one. */
  rotate(): Promise<void>;
  /** Forgets the previous key, durably: nothing is sealed with it any more. */
  retire(): Promise<void>;
}

/** The key of that id among those of `cipher`: null for what is not sealed, undefined when it is not there. */
export function keyOf(cipher: LogCipher | null, id: string | null): LogKey | null | undefined {
  if (id === null) return null;
  if (cipher?.current.id === id) return cipher.current;
  return cipher?.previous?.id === id ? cipher.previous : undefined;
}
