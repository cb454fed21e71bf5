/** Blobs by their digest: what a store of them promises. io/content.ts keeps them on disk. */

/** `sha256:` and 64 hex digits. */
export type Digest = string;

const digestPattern = /^sha256:[0-9a-f]{64}$/;

export interface ContentStore {
  /** Keeps bytes under their own digest, durably; the same bytes twice are one blob. */
  put(bytes: Uint8Array): Promise<Digest>;
  /** The bytes, checked against the digest. Throws not-found, or internal naming the file when they do not match. */
  get(digest: Digest): Promise<Uint8Array>;
  /** Forgets a blob; nothing there is fine. */
  remove(digest: Digest): Promise<void>;
}

/** True for a digest of the only algorithm that we take, sha256. */
export function isDigest(text: string): boolean {
  return digestPattern.test(text);
}

/** The hex digits behind `sha256:`. */
export function hexOf(digest: Digest): string {
  return digest.slice(digest.indexOf(":") + 1);
}
