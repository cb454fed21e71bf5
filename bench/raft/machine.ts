/** The state machine of the bench: a map from keys to values, and the bytes of its entries and snapshots. */

/** At the head of an entry: the tag of the process that proposed it, and its number there. */
export const reservedBytes = 8;

/** Entries are tag, number, key length (one byte), key, value. */
export class KeyValueMachine {
  readonly #values: Map<string, Buffer> = new Map();

  /** Writes what the entry says; its number if it carries `ownTag`, else null. */
  apply(data: Uint8Array, ownTag: number): number | null {
    const entry = asBuffer(data);
    const keyBytes = entry.readUInt8(reservedBytes);
    const key = entry.toString("latin1", reservedBytes + 1, reservedBytes + 1 + keyBytes);
    const from = reservedBytes + 1 + keyBytes;
    const old = this.#values.get(key);
    // In place where it fits: the entry's own buffer is much more than the value, and would be held by it.
    if (old !== undefined && old.length === entry.length - from) entry.copy(old, 0, from);
    else {
      const value = Buffer.allocUnsafeSlow(entry.length - from);
      entry.copy(value, 0, from);
      this.#values.set(key, value);
    }
    return entry.readUInt32BE(0) === ownTag ? entry.readUInt32BE(4) : null;
  }

  get(key: string): Buffer | null {
    return this.#values.get(key) ?? null;
  }

  save(): Uint8Array {
    let bytes = 0;
    for (const [key, value] of this.#values) bytes += 5 + key.length + value.length;
    const out = Buffer.allocUnsafeSlow(bytes);
    let at = 0;
    for (const [key, value] of this.#values) {
      at = out.writeUInt8(key.length, at);
      at += out.write(key, at, "latin1");
      at = out.writeUInt32BE(value.length, at);
      at += value.copy(out, at);
    }
    return out;
  }

  load(snapshot: Uint8Array): void {
    this.#values.clear();
    const from = asBuffer(snapshot);
    for (let at = 0; at < from.length; ) {
      const keyBytes = from.readUInt8(at);
      const key = from.toString("latin1", at + 1, at + 1 + keyBytes);
      at += 1 + keyBytes;
      const end = at + 4 + from.readUInt32BE(at);
      const value = Buffer.allocUnsafeSlow(end - at - 4);
      from.copy(value, 0, at + 4, end);
      this.#values.set(key, value);
      at = end;
    }
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
