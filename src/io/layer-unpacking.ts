/** The layers of images unpacked each once, as many at once as there are cores. */
import { availableParallelism } from "node:os";
import type { Digest } from "../image/content-store.ts";
import { failure } from "../lib/errors.ts";
import type { ArchivedCandidate } from "./image-archive.ts";

/** Sizes of the layers of all candidates. After a failure no further one is begun, and none is left under way when it is thrown. */
export async function unpackLayers(
  candidates: readonly ArchivedCandidate[],
  unpack: (archive: string, diffId: Digest) => Promise<number>,
): Promise<ReadonlyMap<Digest, number>> {
  const archives = new Map<Digest, string>();
  for (const { config, layerArchives } of candidates) {
    for (const [at, diffId] of config.diffIds.entries()) {
      const archive = layerArchives[at];
      if (archive === undefined) throw failure("invalid", `layer ${diffId} is missing`);
      archives.set(diffId, archive);
    }
  }
  const sizes = new Map<Digest, number>();
  const waiting = archives.entries();
  const errors: unknown[] = [];
  const work = async () => {
    for (const [diffId, archive] of waiting) {
      if (errors.length > 0) return;
      try {
        sizes.set(diffId, await unpack(archive, diffId));
      } catch (error) {
        errors.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  if (errors.length > 0) throw errors[0];
  return sizes;
}
