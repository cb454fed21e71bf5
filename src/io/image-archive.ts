/** The images of a spooled archive, docker-archive or OCI layout: every digest is verified before anything is kept. */
import { type ConfigFile, parseConfig } from "../image/config.ts";
import { type Digest, hexOf } from "../image/content-store.ts";
import {
  checkLayout,
  type Descriptor,
  isAttachment,
  isIndex,
  parseDockerManifest,
  parseIndex,
  parseOciManifest,
  referenceOf,
} from "../image/manifest.ts";
import { failure } from "../lib/errors.ts";
import type { SpooledArchive } from "./archive-spool.ts";

/** An image of an archive, its digests verified, before anything is kept. */
export interface ArchivedCandidate {
  readonly configBytes: Uint8Array;
  readonly config: ConfigFile;
  readonly layerArchives: readonly string[];
  readonly tags: readonly string[];
  readonly manifestDigest: Digest | null;
}

/** Deepest nesting of OCI indexes. */
const indexDepthMax = 3;

/** The images of `archive`; of an image for many platforms the one for `architecture` (Go's name). Throws ShoalError("invalid"). */
export async function readArchive(
  archive: SpooledArchive,
  architecture: string,
): Promise<readonly ArchivedCandidate[]> {
  // `docker save` writes both kinds into one archive; its own manifest knows every name.
  return archive.get("manifest.json") !== null
    ? await readDockerArchive(archive)
    : await readOciLayout(archive, architecture);
}

async function readDockerArchive(archive: SpooledArchive): Promise<readonly ArchivedCandidate[]> {
  const candidates: ArchivedCandidate[] = [];
  for (const item of parseDockerManifest(await archive.read("manifest.json"))) {
    const configBytes = await archive.read(item.config);
    const digest = archive.get(item.config)?.digest ?? "";
    const named = /(?:^|\/)([0-9a-f]{64})(?:\.json)?$/.exec(item.config)?.[1];
    if (named !== undefined && named !== hexOf(digest)) {
      throw mismatch(item.config, `sha256:${named}`, digest);
    }
    const config = parseConfig(configBytes, item.config);
    if (item.layers.length !== config.diffIds.length) {
      throw failure(
        "invalid",
        `invalid manifest, layers length mismatch: expected ${config.diffIds.length}, got ${item.layers.length}`,
      );
    }
    const layerArchives = item.layers.map((path) => {
      const file = archive.get(path);
      if (file === null) throw failure("invalid", `reading the archive: it has no layer ${path}`);
      const blob = /^blobs\/sha256\/([0-9a-f]{64})$/.exec(path)?.[1];
      if (blob !== undefined && blob !== hexOf(file.digest)) {
        throw mismatch(path, `sha256:${blob}`, file.digest);
      }
      return file.path;
    });
    candidates.push({ configBytes, config, layerArchives, tags: item.tags, manifestDigest: null });
  }
  return candidates;
}

async function readOciLayout(
  archive: SpooledArchive,
  architecture: string,
): Promise<readonly ArchivedCandidate[]> {
  if (archive.get("index.json") === null) {
    throw failure(
      "invalid",
      "reading the archive: it has neither manifest.json (docker save) nor index.json (OCI layout); a root file system is taken in by `docker import`",
    );
  }
  checkLayout(await archive.read("oci-layout"));
  const candidates: ArchivedCandidate[] = [];
  for (const entry of parseIndex(await archive.read("index.json"), "index.json")) {
    const manifest = await chooseManifest(archive, entry, architecture, 0);
    if (manifest === null) continue;
    const name = referenceOf(entry) ?? referenceOf(manifest);
    candidates.push(await readOciImage(archive, manifest, entry.digest, name));
  }
  if (candidates.length === 0) throw failure("invalid", "index.json: it names no image");
  return candidates;
}

/** The image manifest behind `entry`: itself, or of an index the one for this architecture, else the first. */
async function chooseManifest(
  archive: SpooledArchive,
  entry: Descriptor,
  architecture: string,
  depth: number,
): Promise<Descriptor | null> {
  if (isAttachment(entry)) return null;
  if (!isIndex(entry)) return entry;
  if (depth >= indexDepthMax) throw failure("invalid", `index ${entry.digest} is nested too deep`);
  const inner = parseIndex(await readBlob(archive, entry), `index ${entry.digest}`).filter(
    // An index of many platforms may come with the blobs of one.
    (item) => !isAttachment(item) && archive.get(blobPath(item.digest)) !== null,
  );
  const chosen = inner.find((item) => item.platform?.architecture === architecture) ?? inner[0];
  return chosen === undefined
    ? null
    : await chooseManifest(archive, chosen, architecture, depth + 1);
}

async function readOciImage(
  archive: SpooledArchive,
  entry: Descriptor,
  manifestDigest: Digest,
  name: string | null,
): Promise<ArchivedCandidate> {
  const what = `manifest ${entry.digest}`;
  const manifest = parseOciManifest(await readBlob(archive, entry), what);
  const configBytes = await readBlob(archive, manifest.config);
  const config = parseConfig(configBytes, `configuration ${manifest.config.digest}`);
  if (manifest.layers.length !== config.diffIds.length) {
    throw failure(
      "invalid",
      `${what}: layers length mismatch: expected ${config.diffIds.length}, got ${manifest.layers.length}`,
    );
  }
  return {
    configBytes,
    config,
    layerArchives: manifest.layers.map((layer) => checkedBlob(archive, layer)),
    tags: name === null ? [] : [name],
    manifestDigest,
  };
}

async function readBlob(archive: SpooledArchive, item: Descriptor): Promise<Uint8Array> {
  checkedBlob(archive, item);
  return await archive.read(blobPath(item.digest));
}

/** The spooled file of a blob, whose digest and size are as its descriptor says. */
function checkedBlob(archive: SpooledArchive, item: Descriptor): string {
  const path = blobPath(item.digest);
  const file = archive.get(path);
  if (file === null) throw failure("invalid", `reading the archive: it has no ${path}`);
  if (file.digest !== item.digest) throw mismatch(path, item.digest, file.digest);
  if (file.size !== item.size) {
    throw failure(
      "invalid",
      `${path}: size ${file.size} is not the ${item.size} of its descriptor`,
    );
  }
  return file.path;
}

function blobPath(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function mismatch(path: string, want: string, have: string): Error {
  return failure(
    "invalid",
    `${path}: digest ${have} does not match ${want}: the archive is damaged`,
  );
}
