/** AES-256-GCM for the Raft log, with the data keys of the node key file. */
import { createCipheriv, createDecipheriv, createSecretKey, randomBytes } from "node:crypto";
import { assert, present } from "../lib/assert.ts";
import { DATA_KEY_BYTES, type DataKeys, dataKeyId, type NodeKeyFile } from "./node-key-file.ts";
import type { LogCipher, LogKey } from "./raft-log-cipher.ts";

const ALGORITHM = "aes-256-gcm";
const NONCE_BYTES = 12;
const SALT_BYTES = 8;
const TAG_BYTES = 16;

/**
 * The data keys in `file`; a first one is made when there is none, and is durable once ensure() resolved.
 * Throws ShoalError("internal") naming the file when what it holds is damaged.
 */
export async function openDataKeyCipher(file: NodeKeyFile): Promise<LogCipher> {
  return new DataKeyCipher(file, await file.dataKeys());
}

/**
 * A key that seals with a nonce that is never used twice: a salt drawn at random for each life of the process, and a
 * count of what was sealed in it. `salt` draws one.
 */
export function logKey(secret: Uint8Array, salt: () => Uint8Array = drawSalt): LogKey {
  const key = createSecretKey(secret);
  const nonce = Buffer.alloc(NONCE_BYTES);
  /** 2^32: the salt is used up, or not drawn yet. */
  let count = 2 ** 32;
  const nextNonce = (): Uint8Array => {
    if (count === 2 ** 32) {
      nonce.set(salt());
      count = 0;
    }
    nonce.writeUInt32LE(count, SALT_BYTES);
    count += 1;
    return nonce;
  };
  return {
    id: dataKeyId(secret),
    sealBytes: NONCE_BYTES + TAG_BYTES,
    seal(plain, bound, into) {
      assert(into.length === plain.length + NONCE_BYTES + TAG_BYTES, "what is sealed fits");
      into.set(nextNonce());
      const cipher = createCipheriv(ALGORITHM, key, nonce);
      cipher.setAAD(bound);
      into.set(cipher.update(plain), NONCE_BYTES);
      cipher.final();
      into.set(cipher.getAuthTag(), NONCE_BYTES + plain.length);
    },
    open(sealed, bound) {
      if (sealed.length < NONCE_BYTES + TAG_BYTES) return null;
      const end = sealed.length - TAG_BYTES;
      const cipher = createDecipheriv(ALGORITHM, key, sealed.subarray(0, NONCE_BYTES));
      cipher.setAAD(bound);
      cipher.setAuthTag(sealed.subarray(end));
      const plain = cipher.update(sealed.subarray(NONCE_BYTES, end));
      try {
        cipher.final();
      } catch {
        // The one thing that final() throws for: the tag is not that of these bytes under this key.
        return null;
      }
      // Not a Buffer: what is read is compared and kept like what was written.
      return new Uint8Array(plain.buffer, plain.byteOffset, plain.byteLength);
    },
  };
}

class DataKeyCipher implements LogCipher {
  readonly #file: NodeKeyFile;
  #keys: DataKeys;
  #saved: boolean;
  #current: LogKey;
  #previous: LogKey | null;

  constructor(file: NodeKeyFile, saved: DataKeys | null) {
    this.#file = file;
    this.#saved = saved !== null;
    this.#keys = saved ?? { current: drawKey(), previous: null };
    this.#current = logKey(this.#keys.current);
    this.#previous = this.#keys.previous === null ? null : logKey(this.#keys.previous);
  }

  get source(): string {
    return this.#file.path;
  }
  get held(): readonly string[] {
    if (!this.#saved) return [];
    return [this.#current.id, ...(this.#previous === null ? [] : [this.#previous.id])];
  }
  get current(): LogKey {
    return this.#current;
  }
  get previous(): LogKey | null {
    return this.#previous;
  }

  async ensure(): Promise<void> {
    if (this.#saved) return;
    await this.#file.saveDataKeys(this.#keys);
    this.#saved = true;
  }

  async rotate(): Promise<void> {
    assert(this.#previous === null, "one rotation ends before the next begins");
    const keys: DataKeys = { current: drawKey(), previous: this.#keys.current };
    await this.#file.saveDataKeys(keys);
    this.#keys = keys;
    this.#previous = this.#current;
    this.#current = logKey(keys.current);
  }

  async retire(): Promise<void> {
    present(this.#previous, "a key to forget");
    const keys: DataKeys = { current: this.#keys.current, previous: null };
    await this.#file.saveDataKeys(keys);
    this.#keys = keys;
    this.#previous = null;
  }
}

function drawKey(): Uint8Array {
  return new Uint8Array(randomBytes(DATA_KEY_BYTES));
}

function drawSalt(): Uint8Array {
  return randomBytes(SALT_BYTES);
}
