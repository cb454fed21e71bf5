/** CRC-32C (Castagnoli), the checksum of our files: polynomial 0x1edc6f41 reflected, as in iSCSI (RFC 3720 B.4). */

/** Eight tables of 256: byte k of a word is looked up in table 7-k, so eight bytes cost eight independent loads. */
const tables: readonly Uint32Array[] = makeTables();

/** Checksum of `bytes`; to go on over more bytes, hand the result in as `seed`. */
export function crc32c(bytes: Uint8Array, seed = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ];
  // Every index below is within its table or its bytes; `| 0` turns the type's undefined away at no cost.
  const at = (table: Uint32Array, index: number): number => (table[index] as number) | 0;
  let crc = ~seed;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    crc ^= byteAt(bytes, i) | (byteAt(bytes, i + 1) << 8);
    crc ^= (byteAt(bytes, i + 2) << 16) | (byteAt(bytes, i + 3) << 24);
    crc =
      at(t7, crc & 255) ^
      at(t6, (crc >>> 8) & 255) ^
      at(t5, (crc >>> 16) & 255) ^
      at(t4, crc >>> 24) ^
      at(t3, byteAt(bytes, i + 4)) ^
      at(t2, byteAt(bytes, i + 5)) ^
      at(t1, byteAt(bytes, i + 6)) ^
      at(t0, byteAt(bytes, i + 7));
  }
  for (; i < bytes.length; i += 1) crc = at(t0, (crc ^ byteAt(bytes, i)) & 255) ^ (crc >>> 8);
  return ~crc >>> 0;
}

function byteAt(bytes: Uint8Array, index: number): number {
  return bytes[index] as number;
}

function makeTables(): Uint32Array[] {
  const first = new Uint32Array(256);
  for (let n = 0; n < 256; n += 1) {
    let crc = n;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    first[n] = crc >>> 0;
  }
  const all = [first];
  for (let k = 1; k < 8; k += 1) {
    const before = all[k - 1] as Uint32Array;
    all.push(before.map((crc) => (first[crc & 255] as number) ^ (crc >>> 8)));
  }
  return all;
}
