/** A 64-bit hash of plain rows that does not depend on the order of their keys or of the rows. */
import type { Stored } from "../model/stored.ts";

/** Sums the hashes of rows; 64 bits in two lanes, because numbers hold 53 exactly. */
export class RowDigest {
  #high = 0;
  #low = 0;

  /** Adds one row of `table`. */
  add(table: string, row: Stored): void {
    const { high, low } = hashOf(table, row);
    const sum = this.#low + low;
    this.#low = sum >>> 0;
    this.#high = (this.#high + high + (sum > 0xffff_ffff ? 1 : 0)) >>> 0;
  }

  /** 16 hex digits. */
  text(): string {
    return this.#high.toString(16).padStart(8, "0") + this.#low.toString(16).padStart(8, "0");
  }
}

interface RowHash {
  readonly high: number;
  readonly low: number;
}
/** Rows never change, so each is hashed once however often the digest is asked for. */
const known = new WeakMap<Stored, RowHash>();

function hashOf(table: string, row: Stored): RowHash {
  const found = known.get(row);
  if (found !== undefined) return found;
  const hash = hashText(`${table}:${canonical(row)}`);
  known.set(row, hash);
  return hash;
}

/** JSON with sorted keys; what is undefined is left out, as the wire does. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonical(member)}`).join(",")}}`;
}

/** Two 32-bit hashes of one text: FNV-1a, and a multiply-rotate one with other constants (MurmurHash3's). */
function hashText(text: string): RowHash {
  let low = 0x811c_9dc5;
  let high = 0x9747_b28c;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    low = Math.imul(low ^ (unit & 0xff), 0x0100_0193);
    low = Math.imul(low ^ (unit >>> 8), 0x0100_0193);
    high = Math.imul(high ^ Math.imul(unit, 0xcc9e_2d51), 0x1b87_3593);
    high = ((high << 13) | (high >>> 19)) >>> 0;
  }
  return { high: finish(high ^ text.length), low: finish(low) };
}

/** Spreads every bit over the word (MurmurHash3's finaliser), so that sums of hashes do not cancel. */
function finish(hash: number): number {
  let h = hash;
  h = Math.imul(h ^ (h >>> 16), 0x85eb_ca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2_ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
