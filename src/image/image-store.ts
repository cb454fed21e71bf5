/** The images of one node: what a store of them promises to the engine and to the Engine API. */
import type { Image } from "../model/image.ts";

/** A container's hold on an image. */
export interface ImageUse {
  readonly containerId: string;
  readonly running: boolean;
}
export interface ImageEvent {
  readonly action: "load" | "import" | "tag" | "untag" | "delete";
  readonly imageId: string;
  /** Familiar reference, or the id. */
  readonly name: string;
}
export interface ImportOptions {
  readonly reference: string | null;
  /** Dockerfile instructions (image/changes.ts). */
  readonly changes: readonly string[];
  readonly message: string;
  /** `linux/arm64`; null: this node's. */
  readonly platform: string | null;
}
export type RemovedImage = { readonly untagged: string } | { readonly deleted: string };

/** References are an id, a unique prefix of one, or a name. Errors are ShoalErrors in docker's words. */
export interface ImageStore {
  list(): Promise<readonly Image[]>;
  get(reference: string): Promise<Image>;
  /** Yields one line for each image. All or nothing: a broken archive leaves nothing behind. */
  load(archive: AsyncIterable<Uint8Array>): AsyncIterable<string>;
  /** Answers the image's id. */
  importRoot(archive: AsyncIterable<Uint8Array>, options: ImportOptions): Promise<string>;
  tag(reference: string, target: string): Promise<void>;
  remove(
    reference: string,
    options: { readonly force: boolean; readonly prune: boolean },
  ): Promise<readonly RemovedImage[]>;

  /** At once, from memory: so that a container may take hold of what it found in the same turn. */
  find(reference: string): Image | null;
  /** Unpacked layers, lowest first. */
  layerDirectories(image: Image): readonly string[];
  /** A file as the image's layers show it; null when there is none. Refuses links and files above 1 MiB. */
  readFile(image: Image, path: string): Promise<Uint8Array | null>;
  /** Unpacked bytes of all layers, each counted once. */
  layersBytes(): number;
  /** Who asks before an image goes: called with its id. */
  setUses(uses: (imageId: string) => readonly ImageUse[]): void;
  setListener(listener: (event: ImageEvent) => void): void;
}
