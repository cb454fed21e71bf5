/** Blobs on disk under their digest: ROOT/sha256/HEX, written atomically, checked when read. */
import { createHash } from "node:crypto";
import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ContentStore } from "../image/content-store.ts";
import { hexOf } from "../image/content-store.ts";
import { failure } from "../lib/errors.ts";
import { removeDurably, writeFileAtomic } from "./files.ts";

/** A content store in the directory `root`. */
export function createContentStore(root: string): ContentStore {
  const pathOf = (digest: string) => join(root, "sha256", hexOf(digest));
  return {
    async put(bytes) {
      const digest = digestOf(bytes);
      const path = pathOf(digest);
      const known = await access(path).then(
        () => true,
        () => false,
      );
      if (!known) await writeFileAtomic(path, bytes);
      return digest;
    },
    async get(digest) {
      const path = pathOf(digest);
      let bytes: Uint8Array;
      try {
        bytes = await readFile(path);
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code === "ENOENT" ? "not-found" : "internal";
        throw failure(code, `reading content ${digest} from ${path}: ${String(error)}`, error);
      }
      if (digestOf(bytes) !== digest) {
        throw failure(
          "internal",
          `reading content from ${path}: it is damaged (its SHA-256 is ${digestOf(bytes)}); remove the image and load it again`,
        );
      }
      return bytes;
    },
    async remove(digest) {
      await removeDurably(pathOf(digest));
    },
  };
}

/** The sha256 digest of bytes. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
