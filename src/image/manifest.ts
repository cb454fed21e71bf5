/** What an archive says it holds: docker-archive's manifest.json, and the index and manifests of an OCI layout (image-spec). */
import { failure } from "../lib/errors.ts";
import { type Digest, isDigest } from "./content-store.ts";
import { listOf, parseJson, recordOf, recordOrNull, stringOr } from "./json.ts";
import { familiar, parseReference, withDefaultTag } from "./reference.ts";

/** One image of a docker-archive. */
export interface ArchivedImage {
  /** Path of the configuration in the archive. */
  readonly config: string;
  /** Paths of the layer tars, lowest first. */
  readonly layers: readonly string[];
  /** Familiar references with tag. */
  readonly tags: readonly string[];
}
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly annotations: Readonly<Record<string, string>>;
  readonly platform: {
    readonly os: string;
    readonly architecture: string;
    readonly variant: string;
  } | null;
}
export interface OciManifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/** Largest JSON document that an archive may hold, in bytes. */
export const documentBytesMax: number = 8 * 1024 * 1024;
/** Most images that one archive may hold. */
const imagesMax = 1_000;

/** Parses docker-archive's manifest.json. Throws ShoalError("invalid"). */
export function parseDockerManifest(bytes: Uint8Array): readonly ArchivedImage[] {
  const list = parseJson(bytes, "manifest.json");
  if (!Array.isArray(list) || list.length === 0 || list.length > imagesMax) {
    throw failure("invalid", `manifest.json must be a list of 1 to ${imagesMax} images`);
  }
  return list.map((item: unknown, at) => {
    const what = `manifest.json: image ${at}`;
    const record = recordOf(item, what);
    const config = record["Config"];
    if (typeof config !== "string") throw failure("invalid", `${what}: Config is missing`);
    return {
      config: archivePath(config),
      layers: listOf(record["Layers"] ?? [], `${what}: Layers`).map(archivePath),
      tags: listOf(record["RepoTags"] ?? [], `${what}: RepoTags`).map(fullTag),
    };
  });
}

/** Parses an OCI index.json, or an index within it: its manifests in order. */
export function parseIndex(bytes: Uint8Array, what: string): readonly Descriptor[] {
  const record = recordOf(parseJson(bytes, what), what);
  const manifests = record["manifests"];
  if (!Array.isArray(manifests) || manifests.length === 0 || manifests.length > imagesMax) {
    throw failure("invalid", `${what}: manifests must be a list of 1 to ${imagesMax}`);
  }
  return manifests.map((item: unknown, at) => descriptor(item, `${what}: manifest ${at}`));
}

/** Parses an OCI image manifest (or docker's schema 2, which has the same shape). */
export function parseOciManifest(bytes: Uint8Array, what: string): OciManifest {
  const record = recordOf(parseJson(bytes, what), what);
  const layers = record["layers"];
  if (!Array.isArray(layers)) throw failure("invalid", `${what}: layers are missing`);
  return {
    config: descriptor(record["config"], `${what}: config`),
    layers: layers.map((item: unknown, at) => descriptor(item, `${what}: layer ${at}`)),
  };
}

/** Checks an OCI layout's `oci-layout` file. */
export function checkLayout(bytes: Uint8Array): void {
  const version = recordOf(parseJson(bytes, "oci-layout"), "oci-layout")["imageLayoutVersion"];
  if (version !== "1.0.0") {
    throw failure("invalid", `oci-layout: version ${JSON.stringify(version)} is not 1.0.0`);
  }
}

/** True for a descriptor of an index, whose manifests are one for each platform. */
export function isIndex(item: Descriptor): boolean {
  return (
    item.mediaType === "application/vnd.oci.image.index.v1+json" ||
    item.mediaType === "application/vnd.docker.distribution.manifest.list.v2+json"
  );
}

/** True for something that is attached to an image, not an image (build attestations). */
export function isAttachment(item: Descriptor): boolean {
  return item.annotations["vnd.docker.reference.type"] !== undefined;
}

/** The familiar reference that an index's entry carries, or null (image-spec annotations; containerd's full name first). */
export function referenceOf(item: Descriptor): string | null {
  const full = item.annotations["io.containerd.image.name"];
  const short = item.annotations["org.opencontainers.image.ref.name"];
  // A ref.name alone is often only a tag ("latest"), which names nothing.
  if (full !== undefined) return fullTag(full);
  return short?.includes(":") ? fullTag(short) : null;
}

/** A path inside an archive, without `./`. Throws when it leaves the archive. */
export function archivePath(path: string): string {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  if (path.startsWith("/") || parts.includes("..") || parts.length === 0) {
    throw failure("invalid", `path ${JSON.stringify(path)} leaves the archive`);
  }
  return parts.join("/");
}

function fullTag(text: string): string {
  return familiar(withDefaultTag(parseReference(text)));
}

function descriptor(value: unknown, what: string): Descriptor {
  const record = recordOf(value, what);
  const digest = record["digest"];
  if (typeof digest !== "string" || !isDigest(digest)) {
    throw failure("invalid", `${what}: ${JSON.stringify(digest)} is not a sha256 digest`);
  }
  const size = record["size"];
  if (!Number.isSafeInteger(size) || (size as number) < 0) {
    throw failure("invalid", `${what}: size ${JSON.stringify(size)} is wrong`);
  }
  const annotations = recordOrNull(record["annotations"], `${what}: annotations`) ?? {};
  const platform = recordOrNull(record["platform"], `${what}: platform`);
  return {
    mediaType: stringOr(record["mediaType"], ""),
    digest,
    size: size as number,
    annotations: Object.fromEntries(
      Object.entries(annotations).map(([key, text]) => [key, String(text)]),
    ),
    platform:
      platform === null
        ? null
        : {
            os: stringOr(platform["os"], ""),
            architecture: stringOr(platform["architecture"], ""),
            variant: stringOr(platform["variant"], ""),
          },
  };
}
