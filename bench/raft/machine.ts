/** The state machine of the bench: a map from keys to values, and the bytes of its entries and snapshots. */

/** At the head of an entry: the tag of the process that proposed it, and its number there. */
export const reservedBytes = 8;
/** Key length (one byte) and value length (four) of a row. */
const rowHeadBytes = 1 + 4;

/** Entries are tag, number, key length (one byte), key, value. */
export class KeyValueMachine {
  /** Rows as they stand in a snapshot, so that one is made by copying: key length, key, value length, value. */
  readonly #rows: Map<string, Buffer> = new Map();

  /** Writes what the entry says; its number if it carries `ownTag`, else null. */
  apply(data: Uint8Array, ownTag: number): number | null {
    const entry = asBuffer(data);
    const keyBytes = entry.readUInt8(reservedBytes);
    const key = entry.toString("latin1", reservedBytes + 1, reservedBytes + 1 + keyBytes);
    const from = reservedBytes + 1 + keyBytes;
    const rowBytes = rowHeadBytes + keyBytes + entry.length - from;
    let row = this.#rows.get(key);
    // In place where it fits: the entry's own buffer is much more than the value, and would be held by it.
    if (row === undefined || row.length !== rowBytes) {
      row = Buffer.allocUnsafeSlow(rowBytes);
      entry.copy(row, 0, reservedBytes, from);
      row.writeUInt32BE(entry.length - from, 1 + keyBytes);
      this.#rows.set(key, row);
    }
    entry.copy(row, rowHeadBytes + keyBytes, from);
    return entry.readUInt32BE(0) === ownTag ? entry.readUInt32BE(4) : null;
  }

  get(key: string): Buffer | null {
    return this.#rows.get(key)?.subarray(rowHeadBytes + key.length) ?? null;
  }

  save(): Uint8Array {
    let bytes = 0;
    for (const row of this.#rows.values()) bytes += row.length;
    const out = new Uint8Array(bytes);
    let at = 0;
    for (const row of this.#rows.values()) {
      out.set(row, at);
      at += row.length;
    }
    return out;
  }

  load(snapshot: Uint8Array): void {
    this.#rows.clear();
    const from = asBuffer(snapshot);
    for (let at = 0; at < from.length; ) {
      const keyBytes = from.readUInt8(at);
      const end = at + rowHeadBytes + keyBytes + from.readUInt32BE(at + 1 + keyBytes);
      const row = Buffer.allocUnsafeSlow(end - at);
      from.copy(row, 0, at, end);
      this.#rows.set(row.toString("latin1", 1, 1 + keyBytes), row);
      at = end;
    }
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
