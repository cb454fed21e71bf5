/** Images under DATA_ROOT/images and their unpacked layers under DATA_ROOT/layers: loaded whole or not at all, layers shared. */
import { randomBytes } from "node:crypto";
import { access, lstat, mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { applyChanges } from "../image/changes.ts";
import {
  type ConfigFile,
  emptyRun,
  imageArchitecture,
  parseConfig,
  writeConfig,
} from "../image/config.ts";
import { type Digest, hexOf, isDigest } from "../image/content-store.ts";
import type { ImageEvent, ImageStore, ImageUse, RemovedImage } from "../image/image-store.ts";
import {
  familiar,
  familiarName,
  parseReference,
  type Reference,
  withDefaultTag,
} from "../image/reference.ts";
import type { Clock } from "../lib/clock.ts";
import { failure, messageOf } from "../lib/errors.ts";
import type { Log } from "../lib/log.ts";
import type { Image } from "../model/image.ts";
import { spoolArchive, spoolFile } from "./archive-spool.ts";
import { readChecked, writeChecked } from "./checked-json.ts";
import { createContentStore } from "./content.ts";
import { syncDirectory } from "./files.ts";
import { type ArchivedCandidate, readArchive } from "./image-archive.ts";
import { unpackLayers } from "./layer-unpacking.ts";

/** Unpacks a layer tar into `destination`, checking its digest (the core's `unpack`). */
export type Unpack = (
  archive: string,
  diffId: Digest | null,
  destination: string,
) => Promise<{ readonly diffId: string; readonly bytes: number }>;

export interface ImageStoreOptions {
  readonly dataRoot: string;
  readonly unpack: Unpack;
  readonly clock: Clock;
  readonly log: Log;
  /** As `uname -m`. */
  readonly machine: string;
}

/** What is kept for each image, beside its configuration's blob. */
interface ImageRecord {
  readonly id: Digest;
  readonly layers: readonly { readonly diffId: Digest; readonly bytes: number }[];
}
/** Longest file that readFile gives, in bytes. */
const readFileBytesMax: number = 1024 * 1024;
/** Shortest prefix of an id that may stand for it, in digits. */
const idPrefixMin = 1;

/** Opens the store: leftovers of interrupted work are removed. Throws naming the file that is damaged. */
export async function openImageStore(options: ImageStoreOptions): Promise<ImageStore> {
  const store = new DiskImageStore(options);
  await store.open();
  return store;
}

class DiskImageStore implements ImageStore {
  readonly #options: ImageStoreOptions;
  readonly #imagesRoot: string;
  readonly #layersRoot: string;
  readonly #temporaryRoot: string;
  readonly #content;
  #images = new Map<Digest, Image>();
  #records = new Map<Digest, ImageRecord>();
  /** Familiar `name:tag` -> image id. */
  #tags = new Map<string, Digest>();
  /** Familiar `name@sha256:…` -> image id. */
  #digests = new Map<string, Digest>();
  #uses: (imageId: string) => readonly ImageUse[] = () => [];
  #listener: (event: ImageEvent) => void = () => {};
  /** Changes wait for each other: a layer that one load just unpacked must not go with another's removal. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: ImageStoreOptions) {
    this.#options = options;
    this.#imagesRoot = join(options.dataRoot, "images");
    this.#layersRoot = join(options.dataRoot, "layers", "sha256");
    this.#temporaryRoot = join(options.dataRoot, "images", "tmp");
    this.#content = createContentStore(join(this.#imagesRoot, "blobs"));
  }

  async open(): Promise<void> {
    await rm(this.#temporaryRoot, { recursive: true, force: true });
    for (const directory of [this.#temporaryRoot, this.#layersRoot, this.#recordsRoot]) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
    }
    for (const file of await readdir(this.#recordsRoot)) {
      if (!file.endsWith(".json")) {
        await rm(join(this.#recordsRoot, file), { force: true });
        continue;
      }
      const path = join(this.#recordsRoot, file);
      const record = checkRecord(await readChecked(path), path);
      const bytes = await this.#content.get(record.id);
      this.#keep(record, parseConfig(bytes, `the configuration of image ${record.id}`));
    }
    const names = checkNames(await readChecked(this.#namesPath), this.#namesPath);
    // A name whose image is gone is what a crash between two writes of `remove` leaves.
    const known = (entries: readonly (readonly [string, string])[]) =>
      entries.filter(([, id]) => this.#images.has(id));
    this.#tags = new Map(known(names.tags));
    this.#digests = new Map(known(names.digests));
    this.#nameAll();
    await this.#removeUnusedLayers();
  }

  list(): Promise<readonly Image[]> {
    return Promise.resolve([...this.#images.values()]);
  }

  async get(reference: string): Promise<Image> {
    const image = this.find(reference);
    if (image === null) throw failure("not-found", `No such image: ${shown(reference)}`);
    return image;
  }

  find(reference: string): Image | null {
    const parsed = tryParse(reference);
    if (parsed !== null) {
      const id = this.#lookUp(parsed);
      if (id !== undefined) return this.#images.get(id) ?? null;
    }
    const hex = reference.startsWith("sha256:") ? hexOf(reference) : reference;
    if (hex.length < idPrefixMin || !/^[0-9a-f]+$/.test(hex)) return null;
    const found = [...this.#images.values()].filter((image) => hexOf(image.id).startsWith(hex));
    return found.length === 1 ? (found[0] ?? null) : null;
  }

  layerDirectories(image: Image): readonly string[] {
    return image.diffIds.map((id) => join(this.#layersRoot, hexOf(id)));
  }

  async readFile(image: Image, path: string): Promise<Uint8Array | null> {
    const parts = path.split("/").filter((part) => part !== "");
    for (const layer of this.layerDirectories(image).toReversed()) {
      const found = await lookIn(layer, parts);
      if (found === "hidden") return null;
      if (found !== null) return found;
    }
    return null;
  }

  layersBytes(): number {
    const sizes = new Map<Digest, number>();
    for (const record of this.#records.values()) {
      for (const layer of record.layers) sizes.set(layer.diffId, layer.bytes);
    }
    return [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  setUses(uses: (imageId: string) => readonly ImageUse[]): void {
    this.#uses = uses;
  }

  setListener(listener: (event: ImageEvent) => void): void {
    this.#listener = listener;
  }

  async *load(archive: AsyncIterable<Uint8Array>): AsyncIterable<string> {
    const directory = await this.#temporaryDirectory();
    try {
      const spooled = await spoolArchive(archive, directory);
      const candidates = await readArchive(spooled, imageArchitecture(this.#options.machine));
      const loaded = await this.#alone(() => this.#store(candidates));
      for (const { image, tags } of loaded) {
        const names = tags.length > 0 ? tags : [image.id];
        for (const name of names) {
          this.#listener({ action: "load", imageId: image.id, name });
          yield tags.length > 0 ? `Loaded image: ${name}` : `Loaded image ID: ${name}`;
        }
      }
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  async importRoot(
    archive: AsyncIterable<Uint8Array>,
    options: Parameters<ImageStore["importRoot"]>[1],
  ): Promise<string> {
    const reference =
      options.reference === null ? null : withDefaultTag(parseReference(options.reference));
    if (reference?.digest) {
      throw failure("invalid", "cannot import digest reference");
    }
    const run = applyChanges(emptyRun, options.changes);
    const platform = platformOf(options.platform, this.#options.machine);
    const directory = await this.#temporaryDirectory();
    try {
      const file = await spoolFile(join(directory, "root.tar"), archive);
      if (file.size === 0) throw failure("invalid", "the archive is empty");
      return await this.#alone(async () => {
        const unpacked = join(directory, "root");
        const layer = await this.#options.unpack(file.path, null, unpacked);
        await this.#placeLayer(unpacked, layer.diffId);
        const now = this.#options.clock.now();
        const config: ConfigFile = {
          createdAt: now,
          author: "",
          comment: options.message,
          ...platform,
          diffIds: [layer.diffId],
          config: run,
          history: [{ createdAt: now, createdBy: "", comment: options.message, emptyLayer: false }],
        };
        const image = await this.#keepDurably(writeConfig(config), config, [layer]);
        if (reference !== null) this.#tags.set(familiar(reference), image.id);
        await this.#writeNames();
        this.#listener({
          action: "import",
          imageId: image.id,
          name: reference === null ? image.id : familiar(reference),
        });
        return image.id;
      });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  async tag(reference: string, target: string): Promise<void> {
    const parsed = withDefaultTag(parseReference(target));
    if (parsed.digest !== null)
      throw failure("invalid", "refusing to create a tag with a digest reference");
    await this.#alone(async () => {
      const image = await this.get(reference);
      this.#tags.set(familiar(parsed), image.id);
      await this.#writeNames();
      this.#listener({ action: "tag", imageId: image.id, name: familiar(parsed) });
    });
  }

  async remove(
    reference: string,
    options: { readonly force: boolean; readonly prune: boolean },
  ): Promise<readonly RemovedImage[]> {
    return await this.#alone(async () => {
      const image = await this.get(reference);
      const parsed = tryParse(reference);
      const named = parsed !== null && this.#lookUp(parsed) === image.id ? parsed : null;
      const names = this.#namesOf(image.id);
      const uses = this.#uses(image.id);
      const removed: RemovedImage[] = [];
      if (named !== null) {
        const name = familiar(withDefaultTag(named));
        const last = !names.some((other) => this.#tags.has(other) && other !== name);
        if (last) refuseWhileUsed(uses, reference, image.id, options.force, true);
        await this.#untag(name, image.id, removed);
        if (!last || uses.length > 0) return removed;
      } else {
        const repositories = new Set(names.map((name) => familiarName(parseReference(name))));
        if (repositories.size > 1 && !options.force) {
          throw failure(
            "conflict",
            `conflict: unable to delete ${shortId(image.id)} (must be forced) - image is referenced in multiple repositories`,
          );
        }
        refuseWhileUsed(uses, reference, image.id, options.force, false);
        for (const name of this.#namesOf(image.id)) {
          // The one before may have taken it along.
          if (this.#tags.has(name) || this.#digests.has(name)) {
            await this.#untag(name, image.id, removed);
          }
        }
        if (uses.length > 0) return removed;
      }
      await this.#forget(image);
      removed.push({ deleted: image.id });
      this.#listener({ action: "delete", imageId: image.id, name: image.id });
      return removed;
    });
  }

  get #recordsRoot(): string {
    return join(this.#imagesRoot, "records");
  }
  get #namesPath(): string {
    return join(this.#imagesRoot, "names.json");
  }

  /** Runs `change` when every earlier one is over. */
  #alone<T>(change: () => Promise<T>): Promise<T> {
    const run = this.#last.then(change, change);
    this.#last = run.catch(() => {});
    return run;
  }

  async #temporaryDirectory(): Promise<string> {
    const directory = join(this.#temporaryRoot, randomBytes(8).toString("hex"));
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return directory;
  }

  #lookUp(reference: Reference): Digest | undefined {
    if (reference.digest !== null) {
      const exact = this.#digests.get(`${familiarName(reference)}@${reference.digest}`);
      if (exact !== undefined) return exact;
      // A pinned reference also means the image itself, when its id is the digest.
      return this.#images.has(reference.digest) ? reference.digest : undefined;
    }
    return this.#tags.get(familiar(withDefaultTag(reference)));
  }

  /** Unpacks what is new, then keeps every image and its names. Nothing counts until its record is there. */
  async #store(
    candidates: readonly ArchivedCandidate[],
  ): Promise<readonly { readonly image: Image; readonly tags: readonly string[] }[]> {
    const loaded: { image: Image; tags: readonly string[] }[] = [];
    try {
      const sizes = await unpackLayers(candidates, (archive, diffId) =>
        this.#unpackLayer(archive, diffId),
      );
      for (const candidate of candidates) {
        const layers = candidate.config.diffIds.map((diffId) => ({
          diffId,
          bytes: sizes.get(diffId) ?? 0,
        }));
        const image = await this.#keepDurably(candidate.configBytes, candidate.config, layers);
        for (const tag of candidate.tags) {
          this.#tags.set(tag, image.id);
          if (candidate.manifestDigest === null) continue;
          const name = familiarName(parseReference(tag));
          this.#digests.set(`${name}@${candidate.manifestDigest}`, image.id);
        }
        loaded.push({ image, tags: candidate.tags });
      }
      await this.#writeNames();
    } catch (error) {
      await this.#removeUnusedLayers();
      throw diskError(error, "loading the image");
    }
    return loaded.map(({ image, tags }) => ({
      image: this.#images.get(image.id) ?? image,
      tags,
    }));
  }

  /** Bytes of the layer, which is unpacked unless it is there. */
  async #unpackLayer(archive: string, diffId: Digest): Promise<number> {
    const destination = join(this.#layersRoot, hexOf(diffId));
    for (const record of this.#records.values()) {
      const known = record.layers.find((layer) => layer.diffId === diffId);
      if (known !== undefined) return known.bytes;
    }
    // Left by a load that did not come to its record, and made whole: still nobody knows its size.
    await rm(destination, { recursive: true, force: true });
    const result = await this.#options.unpack(archive, diffId, destination);
    await syncDirectory(this.#layersRoot);
    return result.bytes;
  }

  async #placeLayer(unpacked: string, diffId: Digest): Promise<void> {
    const destination = join(this.#layersRoot, hexOf(diffId));
    const there = await access(destination).then(
      () => true,
      () => false,
    );
    if (there) return;
    await rename(unpacked, destination);
    await syncDirectory(this.#layersRoot);
  }

  async #keepDurably(
    configBytes: Uint8Array,
    config: ConfigFile,
    layers: ImageRecord["layers"],
  ): Promise<Image> {
    const id = await this.#content.put(configBytes);
    const record: ImageRecord = {
      id,
      layers: layers.map(({ diffId, bytes }) => ({ diffId, bytes })),
    };
    await writeChecked(join(this.#recordsRoot, `${hexOf(id)}.json`), record);
    return this.#keep(record, config);
  }

  #keep(record: ImageRecord, config: ConfigFile): Image {
    const image: Image = {
      ...config,
      id: record.id,
      tags: [],
      digests: [],
      sizeBytes: record.layers.reduce((sum, layer) => sum + layer.bytes, 0),
    };
    this.#images.set(record.id, image);
    this.#records.set(record.id, record);
    return image;
  }

  async #forget(image: Image): Promise<void> {
    this.#images.delete(image.id);
    this.#records.delete(image.id);
    await rm(join(this.#recordsRoot, `${hexOf(image.id)}.json`), { force: true });
    await syncDirectory(this.#recordsRoot);
    await this.#content.remove(image.id);
    await this.#removeUnusedLayers();
  }

  async #untag(name: string, id: Digest, removed: RemovedImage[]): Promise<void> {
    const gone = [name];
    this.#tags.delete(name);
    this.#digests.delete(name);
    // With the last tag of a repository go the digests that it was known by there.
    const repository = familiarName(parseReference(name));
    const inRepository = this.#namesOf(id).filter(
      (other) => familiarName(parseReference(other)) === repository,
    );
    if (!inRepository.some((other) => this.#tags.has(other))) {
      for (const other of inRepository) this.#digests.delete(other);
      gone.push(...inRepository);
    }
    await this.#writeNames();
    for (const item of gone) {
      removed.push({ untagged: item });
      this.#listener({ action: "untag", imageId: id, name: item });
    }
  }

  #namesOf(id: Digest): readonly string[] {
    return [...this.#tags, ...this.#digests].filter(([, to]) => to === id).map(([name]) => name);
  }

  async #writeNames(): Promise<void> {
    this.#nameAll();
    await writeChecked(this.#namesPath, { tags: [...this.#tags], digests: [...this.#digests] });
  }

  #nameAll(): void {
    const of = (names: ReadonlyMap<string, Digest>, id: Digest) =>
      [...names].filter(([, to]) => to === id).map(([name]) => name);
    for (const image of this.#images.values()) {
      this.#images.set(image.id, {
        ...image,
        tags: of(this.#tags, image.id),
        digests: of(this.#digests, image.id),
      });
    }
  }

  async #removeUnusedLayers(): Promise<void> {
    const used = new Set<string>();
    for (const record of this.#records.values()) {
      for (const layer of record.layers) used.add(hexOf(layer.diffId));
    }
    for (const name of await readdir(this.#layersRoot)) {
      if (used.has(name)) continue;
      try {
        await rm(join(this.#layersRoot, name), { recursive: true, force: true });
      } catch (error) {
        // Space that is not freed now is freed at the next start; the images are right either way.
        this.#options.log.warn({ layer: name, error: messageOf(error) }, "removing a layer failed");
      }
    }
  }
}

/** Looks for a file in one layer: its bytes, null when the layer says nothing, "hidden" when it was removed there. */
async function lookIn(
  layer: string,
  parts: readonly string[],
): Promise<Uint8Array | "hidden" | null> {
  let path = layer;
  for (const [at, part] of parts.entries()) {
    path = join(path, part);
    const info = await lstat(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
      throw error;
    });
    if (info === null) return null;
    if (info.isCharacterDevice() && info.rdev === 0) return "hidden";
    const last = at === parts.length - 1;
    if (last && info.isFile()) {
      if (info.size > readFileBytesMax) {
        throw failure(
          "invalid",
          `/${parts.join("/")} of the image has ${info.size} bytes, too many`,
        );
      }
      return await readFile(path);
    }
    if (last || !info.isDirectory()) {
      throw failure("invalid", `/${parts.slice(0, at + 1).join("/")} of the image is a link`);
    }
  }
  return null;
}

function refuseWhileUsed(
  uses: readonly ImageUse[],
  reference: string,
  id: Digest,
  force: boolean,
  byName: boolean,
): void {
  const running = uses.find((use) => use.running);
  const user = running ?? uses[0];
  if (user === undefined) return;
  const container = user.containerId.slice(0, 12);
  if (byName && !force) {
    throw failure(
      "conflict",
      `conflict: unable to remove repository reference "${reference}" (must force) - container ${container} is using its referenced image ${shortId(id)}`,
    );
  }
  if (running !== undefined && !byName) {
    throw failure(
      "conflict",
      `conflict: unable to delete ${shortId(id)} (cannot be forced) - image is being used by running container ${container}`,
    );
  }
  if (!force) {
    throw failure(
      "conflict",
      `conflict: unable to delete ${shortId(id)} (must be forced) - image is being used by stopped container ${container}`,
    );
  }
}

function platformOf(
  text: string | null,
  machine: string,
): Pick<ConfigFile, "os" | "architecture" | "variant"> {
  if (text === null || text === "") {
    return { os: "linux", architecture: imageArchitecture(machine), variant: "" };
  }
  const [os = "", architecture = "", variant = "", more] = text.toLowerCase().split("/");
  if (os !== "linux" || more !== undefined) {
    throw failure("invalid", `"${text}": unknown operating system or architecture`);
  }
  return {
    os,
    architecture: imageArchitecture(architecture === "" ? machine : architecture),
    variant,
  };
}

function checkRecord(value: unknown, path: string): ImageRecord {
  const record = value as Partial<ImageRecord> | null;
  const good =
    typeof record?.id === "string" &&
    isDigest(record.id) &&
    Array.isArray(record.layers) &&
    record.layers.every((layer) => isDigest(layer.diffId) && Number.isSafeInteger(layer.bytes));
  if (!good) throw failure("internal", `reading ${path}: it is no image record; remove it`);
  return record as ImageRecord;
}

function checkNames(
  value: unknown,
  path: string,
): {
  readonly tags: readonly (readonly [string, string])[];
  readonly digests: readonly (readonly [string, string])[];
} {
  if (value === null) return { tags: [], digests: [] };
  const names = value as { tags?: unknown; digests?: unknown };
  if (!Array.isArray(names.tags) || !Array.isArray(names.digests)) {
    throw failure("internal", `reading ${path}: it is no list of image names; remove it`);
  }
  return { tags: names.tags, digests: names.digests };
}

function tryParse(text: string): Reference | null {
  try {
    return parseReference(text);
  } catch (error) {
    if (text.startsWith("sha256:") || /^[0-9a-f]{64}$/.test(text)) return null;
    throw error;
  }
}

/** The reference as docker names it when it is missing: with its tag. */
function shown(reference: string): string {
  const parsed = tryParse(reference);
  return parsed === null ? reference : familiar(withDefaultTag(parsed));
}

function shortId(id: Digest): string {
  return hexOf(id).slice(0, 12);
}

function diskError(error: unknown, doing: string): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  return code === "ENOSPC" || code === "EDQUOT"
    ? failure("unavailable", `${doing}: no space left on device`, error)
    : error;
}
